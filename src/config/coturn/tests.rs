//! Configurations in, configurations out: every key, the traps, and that the result is one that hairpin loads.

use std::path::Path;

use super::document::Weight;
use super::keys::KEYS;
use super::{Database, DatabaseOf, DatabaseUser, Import, Input, import};
use crate::auth::Password;
use crate::config::{FileContents, Finding, ReadContext, Settings, load, tests::pem};

/// A secret, so that there are credentials.
const SECRET: &str = "use-auth-secret\nstatic-auth-secret=a secret of these tests\n";

/// The one for configurations without credentials.
const GENERATED: &str = "0123456789abcdef0123456789abcdef";

/// 2030-01-01
const NOW: u64 = 1_893_456_000;

fn input(text: &str) -> Input<'_> {
    Input {
        name: "turnserver.conf",
        text,
        folder: Path::new("/etc"),
        realm: None,
        database: None,
        missing_database: None,
        anonymous: false,
        generated: GENERATED,
        users_file: None,
        is_own: &|ip| ip == "192.0.2.1".parse::<std::net::IpAddr>().unwrap(),
    }
}

/// What becomes of a configuration: the text, and the settings that it is to hairpin.
fn imported(input: &Input<'_>) -> (String, Settings) {
    let mut import = import(input).unwrap_or_else(|refusal| panic!("{refusal}"));
    let text = accepted(&mut import);
    let settings = loaded(&import, &text).unwrap();
    (text, settings)
}

/// The text, with what hairpin refuses commented out.
fn accepted(import: &mut Import) -> String {
    loop {
        let text = import.text();
        match loaded(import, &text) {
            Ok(_) => return text,
            Err(mistakes) => assert!(import.refuse(&mistakes), "{mistakes:#?}\n{text}"),
        }
    }
}

fn loaded(import: &Import, text: &str) -> Result<Settings, Vec<Finding>> {
    let read = |path: &Path| match import.users.iter().find(|(name, _)| path.ends_with(name)) {
        Some((_, users)) => Ok(FileContents::from(users.as_str())),
        None => pem(path).map(|pem| pem.as_str().into()).ok_or_else(|| std::io::ErrorKind::NotFound.into()),
    };
    let context = ReadContext { read: &read, now: NOW, ..ReadContext::NONE };
    load("hairpin.toml", text, &context).map(|loaded| loaded.settings)
}

/// The text for a configuration with a secret.
fn text_of(conf: &str) -> String {
    imported(&input(&format!("{SECRET}{conf}"))).0
}

fn settings_of(conf: &str) -> Settings {
    imported(&input(&format!("{SECRET}{conf}"))).1
}

fn refused(conf: &str) -> String {
    import(&input(conf)).err().map(|refusal| refusal.to_string()).unwrap_or_default()
}

/// Whether comments, which are wrapped, contain this.
fn says(text: &str, what: &str) -> bool {
    text.replace("\n# ", " ").contains(what)
}

