//! The message type: a method and a class, their bits woven together (RFC 8489 §5), and which class a method may
//! have (RFC 8489 §6.1, RFC 8656 §17).

/// The four classes of RFC 8489 §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks, and is answered.
    Request,
    /// Tells, and is not answered.
    Indication,
    /// Answers that it was done.
    Success,
    /// Answers why it was not.
    Error,
}

impl Class {
    /// C1 and C0 where they stand in the message type.
    const fn bits(self) -> u16 {
        match self {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        }
    }
}

/// The methods this server speaks (RFC 8489 §18.2, RFC 8656 §17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// What is my address?
    Binding,
    /// Make an allocation.
    Allocate,
    /// Keep it longer, or end it.
    Refresh,
    /// Data from the client, for a peer.
    Send,
    /// Data from a peer, for the client.
    Data,
    /// Let a peer's address send.
    CreatePermission,
    /// Bind a channel to a peer.
    ChannelBind,
}

impl Method {
    /// The registered number.
    pub const fn code(self) -> u16 {
        match self {
            Method::Binding => 0x001,
            Method::Allocate => 0x003,
            Method::Refresh => 0x004,
            Method::Send => 0x006,
            Method::Data => 0x007,
            Method::CreatePermission => 0x008,
            Method::ChannelBind => 0x009,
        }
    }

    const fn from_code(code: u16) -> Option<Method> {
        Some(match code {
            0x001 => Method::Binding,
            0x003 => Method::Allocate,
            0x004 => Method::Refresh,
            0x006 => Method::Send,
            0x007 => Method::Data,
            0x008 => Method::CreatePermission,
            0x009 => Method::ChannelBind,
            _ => return None,
        })
    }

    /// RFC 8656 §17: Send and Data are indications, the other TURN methods are not. RFC 8489 §6.1: Binding is both.
    pub(super) const fn allows(self, class: Class) -> bool {
        match self {
            Method::Binding => true,
            Method::Send | Method::Data => matches!(class, Class::Indication),
            _ => !matches!(class, Class::Indication),
        }
    }
}

/// The message type of a class and a method: the bits of both, woven as RFC 8489 §5 shows.
pub(super) const fn message_type(class: Class, method: Method) -> u16 {
    let m = method.code();
    class.bits() | (m & 0x000F) | (m & 0x0070) << 1 | (m & 0x0F80) << 2
}

/// The way back. `None` is a method that this server does not speak.
pub(super) const fn split_type(bits: u16) -> (Class, Option<Method>) {
    let class = match bits & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    (class, Method::from_code(bits & 0x000F | (bits & 0x00E0) >> 1 | (bits & 0x3E00) >> 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 7] = [
        Method::Binding,
        Method::Allocate,
        Method::Refresh,
        Method::Send,
        Method::Data,
        Method::CreatePermission,
        Method::ChannelBind,
    ];
    const CLASSES: [Class; 4] = [Class::Request, Class::Indication, Class::Success, Class::Error];

    /// RFC 8489 §5, RFC 8656 §17: the registered types, and the way back from each.
    #[test]
    fn types_are_woven_as_registered() {
        assert_eq!(message_type(Class::Request, Method::Binding), 0x0001);
        assert_eq!(message_type(Class::Success, Method::Binding), 0x0101);
        assert_eq!(message_type(Class::Error, Method::Allocate), 0x0113);
        assert_eq!(message_type(Class::Indication, Method::Send), 0x0016);
        assert_eq!(message_type(Class::Indication, Method::Data), 0x0017);
        for method in METHODS {
            for class in CLASSES {
                assert_eq!(split_type(message_type(class, method)), (class, Some(method)));
            }
        }
    }

    /// RFC 8489 §5: each of the twelve method bits counts, so no other type is taken for one of ours.
    #[test]
    fn no_other_type_is_known() {
        let known = (0..0x4000).filter(|&bits| split_type(bits).1.is_some()).count();
        assert_eq!(known, METHODS.len() * CLASSES.len());
    }

    /// RFC 8656 §17, RFC 8489 §6.1: which methods are indications.
    #[test]
    fn only_some_methods_are_indications() {
        for method in METHODS {
            let tells = matches!(method, Method::Binding | Method::Send | Method::Data);
            let asks = !matches!(method, Method::Send | Method::Data);
            assert_eq!(method.allows(Class::Indication), tells);
            for class in [Class::Request, Class::Success, Class::Error] {
                assert_eq!(method.allows(class), asks);
            }
        }
    }
}
