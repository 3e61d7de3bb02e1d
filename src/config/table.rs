//! The table of settings: the key, kind, field, default, documentation and coturn names of each setting, in one row. The
//! loader, the reference page and the sample configuration are made from it. A key is a promise once released.

use super::certificate_section::{self, CertificateDraft};
use super::document::Tables;
use super::kind::{Reload, Setting};
use super::kinds::{
    ADDRESSES, Account, Advice, BackendServer, CertificateNames, Choice, DomainName, EXTERNAL_ADDRESSES,
    FamilyAddress, HOST_NAMES, Host, List, ListenAddress, ListenTransports, LiveKitKeysFile, Md5Key,
    NAT64_PREFIXES, Number, PEER_RANGES, PREFIXES, PasswordFile, PasswordText, PeerLists, PemFile, Placed,
    PortRange, ProxyHeaderMode, ProxySources, PublicHost, RouteTable, Seconds, SecretFiles, Secrets,
    SegmentSize, SocketPath, Sockets, SpokenProtocols, Switch, Text, TokensFile, UsersFiles,
};
use super::listener::PeersMode;
use super::listener_section::{self, ListenerDraft};
use super::section::{About, Draft, RepeatedSection};
use super::settings::{Format, Level, Settings, SiblingSettings};
use super::sibling;
use super::user::{self, UserDraft};
use crate::auth::{OnRemoval, StaticUser};
use crate::tls::UnknownName;
use crate::wire::Family;

/// The environment variable that may hold shared secrets.
pub const SECRET_VARIABLE: &str = "HAIRPIN_AUTH_SECRET";

/// Everything that can be set.
pub static TABLES: Tables<Settings> = Tables {
    sections: SECTIONS,
    settings: SETTINGS,
    repeated: REPEATED,
    about: About { page: "docs/configuration.md", guarded: &["auth."] },
};

/// The sections in the order of the reference page, each with its introduction. The empty name is the top of the file.
pub static SECTIONS: &[(&str, &str)] = &[
    ("", "These settings go at the top of the file, before the first section."),
    ("listen", "The addresses that clients connect to."),
    ("relay", "The relayed transport addresses, which peers see."),
    (
        "tls",
        "The certificates for TLS clients. TLS 1.2 and 1.3 are supported. The files are watched: a renewed certificate is used for \
         new connections without a reload, and running ones continue. [docs/certificates.md](certificates.md) has the details.",
    ),
    (
        "auth",
        "Who may use the relay. At least one secret, LiveKit API key or user is required: hairpin never runs as an anonymous relay.",
    ),
    ("limits", "How much may be used. Everything has a bound."),
    (
        "peers",
        "Which peers the relay may reach. By default it refuses every address that is not globally reachable: loopback, private \
         and shared networks, link-local addresses and cloud metadata, multicast, documentation and benchmark ranges, and IPv6 \
         outside of 2000::/3. It always refuses its own listeners, and IPv4-mapped, \
         IPv4-compatible, 6to4 and Teredo addresses.\n\n\
         The addresses of this machine are closed too, because its firewall does not see what the relay sends there. Clients \
         reach only the ports where another client of this relay has an allocation, and what `allow` names by its exact address, \
         like `203.0.113.7:50000-60000`, or by a range within one local route, like `127.0.0.0/8`. A wider range never opens \
         them. [docs/same-machine.md](same-machine.md) shows how to run a media server beside the relay.\n\n\
         Where several entries match, the longest prefix decides; at equal length an entry with ports, and then `deny`.",
    ),
    (
        "http",
        "Prometheus metrics at `/metrics`, and health checks: `/livez` (every part of the relay runs), `/readyz` and `/healthz` (it \
         serves clients). Whoever can connect can read them, which by default are programs on this machine. For a Prometheus on \
         another one, list an address that it reaches, and set `tls` and `tokens_file`.",
    ),
    (
        "admin",
        "Who may change the relay while it runs, and look at its allocations: `hairpin ctl` and programs that use \
         [the API](api.md). By default that is whoever may open the control socket, which its group may. Clients of the relay \
         never reach it.",
    ),
    (
        "log",
        "Logs are written to standard error. If its reader does not keep up, log lines are lost; calls are not affected.",
    ),
];