/// A key with a sample value, and what is expected of it.
enum Expected {
    /// This line, `[section] key = value`.
    Line(&'static str),
    /// A comment of this weight that contains this.
    Comment(Weight, &'static str),
    /// Nothing.
    Silence,
}

/// Every key of coturn 4.6 and 4.17, as its documentation has them, each with a value as configurations have it.
fn every_key() -> Vec<(&'static str, &'static str, Expected)> {
    use Expected::{Comment, Line, Silence};
    use Weight::{Danger, Lost, Note};
    vec![
        ("listening-port", "3479", Line("[listen] udp = [\"0.0.0.0:3479\", \"[::]:3479\"]")),
        ("tls-listening-port", "443", Comment(Lost, "TLS needs cert and pkey")),
        ("alt-listening-port", "3480", Comment(Lost, "RFC 5780")),
        ("alt-tls-listening-port", "5350", Comment(Lost, "RFC 5780")),
        ("listening-ip", "192.0.2.1", Line("[listen] udp = [\"192.0.2.1:3478\"]")),
        ("listening-device", "eth0", Comment(Lost, "list the addresses of the interface")),
        ("tcp-proxy-port", "5555", Comment(Lost, "PROXY protocol")),
        (
            "aux-server",
            "192.0.2.1:3480",
            Line("[listen] tcp = [\"0.0.0.0:3478\", \"[::]:3478\", \"192.0.2.1:3480\"]"),
        ),
        ("no-udp", "", Line("[listen] udp = []")),
        ("no-tcp", "", Line("[listen] tcp = []")),
        ("no-tls", "", Silence),
        ("dtls", "", Comment(Lost, "DTLS is not supported")),
        ("no-dtls", "", Silence),
        ("sock-buf-size", "1048576", Comment(Note, "is not needed")),
        ("relay-ip", "192.0.2.1", Line("[relay] addresses = [\"192.0.2.1\"]")),
        ("relay-device", "eth0", Comment(Lost, "list the addresses")),
        ("external-ip", "203.0.113.7", Line("[relay] external_ip = [\"203.0.113.7\"]")),
        ("min-port", "50000", Line("[relay] ports = \"50000-65535\"")),
        ("max-port", "60000", Line("[relay] ports = \"49152-60000\"")),
        ("relay-threads", "4", Line("workers = 4")),
        ("cpus", "2", Line("workers = 2")),
        ("no-udp-relay", "", Comment(Danger, "hairpin relays UDP")),
        ("no-tcp-relay", "", Silence),
        ("keep-address-family", "", Comment(Lost, "an IPv4 relayed address")),
        ("allocation-default-address-family", "keep", Comment(Lost, "an IPv4 relayed address")),
        ("server-relay", "", Comment(Danger, "only what clients have permitted")),
        ("lt-cred-mech", "", Silence),
        // no-auth has a test of its own: it is refused.
        ("user", "alice:password", Comment(Lost, "coturn ignores them where there is a shared secret")),
        ("realm", "example.org", Line("[auth] realm = \"example.org\"")),
        ("server-name", "turn.example.org", Comment(Note, "only used with `oauth`")),
        ("use-auth-secret", "", Line("[auth] user_before_expiry = true")),
        (
            "static-auth-secret",
            "another secret of these tests",
            Line("[auth] secrets = [\"a secret of these tests\", \"another secret of these tests\"]"),
        ),
        ("rest-api-separator", "|", Comment(Danger, "names with this separator are refused")),
        ("oauth", "", Comment(Lost, "RFC 7635")),
        ("secure-stun", "", Comment(Lost, "Binding requests are answered")),
        ("check-origin-consistency", "", Comment(Lost, "ORIGIN")),
        ("stale-nonce", "900", Line("[auth] nonce_lifetime = 900")),
        ("stateless-nonce", "", Silence),
        ("stateless-nonce-secret", "a secret that is not shown", Comment(Note, "stateless-nonce-secret=***")),
        ("no-auth-pings", "", Silence),
        ("no-dynamic-ip-list", "", Silence),
        ("no-dynamic-realms", "", Silence),
        ("userdb", "/var/lib/turn/turndb", Silence),
        ("db", "/var/lib/turn/turndb", Silence),
        ("psql-userdb", "host=db password=hidden", Comment(Lost, "psql-userdb=*** has no counterpart")),
        ("sql-userdb", "host=db password=hidden", Comment(Lost, "sql-userdb=*** has no counterpart")),
        ("mysql-userdb", "host=db password=hidden", Comment(Lost, "mysql-userdb=*** has no counterpart")),
        ("mongo-userdb", "mongodb://u:hidden@db", Comment(Lost, "mongo-userdb=*** has no counterpart")),
        ("redis-userdb", "ip=::1 password=hidden", Comment(Lost, "redis-userdb=*** has no counterpart")),
        ("secret-key-file", "/etc/key", Comment(Lost, "MySQL")),
        ("redis-statsdb", "ip=::1 password=hidden", Comment(Lost, "redis-statsdb=*** has no counterpart")),
        ("user-quota", "12", Line("[limits] user_allocations = 12")),
        ("total-quota", "1200", Line("[limits] allocations = 1200")),
        ("max-bps", "3000000", Line("[limits] bandwidth = 3000000")),
        ("bps-capacity", "5000000", Comment(Lost, "nothing bounds the bandwidth of all allocations")),
        ("max-allocate-lifetime", "1800", Line("[limits] max_allocation_lifetime = 1800")),
        ("channel-lifetime", "700", Line("[limits] channel_lifetime = 700")),
        ("permission-lifetime", "400", Line("[limits] permission_lifetime = 400")),
        ("max-allocate-timeout", "30", Comment(Note, "first_message_timeout")),
        ("drain-min-allocations", "3", Comment(Lost, "drain_deadline")),
        ("unauthorized-ratelimit", "", Comment(Note, "is on in any case")),
        (
            "unauthorized-ratelimit-rps",
            "20",
            Comment(Note, "no effect in coturn without unauthorized-ratelimit"),
        ),
        ("drop-invalid-packets", "", Silence),
        ("denied-peer-ip", "8.8.8.0-8.8.8.255", Line("[peers] deny = [\"8.8.8.0/24\"]")),
        ("allowed-peer-ip", "10.20.0.5", Line("[peers] allow = [\"10.20.0.5\"]")),
        ("no-multicast-peers", "", Silence),
        ("allow-loopback-peers", "", Comment(Danger, "every service of this machine")),
        ("cert", "/etc/fullchain.pem", Comment(Lost, "TLS needs both cert and pkey")),
        ("pkey", "/etc/privkey.pem", Comment(Lost, "TLS needs both cert and pkey")),
        ("pkey-pwd", "hidden", Comment(Lost, "openssl pkey")),
        ("cipher-list", "HIGH", Comment(Lost, "forward secrecy")),
        ("CA-file", "/etc/ca.pem", Comment(Lost, "not asked for certificates")),
        ("dh-file", "/etc/dh.pem", Comment(Note, "elliptic curves")),
        ("dh566", "", Comment(Note, "elliptic curves")),
        ("dh1066", "", Comment(Note, "elliptic curves")),
        ("ec-curve-name", "prime256v1", Comment(Note, "curves that both know")),
        ("tlsv1", "", Comment(Lost, "TLS 1.0 is insecure")),
        ("tlsv1_1", "", Comment(Lost, "TLS 1.1 is insecure")),
        ("no-tlsv1_2", "", Comment(Lost, "TLS 1.2 stays on")),
        ("raw-public-keys", "", Comment(Lost, "RFC 7250")),
        ("fingerprint", "", Silence),
        ("mobility", "", Comment(Lost, "RFC 8016")),
        ("stun-only", "", Comment(Danger, "relays for whoever has credentials")),
        ("no-stun", "", Comment(Lost, "Binding requests are answered")),
        ("rfc5780", "", Comment(Lost, "NAT behaviour discovery")),
        ("no-rfc5780", "", Silence),
        ("stun-backward-compatibility", "", Silence),
        ("rfc3489-compatibility", "", Comment(Lost, "CHANGE-REQUEST")),
        ("rfc5766-channel-numbers", "", Line("[listen] rfc5766_channels = true")),
        ("software-attribute", "", Line("software = \"hairpin\"")),
        ("no-software-attribute", "", Silence),
        ("include-reason-string", "", Silence),
        ("respond-http-unsupported", "", Comment(Lost, "gets no page")),
        ("acme-redirect", "http://example.org/", Comment(Lost, "DNS challenge")),
        ("alternate-server", "192.0.2.9:3478", Comment(Lost, "[[sibling]]")),
        ("tls-alternate-server", "192.0.2.9:5349", Comment(Lost, "[[sibling]]")),
        ("udp-self-balance", "", Comment(Note, "all workers share one port")),
        ("verbose", "", Comment(Note, "level \"info\"")),
        ("Verbose", "", Line("[log] level = \"debug\"")),
        ("log-file", "/var/log/turnserver.log", Comment(Lost, "standard error")),
        ("syslog", "", Comment(Note, "standard error")),
        ("simple-log", "", Comment(Note, "standard error")),
        ("no-stdout-log", "", Comment(Note, "standard error")),
        ("log-min-level", "warning", Line("[log] level = \"warn\"")),
        ("new-log-timestamp", "", Silence),
        ("log-binding", "", Comment(Lost, "counted")),
        ("pidfile", "/run/turnserver.pid", Comment(Note, "systemd knows the process")),
        (
            "proc-user",
            "turnserver",
            Comment(Note, "proc-user=turnserver is left out: hairpin's systemd unit has a user of its own"),
        ),
        ("proc-group", "turnserver", Comment(Note, "the group is that of the user")),
        ("daemon", "", Comment(Note, "systemd runs hairpin")),
        ("cli", "", Comment(Note, "hairpin ctl")),
        ("no-cli", "", Silence),
        ("cli-ip", "127.0.0.1", Comment(Note, "admin.socket")),
        ("cli-port", "5766", Comment(Note, "admin.socket")),
        ("cli-password", "hidden", Comment(Danger, "cli-password=*** is not taken over")),
        ("web-admin", "", Comment(Lost, "there is no web page")),
        ("web-admin-ip", "127.0.0.1", Comment(Lost, "there is no web page")),
        ("web-admin-port", "8080", Comment(Lost, "there is no web page")),
        ("prometheus", "", Line("[http] listen = [\"0.0.0.0:9641\"]")),
        ("prometheus-port", "9642", Comment(Note, "no effect without prometheus")),
        ("prometheus-address", "127.0.0.1", Comment(Note, "no effect without prometheus")),
        ("prometheus-path", "/other", Silence),
        ("prometheus-username-labels", "", Comment(Lost, "unbounded")),
        ("no-tlsv1", "", Silence),
        ("no-tlsv1_1", "", Silence),
        ("no-sslv2", "", Silence),
        ("no-sslv3", "", Silence),
        ("no-stun-backward-compatibility", "", Silence),
        ("prod", "", Silence),
        ("secret-ts-exp-time", "3600", Silence),
        ("ne", "3", Silence),
        ("no-loopback-peers", "", Silence),
        // Those that only their sources have.
        ("tcp-alternate-server", "192.0.2.9", Comment(Lost, "[[sibling]]")),
        ("udp-alternate-server", "192.0.2.9", Comment(Lost, "[[sibling]]")),
        ("syslog-facility", "LOG_LOCAL1", Comment(Lost, "standard error")),
        ("new-log-timestamp-format", "%F", Comment(Note, "RFC 3339")),
        ("response-origin-only-with-rfc5780", "", Silence),
        ("cli-max-output-sessions", "256", Comment(Note, "page by page")),
        ("web-admin-listen-on-workers", "", Comment(Lost, "there is no web page")),
        ("prometheus-tls", "no", Silence),
        ("prometheus-cert", "/etc/cert.pem", Comment(Lost, "one certificate")),
        ("prometheus-key", "/etc/key.pem", Comment(Lost, "one certificate")),
        ("drop-invalid-packets-log", "", Silence),
        ("udp-recvmmsg", "", Silence),
        ("udp-recvmmsg-log", "", Silence),
        ("udp-sendmmsg-log", "", Silence),
        ("udp-gso", "", Silence),
        ("multiplex-peer", "", Comment(Note, "in batches")),
        ("multiplex-peer-port", "5000", Comment(Note, "a port of its own")),
        ("multiplex-peer-max-peers", "64", Comment(Note, "limits.permissions")),
        ("version", "", Silence),
    ]
}

/// `[section] key = value` for each setting.
fn settings_in(text: &str) -> Vec<String> {
    let mut section = "";
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[') {
            Some(_) if !line.contains('=') => section = line,
            _ => found.push(format!("{section} {line}").trim().to_owned()),
        }
    }
    found
}

/// Every key of coturn becomes a setting, or a comment with its line, or is known to mean nothing; the result is one that hairpin
/// loads.
#[test]
fn every_key_is_translated_or_said_or_known_to_do_nothing() {
    let without = text_of("");
    for (key, value, expected) in every_key() {
        let line = if value.is_empty() { key.to_owned() } else { format!("{key}={value}") };
        let text = text_of(&line);
        match expected {
            Expected::Line(setting) => {
                assert!(settings_in(&text).iter().any(|line| line == setting), "{line}: {setting}\n{text}");
                assert!(
                    text.contains("turnserver.conf:3") || text.contains(",3\n") || key == "use-auth-secret",
                    "{text}"
                );
            }
            Expected::Comment(weight, what) => {
                let word = format!("turnserver.conf:3: {weight:?}: ").to_lowercase();
                assert!(says(&text, &word) && says(&text, what), "{line}: {word}{what}\n{text}");
            }
            Expected::Silence => {
                let realm =
                    |text: &str| text.replace("turnserver.conf:1\n", "").replace("turnserver.conf:3\n", "");
                assert_eq!(realm(&text), realm(&without), "{line}");
            }
        }
        assert!(!text.contains("hidden"), "{line}: a secret is shown\n{text}");
    }
    let walked: Vec<_> = every_key().into_iter().map(|(key, ..)| key).chain(["no-auth"]).collect();
    let missing: Vec<_> = KEYS.iter().map(|key| key.name).filter(|name| !walked.contains(name)).collect();
    assert!(missing.is_empty() && walked.len() == KEYS.len(), "{missing:?}");
}

/// A flag that is off changes nothing; a flag whose value coturn ignores is on.
#[test]
fn flags_that_are_off_say_nothing() {
    for key in ["mobility", "oauth", "dtls", "no-udp", "allow-loopback-peers", "verbose", "cli"] {
        assert_eq!(text_of(&format!("{key}=no")), text_of(""), "{key}");
    }
    for key in ["prometheus", "rfc5780", "prometheus-username-labels", "multiplex-peer"] {
        let text = text_of(&format!("{key}=false"));
        assert!(says(&text, "coturn ignores the value, and this is on"), "{text}");
    }
    let text = imported(&input("use-auth-secret=false\nstatic-auth-secret=a secret of these tests")).0;
    assert!(says(&text, "use-auth-secret=false: coturn ignores the value, and this is on"), "{text}");
    assert!(says(&text_of("mobility=maybe"), "coturn does not start with this value"));
}

#[test]
fn unknown_keys_are_said_without_their_values() {
    let text = text_of("static-auth-secrets=hidden\nsomething-else=hidden\nVerbos");
    assert!(says(&text, "turnserver.conf:3: danger: static-auth-secrets is no setting of coturn"), "{text}");
    assert!(
        says(&text, "`static-auth-secret` may be meant") && says(&text, "`Verbose` may be meant"),
        "{text}"
    );
    assert!(says(&text, "turnserver.conf:4: lost: something-else") && !text.contains("hidden"), "{text}");
}

/// Of a key that counts once, coturn takes the last line.
#[test]
fn the_last_of_two_lines_counts() {
    let conf = "realm=one.example\nlistening-port=3000\nrealm=two.example\nlistening-port=4000";
    let (text, settings) = imported(&input(&format!("{SECRET}{conf}")));
    assert_eq!(settings.auth.realm, "two.example");
    assert_eq!(settings.listen.udp[0].port(), 4000);
    assert!(says(&text, "realm=one.example: line 5 sets it again, and coturn uses the last"), "{text}");
}

/// An inline comment is a part of the value there, and a secret with one has worked so.
#[test]
fn leftovers_belong_to_the_value_and_are_said() {
    let (text, settings) = imported(&input(
        "use-auth-secret\nstatic-auth-secret=a secret of these tests # changed in May\nrealm=example.org;",
    ));
    assert_eq!(settings.auth.secrets[0].as_bytes(), b"a secret of these tests # changed in May");
    assert_eq!(settings.auth.realm, "example.org;");
    assert!(says(&text, "static-auth-secret=***: coturn takes `#` after a value for a part of it"), "{text}");
    assert!(says(&text, "coturn takes the `;` at the end for a part of the value"), "{text}");
}

mod credentials {
    use super::*;

