//! The message type, in which the bits of method and class are interleaved (RFC 8489 §5), and the classes allowed for each
//! method (RFC 8489 §6.1, RFC 8656 §17).

/// The class of a message (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Expects a response.
    Request,
    /// Expects no response.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

impl Class {
    /// The bits C1 and C0 at their positions in the message type.
    const fn bits(self) -> u16 {
        match self {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        }
    }
}

/// The methods that this server implements (RFC 8489 §18.2, RFC 8656 §17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Returns the client's reflexive transport address.
    Binding,
    /// Creates an allocation.
    Allocate,
    /// Refreshes or deletes an allocation.
    Refresh,
    /// Data from the client to a peer.
    Send,
    /// Data from a peer to the client.
    Data,
    /// Creates or refreshes permissions.
    CreatePermission,
    /// Creates or refreshes a channel binding.
    ChannelBind,
}

impl Method {
    /// The registered method number.
    const fn code(self) -> u16 {
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

    /// RFC 8656 §17: Send and Data are indications, the other TURN methods are not. RFC 8489 §6.1: Binding may be either.
    pub(super) const fn allows(self, class: Class) -> bool {
        match self {
            Method::Binding => true,
            Method::Send | Method::Data => matches!(class, Class::Indication),
            Method::Allocate | Method::Refresh | Method::CreatePermission | Method::ChannelBind => {
                !matches!(class, Class::Indication)
            }
        }
    }
}

/// Encodes the message type (RFC 8489 §5, figure 3):
///
/// ```text
/// 0 0 M11 M10 M9 M8 M7 C1 M6 M5 M4 C0 M3 M2 M1 M0
/// ```
pub(super) const fn message_type(class: Class, method: Method) -> u16 {
    let m = method.code();
    class.bits() | (m & 0x000F) | (m & 0x0070) << 1 | (m & 0x0F80) << 2
}

/// Decodes the message type. `None` is a method that this server does not implement.
pub(super) const fn split_type(bits: u16) -> (Class, Option<Method>) {
    let class = match bits & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    (class, Method::from_code(bits & 0x000F | (bits & 0x00E0) >> 1 | (bits & 0x3E00) >> 2))
}
