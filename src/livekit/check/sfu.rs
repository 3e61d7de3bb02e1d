//! LiveKit's own configuration, if it is on this machine: whether it names the relay, and whether the relay reaches the SFU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::Value;

use super::Verdict;
use super::ports::{overlap, range};
use crate::livekit::ice_url::ClientTransport;
use crate::livekit::peers::addresses::rule;
use crate::livekit::peers::sfu::SfuConfig;
use crate::livekit::render::servers::{self, Server};
use crate::livekit::settings::{ApiKey, HttpSettings, PeersMode, Settings};
use crate::turn::peers::PeerRule;

/// How LiveKit's configuration registers the relays and the sidecar. Addresses and ports of media are in [`SfuConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// `rtc.turn_servers`
    pub turn_servers: Vec<Server>,
    /// Whether `turn` is enabled: LiveKit then issues credentials of its own.
    pub has_turn: bool,
    /// `webhook.urls`
    pub webhooks: Vec<String>,
    /// `webhook.api_key`
    pub webhook_key: Option<String>,
}

impl Registration {
    /// Reads LiveKit's configuration.
    ///
    /// # Errors
    /// It is no YAML.
    pub fn read(text: &str) -> Result<Registration, String> {
        let documents = Yaml::load_from_str(text)
            .map_err(|error| format!("line {} is not YAML", error.marker().line()))?;
        let root = documents.into_iter().next().unwrap_or(Yaml::BadValue);
        let (rtc, turn, webhook) =
            (root.as_mapping_get("rtc"), root.as_mapping_get("turn"), root.as_mapping_get("webhook"));
        let of = |section: Option<&Yaml<'_>>, key: &str| {
            section.and_then(|found| found.as_mapping_get(key)).and_then(text_of)
        };
        let list = |section: Option<&Yaml<'static>>, key: &str| -> Vec<Yaml<'static>> {
            let found = section.and_then(|found| found.as_mapping_get(key));
            found.and_then(|list| list.as_vec()).cloned().unwrap_or_default()
        };
        Ok(Registration {
            turn_servers: list(rtc, "turn_servers").iter().filter_map(server).collect(),
            has_turn: of(turn, "enabled").as_deref() == Some("true"),
            webhooks: list(webhook, "urls").iter().filter_map(text_of).collect(),
            webhook_key: of(webhook, "api_key"),
        })
    }
}

fn server(entry: &Yaml<'_>) -> Option<Server> {
    let get = |key| entry.as_mapping_get(key).and_then(text_of);
    let transport = match get("protocol").as_deref() {
        Some("tls") => ClientTransport::Tls,
        Some("udp") => ClientTransport::Udp,
        _ => ClientTransport::Tcp,
    };
    let port = get("port").and_then(|port| port.parse().ok()).unwrap_or(0);
    let written = Server { host: get("host")?, port, transport };
    // As the relay writes it; what is no URL stays as it is.
    Some(Server::of(&written.url()).unwrap_or(written))
}

fn text_of(yaml: &Yaml<'_>) -> Option<String> {
    let number = yaml.as_integer().map(|number| number.to_string());
    let text = || yaml.as_str().map(str::to_owned);
    number.or_else(text).or_else(|| yaml.as_bool().map(|flag| flag.to_string()))
}

