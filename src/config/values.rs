//! How each kind of TOML value is read: one function a kind, each with a sentence for whatever may be wrong.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use toml_edit::Value;

use super::external::ExternalIp;
use super::field::{ReadContext, ValueError, Word};
use super::tls::Pem;
use crate::auth::{Password, Secret};
use crate::turn::peers::Cidr;

/// The fewest characters of a shared secret: whoever holds one credential can try guesses without asking the relay.
pub const SECRET_MIN: usize = 16;

/// The longest lifetime: a year of seconds.
const LIFETIME_MAX: u64 = 31_536_000;

/// Reads every element of a list; a single value is a list of one.
pub fn each<X>(
    value: &Value,
    report: &mut Vec<ValueError>,
    one: impl Fn(&Value) -> Result<X, ValueError>,
) -> Vec<X> {
    let mut good = Vec::new();
    let mut read = |element| match one(element) {
        Ok(x) => good.push(x),
        Err(wrong) => report.push(wrong),
    };
    match value {
        Value::Array(array) => array.iter().for_each(&mut read),
        single => read(single),
    }
    good
}

/// Refuses a list that says something twice.
pub fn no_repeats<X: PartialEq + Display>(value: &Value, list: &[X], report: &mut Vec<ValueError>) {
    for (n, x) in list.iter().enumerate() {
        if list[..n].contains(x) {
            report.push(ValueError::of(value, format!("{x} stands here twice"), "remove one"));
        }
    }
}

pub fn switch(value: &Value) -> Result<bool, ValueError> {
    value.as_bool().ok_or_else(|| wrong_type(value, "true or false", "write true or false, without quotes"))
}

pub fn number(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, ValueError> {
    let Some(n) = value.as_integer() else {
        return Err(wrong_type(value, "a number", "write a whole number, without quotes"));
    };
    u64::try_from(n).ok().filter(|n| range.contains(n)).ok_or_else(|| {
        let fix = format!("write a number from {} to {}", range.start(), range.end());
        ValueError::of(value, "out of range", fix)
    })
}

pub fn seconds(value: &Value) -> Result<u32, ValueError> {
    let seconds = number(value, &(1..=LIFETIME_MAX))?;
    Ok(u32::try_from(seconds).expect("a year of seconds fits"))
}

pub fn sized_text(value: &Value, range: &RangeInclusive<usize>) -> Result<String, ValueError> {
    let text = text(value)?;
    let length = text.chars().count();
    if length < *range.start() {
        return Err(ValueError::of(value, "empty", "write something"));
    }
    if length > *range.end() {
        return Err(ValueError::of(
            value,
            format!("{length} characters"),
            format!("write at most {}", range.end()),
        ));
    }
    Ok(text.to_owned())
}

pub fn choice<T>(value: &Value, words: &[Word<T>]) -> Result<fn(&mut T), ValueError> {
    let text = text(value)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, set)| *set).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        ValueError::of(value, "no such choice", format!("write one of {}", words.join(", ")))
    })
}

pub fn socket(value: &Value, port: u16, reader: &ReadContext<'_>) -> Result<SocketAddr, ValueError> {
    let text = text(value)?;
    let bare = || text.trim_matches(['[', ']']).parse().map(|ip: IpAddr| SocketAddr::new(ip, port));
    let Ok(address) = text.parse::<SocketAddr>().or_else(|_| bare()) else {
        return Err(ValueError::of(
            value,
            "no address with a port",
            format!("write it like \"192.0.2.1:{port}\" or \"[2001:db8::1]:{port}\""),
        ));
    };
    if address.port() == 0 {
        return Err(ValueError::of(value, "port 0 is no port", "name the port"));
    }
    if !address.ip().is_unspecified() {
        usable(value, address.ip(), reader)?;
    }
    Ok(address)
}

pub fn address(value: &Value, reader: &ReadContext<'_>) -> Result<IpAddr, ValueError> {
    let address: IpAddr = parsed(value, "no address", "write it like \"192.0.2.1\" or \"2001:db8::1\"")?;
    if address.is_unspecified() {
        return Err(ValueError::of(
            value,
            "a wildcard is no relayed address",
            "list addresses of this machine, or none",
        ));
    }
    if let IpAddr::V6(v6) = address
        && v6.is_unicast_link_local()
    {
        return Err(ValueError::of(
            value,
            "a link-local address reaches no further than its link",
            "list another one",
        ));
    }
    usable(value, address, reader)?;
    Ok(address)
}

pub fn external(value: &Value, reader: &ReadContext<'_>) -> Result<ExternalIp, ValueError> {
    let fix = "write it like \"203.0.113.7\" or \"203.0.113.7/10.0.0.7\", the public address first";
    let pair: ExternalIp = parsed(value, "no external address", fix)?;
    let public = pair.public;
    let near = match public {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if near || public.is_unspecified() || public.is_multicast() {
        return Err(ValueError::of(value, format!("nobody outside can reach {public}"), fix));
    }
    let Some(local) = pair.local else { return Ok(pair) };
    if public.is_ipv4() != local.is_ipv4() {
        return Err(ValueError::of(
            value,
            "one address is IPv4 and the other IPv6",
            "write two of one family",
        ));
    }
    usable(value, local, reader)?;
    Ok(pair)
}

/// Refuses what no socket of this machine can be bound to.
fn usable(value: &Value, address: IpAddr, reader: &ReadContext<'_>) -> Result<(), ValueError> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(ValueError::of(value, "IPv4 in IPv6 clothes", format!("write {v4}")));
    }
    if address.is_multicast() {
        return Err(ValueError::of(value, "a multicast address", "list an address of this machine"));
    }
    if !(reader.has_address)(address) {
        return Err(ValueError::of(
            value,
            format!("{address} is not an address of this machine"),
            "`ip addr` shows those that are",
        ));
    }
    Ok(())
}

