//! The settings of `[[listener]]`, which remember where the file has them.

use std::net::SocketAddr;

use toml_edit::Value;

use super::network::{peer_rule, socket};
use super::{list, set_of, text};
use crate::config::kind::{FieldValue, ReadContext, SettingKind, ValueError};
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
