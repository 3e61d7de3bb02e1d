//! The one table of settings: key, kind, destination, default, documentation and coturn's name for it stand together.
//! The loader, the reference page and the sample configuration are made from it. A key is a promise once released.

use super::field::{Field, Norm, UserDraft};
use super::settings::{Format, Level, Settings};

/// One setting of a `T`.
pub struct Setting<T: 'static> {
    /// Its name: `section.key`, or just `key` at the top of the file.
    pub key: &'static str,
    /// What it may be and where it goes.
    pub field: Field<T>,
    /// What it is when the file does not say, as TOML.
    pub default: &'static str,
    /// What the sample and the reference show when the default would not teach anything; empty for the default.
    pub example: &'static str,
    /// What it does: Markdown, plain sentences.
    pub doc: &'static str,
    /// What turnserver.conf calls it.
    pub coturn: &'static [&'static str],
}

/// The sections in the order of the reference page, with a sentence each. The top of the file is the empty name.
pub static SECTIONS: &[(&str, &str)] = &[
    ("", "These stand at the top of the file, before the first section."),
    ("listen", "Where clients come in."),
    ("relay", "What peers see: the relayed transport addresses."),
    ("tls", "Who this server is to TLS clients: TLS 1.2 and 1.3."),
    (
        "auth",
        "Who may use the relay. At least one secret or user is needed: hairpin never runs as an anonymous relay.",
    ),
    ("limits", "How much may be used. Everything has a bound."),
    (
        "peers",
        "Whom the relay may be used to reach. Everything that is not globally reachable is refused by default: loopback, \
         private and shared networks, link-local addresses and cloud metadata, multicast, documentation and benchmark \
         ranges. The relay's own listeners are refused always, and so are IPv4-mapped, 6to4 and Teredo addresses.",
    ),
    ("http", "Metrics for Prometheus at `/metrics` and a health check at `/healthz`."),
    ("log", "Logs go to standard error. A reader that does not keep up loses lines, never a call."),
];