/// Every setting, in the order of the reference page.
pub static SETTINGS: &[Setting<Settings>] = &[
    Setting {
        key: "workers",
        kind: &Number { range: 0..=1024, at: |s: &mut Settings| &mut s.workers },
        default: "0",
        example: "",
        doc: "Worker threads. `0` starts one per CPU that this process may use.",
        reload: Reload::Restart,
        coturn: &["relay-threads", "cpus"],
    },
    Setting {
        key: "user",
        kind: &Account(|s: &mut Settings| &mut s.user),
        default: r#""""#,
        example: r#""hairpin""#,
        doc: "The user that hairpin becomes when it is started as root: it reads what only root may read and then gives up every \
              privilege but that for ports below 1024, which reloads need, too. The state directory and the folder of the control \
              socket become this user's, unless they have files of something else. A file that the user may not read serves until \
              a reload or a renewal needs it again; a warning at the start names each. With systemd, the unit sets the user \
              instead. [docs/operating.md](operating.md#privileges) has the details.",
        reload: Reload::Restart,
        coturn: &["proc-user"],
    },
    Setting {
        key: "software",
        kind: &Text { range: 0..=127, at: |s: &mut Settings| &mut s.software },
        default: r#""""#,
        example: r#""hairpin""#,
        doc: "The SOFTWARE attribute of responses. If empty, responses have none, which tells strangers nothing and keeps responses \
              short.",
        reload: Reload::Live,
        coturn: &["software-attribute"],
    },
    Setting {
        key: "stop_deadline",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.stop_deadline },
        default: "5",
        example: "",
        doc: "Seconds that a stop may take. SIGTERM, SIGINT and SIGQUIT end every allocation in an orderly way, which takes a moment; \
              what is not done when this time is over is given up: the log names the threads that have not ended, and the exit \
              status is 1.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "drain_deadline",
        kind: &Number { range: 0..=31_536_000, at: |s: &mut Settings| &mut s.drain_deadline },
        default: "0",
        example: "3600",
        doc: "Seconds after which a drain ends although there are allocations, which then end too. `0` waits for the last one to \
              end by itself. It is for SIGUSR1 and for `hairpin ctl drain` without `--deadline`, and holds for the next drain. \
              [docs/operating.md](operating.md) describes drains.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "listen.udp",
        kind: &Sockets { port: 3478, at: |s: &mut Settings| &mut s.listen.udp },
        default: r#"["0.0.0.0:3478", "[::]:3478"]"#,
        example: "",
        doc: "Addresses and ports for UDP clients. The default port is 3478. `0.0.0.0` and `[::]` stand for every address of their \
              family; an IPv6 listener does not accept IPv4 clients. On a machine without IPv6, `[::]` is skipped and the log says \
              so.",
        reload: Reload::Live,
        coturn: &["listening-ip", "listening-port"],
    },
    Setting {
        key: "listen.tcp",
        kind: &Sockets { port: 3478, at: |s: &mut Settings| &mut s.listen.tcp },
        default: r#"["0.0.0.0:3478", "[::]:3478"]"#,
        example: "",
        doc: "Addresses and ports for TCP clients, written as for `listen.udp`. TCP is for clients whose network blocks UDP. An empty \
              list turns it off. If there is a certificate, TLS is served on these ports too: the first bytes of a connection tell it \
              from TURN.",
        reload: Reload::Live,
        coturn: &["no-tcp"],
    },
    Setting {
        key: "listen.tls",
        kind: &Sockets { port: 5349, at: |s: &mut Settings| &mut s.listen.tls },
        default: r#"["0.0.0.0:5349", "[::]:5349"]"#,
        example: "",
        doc: "Addresses and ports for TLS clients, written as for `listen.udp`; the default port is 5349. TLS requires a certificate: \
              `tls.cert` and `tls.key`, or `[[tls.certificate]]` sections. It is off if the file has neither this nor a certificate. \
              TURN without TLS is served on these ports too, and `listen.tcp` may list the same ones: they are one socket, and both \
              kinds of URL are offered. `[[listener]]` has more settings for a port that is shared, such as 443.",
        reload: Reload::Live,
        coturn: &["tls-listening-port", "no-tls"],
    },
    Setting {
        key: "listen.gro",
        kind: &Switch(|s: &mut Settings| &mut s.listen.gro),
        default: "true",
        example: "",
        doc: "Let the kernel join received datagrams (UDP_GRO), if it can. Turn this off only to investigate a fault.",
        reload: Reload::Restart,
        coturn: &[],
    },
    Setting {
        key: "listen.gso",
        kind: &Switch(|s: &mut Settings| &mut s.listen.gso),
        default: "true",
        example: "",
        doc: "Let the kernel split sent datagrams (UDP_SEGMENT), if it can. Turn this off only to investigate a fault.",
        reload: Reload::Restart,
        coturn: &[],
    },
    Setting {
        key: "listen.steering",
        kind: &Switch(|s: &mut Settings| &mut s.listen.steering),
        default: "true",
        example: "",
        doc: "Use a small program in the kernel that selects the worker of a client and separates requests from relayed data. Without \
              it, the kernel's own hash selects the worker. Turn this off only to investigate a fault.",
        reload: Reload::Restart,
        coturn: &[],
    },
    Setting {
        key: "listen.rfc5766_channels",
        kind: &Switch(|s: &mut Settings| &mut s.listen.rfc5766_channels),
        default: "false",
        example: "",
        doc: "Accept the channel numbers of RFC 5766, 0x4000 to 0x7FFE. RFC 8656 allows 0x4000 to 0x4FFF, and other numbers are refused \
              with 400. Browsers count their channels from 0x4000 and do not need this. `turnutils_uclient` of coturn 4.6, which \
              Debian and Ubuntu ship, does: it chooses numbers at random.",
        reload: Reload::Restart,
        coturn: &["rfc5766-channel-numbers"],
    },
    Setting {
        key: "listen.gather",
        kind: &Number { range: 0..=1000, at: |s: &mut Settings| &mut s.listen.gather },
        default: "150",
        example: "",
        doc: "Microseconds for which a worker lets packets gather, so that it serves several per wake-up; `0` turns this off. While \
              packets keep arriving that the kernel does not join (GRO), a worker begins its passes at least this far apart. The \
              default saves about 15 % of the CPU time per packet and costs delay: with many thin flows the median is 0.26 ms \
              instead of 0.09 ms. A packet that arrives alone is not held back.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "listen.mss",
        kind: &SegmentSize { at: |s: &mut Settings| &mut s.listen.mss, place: |_: &mut Settings| None },
        default: "1360",
        example: "",
        doc: "The largest segment of TCP and TLS connections in bytes (TCP_MAXSEG), in both directions, for clients behind networks in \
              which large packets vanish in silence, because their routers send no ICMP or it is filtered. The default costs nothing \
              on a link with an MTU of 1,500, and fits most tunnels; 1220 fits every path that carries IPv6. `0` leaves it to the \
              kernel, which asks the interface and the route; it suits jumbo frames and proxies of the same machine. A changed value \
              holds for new connections.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "relay.addresses",
        kind: &List { of: ADDRESSES, at: |s: &mut Settings| &mut s.relay.addresses },
        default: "[]",
        example: r#"["203.0.113.7", "2001:db8::7"]"#,
        doc: "Addresses of this machine for relayed transport addresses, one or more per family. A client gets the one that it \
              came in by, if that is among them. An address that this machine does not have yet relays as soon as it has. If \
              empty, hairpin uses the source address of each family's default route, and follows it, but never a loopback, \
              link-local or temporary address. If any address is listed, none is discovered, so list both families.",
        reload: Reload::NewAllocations,
        coturn: &["relay-ip"],
    },
    Setting {
        key: "relay.external_ip",
        kind: &List { of: EXTERNAL_ADDRESSES, at: |s: &mut Settings| &mut s.relay.external_ip },
        default: "[]",
        example: r#"["198.51.100.7/203.0.113.7"]"#,
        doc: "The public addresses of relayed addresses behind a 1:1 NAT, as most clouds have. Write `public` if the family has one \
              relayed address, otherwise `public/local` for each. Clients are told the public address; the NAT must forward the \
              ports of `relay.ports` unchanged.\n\n\
              Instead of the public address there may be a DNS name, or `auto`, which asks the metadata service of the cloud (AWS, \
              Google Cloud, Azure, Hetzner) and else `stun_server`. `auto` alone is for every relayed address that no other entry is \
              for. Until the public address of a relayed address is known, that does not relay; `/readyz` and the log say why. Only an \
              address that is public itself relays as it is if nothing else is said about it. A change holds for new allocations; \
              running ones keep what they were told. If nothing answers any more, the last known address stays.",
        reload: Reload::NewAllocations,
        coturn: &["external-ip"],
    },
    Setting {
        key: "relay.external_ip_interval",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.relay.external_ip_interval },
        default: "300",
        example: "",
        doc: "Seconds until a public address that is `auto` or a DNS name is asked for again. A reload asks at once.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "relay.stun_server",
        kind: &Host { port: 3478, at: |s: &mut Settings| &mut s.relay.stun_server },
        default: r#""""#,
        example: r#""stun.example.org:3478""#,
        doc: "A STUN server outside of the NAT that tells the public address for `external_ip = \"auto\"` where the cloud has no metadata \
              service. It is asked over UDP from the relayed address. By default there is none, and nobody else is asked.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "relay.ports",
        kind: &PortRange(|s: &mut Settings| &mut s.relay.ports),
        default: r#""49152-65535""#,
        example: "",
        doc: "The first and the last port of relayed transport addresses. Open them for UDP in the firewall. No UDP listener may use \
              a port of this range on the same address.",
        reload: Reload::NewAllocations,
        coturn: &["min-port", "max-port"],
    },
    Setting {
        key: "tls.cert",
        kind: &PemFile { label: "tls.cert", at: |s: &mut Settings| &mut s.tls.cert },
        default: "",
        example: r#""/etc/hairpin/fullchain.pem""#,
        doc: "A PEM file with the default certificate, followed by its intermediate certificates. Browsers require a certificate for the host \
              name in the URL, from an authority that they trust, with an RSA, P-256 or P-384 key. `hairpin check` warns about \
              certificates that they refuse, and about missing intermediate ones. A relative path starts at the folder of this file.",
        reload: Reload::Live,
        coturn: &["cert"],
    },
    Setting {
        key: "tls.key",
        kind: &PemFile { label: "tls.key", at: |s: &mut Settings| &mut s.tls.key },
        default: "",
        example: r#""/etc/hairpin/privkey.pem""#,
        doc: "A PEM file with the private key of the certificate, in PKCS#8, PKCS#1 or SEC1 format; RSA, ECDSA or Ed25519; without a \
              passphrase.",
        reload: Reload::Live,
        coturn: &["pkey"],
    },
    Setting {
        key: "tls.unknown_name",
        kind: &Choice {
            words: &[("default", UnknownName::Default), ("refuse", UnknownName::Refuse)],
            at: |s: &mut Settings| &mut s.tls.unknown_name,
        },
        default: r#""default""#,
        example: "",
        doc: "What a client gets that asks for a name of no certificate (SNI): the default certificate, or the alert \
              `unrecognized_name`. A client that asks for no name, as with a URL that has an address, always gets the default \
              certificate.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "auth.realm",
        kind: &Text { range: 1..=127, at: |s: &mut Settings| &mut s.auth.realm },
        default: r#""hairpin""#,
        example: r#""turn.example.org""#,
        doc: "The realm that clients are told, by convention the domain. The `key` of a user depends on it.",
        reload: Reload::NewAllocations,
        coturn: &["realm"],
    },
    Setting {
        key: "auth.secrets",
        kind: &Secrets {
            at: |s: &mut Settings| &mut s.auth.secrets,
            from_files: |s: &mut Settings| &mut s.auth.file_secrets,
        },
        default: "[]",
        example: r#"["at least 16 characters, from a random source"]"#,
        doc: "Shared secrets for time-limited credentials: the user name is `expiry:user`, the password is \
              base64(HMAC-SHA1(secret, user name)), as in coturn's REST API. Several secrets allow rotation: all of them are \
              accepted, and `hairpin credentials` uses the first. Each needs at least 16 characters; `openssl rand -base64 32` \
              generates a good one. More secrets can come from `auth.secret_files` and from the environment variable \
              `HAIRPIN_AUTH_SECRET`, which separates them by commas or line breaks.",
        reload: Reload::NewAllocations,
        coturn: &["static-auth-secret", "use-auth-secret"],
    },
    Setting {
        key: "auth.secret_files",
        kind: &SecretFiles {
            at: |s: &mut Settings| &mut s.auth.secrets,
            from_files: |s: &mut Settings| &mut s.auth.file_secrets,
            paths: |s: &mut Settings| &mut s.auth.secret_paths,
        },
        default: "[]",
        example: r#"["/etc/hairpin/secret"]"#,
        doc: "Files with shared secrets, one per line; blank lines and lines that begin with # are skipped, so a secret that begins \
              with # can only be in `auth.secrets`. A relative path starts at the folder of this file. A file that every user may \
              read causes a warning.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "auth.users_file",
        kind: &UsersFiles { entry: &LISTED_USER, at: |s: &mut Settings| &mut s.auth.listed },
        default: "",
        example: r#""/etc/hairpin/users""#,
        doc: "A file with static users, or several, up to 1,000,000 users together. The log and `hairpin check` say how \
              many there are, and name file and line of each mistake. A reload reads the files again, while calls and packets go on: what \
              was added or has another password holds for new allocations, `auth.on_removal` says what becomes of the calls of users \
              that are gone, and a file with a mistake changes nothing. Write the new file beside the old one and rename it, so that \
              no reload reads half of it.\n\n\
              One user per line: `name:password`, or `name:0xKEY` with the 32 hex digits of MD5(user:realm:password), as coturn's \
              databases have them. A limit on the allocations of the user may follow, after one more colon: `alice:wonder:10`; \
              without one, or with `0`, there is none. Blank lines and lines that begin with # are skipped. The name ends at the first \
              colon, and what follows the last of several colons is the limit, so a password that contains a colon needs one at its end: \
              `alice:won:der:` has the password `won:der`, `alice:won:5:` has `won:5`, and `alice:won:5` has `won` and the limit 5; \
              `alice:won:der` is refused. A name with a colon, and a password that begins with 0x, begins or ends with a blank, or \
              contains \" #\", can only be in TOML.\n\n\
              Or TOML: a section `[[user]]` per user with the keys of `[[auth.user]]`. A file is TOML if its name ends with .toml, or if \
              the first line that is neither blank nor a comment begins with `[`.\n\n\
              No user may be listed twice, in these files or as `[[auth.user]]`. A static user comes before a time-limited user name that \
              is the same. A relative path starts at the folder of this file. A file that every user of the machine may read, or others than \
              its owner may write, causes a warning.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "auth.livekit_keys_file",
        kind: &LiveKitKeysFile(|s: &mut Settings| &mut s.auth.livekit_keys),
        default: "",
        example: r#""/etc/hairpin/livekit-keys.yaml""#,
        doc: "A file with LiveKit's API keys and their secrets, or several, so that clients can use the credentials that LiveKit issues \
              for its embedded TURN server (`turn:` in its configuration). The format is that of LiveKit's `key_file`: YAML, a line \
              `API_KEY: SECRET` per key. List every pair that LiveKit has, because it picks any of them. The user of quotas, logs, \
              `hairpin ctl list` and revocations is the participant's sid, `PA_...`, as with time-limited names that LiveKit makes \
              from a shared secret; the realm may be any. A static user whose name is the same comes first. A relative path starts \
              at the folder of this file. A file that every user may read causes a warning.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "auth.livekit_two_part",
        kind: &Switch(|s: &mut Settings| &mut s.auth.livekit_two_part),
        default: "true",
        example: "",
        doc: "Also accept LiveKit's credentials of two parts (API key and participant), which LiveKit up to 1.11 issues. They never \
              expire: only a revocation refuses one, until its time, or the removal of the API key. LiveKit 1.12 and later issues \
              those of three parts, which expire after 5 minutes; with such a version alone, set this to `false`.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "auth.user_before_expiry",
        kind: &Switch(|s: &mut Settings| &mut s.auth.user_before_expiry),
        default: "false",
        example: "",
        doc: "Also accept time-limited user names written as `user:expiry`.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "auth.max_lifetime",
        kind: &Number { range: 1..=315_360_000, at: |s: &mut Settings| &mut s.auth.max_lifetime },
        default: "2592000",
        example: "",
        doc: "The longest time in seconds until a time-limited credential, or one of LiveKit, expires; the default is 30 days. An Allocate with a \
              credential that expires later is refused with 401, and the log gives the reason `expiry_too_far`. Without a bound, a \
              credential whose expiry was written in milliseconds would be valid for 57,000 years.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "auth.on_removal",
        kind: &Choice {
            words: &[("keep", OnRemoval::Keep), ("end", OnRemoval::End)],
            at: |s: &mut Settings| &mut s.auth.on_removal,
        },
        default: r#""keep""#,
        example: "",
        doc: "What happens to running allocations whose credential is gone after a reload, because its user, its shared secret or its \
              LiveKit API key was removed or its password was changed: \"keep\" lets them run until their clients end them, \"end\" ends them, as after \
              a secret has leaked. A credential that has merely expired is not gone.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "auth.nonce_lifetime",
        kind: &Seconds {
            advice: Advice { follows: |v| v <= 3600, says: "RFC 8656 section 5 says at most 3600" },
            at: |s: &mut Settings| &mut s.auth.nonce_lifetime,
        },
        default: "3600",
        example: "",
        doc: "Seconds until a nonce expires. Clients then receive a new one and continue without interruption.",
        reload: Reload::Live,
        coturn: &["stale-nonce"],
    },
    Setting {
        key: "limits.user_allocations",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.user_allocations },
        default: "1000",
        example: "",
        doc: "Allocations per user in time-limited names (`expiry:user`) and per participant of LiveKit; requests for more are refused with 486. A browser makes at \
              least one per connection. `0` means no limit. Static users, and time-limited names without a user, stand for many \
              clients: they have no limit, or that of `auth.user.allocations`.",
        reload: Reload::NewAllocations,
        coturn: &["user-quota"],
    },
    Setting {
        key: "limits.allocations",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.allocations },
        default: "100000",
        example: "",
        doc: "Allocations in total; requests for more are refused with 508. `relay.ports` and the limit on open files bound them too. \
              `0` means no other limit than these.",
        reload: Reload::NewAllocations,
        coturn: &["total-quota"],
    },
    Setting {
        key: "limits.new_allocations_burst",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.new_allocations_burst },
        default: "1000",
        example: "",
        doc: "New allocations that a user may make at once. Names that many clients share, static users and time-limited names \
              without a user, count per client address (an IPv4 address or IPv6 /64). Requests beyond it are refused with 486; \
              clients that have an allocation are not affected. `0` means no limit.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.new_allocations_rate",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.new_allocations_rate },
        default: "300",
        example: "",
        doc: "The same per second, once the burst is used up. `0` turns both limits off.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.permissions",
        kind: &Number { range: 1..=65_536, at: |s: &mut Settings| &mut s.limits.permissions },
        default: "1024",
        example: "",
        doc: "Permissions (peer addresses) per allocation; requests for more are refused with 508.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.channels",
        kind: &Number { range: 1..=4096, at: |s: &mut Settings| &mut s.limits.channels },
        default: "1024",
        example: "",
        doc: "Channel bindings per allocation; requests for more are refused with 508.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.new_peers",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.new_peers },
        default: "64",
        example: "",
        doc: "New peer addresses and ports per second and allocation, with bursts of four times as many. It keeps clients from using \
              the relay as a port scanner: requests beyond the limit are refused with 508, packets are dropped. `0` means no limit.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.bandwidth",
        kind: &Number { range: 0..=1_000_000_000_000, at: |s: &mut Settings| &mut s.limits.bandwidth },
        default: "0",
        example: "2500000",
        doc: "Bytes of application data per second, allocation and direction, with bursts of one second's worth. Packets beyond the \
              limit are dropped and counted. `0`, the default, means no limit; a sensible limit is 2500000, 20 Mbit/s, which \
              leaves room for several HD videos.",
        reload: Reload::Live,
        coturn: &["max-bps"],
    },
    Setting {
        key: "limits.unauthenticated_burst",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.unauthenticated_burst },
        default: "1000",
        example: "",
        doc: "Responses over UDP without authentication that one IPv4 address or IPv6 /64 may receive at once, so that forged requests \
              cannot turn the relay against a third party: challenges, which each new client needs, but not Binding responses, nor \
              a new nonce for a client that has proved its key. The default leaves room for an office behind one address. `0` \
              means no limit.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.unauthenticated_rate",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.unauthenticated_rate },
        default: "200",
        example: "",
        doc: "The same responses per second, once the burst is used up. `0` turns both limits off.",
        reload: Reload::Live,
        coturn: &["unauthorized-ratelimit", "unauthorized-ratelimit-rps"],
    },
    Setting {
        key: "limits.binding_burst",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.binding_burst },
        default: "2000",
        example: "",
        doc: "Responses to Binding requests over UDP that one IPv4 address or IPv6 /64 may receive at once. They are limited apart \
              from challenges: keepalives of many clients behind one address, or a flood of Bindings in its name, do not keep \
              clients there from authenticating. `0` means no limit.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.binding_rate",
        kind: &Number { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.limits.binding_rate },
        default: "2000",
        example: "",
        doc: "The same responses per second, once the burst is used up. `0` turns both limits off.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.exempt_sources",
        kind: &List { of: PREFIXES, at: |s: &mut Settings| &mut s.limits.exempt_sources },
        default: "[]",
        example: r#"["10.0.0.0/24"]"#,
        doc: "Addresses behind which many clients are: balancers, NAT gateways and proxies of your own. Limits per source address, on \
              responses without authentication and on connections, are a hundred times as large for them. They are never without a \
              limit, because the source of a datagram can be forged. Nothing that such a machine says about its clients is \
              believed, unless it is in `proxy_from` of a `[[listener]]`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.connections",
        kind: &Number { range: 1..=1_000_000, at: |s: &mut Settings| &mut s.limits.connections },
        default: "50000",
        example: "",
        doc: "TCP and TLS connections in total. When there are as many, the oldest one without an allocation of the source that has \
              most of them makes room for a new one; if all have allocations, new ones are closed immediately. If \
              the limit on open files is low, it bounds them too: relay sockets have at least half of what it leaves room for, or as \
              many as there can be, and connections have at least a quarter. The log of the start says so.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.connections_per_source",
        kind: &Number { range: 1..=1_000_000, at: |s: &mut Settings| &mut s.limits.connections_per_source },
        default: "1024",
        example: "",
        doc: "Connections without an allocation per IPv4 address or IPv6 /64, and 4 and 16 times as many per /56 and /48, but never \
              more than a quarter of `connections`. Connections beyond the limit are closed immediately. The default leaves room for an \
              office behind one address whose clients all connect at once. For `exempt_sources` the limit is a hundred times as \
              large, and they may use every connection.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.client_queue",
        kind: &Number { range: 16_384..=16_777_216, at: |s: &mut Settings| &mut s.limits.client_queue },
        default: "262144",
        example: "",
        doc: "Bytes that may wait for a TCP or TLS client that reads too slowly. Data messages that do not fit are dropped and counted.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.handshake_timeout",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.limits.handshake_timeout },
        default: "10",
        example: "",
        doc: "Seconds that a TLS handshake may take before the connection is closed; also a PROXY protocol header, and the message of a \
              TLS client that has the name which `routes` ask for. A handshake that waits for others before it, when many begin at once, may \
              wait for as long again.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.first_message_timeout",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.limits.first_message_timeout },
        default: "10",
        example: "",
        doc: "Seconds that a connection may take to send its first complete message, over TLS after the handshake, before it is \
              closed; also the first bytes of a connection for a backend.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.unfinished_message_timeout",
        kind: &Seconds {
            advice: Advice::NONE,
            at: |s: &mut Settings| &mut s.limits.unfinished_message_timeout,
        },
        default: "10",
        example: "",
        doc: "Seconds that a connection may take to complete a message that it has begun before it is closed.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.idle_timeout",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.limits.idle_timeout },
        default: "300",
        example: "",
        doc: "Seconds that a connection without an allocation may be silent, or may not read its responses, before it is closed. With an allocation it may be silent \
              for as long as the allocation lives.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.spliced_connections",
        kind: &Number { range: 1..=1_000_000, at: |s: &mut Settings| &mut s.limits.spliced_connections },
        default: "10000",
        example: "",
        doc: "Connections in total that are passed on to a backend (`[listener.routes]`, `default_backend`, `http`). A connection \
              counts among `connections` until its first bytes or its handshake have decided where it goes, and only here from then \
              on. When there are as many, the oldest one of the source that has most of them makes room for a new one. Each needs two \
              file descriptors, so the limit on open files bounds them too.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.spliced_connections_per_source",
        kind: &Number {
            range: 1..=1_000_000,
            at: |s: &mut Settings| &mut s.limits.spliced_connections_per_source,
        },
        default: "1024",
        example: "",
        doc: "Those of them per IPv4 address or IPv6 /64. Connections beyond the limit are closed immediately. For `exempt_sources` the \
              limit is a hundred times as large.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.spliced_idle_timeout",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.limits.spliced_idle_timeout },
        default: "3600",
        example: "",
        doc: "Seconds for which neither side of such a connection may send anything before it is closed. The default of an hour is for \
              WebSockets. A change holds for new connections.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.backend_connect_timeout",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.limits.backend_connect_timeout },
        default: "10",
        example: "",
        doc: "Seconds that it may take to resolve the name of a backend and to connect to it before the client's connection is closed. \
              A change holds for new connections.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.allocation_lifetime",
        kind: &Seconds {
            advice: Advice { follows: |v| v == 600, says: "RFC 8656 section 3.2 says 600" },
            at: |s: &mut Settings| &mut s.limits.allocation_lifetime,
        },
        default: "600",
        example: "",
        doc: "Lifetime of an allocation in seconds, if its client asks for none or for less.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "limits.max_allocation_lifetime",
        kind: &Seconds {
            advice: Advice { follows: |v| v <= 3600, says: "RFC 8656 section 7.2 says at most 3600" },
            at: |s: &mut Settings| &mut s.limits.max_allocation_lifetime,
        },
        default: "3600",
        example: "",
        doc: "The longest lifetime of an allocation in seconds that a client may ask for.",
        reload: Reload::Live,
        coturn: &["max-allocate-lifetime"],
    },
    Setting {
        key: "limits.permission_lifetime",
        kind: &Seconds {
            advice: Advice { follows: |v| v == 300, says: "RFC 8656 section 9 says 300" },
            at: |s: &mut Settings| &mut s.limits.permission_lifetime,
        },
        default: "300",
        example: "",
        doc: "Lifetime of a permission in seconds. Clients rely on 300.",
        reload: Reload::Live,
        coturn: &["permission-lifetime"],
    },
    Setting {
        key: "limits.channel_lifetime",
        kind: &Seconds {
            advice: Advice { follows: |v| v == 600, says: "RFC 8656 section 12 says 600" },
            at: |s: &mut Settings| &mut s.limits.channel_lifetime,
        },
        default: "600",
        example: "",
        doc: "Lifetime of a channel binding in seconds. Clients rely on 600.",
        reload: Reload::Live,
        coturn: &["channel-lifetime"],
    },
    Setting {
        key: "limits.reservation_lifetime",
        kind: &Seconds {
            advice: Advice { follows: |v| v >= 30, says: "RFC 8656 section 7.2 says at least 30" },
            at: |s: &mut Settings| &mut s.limits.reservation_lifetime,
        },
        default: "30",
        example: "",
        doc: "Seconds that a port reserved with EVEN-PORT is kept for the request with its RESERVATION-TOKEN. A user has 16 of \
              them at most that are not claimed yet; of a static user, each client address has.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "peers.allow",
        kind: &List { of: PEER_RANGES, at: |s: &mut Settings| &mut s.peers.allow },
        default: "[]",
        example: r#"["10.20.0.0/16", "203.0.113.7:7882"]"#,
        doc: "Peers that may be reached although they are refused by default, such as the network of a media server, or a media \
              server on this machine. Ports are written like `203.0.113.7:7882`, `[2001:db8::7]:7882`, `10.0.0.0/8:5000-6000` or \
              `[2001:db8::/32]:5000-6000`; without them all ports are meant. Behind a NAT (`relay.external_ip`), name the address \
              of this machine, not the external one, for a server on this machine.",
        reload: Reload::Live,
        coturn: &["allowed-peer-ip"],
    },
    Setting {
        key: "peers.deny",
        kind: &List { of: PEER_RANGES, at: |s: &mut Settings| &mut s.peers.deny },
        default: "[]",
        example: r#"["198.51.100.128/25"]"#,
        doc: "Peers that are refused in addition to those refused by default, written as in `allow`. A range with the relay's own \
              address keeps its clients from calling each other.",
        reload: Reload::Live,
        coturn: &["denied-peer-ip"],
    },
    Setting {
        key: "peers.nat64",
        kind: &List { of: NAT64_PREFIXES, at: |s: &mut Settings| &mut s.peers.nat64 },
        default: "[]",
        example: r#"["2001:db8:64::/96"]"#,
        doc: "NAT64 prefixes of this network in addition to 64:ff9b::/96. The embedded IPv4 address is judged like any other, so \
              that clients cannot reach private addresses through the translator.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.listen",
        kind: &Sockets { port: 9641, at: |s: &mut Settings| &mut s.http.listen },
        default: r#"["127.0.0.1:9641"]"#,
        example: "",
        doc: "Addresses and ports for HTTP. An empty list turns it off. On an address that is not loopback, `hairpin check` and the log \
              warn unless both `http.tls` and `http.tokens_file` are set.",
        reload: Reload::Live,
        coturn: &["prometheus-address", "prometheus-port", "prometheus"],
    },
    Setting {
        key: "http.tls",
        kind: &Switch(|s: &mut Settings| &mut s.http.tls),
        default: "false",
        example: "true",
        doc: "Whether `http.listen` speaks TLS (`https` in URLs), with the certificate of `[tls]`, also after its renewal.",
        reload: Reload::Live,
        coturn: &["prometheus-tls"],
    },
    Setting {
        key: "http.tokens_file",
        kind: &TokensFile(|s: &mut Settings| &mut s.http.tokens),
        default: "",
        example: r#""/etc/hairpin/metrics-tokens""#,
        doc: "A file with the tokens that open `/metrics`, in the format of `admin.tokens_file` (it may be the same file): \
              `name:scope:token` per line, such as `prometheus:read:...`; the scope may be `read` or `admin`. A request has its token in the \
              header `Authorization: Bearer TOKEN`, and without one of these it is refused with 401. `/livez`, `/readyz` and `/healthz` \
              need no token, so that load balancers can ask, but only whoever has one reads the reason of a failure, which names addresses. \
              Without this setting, whoever can connect reads everything. A relative path starts at the folder of this file. A file that \
              every user may read causes a warning.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "admin.socket",
        kind: &SocketPath(|s: &mut Settings| &mut s.admin.socket),
        default: "",
        example: r#""/run/hairpin/control.sock""#,
        doc: "The control socket, an absolute path. Without it the socket is `control.sock` in `$RUNTIME_DIRECTORY`, which systemd \
              sets, otherwise in `/run/hairpin` for root and services, otherwise in `$XDG_RUNTIME_DIR/hairpin`; if it cannot be \
              created there, or another relay uses it, the relay runs without, with a warning. With it that is an error. `\"\"` turns the \
              socket off. Its mode is 0660: whoever may open it may do everything.",
        reload: Reload::Live,
        coturn: &["cli-ip", "cli-port"],
    },
    Setting {
        key: "admin.group",
        kind: &Text { range: 0..=64, at: |s: &mut Settings| &mut s.admin.group },
        default: r#""""#,
        example: r#""adm""#,
        doc: "The group that may use the control socket; `\"\"` is that of the process. Unless the relay runs as root, its user must \
              belong to the group.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "admin.listen",
        kind: &Sockets { port: 9642, at: |s: &mut Settings| &mut s.admin.listen },
        default: "[]",
        example: r#"["127.0.0.1:9642"]"#,
        doc: "Addresses and ports of the API over TCP, which is off by default; the default port is 9642. It requires \
              `admin.tokens_file`, and on any address but loopback `admin.tls`.",
        reload: Reload::Live,
        coturn: &["web-admin-ip", "web-admin-port"],
    },
    Setting {
        key: "admin.tls",
        kind: &Switch(|s: &mut Settings| &mut s.admin.tls),
        default: "false",
        example: "true",
        doc: "Whether `admin.listen` speaks TLS, with the certificate of `[tls]`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "admin.hosts",
        kind: &List { of: HOST_NAMES, at: |s: &mut Settings| &mut s.admin.hosts },
        default: "[]",
        example: r#"["turn.example.org"]"#,
        doc: "Names of this machine in requests over TCP. Requests for other names are refused, because a page in a browser could make \
              them (DNS rebinding). `localhost` and the address that a request came to are always accepted.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "admin.tokens_file",
        kind: &TokensFile(|s: &mut Settings| &mut s.admin.tokens),
        default: "",
        example: r#""/etc/hairpin/tokens""#,
        doc: "A file with the tokens for the API over TCP, one per line: `name:scope:token`, such as `prometheus:read:...`. The scope is \
              `read`, or `admin` to change something. A token has at least 32 characters; `openssl rand -hex 32` generates a good one. \
              Two tokens may have the same name, so that one can be replaced while the other is in use. The log has the names. \
              A relative path starts at the folder of this file. A file that every user may read causes a warning.",
        reload: Reload::Live,
        coturn: &["cli-password"],
    },
    Setting {
        key: "log.level",
        kind: &Choice {
            words: &[
                ("error", Level::Error),
                ("warn", Level::Warn),
                ("info", Level::Info),
                ("debug", Level::Debug),
                ("trace", Level::Trace),
            ],
            at: |s: &mut Settings| &mut s.log.level,
        },
        default: r#""info""#,
        example: "",
        doc: "The least severe level that is logged. `info` includes the beginning and end of each allocation, and why clients were \
              refused.",
        reload: Reload::Live,
        coturn: &["log-min-level", "verbose", "Verbose"],
    },
    Setting {
        key: "log.format",
        kind: &Choice {
            words: &[("human", Format::Human), ("json", Format::Json)],
            at: |s: &mut Settings| &mut s.log.format,
        },
        default: r#""human""#,
        example: "",
        doc: "`human` writes readable lines, `json` one JSON object per line.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "log.mask_addresses",
        kind: &Switch(|s: &mut Settings| &mut s.log.mask_addresses),
        default: "false",
        example: "",
        doc: "Write only the network of a client's or peer's address in the log: `203.0.113.0/24` or `2001:db8:1::/48`, without a port. \
              The relay's own addresses stay, and so do user names. `session` tells which lines belong together, and \
              `hairpin ctl show SESSION` the whole address while the allocation lives.",
        reload: Reload::Live,
        coturn: &[],
    },
];