/// Whether LiveKit hands out the URLs of the relays, and the name that it gives them instead of their own.
pub fn registration(config: &Registration, urls: &[String]) -> (Verdict, Option<String>) {
    if config.turn_servers.is_empty() {
        let verdict = match config.has_turn {
            true => Verdict::Good("LiveKit issues credentials of its own, which the relay has to verify".into()),
            false => Verdict::Hint(
                "LiveKit's configuration has no rtc.turn_servers, so clients get the relay from the ICE-server API only; \
                 `hairpin-livekit render` prints the section"
                    .into(),
            ),
        };
        return (verdict, None);
    }
    let own = |domain: Option<&str>| servers::all(urls.iter().cloned(), domain).unwrap_or_default();
    let relays = own(None);
    if relays.is_empty() {
        let said = "no relay says which URLs it has, so rtc.turn_servers of LiveKit's configuration cannot be compared with them";
        return (Verdict::Hint(said.into()), None);
    }
    let is_listed = |server: &Server| config.turn_servers.iter().any(|one| is_same(one, server));
    // `hairpin-livekit render --domain`: one name for all relays.
    let names = config.turn_servers.iter().filter(|server| server.is_named()).map(|server| &server.host);
    let is_all = |relays: &[Server]| relays.iter().all(is_listed);
    let name =
        (!is_all(&relays)).then(|| names.clone().find(|name| is_all(&own(Some(name.as_str()))))).flatten();
    let relays = name.map_or(relays, |name| own(Some(name.as_str())));
    let shown = |servers: Vec<&Server>| {
        let shown = |one: &&Server| format!("{} {}:{}", one.transport.as_str(), one.host, one.port);
        servers.iter().map(shown).collect::<Vec<_>>().join(" and ")
    };
    let missing: Vec<&Server> = relays.iter().filter(|server| !is_listed(server)).collect();
    let others =
        || config.turn_servers.iter().filter(|server| !relays.iter().any(|relay| is_same(relay, server)));
    let is_host = |server: &&Server| relays.iter().any(|relay| relay.host.eq_ignore_ascii_case(&server.host));
    let (stale, foreign): (Vec<&Server>, Vec<&Server>) = others().partition(is_host);
    let verdict = if !missing.is_empty() {
        Verdict::Wrong(format!(
            "rtc.turn_servers of LiveKit's configuration lacks {}; write it anew with `hairpin-livekit render` and restart LiveKit",
            shown(missing)
        ))
    } else if !stale.is_empty() {
        Verdict::Wrong(format!(
            "rtc.turn_servers of LiveKit's configuration lists {}, where the relay does not listen; write it anew with \
             `hairpin-livekit render` and restart LiveKit",
            shown(stale)
        ))
    } else if !foreign.is_empty() {
        Verdict::Hint(format!(
            "rtc.turn_servers of LiveKit's configuration lists the relay, and besides {}, which is none of these relays; remove that \
             if it is no TURN server of yours",
            shown(foreign)
        ))
    } else {
        Verdict::Good("rtc.turn_servers of LiveKit's configuration lists the relay".into())
    };
    (verdict, name.cloned())
}

fn is_same(one: &Server, other: &Server) -> bool {
    one.host.eq_ignore_ascii_case(&other.host) && (one.port, one.transport) == (other.port, other.transport)
}

/// Whether relay and SFU both want the same ports of one machine. The relay passes over a single port that is taken.
pub fn shared_ports(config: &SfuConfig, relay_ports: &str) -> Option<Verdict> {
    let (first, last) = (config.ports.start(), config.ports.end());
    let common = overlap(&range(relay_ports)?, &config.ports).filter(|_| first != last)?;
    Some(Verdict::Hint(format!(
        "the relay's ports {relay_ports} and those of LiveKit ({first}-{last}) have {}-{} in common; on one machine give each its \
         own, such as relay.ports = \"30000-39999\"",
        common.start(),
        common.end()
    )))
}

