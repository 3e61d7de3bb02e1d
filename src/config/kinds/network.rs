//! Addresses, ports and ranges of addresses.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml_edit::Value;

use super::{Elements, set, set_of, text};
use crate::config::external::{ExternalEntry, Public, is_host_name};
use crate::config::kind::{FieldValue, ReadContext, SettingKind, Shape, ValueError};
use crate::tls::CertificateName;
use crate::turn::peers::{Cidr, PeerRule, PeerRuleError};
use crate::wire::Family;

/// Addresses to listen on.
pub struct Sockets<T: 'static> {
    /// The port of addresses without one.
    pub port: u16,
    pub at: fn(&mut T) -> &mut Vec<SocketAddr>,
}

impl<T> SettingKind<T> for Sockets<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (sockets, errors) = set_of(value, |one| socket(one, self.port));
        *(self.at)(target) = sockets;
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::list((self.at)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "list of addresses with ports".into()
    }

    fn shape(&self) -> Shape {
        Shape::List
    }
}

/// Host names that certificates are for.
pub struct CertificateNames<T: 'static>(pub fn(&mut T) -> &mut Vec<CertificateName>);

impl<T> SettingKind<T> for CertificateNames<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (names, mut errors) = set_of(value, host_name);
        if names.len() > CERTIFICATE_NAMES_MAX {
            let what = format!("there are {} names", names.len());
            errors.push(ValueError::of(value, what, format!("list up to {CERTIFICATE_NAMES_MAX}")));
        }
        *(self.0)(target) = names;
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::list((self.0)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "list of host names".into()
    }
}

/// The most names of a certificate that are listed.
const CERTIFICATE_NAMES_MAX: usize = 1000;

fn host_name(value: &Value) -> Result<CertificateName, ValueError> {
    CertificateName::parse(text(value)?).map_err(|(what, fix)| ValueError::of(value, what, fix))
}

/// Addresses of this machine.
pub const ADDRESSES: Elements<IpAddr> = Elements { read: address, differ: true, name: "addresses" };

/// An address of one family, of another machine.
pub struct FamilyAddress<T: 'static> {
    pub family: Family,
    pub at: fn(&mut T) -> &mut Option<IpAddr>,
}

impl<T> SettingKind<T> for FamilyAddress<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.at)(target), family_address(value, self.family).map(Some))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let shown = (self.at)(target).map_or("none".into(), |address| format!("\"{address}\""));
        FieldValue::plain(shown)
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        format!("{} address", name(self.family))
    }
}

/// A host name.
pub struct DomainName<T: 'static>(pub fn(&mut T) -> &mut String);

impl<T> SettingKind<T> for DomainName<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.0)(target), domain_name(value))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(format_args!("{:?}", (self.0)(target)))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "host name".into()
    }
}

/// External addresses, `public` or `public/local`; instead of the public address a DNS name or `auto`.
pub const EXTERNAL_ADDRESSES: Elements<ExternalEntry> = Elements {
    read: external,
    differ: true,
    name: "addresses, `public` or `public/local`; instead of `public` a DNS name or `auto`",
};

/// A host name or an address, with or without a port; empty text for none.
pub struct Host<T: 'static> {
    /// The port of hosts without one.
    pub port: u16,
    pub at: fn(&mut T) -> &mut String,
}

impl<T> SettingKind<T> for Host<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.at)(target), host_and_port(value, self.port))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(format_args!("{:?}", (self.at)(target)))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "host with port".into()
    }
}

/// A range of ports, `first-last`.
pub struct PortRange<T: 'static>(pub fn(&mut T) -> &mut RangeInclusive<u16>);

impl<T> SettingKind<T> for PortRange<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.0)(target), ports(value))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let range = (self.0)(target);
        FieldValue::plain(format_args!("\"{}-{}\"", range.start(), range.end()))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "first and last port".into()
    }
}

/// Ranges of addresses.
pub const PREFIXES: Elements<Cidr> =
    Elements { read: prefix, differ: false, name: "ranges in CIDR notation" };