    /// No auth option and no users is an anonymous relay, and so is no-auth with users.
    #[test]
    fn an_anonymous_relay_needs_a_word() {
        for conf in ["", "realm=example.org", "no-auth", "no-auth\nuser=alice:password", "lt-cred-mech=no"] {
            let refusal = refused(conf);
            assert!(refusal.contains("hairpin never runs as an anonymous relay"), "{conf}: {refusal}");
            assert!(refusal.contains("--allow-anonymous"), "{refusal}");
        }
        assert!(refused("realm=example.org\nno-auth").starts_with("turnserver.conf:2: no-auth:"));
        let input = Input { anonymous: true, ..input("no-auth") };
        let (text, settings) = imported(&input);
        assert_eq!(settings.auth.secrets[0].as_bytes(), GENERATED.as_bytes());
        assert!(says(&text, "danger: coturn relays for everybody with this configuration"), "{text}");
        let input = Input { text: "no-auth\nuser=alice:password", ..input };
        let (text, settings) = imported(&input);
        assert_eq!((settings.auth.secrets.len(), settings.auth.users.len()), (0, 1), "{text}");
    }

    /// A server for STUN needs no credentials; it is not called an anonymous relay.
    #[test]
    fn a_server_for_stun_has_a_sentence_of_its_own() {
        let refusal = refused("realm=example.org\nstun-only");
        assert!(
            refusal.starts_with("turnserver.conf:2: stun-only: coturn needs no credentials"),
            "{refusal}"
        );
        assert!(refusal.contains("--allow-anonymous") && !refusal.contains("for everybody"), "{refusal}");
        let (text, _) = imported(&Input { anonymous: true, ..input("stun-only") });
        assert!(text.contains(GENERATED) && !says(&text, "coturn relays for everybody"), "{text}");
        assert_eq!(text_of("allocation-default-address-family=ipv4"), text_of(""), "it is what hairpin does");
    }