/// The sections that may be repeated. In the reference they follow the settings of the section that they belong to.
pub static REPEATED: &[RepeatedSection<Settings>] = &[
    RepeatedSection {
        key: "listener",
        entry: &Draft { settings: LISTENER, required: &["address"], add: listener_section::add },
        doc: "A listener with settings of its own. A file with this section opens the listeners that it lists, here and in \
              `[listen]`, and none by default: `listen.udp`, `listen.tcp` and `listen.tls` are empty unless they are written. \
              `[listen]` is the short form for listeners without settings of their own.",
        coturn: &[],
    },
    RepeatedSection {
        key: "sibling",
        entry: &Draft { settings: SIBLING, required: &[], add: sibling::add },
        doc: "Another relay that accepts the same credentials, with the same realm. While this relay drains, a client that asks for \
              an allocation is sent to one of them (300, ALTERNATE-SERVER): one with an address of the client's family and a port \
              for its transport. Without such a sibling it is refused with 508. Several siblings share the clients evenly. A \
              relay ignores the entry that names itself, so all relays may have the same list.",
        coturn: &["alternate-server", "tls-alternate-server"],
    },
    RepeatedSection {
        key: "tls.certificate",
        entry: &Draft { settings: CERTIFICATE, required: &["cert", "key"], add: certificate_section::add },
        doc: "One more certificate. Write the section once per certificate. A client gets the certificate for the name that it asks \
              for (SNI), otherwise the default one: that of `tls.cert`, or the first section if that is not set. For one name there \
              may be certificates with ECDSA and RSA keys; a client gets one that it can verify, preferably ECDSA. Of two with the \
              same kind of key for one name, the one that expires later is used.",
        coturn: &[],
    },
    RepeatedSection {
        key: "auth.user",
        entry: &Draft { settings: USER, required: &["name"], add: user::add },
        doc: "A user with a password. Write the section once per user.",
        coturn: &["user"],
    },
];

