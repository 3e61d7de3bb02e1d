//! What a probe has found wrong, and the sentence about it: what happens, and the fix.

use std::fmt;
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use super::targets::ProbeTarget;
use crate::admin::times::rfc3339_of;
use crate::livekit::ice_url::ClientTransport;
use crate::wire::Method;

/// Why a probe has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing listens there: a TCP reset, or ICMP says so.
    Refused,
    /// This machine has no way there.
    NoRoute(String),
    /// A firewall refuses it: that of this machine, or one that sends ICMP.
    Blocked {
        /// Whether the kernel of this machine has refused the packet itself.
        is_here: bool,
        /// What the kernel says.
        why: String,
    },
    /// Nothing came back within the deadline.
    Silent,
    /// The connection was accepted, and nothing came on it within the deadline.
    Mute,
    /// The connection was closed before the exchange was complete.
    Closed,
    /// The connection has failed in another way.
    Broken(String),
    /// What answers is no TURN server.
    NotTurn,
    /// What listens does not speak TLS.
    NotTls,
    /// The handshake of TLS has failed.
    Tls(String),
    /// There is no name to verify TLS by.
    NoTlsName(String),
    /// This machine has no authorities to verify a certificate by.
    NoRoots,
    /// Browsers refuse the certificate for this name.
    Certificate(CertificateFault, String),
    /// The relay does not accept the credential.
    Unauthorized,
    /// Responses are not signed with the password, so they come from somebody else.
    NotSigned,
    /// The relay has refused a request.
    Error(Method, u16),
    /// The response lacks what it must have.
    Incomplete(Method),
    /// Data from one allocation to the other got lost.
    Lost(Direction),
    /// The name of the relay has no address here.
    Unresolved(String),
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// Since this time, in Unix seconds.
    Expired(i64),
    /// It is from the future.
    NotValidYet,
    /// It is for these names.
    OtherName(Vec<String>),
    /// Nobody vouches for it.
    SelfSigned,
    /// No authority that this machine knows has signed it.
    UnknownIssuer,
    /// Something else.
    Other(String),
}

/// The way of data that got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first allocation to the second, over a channel.
    Channel,
    /// From the second to the first, by an indication.
    Indication,
}