    /// A flag that is set again holds as it is set last, as in coturn.
    #[test]
    fn flags_are_read_in_their_order() {
        assert!(refused("lt-cred-mech\nuser=alice:password\nno-auth\nno-auth=0").is_empty());
        assert!(refused("lt-cred-mech\nlt-cred-mech=0\nuser=alice:password").is_empty(), "users turn it on");
    }

    #[test]
    fn users_have_passwords_or_keys() {
        let conf = "lt-cred-mech\nrealm=example.org\nuser=alice: pass:word \nuser=bob:0xAABBccddeeff00112233445566778899\nuser=nobody\n\
                    user=carol:0x12\nuser=alice:second\nuser-quota=7";
        let (text, settings) = imported(&input(conf));
        let users: Vec<_> = settings
            .auth
            .users
            .iter()
            .map(|user| (user.name.as_str(), &user.password, user.allocations))
            .collect();
        let [("alice", Password::Plain(second), 7), ("bob", Password::Md5Key(key), 7)] = users[..] else {
            panic!("{text}")
        };
        assert_eq!(second.as_bytes(), b"second");
        assert_eq!(*key, 0xaabb_ccdd_eeff_0011_2233_4455_6677_8899_u128.to_be_bytes());
        assert!(says(&text, "turnserver.conf:5: danger: a user is left out"), "{text}");
        assert!(says(
            &text,
            "turnserver.conf:6: danger: a user is left out: the key of carol is not 32 hex digits"
        ));
        let first = imported(&input("user=alice: pass:word \nrealm=x")).1;
        let Password::Plain(password) = &first.auth.users[0].password else { panic!() };
        assert_eq!(password.as_bytes(), b"pass:word", "leading blanks and those of the line end are no part");
    }

    /// A password that hairpin would not take as text works as the key that clients make of it.
    #[test]
    fn odd_passwords_become_keys() {
        let (text, settings) = imported(&input("user=alice:pass\u{200b}word\nrealm=example.org"));
        let Password::Md5Key(found) = &settings.auth.users[0].password else { panic!("{text}") };
        let expected: [u8; 16] = {
            use md5::Digest;
            md5::Md5::digest("alice:example.org:pass\u{200b}word").into()
        };
        assert_eq!(*found, expected);
    }

    /// A key depends on the realm, which coturn takes from the machine if its configuration has none.
    #[test]
    fn keys_without_a_realm_are_refused() {
        let conf = "user=bob:0x00112233445566778899aabbccddeeff";
        assert!(refused(conf).contains("add --realm NAME"), "{}", refused(conf));
        let (_, settings) = imported(&Input { realm: Some("given.example"), ..input(conf) });
        assert_eq!(settings.auth.realm, "given.example");
    }

    #[test]
    fn secrets_that_can_be_guessed_are_left_out() {
        let text = text_of("static-auth-secret=north");
        assert!(
            says(
                &text,
                "turnserver.conf:3: danger: a shared secret is left out: a secret of 5 characters can be guessed"
            ),
            "{text}"
        );
        assert!(!text.contains("north") && !text.contains(GENERATED), "{text}");
    }

    /// The rest of a configuration is imported although its users or secrets are not: nobody knows the secret that stands for them.
    #[test]
    fn without_usable_credentials_a_secret_is_generated() {
        for (conf, why) in [
            (
                "use-auth-secret\nstatic-auth-secret=north",
                "turnserver.conf:2: danger: no shared secret could be imported.",
            ),
            ("use-auth-secret", "turnserver.conf:1: danger: no shared secret could be imported."),
            ("lt-cred-mech\nmysql-userdb=host=db", "turnserver.conf:1: danger: no user could be imported."),
        ] {
            let (text, settings) = imported(&input(conf));
            assert_eq!(settings.auth.secrets[0].as_bytes(), GENERATED.as_bytes());
            assert!(
                says(&text, why) && says(&text, "every client is refused") && !text.contains("north"),
                "{conf}\n{text}"
            );
        }
    }

    #[test]
    fn many_users_have_a_file() {
        let users: Vec<_> = (0..30)
            .map(|n| DatabaseUser {
                realm: "example.org".into(),
                name: format!("user-{n}"),
                key: format!("{n:032x}"),
            })
            .collect();
        let database = Database { users, ..Database::default() };
        let input = Input {
            database: Some(&database),
            users_file: Some("hairpin-users"),
            ..input("lt-cred-mech\nrealm=example.org\nuser=alice:password\nuser-quota=3")
        };
        let mut import = import(&input).unwrap();
        let text = accepted(&mut import);
        assert!(text.contains("users_file = \"hairpin-users\"") && !text.contains("[[auth.user]]"), "{text}");
        let [(_, users)] = &import.users[..] else { panic!("one file is enough") };
        assert!(users.starts_with("# ") && users.lines().count() == 1 + 31, "{users}");
        assert!(users.contains("user-29:0x0000000000000000000000000000001d:3\n"), "{users}");
        // As it is, so that clients may use SHA-256.
        assert!(users.contains("\nalice:password:3\n"), "{users}");
    }

    /// One odd user leaves itself out, or is written where it has a form; all others are imported.
    #[test]
    fn odd_users_do_not_stop_the_others() {
        let odd = [
            "[x]",
            "#x",
            "a:b",
            "\"quoted\"",
            "hairpin-probe",
            "user=x",
            "A\u{30A}",
            "\u{C5}",
            "${x}",
            "nul\u{0}",
        ];
        let users: Vec<_> = odd
            .into_iter()
            .map(String::from)
            .chain((0..30).map(|n| format!("user-{n}")))
            .map(|name| DatabaseUser { realm: "example.org".into(), name, key: "0".repeat(32) })
            .collect();
        let database = Database { users, ..Database::default() };
        let conf = "lt-cred-mech\nrealm=example.org\nuser=bob:a #b\nuser=carol:${CAROL}\nuser=dave:0Xyz";
        for users_file in [Some("hairpin-users"), None] {
            let input = Input { database: Some(&database), users_file, ..input(conf) };
            let (text, settings) = imported(&input);
            let inline: Vec<_> = settings.auth.users.iter().map(|user| user.name.as_str()).collect();
            assert_eq!(
                inline.iter().filter(|name| **name == "\u{C5}").count(),
                usize::from(users_file.is_none())
            );
            assert!(
                ["[x]", "#x", "a:b", "user=x", "bob"].iter().all(|name| inline.contains(name)),
                "{inline:?}"
            );
            assert_eq!(users_file.is_some(), text.contains("\nusers_file = "), "{text}");
            assert!(says(&text, "danger: 3 users left out"), "{text}");
            assert!(says(&text, "turnserver.conf:4: note: carol: name or password"), "{text}");
        }
    }

    /// Work is in proportion to the lines: 100,000 users would not end today if each looked at all others.
    #[test]
    fn a_hundred_thousand_users_are_imported() {
        let users: String = (0..100_000).map(|n| format!("user=user-{n}:password-{n}\n")).collect();
        let conf = format!("lt-cred-mech\nrealm=example.org\n{users}");
        let import_of = |users_file| import(&Input { users_file, ..input(&conf) }).unwrap();
        let in_file = import_of(Some("hairpin-users"));
        assert_eq!(in_file.users[0].1.lines().count(), 100_001);
        let mut inline = import_of(None);
        let text = inline.text();
        assert!(text.matches("[[auth.user]]").count() == 100_000 && inline.text() == text);
    }
}

mod database {
    use super::*;