/// The settings of a `[[listener]]` section.
static LISTENER: &[Setting<ListenerDraft>] = &[
    Setting {
        key: "address",
        kind: &ListenAddress(|l: &mut ListenerDraft| &mut l.address),
        default: "",
        example: r#""192.0.2.7:3480""#,
        doc: "The address and the port, as in `listen.udp`. Required. Without a port, it is 3478 for UDP and TCP and 5349 for TLS.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "transports",
        kind: &ListenTransports(|l: &mut ListenerDraft| &mut l.transports),
        default: r#"["udp", "tcp"]"#,
        example: "",
        doc: "The transports that clients are offered. All of them can share an address and port: TCP and TLS are then one socket. TLS \
              requires a certificate: `tls.cert` and `tls.key`, or `[[tls.certificate]]` sections.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "public",
        kind: &PublicHost(|l: &mut ListenerDraft| &mut l.public),
        default: "",
        example: r#""turn.example.org:443""#,
        doc: "What clients connect to if that is not the listener itself: the host name or address, and the port if it is another one, \
              of a balancer in front, or of a router that maps ports. The URLs of this listener have it, before `--domain` and before the \
              addresses of `[relay]`: those of `hairpin credentials`, of `hairpin ctl status` and of the sidecar for LiveKit. Without it, a \
              listener at a loopback address has no URL, unless all of them are at one.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.mode",
        kind: &Choice {
            words: &[("add", PeersMode::Add), ("alone", PeersMode::Alone)],
            at: |l: &mut ListenerDraft| &mut l.mode,
        },
        default: r#""add""#,
        example: "",
        doc: "What the peers of this listener are to `[peers]`. `add`: its clients are served by the entries of both. `alone`: only \
              those of this listener count, and its clients reach nothing that neither its `peers.allow` nor an overlay \
              (`hairpin ctl peers`) names, public addresses included. That is for an SFU at a private address that nothing else may \
              be reached from. In both modes clients of this relay reach each other at its relayed addresses, unless `deny` names \
              them, and never the relay's own listeners.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.allow",
        kind: &PeerLists(|l: &mut ListenerDraft| &mut l.allow),
        default: "[]",
        example: r#"["100.64.0.5:7882"]"#,
        doc: "Peers that clients of this listener may reach, written as in `[peers]`. `[listener.peers]` with `mode`, `allow` and \
              `deny` below the section means the same.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.deny",
        kind: &PeerLists(|l: &mut ListenerDraft| &mut l.deny),
        default: "[]",
        example: r#"["198.51.100.128/25"]"#,
        doc: "Peers that clients of this listener may not reach, written as in `[peers]`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "protocols",
        kind: &SpokenProtocols(|l: &mut ListenerDraft| &mut l.protocols),
        default: r#"["turn", "tls"]"#,
        example: "",
        doc: "What its TCP connections may speak, whichever of `tcp` and `tls` is among the transports: the first bytes of each tell. \
              `turn` is TURN without TLS, `tls` is TLS with TURN inside and with `routes`. Without a certificate and without a route \
              that passes TLS on, `tls` is left out of the default. A connection that speaks anything else is closed without an \
              answer, and counted.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "routes",
        kind: &RouteTable { at: |l: &mut ListenerDraft| &mut l.routes, beside: listener_keys },
        default: "",
        example: r#"{ "www.example.org" = "127.0.0.1:8443" }"#,
        doc: "Where TLS clients go, by the name that they ask for (SNI), so that TURN shares the port with web servers. \
              `[listener.routes]` below the section means the same, with a line per name; other settings of the section stand above \
              `[listener.routes]`:\n\n\
              `\"www.example.org\" = \"127.0.0.1:8443\"`, short for `{ pass = \"127.0.0.1:8443\" }`, passes connections to a backend \
              unopened: it has the certificate, and this relay sees nothing but the name. It does so even if this relay has a \
              certificate for that name.\n\n\
              `\"livekit.example.org\" = { http = \"127.0.0.1:7880\", h2c = \"127.0.0.1:7881\" }` ends TLS here, with a certificate \
              of `[tls]` that names it, and the first bytes decide: TURN is served, HTTP/1.1 goes to `http` as bytes, and HTTP/2 to \
              `h2c`; `h2` is offered only if there is `h2c`. Either may be left out. Nothing in HTTP is read or changed.\n\n\
              A backend is `host:port`; a name is resolved for each connection. With `send_proxy = true` in the table, connections to \
              it begin with a PROXY protocol header, version 2, that has the client's address. A backend cannot be a listener of this \
              relay, nor one of `[http]` or `[admin]`: not by an address, nor by a name that `/etc/hosts`, the route itself or a \
              certificate has. `*.example.org` stands for every name with one more label; the exact name comes \
              first. Of Encrypted ClientHello the outer name counts. Up to 1024 names. A changed route holds for new connections.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "default_backend",
        kind: &BackendServer(|l: &mut ListenerDraft| &mut l.default_backend),
        default: "",
        example: r#""127.0.0.1:8443""#,
        doc: "Where TLS clients go that ask for a name without a route and without a certificate, unopened, as with `pass`: \
              `\"127.0.0.1:8443\"`, or `{ pass = \"127.0.0.1:8443\", send_proxy = true }`. It comes before `tls.unknown_name`, which \
              decides if this is not set. A client that asks for no name always gets the default certificate, and TURN.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http",
        kind: &BackendServer(|l: &mut ListenerDraft| &mut l.http),
        default: "",
        example: r#""127.0.0.1:8080""#,
        doc: "Where HTTP without TLS goes, as bytes, such as a server that redirects to `https:` or answers ACME challenges; written as \
              `default_backend`. HTTP/1.1 alone: a client that speaks HTTP/2 without TLS is closed. Without this setting both are.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "proxy_from",
        kind: &ProxySources(|l: &mut ListenerDraft| &mut l.proxy_from),
        default: "[]",
        example: r#"["10.0.0.0/24"]"#,
        doc: "The addresses of balancers and proxies whose PROXY protocol header is believed, version 1 or 2, at the beginning of a TCP \
              connection and before TLS. The client's address that it has is then the one for permissions, limits, logs and \
              XOR-MAPPED-ADDRESS. Whoever can connect from such an address can claim any other, so list only your own machines. A \
              header from elsewhere is not believed: the connection is closed, and counted.",
        reload: Reload::Live,
        coturn: &["tcp-proxy-port"],
    },
    Setting {
        key: "proxy",
        kind: &ProxyHeaderMode(|l: &mut ListenerDraft| &mut l.proxy),
        default: r#""required""#,
        example: "",
        doc: "Whether every connection from `proxy_from` begins with a header. `optional` also serves those without one, as clients of \
              that address itself. Connections from other addresses never have one.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "mss",
        kind: &SegmentSize {
            at: |l: &mut ListenerDraft| &mut l.mss.value,
            place: |l: &mut ListenerDraft| Some(&mut l.mss.at),
        },
        default: "1360",
        example: "",
        doc: "The largest segment of its TCP connections in bytes, as in `listen.mss`.",
        reload: Reload::Live,
        coturn: &[],
    },
];

