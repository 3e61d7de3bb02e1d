//! The table of the sidecar's settings: the key, kind, field, default and documentation of each, in one row. The loader, the
//! reference page and the sample configuration are made from it. A key is a promise once released.

use super::kinds::{
    Count, KeysFile, LoneSecret, PathName, PemPath, RedisUrl, SecretFile, SecretText, ServerUrl, password,
    relay_token,
};
use super::relay;
use super::urls::{ICE_URLS, ORIGINS};
use crate::config::document::Tables;
use crate::config::kind::{Reload, Setting};
use crate::config::kinds::{
    Advice, Choice, List, Number, PEER_RANGES, PREFIXES, Seconds, Sockets, Switch, Text, TokensFile,
};
use crate::config::section::{About, Draft, RepeatedSection};
use crate::config::settings::{Format, Level};
use crate::livekit::settings::{PeersMode, RelaySettings, Settings};

/// The environment variable that may hold the shared secret.
pub const SECRET_VARIABLE: &str = "HAIRPIN_LIVEKIT_SECRET";

/// The port of the sidecar's HTTP server: the relay has 9641 for metrics and 9642 for its API.
const HTTP_PORT: u16 = 9643;

/// The schemes of LiveKit's URLs: clients use those of WebSockets, programs those of HTTP, and the server is the same.
const LIVEKIT_SCHEMES: &[&str] = &["wss", "ws", "https", "http"];

/// Everything that can be set.
pub static TABLES: Tables<Settings> = Tables {
    sections: SECTIONS,
    settings: SETTINGS,
    repeated: REPEATED,
    about: About {
        page: "docs/livekit-configuration.md",
        guarded: &["livekit.", "relay.", "credentials.", "http.", "peers."],
    },
};

static SECTIONS: &[(&str, &str)] = &[
    (
        "",
        "The relays. Without a section, there is one: the relay on this machine, at its usual control socket.",
    ),
    ("livekit", "The LiveKit deployment that uses the relays."),
    (
        "credentials",
        "How credentials for the relays are made. A shared secret is needed for `rtc.turn_servers` (`hairpin-livekit render`) and for \
         the ICE-server API, and it has to be one of the relays' (`auth.secrets` or `auth.secret_files`). Where clients only use \
         LiveKit's own credentials (`auth.livekit_keys_file` of the relay), there need not be one.",
    ),
    (
        "http",
        "The sidecar's own HTTP server: the ICE-server API at `/v1/ice-servers`, LiveKit's webhooks at `/v1/webhook`, and `/livez`, \
         `/readyz` and `/metrics`.",
    ),
    (
        "peers",
        "Which peers the relays may reach: the SFU and nothing else. The sidecar finds the addresses and ports of the SFU and tells \
         the relays (`hairpin ctl peers list` shows what it has told them), so that `peers.allow` of a relay can stay empty, also \
         where SFU and relay share an address.",
    ),
    (
        "lifecycle",
        "What happens when a participant leaves, is removed or gives up: its credentials are revoked, and its allocations end.",
    ),
    ("health", "How the relays and LiveKit are watched."),
    ("log", "Logs are written to standard error, as those of the relay."),
];