impl Failure {
    /// Why there is no connection.
    pub fn of_connection(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::Silent,
            // icmp_err_convert in net/ipv4/icmp.c, tab_unreach in net/ipv6/icmp.c: what is administratively prohibited
            io::ErrorKind::PermissionDenied | io::ErrorKind::HostUnreachable => {
                let is_here = error.raw_os_error() == Some(Errno::EPERM as i32);
                Failure::Blocked { is_here, why: error.to_string() }
            }
            _ => Failure::NoRoute(error.to_string()),
        }
    }

    /// Whether a firewall is the likely reason.
    pub fn is_blocked(&self) -> bool {
        matches!(self, Failure::Refused | Failure::Silent | Failure::Blocked { .. } | Failure::Lost(_))
    }

    /// Why a connection has ended.
    pub fn of_exchange(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted => Failure::Closed,
            io::ErrorKind::TimedOut => Failure::Mute,
            _ => Failure::Broken(error.to_string()),
        }
    }

    /// What is wrong with a target, and the fix. It goes on after "TLS at 192.0.2.1:5349: ".
    pub fn sentence(&self, target: &ProbeTarget) -> String {
        let (transport, port) = (target.transport, target.address.port());
        let protocol = match transport {
            ClientTransport::Udp => "udp",
            ClientTransport::Tcp | ClientTransport::Tls => "tcp",
        };
        let firewall = match target.is_elsewhere {
            true => "a firewall on the way, of the relay's machine or of its provider",
            false => "a firewall of this machine",
        };
        match self {
            Failure::Refused => format!(
                "nothing listens there, although the relay should; {firewall} may reject {protocol} port {port}: let it pass, or list \
                 a listener at this address"
            ),
            Failure::Blocked { is_here: true, why } => format!(
                "a firewall of this machine refuses {protocol} port {port} ({why}): let it pass, in and out"
            ),
            Failure::Blocked { why, .. } if target.is_elsewhere => format!(
                "{firewall} refuses {protocol} port {port} ({why}): let it pass, in and out, and see that the relay's machine runs"
            ),
            Failure::Blocked { why, .. } => {
                format!("{firewall} refuses {protocol} port {port} ({why}): let it pass, in and out")
            }
            Failure::NoRoute(why) => format!("this machine cannot reach it ({why}); correct its routes and addresses"),
            Failure::Silent if target.is_elsewhere => format!(
                "nothing comes back; {firewall} drops {protocol} port {port}: let it pass, in and out"
            ),
            Failure::Silent => format!(
                "nothing comes back; {firewall} drops {protocol} port {port}: let it pass, in and out, from this machine's own \
                 addresses, too"
            ),
            Failure::Mute => {
                "it takes the connection and never answers; see the relay's log, or what stands before it".into()
            }
            Failure::Closed => format!(
                "the connection is closed without a response; look for `refused` and `closed` in the relay's log, and for another \
                 program at port {port}"
            ),
            Failure::Broken(why) => format!("the connection has failed ({why})"),
            Failure::NotTurn => {
                format!("what answers is no TURN server; stop the other program at {protocol} port {port}")
            }
            Failure::NotTls => format!(
                "what answers does not speak TLS; list the port under listen.tls of the relay, or stop the other program at port \
                 {port}"
            ),
            Failure::Tls(why) => {
                format!("the TLS handshake has failed ({why}); see the relay's log, and check tls.cert and tls.key")
            }
            Failure::NoTlsName(name) => format!(
                "{name:?} is no name that a certificate can have; set relay.urls to its host name, or start the relay with --domain"
            ),
            Failure::NoRoots => {
                "this machine has no certificates of authorities; install ca-certificates, or set relay.ca_file".into()
            }
            Failure::Certificate(fault, name) => fault.sentence(name),
            Failure::Unauthorized => {
                "the relay does not accept the credential; compare the clocks of both machines, and look for `refused` in the \
                 relay's log"
                    .into()
            }
            Failure::NotSigned => format!(
                "responses are not signed with the password, so another server answers; find out what receives {protocol} port \
                 {port}"
            ),
            Failure::Error(_, 300) => "the relay drains and sends clients to a sibling".into(),
            Failure::Error(method, 486) => format!(
                "{method:?} is refused (486): too many probes at a time; let fewer sidecars probe one relay"
            ),
            Failure::Error(method @ Method::Allocate, code @ 508) => format!(
                "{method:?} is refused ({code}): the relay has no free port, socket or address, or drains; the relay's log says which"
            ),
            Failure::Error(method, code) => {
                format!("{method:?} is refused ({code}); look for `refused` in the relay's log")
            }
            Failure::Incomplete(method) => {
                format!("the response to {method:?} lacks an attribute; what answers is no hairpin relay")
            }
            Failure::Lost(direction) => format!(
                "both allocations are made, but {direction} get lost between their relayed addresses; a firewall of {} machine drops \
                 them: let UDP to the relay's ports pass{}",
                if target.is_elsewhere { "the relay's" } else { "this" },
                target.relay_ports.as_ref().map(|ports| format!(" ({ports})")).unwrap_or_default()
            ),
            Failure::Unresolved(why) => {
                format!("its name does not resolve here ({why}); correct the DNS record, or relay.urls")
            }
        }
    }

    /// A word for metrics and programs.
    pub fn code(&self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::NoRoute(_) => "no_route",
            Failure::Blocked { .. } => "blocked",
            Failure::Silent => "silent",
            Failure::Mute => "mute",
            Failure::Closed | Failure::Broken(_) => "closed",
            Failure::NotTurn | Failure::Incomplete(_) | Failure::NotSigned => "not_turn",
            Failure::NotTls | Failure::Tls(_) => "tls",
            Failure::NoTlsName(_) | Failure::NoRoots => "tls_setup",
            Failure::Certificate(..) => "certificate",
            Failure::Unauthorized => "unauthorized",
            Failure::Error(..) => "error",
            Failure::Lost(_) => "lost",
            Failure::Unresolved(_) => "unresolved",
        }
    }
}

impl CertificateFault {
    fn sentence(&self, name: &str) -> String {
        let what = match self {
            CertificateFault::Expired(since) => format!(
                "the certificate has expired ({}); renew it, and see that the relay may read the new files",
                day(*since)
            ),
            CertificateFault::NotValidYet => {
                "the certificate is not valid yet; set the clock of this machine by NTP".into()
            }
            CertificateFault::OtherName(names) => {
                let is = match names.is_empty() {
                    true => format!("no certificate of the relay is for {name}"),
                    false => format!("the certificate is for {}, not for {name}", names.join(" and ")),
                };
                // Clients have an address in their URLs if the relay knows no name.
                let fix = match name.parse::<IpAddr>() {
                    Ok(_) => "set relay.urls to a host name that it has, or start the relay with --domain".into(),
                    Err(_) => format!("use one for {name}, or give clients a name that it has"),
                };
                format!("{is}; {fix}")
            }
            CertificateFault::SelfSigned => format!(
                "the certificate is self-signed; use one of a public authority for {name}, or name your own authority in \
                 relay.ca_file"
            ),
            CertificateFault::UnknownIssuer => {
                "the certificate is of an authority that this machine does not know; serve the whole chain (fullchain.pem), or name \
                 the authority in relay.ca_file"
                    .into()
            }
            CertificateFault::Other(why) => format!("the certificate is refused ({why}); use another one"),
        };
        format!("{what}: browsers refuse it without a word")
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Channel => "packets",
            Direction::Indication => "packets back",
        })
    }
}