fn listener_keys() -> Vec<&'static str> {
    LISTENER.iter().map(|setting| setting.key).collect()
}

/// The settings of a `[[sibling]]` section.
static SIBLING: &[Setting<SiblingSettings>] = &[
    Setting {
        key: "v4",
        kind: &FamilyAddress { family: Family::V4, at: |s: &mut SiblingSettings| &mut s.v4 },
        default: "",
        example: r#""203.0.113.8""#,
        doc: "The IPv4 address that its clients connect to. A sibling needs this, `v6` or both.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "v6",
        kind: &FamilyAddress { family: Family::V6, at: |s: &mut SiblingSettings| &mut s.v6 },
        default: "",
        example: r#""2001:db8::8""#,
        doc: "The IPv6 address that its clients connect to.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "udp",
        kind: &Number { range: 1..=65535, at: |s: &mut SiblingSettings| &mut s.udp },
        default: "",
        example: "3478",
        doc: "Its port for UDP clients. UDP clients are sent to siblings that have one. A sibling needs this, `tcp` or `tls`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "tcp",
        kind: &Number { range: 1..=65535, at: |s: &mut SiblingSettings| &mut s.tcp },
        default: "",
        example: "3478",
        doc: "Its port for TCP clients.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "tls",
        kind: &Number { range: 1..=65535, at: |s: &mut SiblingSettings| &mut s.tls },
        default: "",
        example: "5349",
        doc: "Its port for TLS clients. They are sent there only with `certificate_names_address`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "domain",
        kind: &DomainName(|s: &mut SiblingSettings| &mut s.domain),
        default: "",
        example: r#""turn-2.example.org""#,
        doc: "The host name in its certificate. TLS clients are told it (ALTERNATE-DOMAIN), and check the certificate by it if \
              they follow RFC 8489. International names are written in A-labels (`xn--...`).",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "certificate_names_address",
        kind: &Switch(|s: &mut SiblingSettings| &mut s.certificate_names_address),
        default: "false",
        example: "true",
        doc: "Whether its certificate also names its addresses (subjectAltName of type iPAddress). Browsers forget the host name when \
              they follow a 300, so that they refuse a certificate without the address; TLS clients of such a sibling are \
              refused with 508, and try the next URL that they have.",
        reload: Reload::Live,
        coturn: &[],
    },
];

