//! The settings of `[[listener]]`, which remember where the file has them.

use std::net::{IpAddr, SocketAddr};

use toml_edit::Value;

use super::network::{peer_rule, socket};
use super::{list, set_of, text};
use crate::config::external::is_host_name;
use crate::config::kind::{FieldValue, ReadContext, SettingKind, ValueError};
use crate::config::listener::PublicAddress;
use crate::config::listener_section::{IpAndPort, Placed};
use crate::turn::Transport;
use crate::turn::peers::PeerRule;

/// One address to listen on, with or without a port.
pub struct ListenAddress<T: 'static>(pub fn(&mut T) -> &mut Placed<Option<IpAndPort>>);

impl<T> SettingKind<T> for ListenAddress<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        /// Stands for the default, which depends on the transport.
        const DEFAULT: u16 = 3478;
        match socket(value, DEFAULT) {
            Ok(address) => {
                let has_port = text(value).is_ok_and(|text| text.parse::<SocketAddr>().is_ok());
                let port = has_port.then(|| address.port());
                *(self.0)(target) =
                    Placed { value: Some((address.ip(), port)), at: value.span().unwrap_or_default() };
                Vec::new()
            }
            Err(error) => vec![error],
        }
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let address = match (self.0)(target).value {
            None => String::new(),
            Some((ip, None)) => ip.to_string(),
            Some((ip, Some(port))) => SocketAddr::new(ip, port).to_string(),
        };
        FieldValue::list(&[address])
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "address with or without a port".into()
    }
}

/// What clients connect to: a host with or without a port.
pub struct PublicHost<T: 'static>(pub fn(&mut T) -> &mut Placed<Option<PublicAddress>>);

impl<T> SettingKind<T> for PublicHost<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let public =
            text(value).and_then(|text| public(text).map_err(|(what, fix)| ValueError::of(value, what, fix)));
        match public {
            Ok(public) => {
                *(self.0)(target) = Placed { value: Some(public), at: value.span().unwrap_or_default() };
                Vec::new()
            }
            Err(error) => vec![error],
        }
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let shown = (self.0)(target).value.as_ref().map(ToString::to_string);
        FieldValue::plain(format_args!("{:?}", shown.unwrap_or_default()))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "host name or address, with or without a port".into()
    }
}

/// Reads `host`, `host:port`, `ip`, `ip:port` or `[v6]:port`.
fn public(text: &str) -> Result<PublicAddress, (&'static str, String)> {
    let example = || "write it like \"turn.example.org:443\"".to_owned();
    let scheme = text.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if text.contains(['/', '?'])
        || ["turn", "turns", "stun", "stuns"].contains(&&*scheme) && text.contains(':')
    {
        return Err(("a URL: here are the host and the port alone, and transports has the rest", example()));
    }
    let (host, port) = match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip().to_string(), Some(address.port().to_string())),
        Err(_) => match text.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => (ip.to_string(), None),
            Err(_) => {
                let (name, port) =
                    text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
                let ascii = idna::domain_to_ascii(name.trim_end_matches('.')).ok();
                let name = ascii.filter(|name| is_host_name(name));
                let Some(name) = name else { return Err(("not a host name or an address", example())) };
                (name.to_ascii_lowercase(), port.map(str::to_owned))
            }
        },
    };
    let nobody = |ip: IpAddr| ip.is_unspecified() || ip.is_multicast();
    if host.parse().is_ok_and(nobody) {
        return Err((
            "no client can connect to this address",
            "write the one that clients connect to".to_owned(),
        ));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse().ok().filter(|n| *n > 0 && !port.starts_with('+')) {
            Some(port) => Some(port),
            None => {
                return Err(("not a valid port", "write a port from 1 to 65535 after the colon".to_owned()));
            }
        },
    };
    Ok(PublicAddress { host, port })
}

/// Transports of clients.
pub struct ListenTransports<T: 'static>(pub fn(&mut T) -> &mut Placed<Vec<Transport>>);

impl<T> SettingKind<T> for ListenTransports<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (names, errors) = set_of(value, |one| {
            let name = text(one)?;
            let known = Transport::ALL.into_iter().find(|transport| transport.as_str() == name);
            match known {
                Some(transport) => Ok(transport.as_str()),
                None => Err(ValueError::of(one, "unknown transport", "use one of udp, tcp, tls")),
            }
        });
        let of = |name: &&str| Transport::ALL.into_iter().find(|transport| transport.as_str() == *name);
        let transports = names.iter().filter_map(of).collect();
        *(self.0)(target) = Placed { value: transports, at: value.span().unwrap_or_default() };
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::list(&(self.0)(target).value.iter().map(|one| one.as_str()).collect::<Vec<_>>())
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "list of `\"udp\"`, `\"tcp\"` and `\"tls\"`".into()
    }
}

/// Ranges of peers' addresses, all of their ports or some.
pub struct PeerLists<T: 'static>(pub fn(&mut T) -> &mut Placed<Vec<PeerRule>>);

impl<T> SettingKind<T> for PeerLists<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (rules, errors) = list(value, peer_rule);
        *(self.0)(target) = Placed { value: rules, at: value.span().unwrap_or_default() };
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::list(&(self.0)(target).value)
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "list of addresses or ranges in CIDR notation, each with or without ports".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_connect_to_is_a_host_and_perhaps_a_port() {
        for (text, shown) in [
            ("turn.example.org:443", "turn.example.org:443"),
            ("Turn.Example.org.", "turn.example.org"),
            ("b\u{fc}cher.example:443", "xn--bcher-kva.example:443"),
            ("turn", "turn"),
            ("203.0.113.9", "203.0.113.9"),
            ("203.0.113.9:8443", "203.0.113.9:8443"),
            ("2001:DB8::9", "[2001:db8::9]"),
            ("[2001:db8::9]:443", "[2001:db8::9]:443"),
        ] {
            assert_eq!(public(text).map(|public| public.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for (text, expected) in [
            ("", "not a host name"),
            ("turns:turn.example.org:443?transport=tcp", "a URL"),
            ("turn:203.0.113.9", "a URL"),
            ("https://turn.example.org", "a URL"),
            ("turn.example.org:", "not a valid port"),
            ("turn.example.org:0", "not a valid port"),
            ("203.0.113.9:0", "not a valid port"),
            ("turn.example.org:https", "not a valid port"),
            ("turn.example.org:65536", "not a valid port"),
            (":443", "not a host name"),
            ("203.0.113.999:443", "not a host name"),
            ("a b:443", "not a host name"),
            ("*.example.org:443", "not a host name"),
            ("0.0.0.0:443", "no client can connect"),
            ("[::]:443", "no client can connect"),
        ] {
            assert!(public(text).is_err_and(|(what, _)| what.starts_with(expected)), "{text}");
        }
    }
}