pub fn ports(value: &Value) -> Result<RangeInclusive<u16>, ValueError> {
    let text = text(value)?;
    let Some((Ok(first), Ok(last))) = text.split_once('-').map(|(a, b)| (port(a), port(b))) else {
        return Err(ValueError::of(value, "no port range", "write first and last port like \"49152-65535\""));
    };
    if first > last {
        return Err(ValueError::of(value, "the range is reversed", format!("write \"{last}-{first}\"")));
    }
    // Port 0 asks the kernel for any; below 1024 are other people's services.
    if first < 1024 {
        return Err(ValueError::of(value, "ports below 1024 belong to services", "begin at 1024 or above"));
    }
    Ok(first..=last)
}

fn port(text: &str) -> Result<u16, std::num::ParseIntError> {
    text.trim().parse()
}

pub fn prefix(value: &Value) -> Result<Cidr, ValueError> {
    let text = text(value)?;
    Cidr::from_str(text).map_err(|e| {
        ValueError::of(value, e.to_string(), "write it like \"192.0.2.0/24\" or \"2001:db8::/32\"")
    })
}

pub fn nat64(value: &Value) -> Result<Cidr, ValueError> {
    let cidr = prefix(value)?;
    // RFC 6052 section 2.2
    let length: Option<u8> = text(value)?.split_once('/').and_then(|(_, length)| length.parse().ok());
    let known = length.is_some_and(|length| [32, 40, 48, 56, 64, 96].contains(&length));
    if !known || !text(value)?.contains(':') {
        return Err(ValueError::of(
            value,
            "no NAT64 prefix",
            "write an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, like \"64:ff9b:1::/48\"",
        ));
    }
    Ok(cidr)
}

pub fn secret(value: &Value) -> Result<Secret, ValueError> {
    long_enough(text(value)?).map_err(|(what, fix)| ValueError::of(value, what, fix))
}

pub fn secret_file(value: &Value, reader: &ReadContext<'_>) -> Result<Vec<Secret>, ValueError> {
    let contents = file(value, reader)?;
    let lines = contents.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<Secret> = lines
        .map(long_enough)
        .collect::<Result<_, _>>()
        .map_err(|(what, fix)| ValueError::of(value, what, fix))?;
    if secrets.is_empty() {
        return Err(ValueError::of(
            value,
            "the file is empty",
            "put a secret into it, `openssl rand -base64 32` makes one",
        ));
    }
    Ok(secrets)
}

/// A shared secret, or what is wrong and the fix.
pub fn long_enough(text: &str) -> Result<Secret, (String, String)> {
    let length = text.chars().count();
    if length < SECRET_MIN {
        let what = format!("a secret of {length} characters can be guessed");
        return Err((what, format!("use at least {SECRET_MIN}, `openssl rand -base64 32` makes a good one")));
    }
    Ok(Secret::new(text))
}

pub fn password(value: &Value) -> Result<Password, ValueError> {
    let text = text(value)?;
    if text.is_empty() {
        return Err(ValueError::of(value, "empty", "write a password"));
    }
    Ok(Password::Plain(Secret::new(text)))
}

pub fn password_file(value: &Value, reader: &ReadContext<'_>) -> Result<Password, ValueError> {
    let contents = file(value, reader)?;
    // One line end is the editor's; anything else may be meant.
    let password = contents.strip_suffix('\n').unwrap_or(&contents);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(ValueError::of(value, "the file is empty", "put the password into it"));
    }
    Ok(Password::Plain(Secret::new(password)))
}

pub fn md5_key(value: &Value) -> Result<Password, ValueError> {
    let text = text(value)?;
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let mut key = [0; 16];
    let pairs = digits.chunks_exact(2);
    let whole = digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit);
    if !whole {
        return Err(ValueError::of(
            value,
            "no MD5 key",
            "write the 32 hex digits of MD5(user:realm:password), or use `password`",
        ));
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let pair = str::from_utf8(pair).expect("hex digits are ASCII");
        *byte = u8::from_str_radix(pair, 16).expect("checked to be hex digits");
    }
    Ok(Password::Md5Key(key))
}

pub fn pem(value: &Value, reader: &ReadContext<'_>) -> Result<Pem, ValueError> {
    file(value, reader).map(Pem::new)
}

fn file(value: &Value, reader: &ReadContext<'_>) -> Result<String, ValueError> {
    let path = text(value)?;
    (reader.read)(Path::new(path)).map_err(|e| {
        ValueError::of(
            value,
            format!("cannot be read: {e}"),
            "correct the path, or let the user that runs hairpin read it",
        )
    })
}

fn parsed<X: FromStr>(value: &Value, what: &str, fix: &str) -> Result<X, ValueError> {
    text(value)?.parse().map_err(|_| ValueError::of(value, what, fix))
}

fn text(value: &Value) -> Result<&str, ValueError> {
    value.as_str().ok_or_else(|| wrong_type(value, "text", "write it in quotes"))
}

fn wrong_type(value: &Value, wanted: &str, fix: &str) -> ValueError {
    let found = match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::InlineTable(_) => "a table",
    };
    ValueError::of(value, format!("{found} where {wanted} belongs"), fix)
}