/// The settings of a `[[tls.certificate]]` section.
static CERTIFICATE: &[Setting<CertificateDraft>] = &[
    Setting {
        key: "cert",
        kind: &PemFile { label: "tls.certificate.cert", at: |c: &mut CertificateDraft| &mut c.cert },
        default: "",
        example: r#""/etc/hairpin/rsa.pem""#,
        doc: "A PEM file with the certificate, as in `tls.cert`. Required.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "key",
        kind: &PemFile { label: "tls.certificate.key", at: |c: &mut CertificateDraft| &mut c.key },
        default: "",
        example: r#""/etc/hairpin/rsa-key.pem""#,
        doc: "A PEM file with its private key, as in `tls.key`. Required.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "names",
        kind: &CertificateNames(|c: &mut CertificateDraft| &mut c.names),
        default: "[]",
        example: r#"["turn.example.org"]"#,
        doc: "The host names that clients ask for, in any case, with or without a trailing dot; names like `b\u{fc}cher.example` may be \
              written as they are read. `*.example.org` stands for every name with one more label. If empty, those of the \
              certificate (subjectAltName).",
        reload: Reload::Live,
        coturn: &[],
    },
];

/// A `[[user]]` of a file of users.
static LISTED_USER: Draft<Vec<StaticUser>, UserDraft> =
    Draft { settings: USER, required: &["name"], add: user::add_listed };