static SETTINGS: &[Setting<Settings>] = &[
    Setting {
        key: "livekit.url",
        kind: &ServerUrl {
            schemes: LIVEKIT_SCHEMES,
            example: "wss://livekit.example.org",
            at: |s: &mut Settings| &mut s.livekit.url,
        },
        default: "",
        example: r#""wss://livekit.example.org""#,
        doc: "The URL that clients connect to. Required.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "livekit.api_url",
        kind: &ServerUrl {
            schemes: LIVEKIT_SCHEMES,
            example: "http://127.0.0.1:7880",
            at: |s: &mut Settings| &mut s.livekit.api_url,
        },
        default: "",
        example: r#""http://127.0.0.1:7880""#,
        doc: "Where the sidecar reaches LiveKit, if not at `livekit.url`: on the same machine, past a proxy and without TLS.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "livekit.keys_file",
        kind: &KeysFile(|s: &mut Settings| &mut s.livekit),
        default: "",
        example: r#""/etc/hairpin/livekit-keys""#,
        doc: "A file with LiveKit's API keys in the format of its own `key_file`: a line `API_KEY: SECRET` for each, with a blank after \
              the colon. Required. The first key signs what the sidecar asks LiveKit; tokens and webhooks of every key are accepted. A \
              relative path starts at the folder of this file. A file that every user may read causes a warning.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "livekit.config_file",
        kind: &PathName { absolute: false, at: |s: &mut Settings| &mut s.livekit.config_file },
        default: "",
        example: r#""/etc/livekit/livekit.yaml""#,
        doc: "LiveKit's own configuration, if LiveKit runs on this machine. The sidecar reads there which addresses and ports the SFU \
              uses (`[peers]`), again and again, and `hairpin-livekit render --write` writes there.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "livekit.ca_file",
        kind: &PemPath { label: "CERTIFICATE", at: |s: &mut Settings| &mut s.livekit.ca_file },
        default: "",
        example: r#""/etc/hairpin/livekit-ca.pem""#,
        doc: "A PEM file with authorities that LiveKit's certificate may come from, besides those that this machine trusts.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "credentials.secret_file",
        kind: &SecretFile(|s: &mut Settings| &mut s.credentials),
        default: "",
        example: r#""/etc/hairpin/secret""#,
        doc: "A file with the shared secret of the relays. If it has several lines, the first one makes credentials. LiveKit reads the \
              same file as `secret_file`, if it has only this one line.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "credentials.secret",
        kind: &SecretText(|s: &mut Settings| &mut s.credentials),
        default: "",
        example: r#""at least 16 characters, from a random source""#,
        doc: "The shared secret, written here. A file is better. The environment variable `HAIRPIN_LIVEKIT_SECRET` takes precedence over \
              both.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "credentials.ttl",
        kind: &Number { range: 1..=604_800, at: |s: &mut Settings| &mut s.credentials.ttl },
        default: "14400",
        example: "",
        doc: "Seconds for which a credential can make allocations: those of the ICE-server API, and as `ttl` of `rtc.turn_servers` \
              those of LiveKit, which takes at most 86400. An allocation that exists lives on.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.listen",
        kind: &Sockets { port: HTTP_PORT, at: |s: &mut Settings| &mut s.http.listen },
        default: r#"["127.0.0.1:9643"]"#,
        example: "",
        doc: "Addresses to listen on; the default port is 9643. An empty list turns the server off, and with it the ICE-server API and \
              the webhooks.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.cert",
        kind: &PemPath { label: "CERTIFICATE", at: |s: &mut Settings| &mut s.http.cert },
        default: "",
        example: r#""/etc/hairpin/fullchain.pem""#,
        doc: "A PEM file with a certificate chain: the server speaks TLS. Without it, put a proxy with TLS before an address that others \
              reach.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.key",
        kind: &PemPath { label: "PRIVATE KEY", at: |s: &mut Settings| &mut s.http.key },
        default: "",
        example: r#""/etc/hairpin/privkey.pem""#,
        doc: "A PEM file with the private key of `http.cert`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.tokens_file",
        kind: &TokensFile(|s: &mut Settings| &mut s.http.tokens),
        default: "",
        example: r#""/etc/hairpin/livekit-tokens""#,
        doc: "A file with the bearer tokens of backends that ask for ICE servers on behalf of any participant, one per line: \
              `name:read:token`. A token has at least 32 characters; `openssl rand -hex 32` generates a good one. Two tokens may have the \
              same name, so that one can be replaced while the other is in use. Participants need none: they show their LiveKit token.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.metrics_tokens_file",
        kind: &TokensFile(|s: &mut Settings| &mut s.http.metrics_tokens),
        default: "",
        example: r#""/etc/hairpin/metrics-tokens""#,
        doc: "A file with the bearer tokens that open `/metrics`, as `http.tokens_file` of the relay (it may be the same file): \
              `name:read:token` per line. Without one of them a request is refused with 401, and `/readyz` says whether calls can be \
              served, but not why not. It is apart from `http.tokens_file`, so that whoever scrapes metrics gets no ICE servers. \
              Without this setting, whoever can connect reads metrics.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.origins",
        kind: &List { of: ORIGINS, at: |s: &mut Settings| &mut s.http.origins },
        default: "[]",
        example: r#"["https://meet.example.org"]"#,
        doc: "The origins of web pages that may use the ICE-server API from a browser (CORS), exactly as browsers send them. `\"*\"` stands \
              for every page, with participants' tokens only.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.burst",
        kind: &Count { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.http.burst },
        default: "20",
        example: "",
        doc: "How many answers of the ICE-server API a participant gets at once, before `http.per_minute` limits it. `0` means no limit.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "http.per_minute",
        kind: &Count { range: 0..=1_000_000, at: |s: &mut Settings| &mut s.http.per_minute },
        default: "20",
        example: "",
        doc: "How many answers a participant gets per minute afterwards. `0` means no limit.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.mode",
        kind: &Choice {
            words: &[("only", PeersMode::Only), ("add", PeersMode::Add), ("off", PeersMode::Off)],
            at: |s: &mut Settings| &mut s.peers.mode,
        },
        default: r#""only""#,
        example: "",
        doc: "With `only`, clients of the relays reach the SFU, each other, and nothing else. With `add`, they reach the SFU in addition \
              to what the configuration of the relay allows. `off` leaves peers to the relay's configuration.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.addresses",
        kind: &List { of: PEER_RANGES, at: |s: &mut Settings| &mut s.peers.addresses },
        default: "[]",
        example: r#"["203.0.113.7:50000-60000"]"#,
        doc: "The SFU's exact addresses with their UDP ports, if neither LiveKit's configuration (`livekit.config_file`) nor Redis tells \
              them, or in addition to those.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.redis",
        kind: &RedisUrl(|s: &mut Settings| &mut s.peers.redis),
        default: "",
        example: r#""redis://10.0.0.5:6379/0""#,
        doc: "The Redis server where the nodes of a distributed LiveKit deployment register; `rediss` is Redis with TLS. If empty, what \
              the `redis` section of `livekit.config_file` says. All nodes have the ports of that file, or those of LiveKit's defaults.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.redis_password_file",
        kind: &LoneSecret { read: password, at: |s: &mut Settings| &mut s.peers.redis_password },
        default: "",
        example: r#""/etc/hairpin/redis-password""#,
        doc: "A file with the password of that server on one line.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "peers.allow",
        kind: &List { of: PREFIXES, at: |s: &mut Settings| &mut s.peers.allow },
        default: "[]",
        example: r#"["10.0.0.0/16"]"#,
        doc: "Which private or otherwise not global addresses nodes in Redis may have. Whoever can write to Redis could make the relay \
              reach any machine of the network otherwise. Without an entry, such a node is left out, with a warning.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "lifecycle.revoke",
        kind: &Switch(|s: &mut Settings| &mut s.lifecycle.revoke),
        default: "true",
        example: "",
        doc: "Whether the credentials of participants who have left are revoked at the relays.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "lifecycle.reconcile",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.lifecycle.reconcile },
        default: "3",
        example: "",
        doc: "Seconds between two comparisons with LiveKit's own lists of participants, because webhooks can be lost. A \
              participant whose webhook was lost is revoked after two lists, the second a second after the first one.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "lifecycle.state_dir",
        kind: &PathName { absolute: false, at: |s: &mut Settings| &mut s.lifecycle.state_dir },
        default: "",
        example: r#""/var/lib/hairpin-livekit""#,
        doc: "Where the sidecar keeps who is in which room, so that it notices who leaves while it is restarted. If empty, the directory \
              `livekit` in that of the relay: `$STATE_DIRECTORY`, otherwise `/var/lib/hairpin` for a service, otherwise \
              `$XDG_STATE_HOME/hairpin` or `~/.local/state/hairpin`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "health.probe",
        kind: &Switch(|s: &mut Settings| &mut s.health.probe),
        default: "true",
        example: "",
        doc: "Whether each relay is probed by allocations of the sidecar's own, on every transport. A relay that fails is left out of \
              the answers of the ICE-server API.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "health.interval",
        kind: &Seconds { advice: Advice::NONE, at: |s: &mut Settings| &mut s.health.interval },
        default: "15",
        example: "",
        doc: "Seconds between two probes.",
        reload: Reload::Live,
        coturn: &[],
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
        doc: "The least severe level that is logged.",
        reload: Reload::Live,
        coturn: &[],
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
        doc: "Write only the network of whoever asks for ICE servers or sends webhooks in the log: `203.0.113.0/24` or \
              `2001:db8:1::/48`, without a port. Participants are named by their ids.",
        reload: Reload::Live,
        coturn: &[],
    },
];