    fn row(realm: &str, value: &str) -> (String, String) {
        (realm.into(), value.into())
    }

    fn user(realm: &str, name: &str, key: &str) -> DatabaseUser {
        DatabaseUser { realm: realm.into(), name: name.into(), key: key.into() }
    }

    const KEY: &str = "00112233445566778899AABBCCDDEEFF";

    #[test]
    fn what_belongs_to_the_realm_is_imported_and_the_rest_is_said() {
        let database = Database {
            name: "turndb".into(),
            users: vec![
                user("example.org", "alice", KEY),
                user("example.org", "short", "0011"),
                user("other.example", "bob", KEY),
            ],
            secrets: vec![
                row("example.org", "a secret of the database"),
                row("other.example", "another one of it"),
            ],
            allowed: vec![row("", "10.20.0.5")],
            denied: vec![row("example.org", "8.8.8.8"), row("other.example", "8.8.4.4")],
            options: vec![("example.org".into(), "max-bps".into(), "64000".into())],
            others: vec![("admin_user", 2)],
        };
        let conf = "lt-cred-mech\nrealm=example.org\nmax-bps=1";
        let (text, settings) = imported(&Input { database: Some(&database), ..input(conf) });
        assert_eq!(settings.auth.users.len(), 1, "{text}");
        assert_eq!((settings.auth.users[0].name.as_str(), settings.auth.secrets.len()), ("alice", 0));
        assert_eq!(settings.limits.bandwidth, 64000);
        assert_eq!(format!("{:?} {:?}", settings.peers.allow, settings.peers.deny), "[10.20.0.5] [8.8.8.8]");
        for what in ["for 1 other realm: other.example", "admin_user has 2 rows", "danger: 1 user left out"] {
            assert!(says(&text, what), "{what}\n{text}");
        }
        let conf = "use-auth-secret\nrealm=example.org\nno-dynamic-ip-list\nno-dynamic-realms";
        let (text, settings) = imported(&Input { database: Some(&database), ..input(conf) });
        assert_eq!(settings.auth.secrets[0].as_bytes(), b"a secret of the database");
        assert!(settings.auth.users.is_empty() && says(&text, "3 users left out"), "{text}");
        assert!(settings.peers.allow.is_empty() && settings.limits.bandwidth == 0, "{text}");
    }

    /// coturn takes the domain name of the machine for its realm; a database with one realm tells which that is.
    #[test]
    fn the_only_realm_of_a_database_is_the_realm() {
        let database = Database { users: vec![user("example.org", "alice", KEY)], ..Database::default() };
        let (_, settings) = imported(&Input { database: Some(&database), ..input("lt-cred-mech") });
        assert_eq!((settings.auth.realm.as_str(), settings.auth.users.len()), ("example.org", 1));
    }

    /// Users and secrets of one realm must not open the relay of another, so none is chosen by chance.
    #[test]
    fn several_realms_need_a_name() {
        let database = Database {
            name: "turndb".into(),
            users: vec![user("one.example", "alice", KEY), user("two.example", "bob", KEY)],
            secrets: vec![row("two.example", "a secret of the second realm")],
            ..Database::default()
        };
        for conf in ["lt-cred-mech", "use-auth-secret"] {
            let input = Input { database: Some(&database), ..input(conf) };
            let refusal = import(&input).err().map(|refusal| refusal.to_string()).unwrap_or_default();
            assert!(
                refusal.contains("turndb has 2: one.example, two.example")
                    && refusal.contains("add --realm NAME"),
                "{refusal}"
            );
            let (_, settings) = imported(&Input { realm: Some("two.example"), ..input });
            let names: Vec<_> = settings.auth.users.iter().map(|user| user.name.as_str()).collect();
            assert!(names == ["bob"] || settings.auth.secrets.len() == 1, "{names:?}");
        }
    }

    /// With another database coturn does not use SQLite, and what an old file has is of another time.
    #[test]
    fn another_database_precedes_that_of_sqlite() {
        for key in ["psql-userdb", "sql-userdb", "mysql-userdb", "mongo-userdb", "redis-userdb"] {
            let of = |conf: &str| super::super::database_of(&conf.replace("OTHER", key));
            assert_eq!(of("OTHER=host=db"), DatabaseOf::Other);
            assert_eq!(of("userdb=/a\nOTHER=host=db"), DatabaseOf::Other);
            assert_eq!(of("OTHER=host=db\nuserdb=/a"), DatabaseOf::File("/a".into()));
        }
        assert_eq!(super::super::database_of("realm=example.org"), DatabaseOf::Default);
    }

    /// coturn asks its database for the secrets of exactly its realm.
    #[test]
    fn secrets_of_no_realm_are_not_those_of_a_realm() {
        let database =
            Database { secrets: vec![row("", "a secret of no realm at all")], ..Database::default() };
        let (text, settings) =
            imported(&Input { database: Some(&database), ..input("use-auth-secret\nrealm=example.org") });
        assert_eq!(settings.auth.secrets[0].as_bytes(), GENERATED.as_bytes());
        assert!(says(&text, "1 shared secret of no realm left out"), "{text}");
    }

    /// The options of the realm precede the configuration, for users as for the rest.
    #[test]
    fn the_quota_of_the_database_holds_for_users() {
        let database = Database {
            users: vec![user("example.org", "alice", KEY)],
            options: vec![("example.org".into(), "user-quota".into(), "4".into())],
            ..Database::default()
        };
        let quota = |conf: &str| {
            let (_, settings) = imported(&Input { database: Some(&database), ..input(conf) });
            (settings.auth.users[0].allocations, settings.limits.user_allocations)
        };
        assert_eq!(quota("lt-cred-mech\nrealm=example.org"), (4, 4));
        assert_eq!(quota("lt-cred-mech\nrealm=example.org\nuser-quota=9"), (4, 4));
        assert_eq!(quota("lt-cred-mech\nrealm=example.org\nuser-quota=9\nno-dynamic-realms"), (9, 9));
    }

    #[test]
    fn a_missing_database_is_said() {
        let conf = format!("{SECRET}userdb=/var/lib/turn/turndb");
        assert_eq!(super::super::database_of(&conf), DatabaseOf::File("/var/lib/turn/turndb".into()));
        let (text, _) = imported(&Input { missing_database: Some("it is damaged"), ..input(&conf) });
        assert!(
            says(&text, "danger: coturn's database was not imported: it is damaged. Name it with --turndb"),
            "{text}"
        );
    }
}

mod network {
    use super::*;

    fn relay(conf: &str) -> (Vec<String>, Vec<String>, String) {
        let (text, settings) = imported(&input(&format!("{SECRET}{conf}")));
        let addresses = settings.relay.addresses.iter().map(ToString::to_string).collect();
        (addresses, settings.relay.external_ip.iter().map(ToString::to_string).collect(), text)
    }

    fn listeners(conf: &str) -> [Vec<String>; 3] {
        let listen = settings_of(conf).listen;
        [listen.udp, listen.tcp, listen.tls].map(|list| list.iter().map(ToString::to_string).collect())
    }

    const TLS: &str = "cert=/etc/fullchain.pem\npkey=/etc/privkey.pem\n";