/// A day in UTC, like 2026-12-01.
fn day(unix: i64) -> String {
    let mut time = rfc3339_of(unix.try_into().unwrap_or_default());
    time.truncate(10);
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> ProbeTarget {
        ProbeTarget {
            transport: ClientTransport::Tls,
            address: "192.0.2.1:5349".parse().unwrap(),
            name: "turn.example.org".into(),
            shown: "192.0.2.1:5349".into(),
            relay_ports: Some("49152-65535".into()),
            is_elsewhere: false,
        }
    }

    /// Every sentence says what happens and what to do.
    #[test]
    fn every_failure_has_a_sentence_with_its_fix() {
        let name = || "turn.example.org".to_owned();
        let certificate = |fault| Failure::Certificate(fault, name());
        for (failure, expected) in [
            (Failure::Refused, ["nothing listens there", "let it pass"]),
            (Failure::Silent, ["nothing comes back; a firewall of this machine", "tcp port 5349"]),
            (Failure::Mute, ["takes the connection and never answers", "relay's log"]),
            (
                blocked(Errno::EHOSTUNREACH),
                ["a firewall of this machine refuses tcp port 5349 (", "let it pass, in and out"],
            ),
            (Failure::NoTlsName("a b".into()), ["no name that a certificate can have", "--domain"]),
            (
                certificate(CertificateFault::OtherName(Vec::new())),
                ["no certificate of the relay is for turn.example.org", "use one for turn.example.org"],
            ),
            (
                Failure::Certificate(
                    CertificateFault::OtherName(vec!["a.example".into()]),
                    "192.0.2.1".into(),
                ),
                ["for a.example, not for 192.0.2.1", "relay.urls to a host name that it has"],
            ),
            (Failure::NotTurn, ["no TURN server", "stop the other program"]),
            (certificate(CertificateFault::Expired(0)), ["expired (1970-01-01)", "renew it"]),
            (
                certificate(CertificateFault::OtherName(vec!["a.example".into(), "b.example".into()])),
                ["for a.example and b.example, not for turn.example.org", "use one for turn.example.org"],
            ),
            (certificate(CertificateFault::SelfSigned), ["is self-signed", "relay.ca_file"]),
            (
                certificate(CertificateFault::UnknownIssuer),
                ["authority that this machine does not know", "fullchain.pem"],
            ),
            (Failure::Lost(Direction::Channel), ["get lost between their relayed addresses", "49152-65535"]),
            (Failure::Error(Method::Allocate, 508), ["refused (508)", "log"]),
        ] {
            let sentence = failure.sentence(&target());
            assert!(expected.iter().all(|part| sentence.contains(part)), "{sentence}");
            assert!(!sentence.contains('\n'));
        }
    }

    fn blocked(error: Errno) -> Failure {
        Failure::of_connection(&error.into())
    }

    /// A rule that drops in OUTPUT is EPERM, one that rejects with admin-prohibited is EHOSTUNREACH, or EACCES over IPv6.
    #[test]
    fn what_a_firewall_refuses_is_no_lack_of_a_route() {
        for errno in [Errno::EPERM, Errno::EHOSTUNREACH, Errno::EACCES, Errno::ECONNREFUSED, Errno::ETIMEDOUT]
        {
            assert!(blocked(errno).is_blocked(), "{errno}");
        }
        for errno in [Errno::ENETUNREACH, Errno::EADDRNOTAVAIL] {
            assert!(matches!(blocked(errno), Failure::NoRoute(_)) && !blocked(errno).is_blocked(), "{errno}");
        }
        assert!(!Failure::Mute.is_blocked() && !Failure::Closed.is_blocked());
    }

    /// This machine's firewall is not blamed for what is wrong at a relay elsewhere, unless its own kernel has refused the packet.
    #[test]
    fn a_relay_elsewhere_has_firewalls_of_its_own() {
        let target = ProbeTarget { is_elsewhere: true, ..target() };
        for failure in [
            Failure::Refused,
            Failure::Silent,
            Failure::Lost(Direction::Channel),
            blocked(Errno::EHOSTUNREACH),
            blocked(Errno::EACCES),
        ] {
            let sentence = failure.sentence(&target);
            assert!(
                !sentence.contains("this machine") && sentence.contains("the relay's machine"),
                "{sentence}"
            );
        }
        let own = blocked(Errno::EPERM).sentence(&target);
        assert!(own.starts_with("a firewall of this machine refuses tcp port 5349"), "{own}");
    }
}