/// Every setting, in the order of the reference page.
pub static SETTINGS: &[Setting<Settings>] = &[
    Setting {
        key: "workers",
        field: Field::Number { range: 0..=1024, at: |s| &mut s.workers },
        default: "0",
        example: "",
        doc: "Worker threads. `0` is one for each CPU that this process may use.",
        coturn: &["relay-threads", "cpus"],
    },
    Setting {
        key: "software",
        field: Field::Text { range: 0..=127, at: |s| &mut s.software },
        default: r#""""#,
        example: r#""hairpin""#,
        doc: "The SOFTWARE attribute of answers. Empty sends none, which tells strangers nothing and keeps answers short.",
        coturn: &["software-attribute"],
    },
    Setting {
        key: "listen.udp",
        field: Field::Sockets { port: 3478, at: |s| &mut s.listen.udp },
        default: r#"["0.0.0.0:3478", "[::]:3478"]"#,
        example: "",
        doc: "Addresses and ports for UDP clients. Without a port it is 3478. `0.0.0.0` and `[::]` are every address of \
              their family; an IPv6 listener takes no IPv4 clients. A machine without IPv6 leaves `[::]` out with a line in \
              the log.",
        coturn: &["listening-ip", "listening-port"],
    },
    Setting {
        key: "listen.tcp",
        field: Field::Sockets { port: 3478, at: |s| &mut s.listen.tcp },
        default: r#"["0.0.0.0:3478", "[::]:3478"]"#,
        example: "",
        doc: "Addresses and ports for TCP clients, written as for `listen.udp`. They are the ones whose network lets no UDP out. \
              An empty list turns TCP off.",
        coturn: &["no-tcp"],
    },
    Setting {
        key: "listen.tls",
        field: Field::Sockets { port: 5349, at: |s| &mut s.listen.tls },
        default: r#"["0.0.0.0:5349", "[::]:5349"]"#,
        example: "",
        doc: "Addresses and ports for TLS clients, written as for `listen.udp`; without a port it is 5349. TLS needs `tls.cert` \
              and `tls.key`: where neither they nor this are set it is off.",
        coturn: &["tls-listening-port", "no-tls"],
    },
    Setting {
        key: "listen.gro",
        field: Field::Switch(|s| &mut s.listen.gro),
        default: "true",
        example: "",
        doc: "Receive bursts of datagrams in one piece (UDP_GRO), where the kernel can. Turn it off only to look for a fault.",
        coturn: &[],
    },
    Setting {
        key: "listen.gso",
        field: Field::Switch(|s| &mut s.listen.gso),
        default: "true",
        example: "",
        doc: "Send bursts of datagrams in one piece (UDP_SEGMENT), where the kernel can. Turn it off only to look for a fault.",
        coturn: &[],
    },
    Setting {
        key: "listen.steering",
        field: Field::Switch(|s| &mut s.listen.steering),
        default: "true",
        example: "",
        doc: "Let a small program in the kernel pick a client's worker and keep requests apart from calls. Without it the \
              kernel's own choice is used. Turn it off only to look for a fault.",
        coturn: &[],
    },
    Setting {
        key: "listen.gather",
        field: Field::Number { range: 0..=1000, at: |s| &mut s.listen.gather },
        default: "150",
        example: "",
        doc: "Microseconds for which a worker lets packets gather, so that it serves several per wake-up; `0` turns this off. While \
              packets keep arriving that the kernel does not join (GRO), a worker begins its passes at least this far apart. The \
              default saves about 15 % of the CPU time per packet and costs delay: with many thin flows the median is 0.26 ms \
              instead of 0.09 ms. A packet that arrives alone is not held back.",
        coturn: &[],
    },
    Setting {
        key: "relay.addresses",
        field: Field::Addresses(|s| &mut s.relay.addresses),
        default: "[]",
        example: r#"["203.0.113.7", "2001:db8::7"]"#,
        doc: "Addresses of this machine that relayed transport addresses are taken from, several a family if you like. Empty: \
              for each family the source address of the default route, never a loopback, link-local or temporary one. Once \
              one is listed nothing is discovered, so list both families.",
        coturn: &["relay-ip"],
    },
    Setting {
        key: "relay.external_ip",
        field: Field::External(|s| &mut s.relay.external_ip),
        default: "[]",
        example: r#"["198.51.100.7/203.0.113.7"]"#,
        doc: "What relayed addresses are called outside, where a NAT in front of this machine maps them one to one, as clouds \
              do: `public` if the family has one relayed address, else `public/local` for each. Clients are told the public \
              address; the NAT has to pass the ports of `relay.ports` on unchanged.",
        coturn: &["external-ip"],
    },
    Setting {
        key: "relay.ports",
        field: Field::Ports(|s| &mut s.relay.ports),
        default: r#""49152-65535""#,
        example: "",
        doc: "Ports of relayed transport addresses, first and last. Open them for UDP in the firewall. No listener may stand \
              in this range on the same address.",
        coturn: &["min-port", "max-port"],
    },
    Setting {
        key: "tls.cert",
        field: Field::Pem(|s| &mut s.tls.cert),
        default: "",
        example: r#""/etc/hairpin/fullchain.pem""#,
        doc: "A PEM file with the certificate and, after it, those that vouch for it. Browsers want one for the name in the URL \
              from an authority that they know. A relative path starts at this file's folder. A renewed one is read at the next \
              start.",
        coturn: &["cert"],
    },
    Setting {
        key: "tls.key",
        field: Field::Pem(|s| &mut s.tls.key),
        default: "",
        example: r#""/etc/hairpin/privkey.pem""#,
        doc: "A PEM file with its private key: PKCS#8, PKCS#1 or SEC1; RSA, ECDSA or Ed25519; without a passphrase.",
        coturn: &["pkey"],
    },
    Setting {
        key: "auth.realm",
        field: Field::Text { range: 1..=127, at: |s| &mut s.auth.realm },
        default: r#""hairpin""#,
        example: r#""turn.example.org""#,
        doc: "The realm that clients are told, by habit the domain. Keys of users (`key`) contain it.",
        coturn: &["realm", "server-name"],
    },
    Setting {
        key: "auth.secrets",
        field: Field::Secrets(|s| &mut s.auth.secrets),
        default: "[]",
        example: r#"["at least 16 characters, from a random source"]"#,
        doc: "Shared secrets of time-limited credentials: user name `expiry:user`, password base64(HMAC-SHA1(secret, user \
              name)), as for coturn's REST API. Several at a time allow for rotation: all are accepted, the first makes what \
              `hairpin credentials` prints. At least 16 characters each; `openssl rand -base64 32` makes a good one. More come \
              from `auth.secret_files` and from the environment variable `HAIRPIN_AUTH_SECRET` (several separated by commas \
              or line ends).",
        coturn: &["static-auth-secret", "use-auth-secret"],
    },
    Setting {
        key: "auth.secret_files",
        field: Field::SecretFiles(|s| &mut s.auth.secrets),
        default: "[]",
        example: r#"["/etc/hairpin/secret"]"#,
        doc: "Files with shared secrets, one a line; blank lines are skipped. A relative path starts at this file's folder.",
        coturn: &[],
    },
    Setting {
        key: "auth.user",
        field: Field::Users(|s| &mut s.auth.users),
        default: "[]",
        example: "",
        doc: "A user with a password of its own; write the section once for each.",
        coturn: &["user"],
    },
    Setting {
        key: "auth.user_before_expiry",
        field: Field::Switch(|s| &mut s.auth.user_before_expiry),
        default: "false",
        example: "",
        doc: "Also accept time-limited names written `user:expiry`.",
        coturn: &[],
    },
    Setting {
        key: "auth.nonce_lifetime",
        field: Field::Seconds {
            norm: Norm { holds: |v| v <= 3600, says: "RFC 8656 section 5 says at most 3600" },
            at: |s| &mut s.auth.nonce_lifetime,
        },
        default: "3600",
        example: "",
        doc: "Seconds until a nonce is stale and clients are told a new one, which they follow unnoticed.",
        coturn: &["stale-nonce"],
    },
    Setting {
        key: "limits.user_allocations",
        field: Field::Number { range: 1..=1_000_000, at: |s| &mut s.limits.user_allocations },
        default: "1000",
        example: "",
        doc: "Allocations that one user may hold (486 beyond). A browser makes one or more for each connection.",
        coturn: &["user-quota"],
    },
    Setting {
        key: "limits.allocations",
        field: Field::Number { range: 1..=1_000_000, at: |s| &mut s.limits.allocations },
        default: "100000",
        example: "",
        doc: "Allocations in total (508 beyond). The ports of `relay.ports` and the limit of open files bound them too.",
        coturn: &["total-quota"],
    },
    Setting {
        key: "limits.permissions",
        field: Field::Number { range: 1..=65_536, at: |s| &mut s.limits.permissions },
        default: "256",
        example: "",
        doc: "Permissions, that is peer addresses, that one allocation may hold (508 beyond).",
        coturn: &[],
    },
    Setting {
        key: "limits.channels",
        field: Field::Number { range: 1..=4096, at: |s| &mut s.limits.channels },
        default: "256",
        example: "",
        doc: "Channels that one allocation may hold (508 beyond).",
        coturn: &[],
    },
    Setting {
        key: "limits.new_peers",
        field: Field::Number { range: 0..=1_000_000, at: |s| &mut s.limits.new_peers },
        default: "64",
        example: "",
        doc: "Peer addresses and ports that one allocation may newly turn to in a second, four times as many at once, so \
              that a relay is no port scanner (508, or the packet is dropped). `0` is no limit.",
        coturn: &[],
    },
    Setting {
        key: "limits.bandwidth",
        field: Field::Number { range: 0..=1_000_000_000_000, at: |s| &mut s.limits.bandwidth },
        default: "0",
        example: "500000",
        doc: "Bytes of application data a second that one allocation may relay in each direction, a second's worth at once. \
              What exceeds it is dropped as a router would, and counted. `0` is no limit.",
        coturn: &["max-bps"],
    },
    Setting {
        key: "limits.unauthenticated_burst",
        field: Field::Number { range: 1..=1_000_000, at: |s| &mut s.limits.unauthenticated_burst },
        default: "1000",
        example: "",
        doc: "Answers without authentication that one IPv4 address or IPv6 /64 may have at once, so that forged requests \
              cannot turn the relay against a third party. An office behind one address fits well inside.",
        coturn: &[],
    },
    Setting {
        key: "limits.unauthenticated_rate",
        field: Field::Number { range: 0..=1_000_000, at: |s| &mut s.limits.unauthenticated_rate },
        default: "200",
        example: "",
        doc: "And how many a second from then on. `0` turns this limit off.",
        coturn: &["unauthorized-ratelimit", "unauthorized-ratelimit-rps"],
    },
    Setting {
        key: "limits.connections",
        field: Field::Number { range: 1..=1_000_000, at: |s| &mut s.limits.connections },
        default: "50000",
        example: "",
        doc: "TCP and TLS connections in total. Those beyond are closed at once.",
        coturn: &[],
    },
    Setting {
        key: "limits.half_open",
        field: Field::Number { range: 1..=1_000_000, at: |s| &mut s.limits.half_open },
        default: "4096",
        example: "",
        doc: "Connections at a time, in total, that have not brought a whole message yet. Those beyond are closed at once.",
        coturn: &[],
    },
    Setting {
        key: "limits.half_open_per_address",
        field: Field::Number { range: 1..=1_000_000, at: |s| &mut s.limits.half_open_per_address },
        default: "256",
        example: "",
        doc: "The same from one IPv4 address or one IPv6 /64. An office behind one address fits well inside.",
        coturn: &[],
    },
    Setting {
        key: "limits.client_queue",
        field: Field::Number { range: 16_384..=16_777_216, at: |s| &mut s.limits.client_queue },
        default: "262144",
        example: "",
        doc: "Bytes that may wait for one TCP or TLS client that reads too slowly. Beyond, whole data messages are dropped as a \
              router would, and counted.",
        coturn: &[],
    },
    Setting {
        key: "limits.handshake_timeout",
        field: Field::Seconds { norm: Norm::NONE, at: |s| &mut s.limits.handshake_timeout },
        default: "10",
        example: "",
        doc: "Seconds that a TLS handshake may take before the connection is closed.",
        coturn: &[],
    },
    Setting {
        key: "limits.first_message_timeout",
        field: Field::Seconds { norm: Norm::NONE, at: |s| &mut s.limits.first_message_timeout },
        default: "10",
        example: "",
        doc: "Seconds until a connection has to bring its first message, else it is closed.",
        coturn: &[],
    },
    Setting {
        key: "limits.unfinished_message_timeout",
        field: Field::Seconds { norm: Norm::NONE, at: |s| &mut s.limits.unfinished_message_timeout },
        default: "10",
        example: "",
        doc: "Seconds until a message that has begun has to be whole, else the connection is closed.",
        coturn: &[],
    },
    Setting {
        key: "limits.idle_timeout",
        field: Field::Seconds { norm: Norm::NONE, at: |s| &mut s.limits.idle_timeout },
        default: "300",
        example: "",
        doc: "Seconds that a connection without an allocation may say nothing before it is closed. With one it may be silent as long \
              as the allocation lives.",
        coturn: &[],
    },
    Setting {
        key: "limits.allocation_lifetime",
        field: Field::Seconds {
            norm: Norm { holds: |v| v == 600, says: "RFC 8656 section 3.2 says 600" },
            at: |s| &mut s.limits.allocation_lifetime,
        },
        default: "600",
        example: "",
        doc: "Seconds that an allocation lives when its client asks for nothing or for less.",
        coturn: &[],
    },
    Setting {
        key: "limits.max_allocation_lifetime",
        field: Field::Seconds {
            norm: Norm { holds: |v| v <= 3600, says: "RFC 8656 section 7.2 says at most 3600" },
            at: |s| &mut s.limits.max_allocation_lifetime,
        },
        default: "3600",
        example: "",
        doc: "Seconds that an allocation lives at most without being refreshed.",
        coturn: &["max-allocate-lifetime"],
    },
    Setting {
        key: "limits.permission_lifetime",
        field: Field::Seconds {
            norm: Norm { holds: |v| v == 300, says: "RFC 8656 section 9 says 300" },
            at: |s| &mut s.limits.permission_lifetime,
        },
        default: "300",
        example: "",
        doc: "Seconds that a permission lives without being refreshed. Clients rely on 300.",
        coturn: &["permission-lifetime"],
    },
    Setting {
        key: "limits.channel_lifetime",
        field: Field::Seconds {
            norm: Norm { holds: |v| v == 600, says: "RFC 8656 section 12 says 600" },
            at: |s| &mut s.limits.channel_lifetime,
        },
        default: "600",
        example: "",
        doc: "Seconds that a channel binding lives without being refreshed. Clients rely on 600.",
        coturn: &["channel-lifetime"],
    },
    Setting {
        key: "limits.reservation_lifetime",
        field: Field::Seconds {
            norm: Norm { holds: |v| v >= 30, says: "RFC 8656 section 7.2 says at least 30" },
            at: |s| &mut s.limits.reservation_lifetime,
        },
        default: "30",
        example: "",
        doc: "Seconds that a reserved port (EVEN-PORT) waits for its RESERVATION-TOKEN.",
        coturn: &[],
    },
    Setting {
        key: "peers.allow",
        field: Field::Prefixes(|s| &mut s.peers.allow),
        default: "[]",
        example: r#"["10.20.0.0/16"]"#,
        doc: "Ranges that may be reached although they are refused by default, such as the network of a media server.",
        coturn: &["allowed-peer-ip"],
    },
    Setting {
        key: "peers.deny",
        field: Field::Prefixes(|s| &mut s.peers.deny),
        default: "[]",
        example: r#"["198.51.100.0/24"]"#,
        doc: "Ranges that are refused beside those refused by default. Where `allow` and `deny` both match, the longer prefix \
              decides; at the same length `deny` does.",
        coturn: &["denied-peer-ip"],
    },
    Setting {
        key: "peers.nat64",
        field: Field::Nat64(|s| &mut s.peers.nat64),
        default: "[]",
        example: r#"["2001:db8:64::/96"]"#,
        doc: "NAT64 prefixes of this network beside 64:ff9b::/96. The IPv4 address inside is judged like any other IPv4 \
              address, so that no private address is reached through the translator.",
        coturn: &[],
    },
    Setting {
        key: "http.listen",
        field: Field::Sockets { port: 9641, at: |s| &mut s.http.listen },
        default: r#"["127.0.0.1:9641"]"#,
        example: "",
        doc: "Addresses and ports for HTTP. An empty list turns it off. There is no access control: anyone who can connect can \
              read, so keep it on loopback or on a private network.",
        coturn: &["prometheus-address", "prometheus-port", "prometheus"],
    },
    Setting {
        key: "log.level",
        field: Field::Choice(&[
            ("error", |s| s.log.level = Level::Error),
            ("warn", |s| s.log.level = Level::Warn),
            ("info", |s| s.log.level = Level::Info),
            ("debug", |s| s.log.level = Level::Debug),
            ("trace", |s| s.log.level = Level::Trace),
        ]),
        default: r#""info""#,
        example: "",
        doc: "The least important lines that are written. `info` tells when an allocation begins and ends, and why a client \
              was refused.",
        coturn: &["log-min-level", "verbose", "Verbose"],
    },
    Setting {
        key: "log.format",
        field: Field::Choice(&[
            ("human", |s| s.log.format = Format::Human),
            ("json", |s| s.log.format = Format::Json),
        ]),
        default: r#""human""#,
        example: "",
        doc: "Lines for a person, or one JSON object a line.",
        coturn: &[],
    },
];

/// The keys of an `[[auth.user]]` section.
pub static USER: &[Setting<UserDraft>] = &[
    Setting {
        key: "name",
        field: Field::Text { range: 1..=508, at: |u| &mut u.name },
        default: r#""""#,
        example: r#""alice""#,
        doc: "The user name. Required.",
        coturn: &[],
    },
    Setting {
        key: "password",
        field: Field::Password(|u| &mut u.passwords),
        default: "",
        example: r#""a password""#,
        doc: "The password. One of `password`, `password_file` and `key` is required.",
        coturn: &[],
    },
    Setting {
        key: "password_file",
        field: Field::PasswordFile(|u| &mut u.passwords),
        default: "",
        example: r#""/etc/hairpin/alice""#,
        doc: "A file with the password alone. A relative path starts at this file's folder.",
        coturn: &[],
    },
    Setting {
        key: "key",
        field: Field::Md5Key(|u| &mut u.passwords),
        default: "",
        example: r#""00112233445566778899aabbccddeeff""#,
        doc: "MD5(user:realm:password) in hex, as in coturn's databases, so that the password itself is not here. With such a \
              user SHA-256 is offered to nobody.",
        coturn: &[],
    },
];
