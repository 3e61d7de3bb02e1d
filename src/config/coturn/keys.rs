//! Every key of `turnserver.conf` that coturn 4.6 or 4.17 knows, and what becomes of it. Which of our settings a key corresponds
//! to is in the table of settings (`config/table.rs`, `coturn`).

use crate::config::table::TABLES;

/// A key of `turnserver.conf`.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub form: Form,
    pub fate: Fate,
    /// For the page, and for the comment unless the key is translated. It completes a sentence that begins with the key.
    pub says: &'static str,
}

/// What values a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A boolean. One that is false changes nothing.
    Flag,
    /// On, whatever its value is: `=false` enables it, too.
    Fixed,
    /// A number or text.
    Value,
    /// A value that is never shown.
    Hidden,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It becomes settings.
    Translated,
    /// A comment in this section: something is lost.
    Lost(&'static str),
    /// A comment in this section: it is dangerous.
    Danger(&'static str),
    /// A comment in this section: nothing is lost.
    Note(&'static str),
    /// Nothing: it does nothing in today's coturn, or is what hairpin does anyway.
    Silent,
}

use Fate::{Danger, Lost, Note, Silent, Translated};
use Form::{Fixed, Flag, Hidden, Value};

const fn key(name: &'static str, form: Form, fate: Fate, says: &'static str) -> Key {
    Key { name, form, fate, says }
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The settings that a key corresponds to, by the table of settings.
pub fn counterparts(name: &str) -> Vec<&'static str> {
    let settings = TABLES.settings.iter().map(|setting| (setting.key, setting.coturn));
    let repeated = TABLES.repeated.iter().map(|section| (section.key, section.coturn));
    settings.chain(repeated).filter(|(_, names)| names.contains(&name)).map(|(key, _)| key).collect()
}

/// Those of them that are inside of sections that can be repeated.
#[cfg(test)]
pub fn counterparts_inside(name: &str) -> Vec<String> {
    let inside = TABLES.repeated.iter().flat_map(|section| {
        section.entry.rows().into_iter().map(|row| (format!("{}.{}", section.key, row.key), row.coturn))
    });
    inside.filter(|(_, names)| names.contains(&name)).map(|(key, _)| key).collect()
}

/// Every key, by subject.
pub static KEYS: &[Key] = &[
    // Where clients connect to
    key("listening-port", Value, Translated, "is the port of `listen.udp` and `listen.tcp`."),
    key(
        "tls-listening-port",
        Value,
        Translated,
        "is the port of `listen.tls`. TLS is on if there are a certificate and a key.",
    ),
    key(
        "alt-listening-port",
        Value,
        Lost("listen"),
        "is the second port of RFC 5780, which is not supported. If clients use it as a server of its own, add it to `udp` and `tcp`",
    ),
    key(
        "alt-tls-listening-port",
        Value,
        Lost("listen"),
        "is the second port of RFC 5780, which is not supported. If clients use it as a server of its own, add it to `tls`",
    ),
    key(
        "listening-ip",
        Value,
        Translated,
        "is the address of the listeners and, without `relay-ip`, of `relay.addresses`. If it is the public address of an \
         `external-ip` with two parts, the private one is used, because the machine does not have the public one.",
    ),
    key(
        "listening-device",
        Value,
        Lost("listen"),
        "has no counterpart: list the addresses of the interface in `udp`, `tcp` and `tls`",
    ),
    key(
        "tcp-proxy-port",
        Value,
        Lost("listen"),
        "is a [[listener]] here, for example with address = \"0.0.0.0:5555\" for tcp-proxy-port=5555, transports = [\"tcp\"], public = \
         \"HOST:PORT\" with what clients connect to, and proxy_from with the addresses of the balancers, which only the operator knows: coturn believes a PROXY protocol header from everybody, \
         hairpin only from those",
    ),
    key(
        "aux-server",
        Value,
        Translated,
        "is one more address of `listen.udp`, `listen.tcp` and, if there is a certificate, of `listen.tls`.",
    ),
    key("no-udp", Flag, Translated, "empties `listen.udp`."),
    key("no-tcp", Flag, Translated, "empties `listen.tcp`."),
    key("no-tls", Flag, Translated, "empties `listen.tls`."),
    key(
        "dtls",
        Flag,
        Lost("listen"),
        "has no counterpart: DTLS is not supported. Browsers do not use it; give clients that do a turns: URL with transport=tcp",
    ),
    key("no-dtls", Flag, Silent, "is what hairpin does: it has no DTLS."),
    key(
        "sock-buf-size",
        Value,
        Note("listen"),
        "is not needed: socket buffers have a size that suits bursts, and metrics count what they lose (docs/metrics.md)",
    ),
    key(
        "rfc5766-channel-numbers",
        Flag,
        Translated,
        "is `listen.rfc5766_channels`. Without this line it is on, too, as in coturn before 4.16.",
    ),
    key("udp-self-balance", Flag, Note("listen"), "is not needed: all workers share one port"),
    key("udp-recvmmsg", Flag, Silent, "is what hairpin does."),
    key("udp-recvmmsg-log", Flag, Silent, "has no counterpart, and needs none."),
    key("udp-sendmmsg-log", Flag, Silent, "has no counterpart, and needs none."),
    key("udp-gso", Flag, Silent, "is what hairpin does (`listen.gso`)."),
    key(
        "drop-invalid-packets",
        Flag,
        Silent,
        "is what hairpin does: what is no STUN or TURN message is dropped and counted.",
    ),
    key(
        "drop-invalid-packets-log",
        Flag,
        Silent,
        "has no counterpart: dropped packets are counted, not logged.",
    ),
    key(
        "respond-http-unsupported",
        Flag,
        Lost("listen"),
        "has no counterpart: a browser that opens the TURN port gets no page. Health checks have http.listen",
    ),
    key(
        "acme-redirect",
        Value,
        Lost("listen"),
        "has no counterpart: let the ACME client answer on port 80 itself, or use the DNS challenge (docs/certificates.md)",
    ),
    // Where peers are reached from
    key("relay-ip", Value, Translated, "is `relay.addresses`."),
    key(
        "relay-device",
        Value,
        Lost("relay"),
        "has no counterpart: list the addresses of the interface in `addresses`",
    ),
    key(
        "external-ip",
        Value,
        Translated,
        "is `relay.external_ip`: an address for every relayed address of its family, or `public/private` for one of them. coturn \
         lets clients reach the private address; hairpin does not.",
    ),
    key("min-port", Value, Translated, "is the first port of `relay.ports`, 1024 at least."),
    key("max-port", Value, Translated, "is the last port of `relay.ports`."),
    key("relay-threads", Value, Translated, "is `workers`; 0, one thread, is 1."),
    key("cpus", Value, Translated, "is `workers` if there is no `relay-threads`."),
    key(
        "no-udp-relay",
        Flag,
        Danger("relay"),
        "has no counterpart: hairpin relays UDP, which this line turns off, and does not relay TCP (RFC 6062)",
    ),
    key("no-tcp-relay", Flag, Silent, "is what hairpin does: it does not relay TCP (RFC 6062)."),
    key(
        "keep-address-family",
        Flag,
        Lost("relay"),
        "has no counterpart: a client that asks for no address family gets an IPv4 relayed address (RFC 8656 section 7.2), also if it \
         came by IPv6",
    ),
    key(
        "allocation-default-address-family",
        Value,
        Lost("relay"),
        "has no counterpart: a client that asks for no address family gets an IPv4 relayed address (RFC 8656 section 7.2)",
    ),
    key(
        "server-relay",
        Flag,
        Danger("relay"),
        "has no counterpart: hairpin relays only what clients have permitted, because anybody could send to a client otherwise",
    ),
    key(
        "multiplex-peer",
        Fixed,
        Note("relay"),
        "is not needed: hairpin sends and receives in batches on every relayed port",
    ),
    key("multiplex-peer-port", Value, Note("relay"), "is not needed: each allocation has a port of its own"),
    key(
        "multiplex-peer-max-peers",
        Value,
        Note("relay"),
        "is not needed; limits.permissions is a similar bound",
    ),
    // Who may use it
    key(
        "lt-cred-mech",
        Flag,
        Translated,
        "turns users on (`[[auth.user]]`). hairpin requires credentials in any case.",
    ),
    key(
        "no-auth",
        Flag,
        Translated,
        "makes coturn relay for everybody. It is refused, unless the word `--allow-anonymous` is given: then clients need credentials \
         nevertheless.",
    ),
    key(
        "user",
        Hidden,
        Translated,
        "is an `[[auth.user]]` with a password, or with a key if it is `name:0x...`. coturn ignores users where there is a shared \
         secret, and so does the import.",
    ),
    key("realm", Value, Translated, "is `auth.realm`. `--realm` precedes it."),
    key(
        "server-name",
        Value,
        Note("auth"),
        "is only used with `oauth`, which is not supported. The realm is what clients are told",
    ),
    key("use-auth-secret", Fixed, Translated, "turns shared secrets on (`auth.secrets`), and users off."),
    key(
        "static-auth-secret",
        Hidden,
        Translated,
        "is one of `auth.secrets`. One with less than 16 characters is left out, because whoever has one credential can try guesses; if there is no \
         other, one is generated for the application.",
    ),
    key(
        "rest-api-separator",
        Value,
        Translated,
        "must be `:`. Names of clients with another separator are refused: change it in the application.",
    ),
    key(
        "oauth",
        Flag,
        Lost("auth"),
        "has no counterpart: third-party authorization (RFC 7635) is not supported. Use shared secrets",
    ),
    key(
        "secure-stun",
        Flag,
        Lost("auth"),
        "has no counterpart: Binding requests are answered without credentials, as browsers expect",
    ),
    key(
        "check-origin-consistency",
        Flag,
        Lost("auth"),
        "has no counterpart: the ORIGIN attribute is an expired draft, and a client can write anything into it",
    ),
    key(
        "stale-nonce",
        Value,
        Translated,
        "is `auth.nonce_lifetime`. With 0 nonces never expire in coturn; here they do.",
    ),
    key("stateless-nonce", Flag, Silent, "is what hairpin does."),
    key(
        "stateless-nonce-secret",
        Hidden,
        Note("auth"),
        "is not needed by one relay: the key of its nonces is random. A client that comes to another relay is told a new nonce and goes on",
    ),
    key("no-auth-pings", Fixed, Silent, "is about databases, which hairpin does not use."),
    key(
        "no-dynamic-ip-list",
        Fixed,
        Translated,
        "keeps the lists of peers in the database out of use, as in coturn.",
    ),
    key(
        "no-dynamic-realms",
        Fixed,
        Translated,
        "keeps the options of realms in the database out of use, as in coturn.",
    ),
    // Databases
    key(
        "userdb",
        Value,
        Translated,
        "is read once: users, shared secrets, peers and options of the realm become settings. hairpin uses no database: after a \
         change, edit the files and reload.",
    ),
    key("db", Value, Translated, "is `userdb`."),
    key("psql-userdb", Hidden, Lost("auth"), OTHER_DATABASE),
    key("sql-userdb", Hidden, Lost("auth"), OTHER_DATABASE),
    key("mysql-userdb", Hidden, Lost("auth"), OTHER_DATABASE),
    key("mongo-userdb", Hidden, Lost("auth"), OTHER_DATABASE),
    key("redis-userdb", Hidden, Lost("auth"), OTHER_DATABASE),
    key(
        "secret-key-file",
        Value,
        Lost("auth"),
        "decrypts the password of a MySQL database, which is not read",
    ),
    key(
        "redis-statsdb",
        Hidden,
        Lost("http"),
        "has no counterpart: read /metrics and `hairpin ctl list`, or the API (docs/api.md)",
    ),
    // How much
    key(
        "user-quota",
        Value,
        Translated,
        "is `limits.user_allocations` and `allocations` of each `[[auth.user]]`. Without this line hairpin's default holds, 1000.",
    ),
    key("total-quota", Value, Translated, "is `limits.allocations`."),
    key(
        "max-bps",
        Value,
        Translated,
        "is `limits.bandwidth`, which counts alike: bytes per second, allocation and direction.",
    ),
    key(
        "bps-capacity",
        Value,
        Lost("limits"),
        "has no counterpart: nothing bounds the bandwidth of all allocations together. Bound that of each (`bandwidth`) and their number \
         (`allocations`), and watch the totals (docs/metrics.md)",
    ),
    key("max-allocate-lifetime", Value, Translated, "is `limits.max_allocation_lifetime`."),
    key("channel-lifetime", Value, Translated, "is `limits.channel_lifetime`."),
    key("permission-lifetime", Value, Translated, "is `limits.permission_lifetime`."),
    key(
        "max-allocate-timeout",
        Value,
        Note("limits"),
        "has several counterparts, whose defaults are stricter: first_message_timeout, unfinished_message_timeout and idle_timeout",
    ),
    key(
        "drain-min-allocations",
        Value,
        Lost("limits"),
        "has no counterpart: a drain ends with the last allocation, or after drain_deadline",
    ),
    key(
        "unauthorized-ratelimit",
        Flag,
        Note("limits"),
        "is on in any case: unauthenticated_burst and unauthenticated_rate, per IPv4 address or IPv6 /64",
    ),
    key(
        "unauthorized-ratelimit-rps",
        Value,
        Translated,
        "is `limits.unauthenticated_rate` if `unauthorized-ratelimit` is on. The burst is hairpin's default.",
    ),
    // Peers
    key(
        "denied-peer-ip",
        Value,
        Translated,
        "is `peers.deny`, in CIDR notation, except for what is refused by default and what `allowed-peer-ip` allows.",
    ),
    key(
        "allowed-peer-ip",
        Value,
        Translated,
        "is `peers.allow`, in CIDR notation. The address of the relay itself is left out: its clients reach each other anyway, and \
         allowing it would open every service of the machine.",
    ),
    key("no-multicast-peers", Flag, Silent, "is what hairpin does."),
    key(
        "allow-loopback-peers",
        Flag,
        Danger("peers"),
        "lets every client reach every service of this machine, and is left out. If one server here is meant, write its address and port, \
         like allow = [\"127.0.0.1:7882\"]",
    ),
    // TLS
    key(
        "cert",
        Value,
        Translated,
        "is `tls.cert`, if it can be used with the key; otherwise a comment says why not.",
    ),
    key("pkey", Value, Translated, "is `tls.key`, if it can be used with the certificate."),
    key(
        "pkey-pwd",
        Hidden,
        Lost("tls"),
        "has no counterpart: write the key without a passphrase, with `openssl pkey -in KEY -out NEW-KEY`, into a file that only the user \
         of the relay may read",
    ),
    key(
        "cipher-list",
        Value,
        Lost("tls"),
        "has no counterpart: the cipher suites are those of TLS 1.2 and 1.3 with forward secrecy",
    ),
    key(
        "CA-file",
        Value,
        Lost("tls"),
        "has no counterpart: clients are not asked for certificates. Their credentials identify them",
    ),
    key("dh-file", Value, Note("tls"), "is not needed: key exchange is by elliptic curves"),
    key("dh566", Flag, Note("tls"), "is not needed: key exchange is by elliptic curves"),
    key("dh1066", Flag, Note("tls"), "is not needed: key exchange is by elliptic curves"),
    key(
        "ec-curve-name",
        Value,
        Note("tls"),
        "is not needed: client and relay agree on one of the curves that both know",
    ),
    key(
        "tlsv1",
        Flag,
        Lost("tls"),
        "has no counterpart: TLS 1.0 is insecure, and clients need 1.2 (RFC 8996)",
    ),
    key(
        "tlsv1_1",
        Flag,
        Lost("tls"),
        "has no counterpart: TLS 1.1 is insecure, and clients need 1.2 (RFC 8996)",
    ),
    key("no-tlsv1_2", Flag, Lost("tls"), "has no counterpart: TLS 1.2 stays on beside 1.3"),
    key(
        "raw-public-keys",
        Flag,
        Lost("tls"),
        "has no counterpart: raw public keys (RFC 7250) are not supported",
    ),
    // The protocol
    key(
        "fingerprint",
        Flag,
        Silent,
        "is not needed: FINGERPRINT is optional, and clients do not depend on it.",
    ),
    key(
        "mobility",
        Flag,
        Lost(""),
        "has no counterpart: mobility (RFC 8016) is not supported. A client that changes its network makes a new allocation",
    ),
    key(
        "stun-only",
        Flag,
        Danger(""),
        "has no counterpart: hairpin answers Binding requests, and relays for whoever has credentials",
    ),
    key(
        "no-stun",
        Flag,
        Lost(""),
        "has no counterpart: Binding requests are answered. limits.binding_rate bounds them",
    ),
    key(
        "rfc5780",
        Fixed,
        Lost("listen"),
        "has no counterpart: NAT behaviour discovery (RFC 5780) is not supported, and browsers do not use it",
    ),
    key("no-rfc5780", Flag, Silent, "is what hairpin does."),
    key("response-origin-only-with-rfc5780", Flag, Silent, "is what hairpin does."),
    key(
        "stun-backward-compatibility",
        Flag,
        Silent,
        "is what hairpin does: Binding requests of RFC 3489 clients are answered.",
    ),
    key(
        "no-stun-backward-compatibility",
        Flag,
        Silent,
        "is only about old clients, whose Binding requests are answered.",
    ),
    key(
        "rfc3489-compatibility",
        Flag,
        Lost(""),
        "has one part of a counterpart: Binding requests of RFC 3489 clients are answered; CHANGE-REQUEST is not supported",
    ),
    key("software-attribute", Flag, Translated, "is `software`."),
    key("no-software-attribute", Flag, Silent, "is what hairpin does."),
    key(
        "include-reason-string",
        Flag,
        Silent,
        "is not needed: error responses have the phrase of the RFC, and the log has the reason.",
    ),
    // Several relays
    key("alternate-server", Value, Lost(""), ALTERNATE),
    key("tls-alternate-server", Value, Lost(""), ALTERNATE),
    key("tcp-alternate-server", Value, Lost(""), ALTERNATE),
    key("udp-alternate-server", Value, Lost(""), ALTERNATE),
    // Operation
    key(
        "verbose",
        Flag,
        Note("log"),
        "is what level \"info\" says: the beginning and end of each allocation, and why clients were refused",
    ),
    key("Verbose", Flag, Translated, "is `log.level = \"debug\"`."),
    key("log-min-level", Value, Translated, "is `log.level`."),
    key("log-file", Value, Lost("log"), LOG),
    key("syslog", Flag, Note("log"), LOG),
    key("syslog-facility", Value, Lost("log"), LOG),
    key("simple-log", Flag, Note("log"), LOG),
    key("no-stdout-log", Flag, Note("log"), LOG),
    key("new-log-timestamp", Flag, Silent, "is not needed: every line has its time in UTC."),
    key(
        "new-log-timestamp-format",
        Value,
        Note("log"),
        "has no counterpart: times are those of RFC 3339, in UTC",
    ),
    key(
        "log-binding",
        Flag,
        Lost("log"),
        "has no counterpart: Binding requests are counted (docs/metrics.md), not logged",
    ),
    key(
        "pidfile",
        Value,
        Note(""),
        "has no counterpart: systemd knows the process, and `hairpin ctl status` asks it",
    ),
    key("daemon", Flag, Note(""), "has no counterpart: systemd runs hairpin in the background"),
    key(
        "proc-user",
        Value,
        Note(""),
        "is left out: hairpin's systemd unit has a user of its own, who must be able to read the certificate and its key, and does not start \
         with another one here. If hairpin is started as root in another way, the setting `user` names whom it becomes",
    ),
    key(
        "proc-group",
        Value,
        Note(""),
        "has no counterpart: the group is that of the user that hairpin runs as. That user must be able to read the certificate and its key",
    ),
    // The command line and web interfaces
    key(
        "cli",
        Flag,
        Note("admin"),
        "has a better counterpart: `hairpin ctl`, over a socket whose file mode says who may",
    ),
    key("no-cli", Flag, Silent, "is what hairpin does: there is no telnet interface."),
    key("cli-ip", Value, Note("admin"), CLI),
    key("cli-port", Value, Note("admin"), CLI),
    key(
        "cli-password",
        Hidden,
        Danger("admin"),
        "is not taken over: it crosses the network in plain text there. `hairpin ctl` needs none on this machine, and tokens over TLS \
         elsewhere (admin.tokens_file)",
    ),
    key(
        "cli-max-output-sessions",
        Value,
        Note("admin"),
        "is not needed: `hairpin ctl list` shows page by page",
    ),
    key("web-admin", Flag, Lost("admin"), WEB),
    key("web-admin-ip", Value, Lost("admin"), WEB),
    key("web-admin-port", Value, Lost("admin"), WEB),
    key("web-admin-listen-on-workers", Flag, Lost("admin"), WEB),
    // Prometheus
    key(
        "prometheus",
        Fixed,
        Translated,
        "is `http.listen`, at the same port. Names and labels of metrics differ: see below.",
    ),
    key("prometheus-port", Value, Translated, "is the port of `http.listen`."),
    key(
        "prometheus-address",
        Value,
        Translated,
        "is the address of `http.listen`; without it, all IPv4 addresses, as there.",
    ),
    key("prometheus-path", Value, Translated, "must be `/metrics`."),
    key(
        "prometheus-username-labels",
        Fixed,
        Lost("http"),
        "has no counterpart: a label whose values clients choose makes the number of series unbounded. `hairpin ctl list --user NAME` \
         shows what a user does",
    ),
    key("prometheus-tls", Flag, Translated, "is `http.tls`, with the certificate of `[tls]`."),
    key(
        "prometheus-cert",
        Value,
        Lost("http"),
        "has no counterpart: there is one certificate, that of [tls]",
    ),
    key("prometheus-key", Value, Lost("http"), "has no counterpart: there is one certificate, that of [tls]"),
    // What does nothing any more
    key("no-tlsv1", Flag, Silent, OBSOLETE),
    key("no-tlsv1_1", Flag, Silent, OBSOLETE),
    key("no-sslv2", Flag, Silent, OBSOLETE),
    key("no-sslv3", Flag, Silent, OBSOLETE),
    key("prod", Flag, Silent, OBSOLETE),
    key("secret-ts-exp-time", Value, Silent, OBSOLETE),
    key("ne", Value, Silent, OBSOLETE),
    key("no-loopback-peers", Flag, Silent, "is what hairpin does."),
    key("version", Flag, Silent, OBSOLETE),
];

const OTHER_DATABASE: &str = "has no counterpart: hairpin uses no database, and only SQLite files are imported. Use a shared secret, or write \
                              the users to a file with a line `name:0xkey` for each";

const ALTERNATE: &str = "has no counterpart that does the same: hairpin sends clients to other relays while it drains ([[sibling]]), not all the \
                         time. Let the application hand out the relays that it should use";

const LOG: &str =
    "has no counterpart: the log goes to standard error, where journald keeps it (`journalctl -u hairpin`)";

const CLI: &str = "has no counterpart: `hairpin ctl` uses a socket of this machine (admin.socket), and over TCP an address of its own \
                   (admin.listen) with TLS and tokens";

const WEB: &str = "has no counterpart: there is no web page. `hairpin ctl` and the API (docs/api.md) show and end allocations";

const OBSOLETE: &str = "does nothing in coturn 4.17, or is its default.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_once() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for Key { name, fate, says, .. } in KEYS {
            let is_comment = matches!(fate, Lost(_) | Danger(_) | Note(_));
            assert!(says.ends_with('.') != is_comment, "{name}: a comment goes on after what is said");
        }
    }

    /// The table of settings is the one place that says which settings and keys correspond.
    #[test]
    fn the_tables_agree() {
        let settings = TABLES.settings.iter().flat_map(|setting| setting.coturn);
        for name in settings.chain(TABLES.repeated.iter().flat_map(|section| section.coturn)) {
            assert!(find(name).is_some(), "{name} of the table of settings is not a key of coturn");
        }
    }
}