/// The settings of an `[[auth.user]]` section.
pub static USER: &[Setting<UserDraft>] = &[
    Setting {
        key: "name",
        kind: &Placed {
            kind: &Text { range: 1..=508, at: |u: &mut UserDraft| &mut u.name.text },
            place: |u: &mut UserDraft| &mut u.name.at,
        },
        default: "",
        example: r#""alice""#,
        doc: "The user name. Required.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "password",
        kind: &PasswordText(|u: &mut UserDraft| &mut u.passwords),
        default: "",
        example: r#""a password""#,
        doc: "The password. One of `password`, `password_file` and `key` is required.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "password_file",
        kind: &PasswordFile(|u: &mut UserDraft| &mut u.passwords),
        default: "",
        example: r#""/etc/hairpin/alice""#,
        doc: "A file with the password on one line; blank lines and lines that begin with # are skipped. A relative path starts at \
              the folder of this file.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "key",
        kind: &Md5Key(|u: &mut UserDraft| &mut u.passwords),
        default: "",
        example: r#""00112233445566778899aabbccddeeff""#,
        doc: "MD5(user:realm:password) in hex, as in coturn's databases, so that the file does not contain the password. SHA-256 is \
              not offered to any client while such a user exists.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
    Setting {
        key: "allocations",
        kind: &Number { range: 0..=1_000_000, at: |u: &mut UserDraft| &mut u.allocations },
        default: "0",
        example: "10000",
        doc: "Allocations of all clients with this name together; requests for more are refused with 486. `0`, the default, means no \
              limit, because many applications give one name to all their users; a sensible limit is 10000, ten for each of 1000 \
              clients.",
        reload: Reload::NewAllocations,
        coturn: &[],
    },
];

impl Default for Settings {
    /// What runs without a configuration file: the defaults of the table, read like the values of a file.
    fn default() -> Self {
        let mut settings = Settings::blank();
        TABLES.defaults(&mut settings);
        settings
    }
}

impl Settings {
    /// Every number of `[limits]`, by its key there.
    pub fn limits_by_name(&self) -> Vec<(&'static str, u64)> {
        let mut copy = self.clone();
        let limit = |setting: &Setting<Settings>| {
            Some((setting.key.strip_prefix("limits.")?, setting.kind.number(&mut copy)?))
        };
        SETTINGS.iter().filter_map(limit).collect()
    }
}