static REPEATED: &[RepeatedSection<Settings>] = &[RepeatedSection {
    key: "relay",
    entry: &Draft { settings: RELAY, required: &[], add: relay::add },
    doc: "A relay. The first one is that beside the sidecar. All of them accept the same shared secret.",
    coturn: &[],
}];

/// The settings of a `[[relay]]` section.
pub static RELAY: &[Setting<RelaySettings>] = &[
    Setting {
        key: "name",
        kind: &Text { range: 1..=64, at: |r: &mut RelaySettings| &mut r.name },
        default: "",
        example: r#""turn-1""#,
        doc: "What logs and metrics call it: letters, digits, dots, hyphens and underscores. If there is none, the host of `url`, or \
              `local`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "socket",
        kind: &PathName { absolute: true, at: |r: &mut RelaySettings| &mut r.socket },
        default: "",
        example: r#""/run/hairpin/control.sock""#,
        doc: "Its control socket, if it is on this machine (`admin.socket` of the relay). If there is neither this nor `url`: that of \
              `$HAIRPIN_ADMIN_SOCKET`, otherwise where `hairpin serve` has it by default. The sidecar runs as root or as a member of \
              the group of the socket.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "url",
        kind: &ServerUrl {
            schemes: &["https", "http"],
            example: "https://turn-2.example.org:9642",
            at: |r: &mut RelaySettings| &mut r.url,
        },
        default: "",
        example: r#""https://turn-2.example.org:9642""#,
        doc: "Its admin API over TCP, if it is on another machine (`admin.listen` of the relay). `http` is for loopback addresses only.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "token_file",
        kind: &LoneSecret { read: relay_token, at: |r: &mut RelaySettings| &mut r.token },
        default: "",
        example: r#""/etc/hairpin/turn-2-token""#,
        doc: "A file with a token for that API whose scope is `admin`: the token alone, or a line of the relay's `admin.tokens_file`.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "ca_file",
        kind: &PemPath { label: "CERTIFICATE", at: |r: &mut RelaySettings| &mut r.ca_file },
        default: "",
        example: r#""/etc/hairpin/relay-ca.pem""#,
        doc: "A PEM file with authorities that its certificates may come from, those of its API and for TURN over TLS, besides those \
              that this machine trusts.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "region",
        kind: &Text { range: 0..=64, at: |r: &mut RelaySettings| &mut r.region },
        default: "",
        example: r#""eu-central""#,
        doc: "The region that it serves. Clients that name the same region in their request, in capital or small letters, get this \
              relay first.",
        reload: Reload::Live,
        coturn: &[],
    },
    Setting {
        key: "urls",
        kind: &List { of: ICE_URLS, at: |r: &mut RelaySettings| &mut r.urls },
        default: "[]",
        example: r#"["turn:turn.example.org:3478?transport=udp", "turns:turn.example.org:5349?transport=tcp"]"#,
        doc: "The ICE URLs that clients get. If empty, those that the relay tells (`ice_urls` of `hairpin ctl status --json`).",
        reload: Reload::Live,
        coturn: &[],
    },
];