    /// Behind a 1:1 NAT: listeners and relayed addresses are the private ones, also where the public one is written.
    #[test]
    fn external_addresses_in_every_form() {
        for (conf, addresses, external) in [
            ("listening-ip=10.0.0.7\nexternal-ip=203.0.113.7", &["10.0.0.7"][..], &["203.0.113.7"][..]),
            ("external-ip=203.0.113.7", &[], &["203.0.113.7"]),
            (
                "listening-ip=10.0.0.7\nexternal-ip=203.0.113.7/10.0.0.7",
                &["10.0.0.7"],
                &["203.0.113.7/10.0.0.7"],
            ),
            (
                "listening-ip=203.0.113.7\nexternal-ip=203.0.113.7/10.0.0.7",
                &["10.0.0.7"],
                &["203.0.113.7/10.0.0.7"],
            ),
            (
                "relay-ip=203.0.113.7\nexternal-ip=203.0.113.7/10.0.0.7",
                &["10.0.0.7"],
                &["203.0.113.7/10.0.0.7"],
            ),
            (
                "relay-ip=10.0.0.7\nrelay-ip=10.0.0.8\nexternal-ip=203.0.113.7/10.0.0.7\nexternal-ip=203.0.113.8/10.0.0.8",
                &["10.0.0.7", "10.0.0.8"],
                &["203.0.113.7/10.0.0.7", "203.0.113.8/10.0.0.8"],
            ),
            ("listening-ip=203.0.113.7\nexternal-ip=203.0.113.7", &["203.0.113.7"], &[]),
            (
                "listening-ip=10.0.0.7\nlistening-ip=fd00::7\nexternal-ip=203.0.113.7",
                &["10.0.0.7", "fd00::7"],
                &["203.0.113.7"],
            ),
            (
                "relay-ip=10.0.0.7\nrelay-ip=10.0.0.8\nexternal-ip=203.0.113.7",
                &["10.0.0.7"],
                &["203.0.113.7"],
            ),
            ("relay-ip=10.0.0.7\nexternal-ip=2001:db8::7", &["10.0.0.7"], &[]),
            ("relay-ip=10.0.0.7\nexternal-ip=203.0.113.9/10.0.0.9", &["10.0.0.7"], &[]),
            ("external-ip=203.0.113.7\nexternal-ip=203.0.113.8", &[], &["203.0.113.7"]),
            ("external-ip=turn.example.org", &[], &["turn.example.org"]),
            ("external-ip=203.0.113.7/fd00::7", &[], &[]),
            ("external-ip=nonsense/10.0.0.7", &[], &[]),
        ] {
            let (found, out, text) = relay(conf);
            assert_eq!(
                (&found[..], &out[..]),
                (&addresses.map_to_strings()[..], &external.map_to_strings()[..]),
                "{conf}\n{text}"
            );
        }
        let (_, _, text) = relay("listening-ip=203.0.113.7\nexternal-ip=203.0.113.7/10.0.0.7");
        assert!(says(&text, "is a public address behind a NAT (external-ip in line 4)"), "{text}");
        assert!(says(&text, "coturn also lets clients send to 10.0.0.7 because of this line"), "{text}");
    }

    trait Strings {
        fn map_to_strings(&self) -> Vec<String>;
    }

    impl Strings for &[&str] {
        fn map_to_strings(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }

    #[test]
    fn relayed_addresses_are_those_of_explicit_listeners() {
        for (conf, expected) in [
            ("", &[][..]),
            ("listening-ip=0.0.0.0", &[]),
            ("listening-ip=192.0.2.1\nlistening-ip=127.0.0.1", &["192.0.2.1"]),
            ("listening-ip=192.0.2.1\nrelay-ip=192.0.2.2", &["192.0.2.2"]),
            ("listening-ip=turn.example.org", &[]),
        ] {
            assert_eq!(relay(conf).0, expected.map_to_strings(), "{conf}");
        }
        assert!(says(&relay("listening-ip=turn.example.org").2, "write the address as a number"));
    }

    #[test]
    fn listeners_have_the_ports_and_the_transports() {
        let all = ["0.0.0.0:3478", "[::]:3478"].map(String::from).to_vec();
        let tls = ["0.0.0.0:5349", "[::]:5349"].map(String::from).to_vec();
        assert_eq!(listeners(""), [all.clone(), all.clone(), vec![]]);
        assert_eq!(listeners(TLS), [all.clone(), all.clone(), tls.clone()]);
        assert_eq!(listeners(&format!("{TLS}no-tcp\nno-udp")), [vec![], vec![], tls]);
        assert_eq!(listeners(&format!("{TLS}no-tls")), [all.clone(), all.clone(), vec![]]);
        let v6 = listeners("listening-ip=2001:db8::1\nlistening-port=443");
        assert_eq!(v6[0], ["[2001:db8::1]:443"]);
        let aux = listeners(&format!(
            "{TLS}listening-ip=192.0.2.1\naux-server=192.0.2.1:443\naux-server=[2001:db8::1]:80"
        ));
        assert_eq!(
            aux,
            [
                ["192.0.2.1:3478", "192.0.2.1:443", "[2001:db8::1]:80"].map(String::from).to_vec(),
                ["192.0.2.1:3478", "192.0.2.1:443", "[2001:db8::1]:80"].map(String::from).to_vec(),
                ["192.0.2.1:5349", "192.0.2.1:443", "[2001:db8::1]:80"].map(String::from).to_vec(),
            ]
        );
        // TCP and TLS are told apart on each of them, as in coturn.
        let without = listeners("listening-ip=192.0.2.1\naux-server=192.0.2.1:443");
        assert_eq!((&without[1][1], without[2].len()), (&"192.0.2.1:443".to_owned(), 0));
        let covered = listeners(&format!("{TLS}no-udp\naux-server=192.0.2.1:5349"));
        assert_eq!((covered[1].len(), covered[2].len()), (2, 2), "a wildcard listener has it");
        let text = text_of("aux-server=192.0.2.1:3478\naux-server=nonsense\nlistening-port=x");
        assert!(
            says(&text, "another listener has that address already")
                && says(&text, "aux-server=nonsense is left out")
        );
        assert!(says(&text, "listening-port=x is no port; 3478 is used"), "{text}");
    }

    /// Listeners that are wider than coturn's are a danger, and so are addresses that the machine does not have.
    #[test]
    fn addresses_that_cannot_be_used_are_dangers() {
        for conf in ["listening-ip=localhost", "listening-device=eth1"] {
            let text = text_of(conf);
            assert!(
                says(
                    &text,
                    "turnserver.conf:3: danger: no listening-ip could be used, so listeners are on every"
                ),
                "{text}"
            );
        }
        assert!(!says(&text_of("listening-device=eth1\nlistening-ip=192.0.2.1"), "no listening-ip could be"));
        let text = text_of("listening-ip=203.0.113.7\nexternal-ip=203.0.113.7");
        assert!(
            says(&text, "danger: listening-ip=203.0.113.7: this machine does not have 203.0.113.7 now"),
            "{text}"
        );
        for conf in ["listening-ip=0.0.0.0", "listening-ip=192.0.2.1"] {
            assert!(!says(&text_of(conf), "this machine does not have"), "{conf}");
        }
        let udp = &listeners("external-ip=203.0.113.7/192.0.2.1\naux-server=203.0.113.7:3480")[0];
        assert_eq!(udp[2], "192.0.2.1:3480", "an auxiliary listener is behind the same NAT");
    }