/// Ranges of peers' addresses, all of their ports or some.
pub const PEER_RANGES: Elements<PeerRule> = Elements {
    read: peer_rule,
    differ: false,
    name: "addresses or ranges in CIDR notation, each with or without ports",
};

/// NAT64 prefixes: IPv6, of the lengths of RFC 6052 section 2.2.
pub const NAT64_PREFIXES: Elements<Cidr> = Elements { read: nat64, differ: false, name: "IPv6 prefixes" };

pub(super) fn socket(value: &Value, port: u16) -> Result<SocketAddr, ValueError> {
    let text = text(value)?;
    let bare = || text.trim_matches(['[', ']']).parse().map(|ip: IpAddr| SocketAddr::new(ip, port));
    let Ok(address) = text.parse::<SocketAddr>().or_else(|_| bare()) else {
        return Err(ValueError::of(
            value,
            "not an address with a port",
            format!("write it like \"192.0.2.1:{port}\" or \"[2001:db8::1]:{port}\""),
        ));
    };
    if address.port() == 0 {
        return Err(ValueError::of(value, "port 0 is not a valid port", "write a port from 1 to 65535"));
    }
    if !address.ip().is_unspecified() {
        check_local(value, address.ip())?;
    }
    Ok(address)
}

fn address(value: &Value) -> Result<IpAddr, ValueError> {
    let address: IpAddr =
        parsed(value, "not an IP address", "write it like \"192.0.2.1\" or \"2001:db8::1\"")?;
    if address.is_unspecified() {
        return Err(ValueError::of(
            value,
            "a wildcard address cannot be a relayed address",
            "list addresses of this machine, or none",
        ));
    }
    if let IpAddr::V6(v6) = address
        && v6.is_unicast_link_local()
    {
        return Err(ValueError::of(
            value,
            "a link-local address cannot be reached beyond its link",
            "list another address of this machine",
        ));
    }
    check_local(value, address)?;
    Ok(address)
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn family_address(value: &Value, family: Family) -> Result<IpAddr, ValueError> {
    let example = match family {
        Family::V4 => "write it like \"203.0.113.8\"",
        Family::V6 => "write it like \"2001:db8::8\"",
    };
    let what = format!("not an {} address", name(family));
    let address: IpAddr = parsed(value, &what, example)?;
    if Family::of(address) != family {
        return Err(ValueError::of(value, what, example));
    }
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if is_local || address.is_unspecified() || address.is_multicast() {
        let fix = "write the address that its clients connect to";
        return Err(ValueError::of(value, "cannot be the address of a relay", fix));
    }
    Ok(address)
}

/// RFC 1123 section 2.1: labels of letters, digits and hyphens. A name whose last label is a number is an address.
fn domain_name(value: &Value) -> Result<String, ValueError> {
    let text = text(value)?;
    let domain = text.strip_suffix('.').unwrap_or(text);
    if !domain.is_ascii() {
        let fix = "write its A-labels, like \"xn--bcher-kva.example.org\"";
        return Err(ValueError::of(value, "not ASCII", fix));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let mut labels = domain.split('.');
    if domain.len() > 253 || !labels.clone().all(is_label) || labels.next_back().is_some_and(is_number) {
        return Err(ValueError::of(value, "not a host name", "write it like \"turn-2.example.org\""));
    }
    Ok(domain.to_owned())
}

fn external(value: &Value) -> Result<ExternalEntry, ValueError> {
    let fix = "write it like \"203.0.113.7\" or \"203.0.113.7/10.0.0.7\", the public address first; instead of that, \"auto\" or a \
               DNS name";
    let entry: ExternalEntry = parsed(value, "not an external address", fix)?;
    if let Public::Address(public) = entry.public {
        let is_local = match public {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        };
        if is_local || public.is_unspecified() || public.is_multicast() {
            return Err(ValueError::of(value, format!("{public} cannot be reached from outside"), fix));
        }
        if entry.local.is_some_and(|local| public.is_ipv4() != local.is_ipv4()) {
            return Err(ValueError::of(
                value,
                "one address is IPv4 and the other IPv6",
                "write two addresses of the same family",
            ));
        }
    }
    if let Some(local) = entry.local {
        check_local(value, local)?;
    }
    Ok(entry)
}

fn host_and_port(value: &Value, port: u16) -> Result<String, ValueError> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(String::new());
    }
    let bare = |text: &str| text.trim_matches(['[', ']']).parse().map(|ip: IpAddr| SocketAddr::new(ip, port));
    if let Ok(address) = text.parse::<SocketAddr>().or_else(|_| bare(text)) {
        return Ok(address.to_string());
    }
    let (host, number) = match text.split_once(':') {
        Some((host, number)) => (host, number.parse().ok()),
        None => (text, Some(port)),
    };
    match number.filter(|number| *number != 0 && is_host_name(host)) {
        Some(number) => Ok(format!("{host}:{number}")),
        None => Err(ValueError::of(
            value,
            "not a host name or an address, with or without a port",
            format!("write it like \"stun.example.org:{port}\""),
        )),
    }
}