/// Whether LiveKit sends webhooks to the sidecar, with a key that the sidecar knows.
pub fn webhook(config: Option<&Registration>, http: &HttpSettings, keys: &[ApiKey]) -> Verdict {
    let wanted = webhook_url(http);
    let Some(config) = config else {
        return Verdict::Hint(format!(
            "whether LiveKit sends webhooks cannot be seen from here; its configuration needs webhook.urls: [{wanted}] and \
             webhook.api_key, or participants that leave are noticed by reconciliation only"
        ));
    };
    let Some(url) = config.webhooks.iter().find(|url| url.ends_with("/v1/webhook")) else {
        return Verdict::Wrong(format!(
            "LiveKit's configuration sends no webhooks to the sidecar; add webhook.urls: [{wanted}] and webhook.api_key there, and \
             restart LiveKit"
        ));
    };
    match &config.webhook_key {
        Some(key) if !keys.iter().any(|known| known.key == *key) => Verdict::Wrong(format!(
            "LiveKit signs its webhooks with the API key {key} (webhook.api_key), which the sidecar refuses, because \
             livekit.keys_file does not have it; add it there"
        )),
        _ => Verdict::Good(format!("LiveKit's configuration sends webhooks to {url}")),
    }
}

/// Where LiveKit on the same machine reaches the sidecar. Its certificate has names, which are not known here.
fn webhook_url(http: &HttpSettings) -> String {
    let port = http.listen.first().map_or(9643, SocketAddr::port);
    if http.cert.is_some() {
        return format!("https://NAME_IN_HTTP_CERT:{port}/v1/webhook");
    }
    let host = match http.listen.first().map(SocketAddr::ip) {
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        Some(ip) if !ip.is_unspecified() => ip,
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    format!("http://{}/v1/webhook", SocketAddr::new(host, port))
}

/// Whether the relay reaches the SFU: by the overlay that the sidecar sets. `overlay` is that of the relay's status.
pub fn peers(settings: &Settings, overlay: Option<&Value>, config: Option<&SfuConfig>) -> Verdict {
    let wanted = match settings.peers.mode {
        PeersMode::Off => {
            return Verdict::Hint(
                "peers.mode is off, so peers.allow of the relay alone decides whether it reaches the SFU"
                    .into(),
            );
        }
        PeersMode::Only => "only",
        PeersMode::Add => "add",
    };
    if overlay.is_none() && !settings.knows_peers() {
        return Verdict::Hint(
            "nothing says which addresses the SFU has, so peers.allow of the relay alone decides whether it reaches the SFU; set \
             livekit.config_file, peers.addresses or peers.redis"
                .into(),
        );
    }
    let Some(overlay) = overlay else {
        return Verdict::Wrong(
            "the relay has no peer overlay of the sidecar, so it may not reach the SFU; start `hairpin-livekit run`, which sets it".into(),
        );
    };
    let addresses = overlay["addresses"].as_array().into_iter().flatten();
    let rules: Vec<PeerRule> = addresses.filter_map(|rule| rule.as_str()?.parse().ok()).collect();
    if overlay["mode"] != wanted {
        let has = overlay["mode"].as_str().unwrap_or_default();
        return Verdict::Wrong(format!(
            "the relay's peer overlay has the mode {has}, but peers.mode is {wanted}; restart `hairpin-livekit run`"
        ));
    }
    if rules.is_empty() {
        return Verdict::Wrong(
            "the relay's peer overlay is empty; see the log of `hairpin-livekit run`".into(),
        );
    }
    if let Some(SfuConfig { node_ips, ports, .. }) = config {
        let is_covered = |ip: &IpAddr| {
            let [first, last] = [ports.start(), ports.end()];
            let covers = |rule: &PeerRule| {
                rule.range.contains(*ip) && [first, last].iter().all(|port| rule.ports().contains(*port))
            };
            rules.iter().any(covers)
        };
        if let Some(ip) = node_ips.iter().find(|ip| !is_covered(ip)) {
            return Verdict::Wrong(format!(
                "the relay's peer overlay does not cover LiveKit's {}; see the log of `hairpin-livekit run`, or list it in \
                 peers.addresses",
                rule(*ip, ports)
            ));
        }
    }
    let shown: Vec<String> = rules.iter().take(4).map(ToString::to_string).collect();
    let more = if rules.len() > 4 { format!(" and {} more", rules.len() - 4) } else { String::new() };
    Verdict::Good(format!("the relay reaches {}{more} ({wanted})", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::Secret;

    const FILE: &str = "
port: 7880
rtc:
  node_ip: 203.0.113.7
  port_range_start: 50000
  port_range_end: 50100
  turn_servers:
    - host: turn.example.org
      port: 3478
      protocol: udp
      secret: \"not for logs\"
    - host: \"[2001:db8::1]\"
      port: 5349
      protocol: tls
webhook:
  api_key: APIkey
  urls:
    - http://127.0.0.1:9643/v1/webhook
";

    fn wrong(verdict: Verdict) -> String {
        let Verdict::Wrong(said) = verdict else { panic!("{verdict:?}") };
        said
    }

    fn hint(verdict: Verdict) -> String {
        let Verdict::Hint(said) = verdict else { panic!("{verdict:?}") };
        said
    }

    fn judged(yaml: &str, urls: &[&str]) -> Verdict {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        registration(&Registration::read(yaml).unwrap(), &urls).0
    }

    const URLS: [&str; 2] =
        ["turn:turn.example.org:3478?transport=udp", "turns:[2001:db8::1]:5349?transport=tcp"];

    #[test]
    fn livekit_s_configuration_is_read() {
        let config = Registration::read(FILE).unwrap();
        assert_eq!((config.has_turn, config.webhook_key.as_deref()), (false, Some("APIkey")));
        assert_eq!(config.turn_servers.iter().map(Server::url).collect::<Vec<_>>(), URLS);
        assert!(Registration::read("turn:\n  enabled: true\n").unwrap().has_turn);
        for text in ["", "- a\n", "rtc: 5\n", "rtc:\n  turn_servers: 7\n"] {
            assert!(Registration::read(text).unwrap().turn_servers.is_empty(), "{text:?}");
        }
        assert!(Registration::read("a: [\n").unwrap_err().contains("not YAML"));
    }

    #[test]
    fn a_registration_that_is_not_current_is_named() {
        assert!(matches!(judged(FILE, &URLS), Verdict::Good(_)));
        let lacks = wrong(judged(FILE, &[&URLS[..], &["turn:turn.example.org:3478?transport=tcp"]].concat()));
        assert!(lacks.contains("lacks tcp turn.example.org:3478; "), "{lacks}");
        let stale = wrong(judged(
            &FILE.replace("3478", "3479"),
            &["turn:turn.example.org:3479", "turns:turn.example.org"],
        ));
        assert!(stale.contains("lacks tls turn.example.org:5349"), "{stale}");
        let moved = FILE.replace("\"[2001:db8::1]\"", "Turn.example.org");
        let moved = wrong(judged(&moved, &URLS[..1]));
        assert!(
            moved.contains("lists tls Turn.example.org:5349, where the relay does not listen"),
            "{moved}"
        );
        assert!(matches!(judged("", &URLS), Verdict::Hint(_)));
        assert!(matches!(judged("turn: {enabled: true}", &URLS), Verdict::Good(_)));
        // No relay answers, which is said elsewhere
        assert!(matches!(judged(FILE, &[]), Verdict::Hint(_)));
    }

    /// Operators may have another TURN server, and one name for all relays.
    #[test]
    fn other_servers_and_names_are_right() {
        let other = hint(judged(FILE, &URLS[..1]));
        assert!(other.contains("besides tls [2001:db8::1]:5349"), "{other}");
        let urls = ["turn:203.0.113.5:3478", "turn:203.0.113.6:3478"].map(str::to_owned);
        let named =
            Registration::read("rtc: {turn_servers: [{host: turn.example.org, port: 3478, protocol: udp}]}");
        let (verdict, name) = registration(&named.unwrap(), &urls);
        assert!(matches!(verdict, Verdict::Good(_)), "{verdict:?}");
        assert_eq!(name.as_deref(), Some("turn.example.org"), "which is looked up");
    }

    #[test]
    fn ports_that_both_want_are_named() {
        let of = |text| SfuConfig::read(text).unwrap();
        assert_eq!(shared_ports(&of(FILE), "30000-39999"), None);
        let said = hint(shared_ports(&of(FILE), "49152-65535").unwrap());
        assert!(said.contains("have 50000-50100 in common"), "{said}");
        assert_eq!(shared_ports(&of("development: true\n"), "1024-65535"), None);
    }

    #[test]
    fn webhooks_are_seen_in_livekit_s_configuration_only() {
        let http = HttpSettings::default();
        let keys = |key: &str| [ApiKey { key: key.into(), secret: Secret::new("secret") }];
        let config = Registration::read(FILE).unwrap();
        assert!(matches!(webhook(Some(&config), &http, &keys("APIkey")), Verdict::Good(_)));
        let key = wrong(webhook(Some(&config), &http, &keys("APIother")));
        assert!(key.contains("the API key APIkey (webhook.api_key), which the sidecar refuses"), "{key}");
        assert!(matches!(webhook(None, &http, &[]), Verdict::Hint(_)));
        let none = wrong(webhook(Some(&Registration::read("").unwrap()), &http, &[]));
        assert!(none.contains("add webhook.urls: [http://127.0.0.1:9643/v1/webhook]"), "{none}");
    }

    /// What is suggested must be an address that LiveKit can connect to.
    #[test]
    fn a_webhook_goes_to_the_loopback_address_of_a_wildcard_and_over_tls_if_there_is_a_certificate() {
        for (listen, url) in [
            ("0.0.0.0:9643", "http://127.0.0.1:9643/v1/webhook"),
            ("[::]:80", "http://[::1]:80/v1/webhook"),
            ("10.0.0.7:9643", "http://10.0.0.7:9643/v1/webhook"),
        ] {
            let http = HttpSettings { listen: vec![listen.parse().unwrap()], ..HttpSettings::default() };
            assert_eq!(webhook_url(&http), url);
            let tls = HttpSettings { cert: Some("cert.pem".into()), ..http };
            assert!(webhook_url(&tls).starts_with("https://NAME_IN_HTTP_CERT:"));
        }
    }

    #[test]
    fn the_overlay_must_cover_the_sfu() {
        let overlay =
            |mode: &str, address: &str| json!({ "owner": "livekit", "mode": mode, "addresses": [address] });
        let mut settings = Settings::blank();
        assert!(matches!(peers(&settings, None, None), Verdict::Hint(_)), "nobody has named the SFU");
        settings.livekit.config_file = Some("livekit.yaml".into());
        let of = |overlay: &Value, text: &str| {
            peers(&settings, Some(overlay), SfuConfig::read(text).ok().as_ref())
        };
        let judged = |overlay: &Value| of(overlay, FILE);
        assert!(matches!(judged(&overlay("only", "203.0.113.7:50000-60000")), Verdict::Good(_)));
        assert!(matches!(judged(&overlay("only", "203.0.113.7")), Verdict::Good(_)));
        assert!(
            wrong(judged(&overlay("only", "203.0.113.7:50000-50050")))
                .contains("does not cover LiveKit's 203.0.113.7:50000-50100")
        );
        assert!(wrong(judged(&overlay("only", "203.0.113.8"))).contains("does not cover"));
        assert!(wrong(judged(&overlay("add", "203.0.113.7"))).contains("has the mode add"));
        let both = "rtc:\n  node_ip: 203.0.113.7, 2001:db8::7\n  udp_port: 7882\n";
        let second = wrong(of(&overlay("only", "203.0.113.7:7882"), both));
        assert!(second.contains("does not cover LiveKit's [2001:db8::7]:7882"), "{second}");
        assert!(wrong(peers(&settings, None, None)).contains("start `hairpin-livekit run`"));
        settings.peers.mode = PeersMode::Off;
        assert!(matches!(peers(&settings, None, None), Verdict::Hint(_)));
    }
}