    /// TLS and plain TCP on one port are told apart by the first byte, as in coturn.
    #[test]
    fn tcp_and_tls_may_have_one_port() {
        let conf = format!("{TLS}listening-ip=192.0.2.1\nlistening-port=443\ntls-listening-port=443");
        let one = vec!["192.0.2.1:443".to_owned()];
        assert_eq!(listeners(&conf), [one.clone(), one.clone(), one]);
    }

    /// coturn believes a PROXY header from everybody, which no configuration of hairpin says without an address.
    #[test]
    fn a_port_for_the_proxy_protocol_needs_the_addresses_of_the_balancers() {
        let text = text_of("tcp-proxy-port=5555");
        assert!(says(&text, "lost: tcp-proxy-port=5555 is a [[listener]] here"), "{text}");
        assert!(says(&text, "proxy_from with the addresses of the balancers"), "{text}");
    }

    #[test]
    fn relay_ports_leave_out_listeners_and_system_services() {
        let ports = |conf: &str| {
            let ports = settings_of(conf).relay.ports;
            (*ports.start(), *ports.end())
        };
        assert_eq!(ports(""), (49152, 65535));
        assert_eq!(ports("min-port=1\nmax-port=3000"), (1024, 3000));
        assert_eq!(ports("min-port=1024\nmax-port=65535"), (3479, 65535));
        assert_eq!(ports("listening-port=50000"), (50001, 65535));
        assert_eq!(ports("min-port=60000\nmax-port=50000"), (50000, 60000));
        assert_eq!(
            ports("listening-ip=127.0.0.1\nrelay-ip=192.0.2.1\nmin-port=3000\nmax-port=4000"),
            (3000, 4000)
        );
        let only = "listening-port=4000\nmin-port=4000\nmax-port=4000";
        assert_eq!(ports(only), (49152, 65535));
        assert!(says(&text_of(only), "4000-4000 has only the port of a UDP listener"));
    }

    /// Certificates that cannot be used turn TLS off, with the reason; the rest is imported.
    #[test]
    fn unusable_certificates_are_commented_out() {
        for (conf, why) in [
            ("cert=/etc/missing.pem\npkey=/etc/privkey.pem", "No such file"),
            ("cert=/etc/fullchain.pem\npkey=/etc/missing.pem", "No such file"),
            ("cert=/etc/fullchain.pem\npkey=/etc/old-key.pem", "danger: this is commented out:"),
        ] {
            let (text, settings) = imported(&input(&format!("{SECRET}{conf}\ntls-listening-port=443")));
            assert!(settings.listen.tls.is_empty() && settings.tls.cert.is_none(), "{text}");
            assert!(says(&text, why) && text.contains("#tls = ["), "{conf}\n{text}");
        }
        // Nothing else is opened instead of TLS: coturn served neither UDP nor TCP.
        let conf = format!("{SECRET}cert=/etc/missing.pem\npkey=/etc/privkey.pem\nno-udp\nno-tcp");
        let mut only_tls = import(&input(&conf)).unwrap();
        let left = loop {
            let text = only_tls.text();
            let mistakes = loaded(&only_tls, &text).expect_err("nothing is left to listen on");
            if !only_tls.refuse(&mistakes) {
                break mistakes;
            }
        };
        assert!(format!("{left:?}").contains("there is no listener"), "{left:?}");
        assert!(format!("{:?}", only_tls.refused()).contains("No such file"));
        let (text, settings) = imported(&input(&format!("{SECRET}cert=fullchain.pem\npkey=\"privkey.pem\"")));
        assert!(text.contains("cert = \"/etc/fullchain.pem\"") && settings.tls.cert.is_some(), "{text}");
    }

    /// Clients that coturn before 4.16 served choose any channel number of RFC 5766.
    #[test]
    fn channel_numbers_of_rfc5766_go_on() {
        assert!(settings_of("").listen.rfc5766_channels);
        assert!(!settings_of("rfc5766-channel-numbers=no").listen.rfc5766_channels);
    }
}

mod peers {
    use super::*;

    fn lists(conf: &str) -> (String, String, String) {
        let (text, settings) = imported(&input(&format!("{SECRET}{conf}")));
        (format!("{:?}", settings.peers.allow), format!("{:?}", settings.peers.deny), text)
    }

    /// An SFU in a private network works with coturn unless it is denied.
    #[test]
    fn private_peers_are_said() {
        let every = "denied-peer-ip=10.0.0.0-10.255.255.255\ndenied-peer-ip=172.16.0.0-172.31.255.255\n\
                     denied-peer-ip=192.168.0.0-192.168.255.255";
        let what = "coturn lets clients reach private networks";
        assert!(says(&text_of(""), what) && says(&text_of("denied-peer-ip=10.0.0.0-10.255.255.255"), what));
        let (allow, deny, text) = lists(every);
        assert_eq!((allow.as_str(), deny.as_str()), ("[]", "[]"));
        assert!(
            !says(&text, what)
                && says(&text, "turnserver.conf:3,4,5: note: these denied-peer-ip are left out"),
            "{text}"
        );
    }

    /// Everything allowed undoes every deny in coturn, and opens nothing here.
    #[test]
    fn everything_allowed_is_left_out() {
        for all in ["0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let (allow, _, text) = lists(&format!("denied-peer-ip=8.8.8.8\nallowed-peer-ip={all}"));
            assert!(allow == "[]" && says(&text, "undoes every denied-peer-ip in coturn"), "{text}");
        }
        let (allow, _, text) = lists("allowed-peer-ip=0.0.0.0-127.255.255.255");
        assert_eq!(allow, "[0.0.0.0/1]");
        assert!(
            says(
                &text,
                "includes ranges that stay refused by default: 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8."
            ),
            "{text}"
        );
    }

    /// In coturn an allowed peer is never denied; here the longer prefix decides. The result is the same.
    #[test]
    fn allowed_beats_denied() {
        let (allow, deny, _) = lists("denied-peer-ip=0.0.0.0-255.255.255.255\nallowed-peer-ip=10.20.0.5");
        assert_eq!((allow.as_str(), deny.as_str()), ("[10.20.0.5]", "[0.0.0.0/0]"));
        let (allow, deny, text) = lists("denied-peer-ip=8.8.8.8\nallowed-peer-ip=8.8.8.0-8.8.8.255");
        assert_eq!((allow.as_str(), deny.as_str()), ("[8.8.8.0/24]", "[]"));
        assert!(says(&text, "turnserver.conf:3: danger: denied-peer-ip=8.8.8.8: coturn allows it"), "{text}");
    }

    /// A common recipe allows the address of the relay itself, so that its clients reach each other. Here they do, and the line would
    /// open every port of the machine.
    #[test]
    fn the_relay_itself_is_not_opened() {
        for conf in [
            "listening-ip=10.0.0.7\nallowed-peer-ip=10.0.0.7",
            "external-ip=203.0.113.7/10.0.0.7\nallowed-peer-ip=10.0.0.7",
            "allowed-peer-ip=192.0.2.1",
        ] {
            let (allow, _, text) = lists(conf);
            assert!(allow == "[]" && says(&text, "is the relay itself, and is left out"), "{conf}\n{text}");
        }
    }