/// Refuses addresses that no socket of any machine can be bound to.
fn check_local(value: &Value, address: IpAddr) -> Result<(), ValueError> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(ValueError::of(value, "an IPv4-mapped IPv6 address", format!("write {v4}")));
    }
    if address.is_multicast() {
        return Err(ValueError::of(value, "a multicast address", "list an address of this machine"));
    }
    if address == IpAddr::from([255; 4]) {
        return Err(ValueError::of(value, "a broadcast address", "list an address of this machine"));
    }
    Ok(())
}

fn ports(value: &Value) -> Result<RangeInclusive<u16>, ValueError> {
    port_range(text(value)?).map_err(|(what, fix)| ValueError::of(value, what, fix))
}

/// The relay's ports, `first-last`.
///
/// # Errors
/// What is wrong, and the fix.
pub fn port_range(text: &str) -> Result<RangeInclusive<u16>, (&'static str, String)> {
    let port = |text: &str| text.trim().parse::<u16>();
    let Some((Ok(first), Ok(last))) = text.split_once('-').map(|(a, b)| (port(a), port(b))) else {
        let fix = "write the first and the last port like \"49152-65535\"";
        return Err(("not a valid port range", fix.into()));
    };
    if first > last {
        return Err(("the range is reversed", format!("write \"{last}-{first}\"")));
    }
    // Port 0 would ask the kernel for any port.
    if first < 1024 {
        return Err(("ports below 1024 belong to system services", "start at 1024 or above".into()));
    }
    Ok(first..=last)
}

pub(super) fn peer_rule(value: &Value) -> Result<PeerRule, ValueError> {
    text(value)?.parse().map_err(|error: PeerRuleError| ValueError::of(value, error.to_string(), error.fix()))
}

pub(super) fn prefix(value: &Value) -> Result<Cidr, ValueError> {
    let text = text(value)?;
    Cidr::from_str(text).map_err(|error| {
        // coturn's form, the first and the last address
        if let Err(form @ PeerRuleError::FirstLast(_)) = text.parse::<PeerRule>()
            && !text.contains(']')
        {
            return ValueError::of(value, form.to_string(), form.fix());
        }
        ValueError::of(value, error.to_string(), PeerRuleError::Range(error).fix())
    })
}

fn nat64(value: &Value) -> Result<Cidr, ValueError> {
    let cidr = prefix(value)?;
    // RFC 6052 section 2.2
    let length: Option<u8> = text(value)?.split_once('/').and_then(|(_, length)| length.parse().ok());
    let known = length.is_some_and(|length| [32, 40, 48, 56, 64, 96].contains(&length));
    if !known || !text(value)?.contains(':') {
        return Err(ValueError::of(
            value,
            "not a NAT64 prefix",
            "write an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, like \"64:ff9b:1::/48\"",
        ));
    }
    Ok(cidr)
}

fn parsed<X: FromStr>(value: &Value, what: &str, fix: &str) -> Result<X, ValueError> {
    text(value)?.parse().map_err(|_| ValueError::of(value, what, fix))
}