    /// coturn asks whether a peer is on loopback or multicast before it looks at what is allowed; hairpin would open an allowed part of
    /// such a range.
    #[test]
    fn loopback_multicast_and_link_local_ranges_are_not_opened() {
        for range in [
            "127.0.0.0-127.255.255.255",
            "127.0.0.5",
            "::1",
            "224.0.0.0-239.255.255.255",
            "ff02::1",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.0.0-169.254.255.255",
            "fe80::1",
        ] {
            let (allow, _, text) = lists(&format!("allowed-peer-ip={range}"));
            assert_eq!(allow, "[]", "{text}");
            assert!(says(&text, &format!("turnserver.conf:3: danger: allowed-peer-ip={range}")), "{text}");
        }
        let (allow, _, text) = lists("allowed-peer-ip=126.255.255.255-127.0.0.1");
        assert_eq!(allow, "[126.255.255.255]", "{text}");
        let (allow, _, text) = lists("allowed-peer-ip=fd00::7");
        assert!(allow == "[fd00::7]" && says(&text, "danger: allowed-peer-ip=fd00::7 opens"), "{text}");
    }

    /// Everything is denied but the relay itself: its clients go on reaching each other, and nothing of the machine is opened.
    #[test]
    fn a_denied_range_is_split_around_the_relay_itself() {
        let (allow, deny, text) = lists(
            "denied-peer-ip=198.0.0.0-205.255.255.255\nlistening-ip=203.0.113.7\nallowed-peer-ip=203.0.113.7",
        );
        assert_eq!(allow, "[]");
        let settings = settings_of(
            "denied-peer-ip=198.0.0.0-205.255.255.255\nlistening-ip=203.0.113.7\nallowed-peer-ip=203.0.113.7",
        );
        let denies = |ip: &str| {
            let ip = ip.parse().unwrap();
            settings.peers.deny.iter().any(|rule| rule.range.contains(ip))
        };
        assert!(!denies("203.0.113.7") && denies("203.0.112.255") && denies("198.0.0.1"), "{deny}");
        assert!(says(&text, "is written without 203.0.113.7, the relay itself"), "{text}");
    }

    /// coturn 4.6 logs an error for CIDR notation, and lets clients reach these peers.
    #[test]
    fn a_denied_range_in_cidr_notation_is_denied() {
        let (_, deny, text) = lists("denied-peer-ip=8.8.8.0/24");
        assert!(deny == "[8.8.8.0/24]" && says(&text, "coturn 4.6 does not read CIDR notation"), "{text}");
        let (allow, _, text) = lists("allowed-peer-ip=8.8.8.0/24");
        assert!(allow == "[]" && says(&text, "allowed-peer-ip=8.8.8.0/24 is left out"), "{text}");
    }
}

#[test]
fn lifetimes_threads_and_quotas_stay_within_the_bounds() {
    let settings = settings_of(
        "max-allocate-lifetime=300\nrelay-threads=0\ntotal-quota=99999999\nuser-quota=0\nstale-nonce=0",
    );
    assert_eq!((settings.limits.max_allocation_lifetime, settings.limits.allocation_lifetime), (300, 300));
    assert_eq!(
        (settings.workers, settings.limits.allocations, settings.limits.user_allocations),
        (1, 1_000_000, 0)
    );
    assert_eq!(settings.auth.nonce_lifetime, 3600);
    // coturn has no limit without these lines.
    let text = text_of("");
    assert!(
        says(&text, "lost: without user-quota coturn has no limit") && says(&text, "user_allocations = 1000"),
        "{text}"
    );
    assert!(
        says(&text, "lost: without total-quota coturn has no limit") && says(&text, "allocations = 100000"),
        "{text}"
    );
    let settings = settings_of(
        "unauthorized-ratelimit\nunauthorized-ratelimit-rps=20\ncpus=3\nrelay-threads=500\nmax-bps=-1",
    );
    assert_eq!(
        (settings.limits.unauthenticated_rate, settings.workers, settings.limits.bandwidth),
        (20, 128, 0)
    );
}

#[test]
fn metrics_are_where_they_were() {
    let listen =
        |conf: &str| settings_of(conf).http.listen.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(listen(""), ["127.0.0.1:9641"]);
    assert_eq!(listen("prometheus\nprometheus-port=9100\nprometheus-address=10.0.0.7"), ["10.0.0.7:9100"]);
    assert_eq!(listen("prometheus\nprometheus-address=::1"), ["[::1]:9641"]);
    let text = text_of("prometheus-tls");
    assert!(says(&text, "tls = true") && says(&text, "TLS requires a certificate"), "{text}");
    // A name is not guessed, and does not open the metrics to everybody.
    assert_eq!(listen("prometheus\nprometheus-address=localhost"), ["127.0.0.1:9641"]);
    let text = text_of("prometheus\nprometheus-address=metrics.internal");
    assert!(says(&text, "danger: prometheus-address=metrics.internal is no address"), "{text}");
    let text = text_of("prometheus\nprometheus-path=/stats");
    assert!(
        says(&text, "whoever can connect to 0.0.0.0:9641 reads the metrics")
            && says(&text, "the path is /metrics")
    );
}

/// What Debian installs, and nothing but comments.
#[test]
fn debians_configuration_is_an_anonymous_relay() {
    let conf = "# realm=mycompany.org\nsyslog\nno-rfc5780\nno-stun-backward-compatibility\nresponse-origin-only-with-rfc5780\n";
    assert!(refused(conf).contains("coturn relays for everybody"));
}

#[test]
fn the_head_and_the_counts_say_what_was_done() {
    let conf = format!("{SECRET}realm=example.org\nmobility\ncli-password=hidden\n");
    let mut import = import(&input(&conf)).unwrap();
    let text = accepted(&mut import);
    assert!(text.starts_with("# Imported from turnserver.conf by `hairpin import-coturn`."), "{text}");
    assert_eq!((import.settings, import.translated()), (5, 3), "{text}");
    let said = import.said();
    assert!(said.iter().any(|said| said.weight == Weight::Danger
        && said.text.starts_with("turnserver.conf:5: cli-password=*** is not taken over")));
}

proptest::proptest! {
    /// Whatever is in the file, the result loads, or there is a reason.
    #[test]
    fn nothing_breaks_the_import(lines in proptest::collection::vec((0..super::keys::KEYS.len(), "[ -~\u{e4}\u{202e}\"']{0,24}"), 0..12)) {
        let lines: Vec<String> =
            lines.iter().map(|(n, value)| format!("{}={value}", super::keys::KEYS[*n].name)).collect();
        let conf = format!("{}\n{SECRET}", lines.join("\n"));
        let input = Input { anonymous: true, realm: Some("example.org"), ..input(&conf) };
        if let Ok(mut import) = import(&input) {
            for _ in 0..50 {
                let text = import.text();
                let _: toml_edit::DocumentMut = text.parse().expect("it is TOML");
                match loaded(&import, &text) {
                    Ok(_) => break,
                    Err(mistakes) if import.refuse(&mistakes) => {}
                    Err(mistakes) => {
                        let all = format!("{mistakes:?}");
                        proptest::prop_assert!(all.contains("there is no listener") || all.contains("realm"), "{all}\n{text}");
                        break;
                    }
                }
            }
        }
    }
}
