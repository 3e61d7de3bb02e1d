//! LiveKit's own configuration, if it is on this machine: whether it names the relay, and whether the relay reaches the SFU.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::Value;

use super::Verdict;
use super::ports::{overlap, range};
use crate::livekit::ice_url::{ClientTransport, IceUrl};
use crate::livekit::settings::PeersMode;
use crate::turn::peers::PeerRule;

/// What LiveKit's configuration says, as far as the relay is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SfuConfig {
    /// `rtc.node_ip`
    pub node_ip: Option<IpAddr>,
    /// The UDP ports that media uses.
    pub ports: RangeInclusive<u16>,
    /// `rtc.turn_servers`
    pub turn_servers: Vec<IceUrl>,
    /// Whether `turn` is enabled: LiveKit then issues credentials of its own.
    pub has_turn: bool,
    /// `webhook.urls`
    pub webhooks: Vec<String>,
}

/// Reads LiveKit's configuration.
///
/// # Errors
/// It is no YAML.
pub fn read(text: &str) -> Result<SfuConfig, String> {
    let documents =
        Yaml::load_from_str(text).map_err(|error| format!("line {}: not YAML", error.marker().line()))?;
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
    let port = |key: &str| of(rtc, key).and_then(|port| port.parse().ok()).filter(|port| *port != 0_u16);
    let mux = of(rtc, "udp_port").and_then(|text| range(&text)).filter(|ports| *ports.start() != 0);
    // LiveKit's own defaults
    let ports =
        mux.unwrap_or(port("port_range_start").unwrap_or(50_000)..=port("port_range_end").unwrap_or(60_000));
    let server = |entry: &Yaml<'_>| {
        let get = |key| entry.as_mapping_get(key).and_then(text_of);
        let transport = match get("protocol").as_deref() {
            Some("tls") => ClientTransport::Tls,
            Some("udp") => ClientTransport::Udp,
            _ => ClientTransport::Tcp,
        };
        let host = get("host")?.trim_matches(['[', ']']).to_owned();
        Some(IceUrl { transport, host, port: get("port").and_then(|port| port.parse().ok()).unwrap_or(0) })
    };
    Ok(SfuConfig {
        node_ip: of(rtc, "node_ip").and_then(|ip| ip.parse().ok()),
        ports,
        turn_servers: list(rtc, "turn_servers").iter().filter_map(server).collect(),
        has_turn: of(turn, "enabled").as_deref() == Some("true"),
        webhooks: list(webhook, "urls").iter().filter_map(text_of).collect(),
    })
}

fn text_of(yaml: &Yaml<'_>) -> Option<String> {
    let number = yaml.as_integer().map(|number| number.to_string());
    let text = || yaml.as_str().map(str::to_owned);
    number.or_else(text).or_else(|| yaml.as_bool().map(|flag| flag.to_string()))
}

/// Whether LiveKit hands out the URLs of the relays.
pub fn registration(config: &SfuConfig, urls: &[String]) -> Verdict {
    let urls: Vec<IceUrl> = urls.iter().filter_map(|url| IceUrl::parse(url)).collect();
    let shown = |url: &IceUrl| format!("{} {}:{}", url.transport.as_str(), url.host, url.port);
    let strange: Vec<String> =
        config.turn_servers.iter().filter(|server| !urls.contains(server)).map(shown).collect();
    let missing: Vec<String> =
        urls.iter().filter(|url| !config.turn_servers.contains(url)).map(shown).collect();
    if config.turn_servers.is_empty() {
        return match config.has_turn {
            true => Verdict::Good("LiveKit issues credentials of its own, which the relay has to verify".into()),
            false => Verdict::Hint(
                "LiveKit's configuration has no rtc.turn_servers, so clients get the relay from the ICE-server API only; \
                 `hairpin-livekit render` prints the section"
                    .into(),
            ),
        };
    }
    match (strange.is_empty(), missing.is_empty()) {
        (true, true) => Verdict::Good("rtc.turn_servers of LiveKit's configuration lists the relay".into()),
        (false, _) => Verdict::Wrong(format!(
            "rtc.turn_servers of LiveKit's configuration lists {}, which is no URL of a relay; write it anew with `hairpin-livekit \
             render` and restart LiveKit",
            strange.join(" and ")
        )),
        (true, false) => Verdict::Wrong(format!(
            "rtc.turn_servers of LiveKit's configuration lacks {}; write it anew with `hairpin-livekit render` and restart LiveKit",
            missing.join(" and ")
        )),
    }
}

/// Whether relay and SFU both want the same ports of one machine.
pub fn shared_ports(config: &SfuConfig, relay_ports: &str) -> Option<Verdict> {
    let relay = range(relay_ports)?;
    let common = overlap(&relay, &config.ports)?;
    Some(Verdict::Hint(format!(
        "the relay's ports {relay_ports} and those of LiveKit ({}-{}) have {}-{} in common; on one machine give each its own, such as \
         relay.ports = \"30000-39999\"",
        config.ports.start(),
        config.ports.end(),
        common.start(),
        common.end()
    )))
}

/// Whether LiveKit sends webhooks to the sidecar.
pub fn webhook(config: Option<&SfuConfig>, listen: &str) -> Verdict {
    let Some(config) = config else {
        return Verdict::Hint(format!(
            "whether LiveKit sends webhooks cannot be seen from here; its configuration needs webhook.urls: [http://{listen}/v1/webhook] \
             and webhook.api_key, or participants that leave are noticed by reconciliation only"
        ));
    };
    match config.webhooks.iter().find(|url| url.ends_with("/v1/webhook")) {
        Some(url) => Verdict::Good(format!("LiveKit's configuration sends webhooks to {url}")),
        None => Verdict::Wrong(format!(
            "LiveKit's configuration sends no webhooks to the sidecar; add webhook.urls: [http://{listen}/v1/webhook] and webhook.api_key \
             there, and restart LiveKit"
        )),
    }
}

/// Whether the relay reaches the SFU: by the overlay that the sidecar sets. `overlay` is that of the relay's status.
pub fn peers(mode: PeersMode, overlay: Option<&Value>, config: Option<&SfuConfig>) -> Verdict {
    let wanted = match mode {
        PeersMode::Off => {
            return Verdict::Hint(
                "peers.mode is off, so peers.allow of the relay alone decides whether it reaches the SFU"
                    .into(),
            );
        }
        PeersMode::Only => "only",
        PeersMode::Add => "add",
    };
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
    if let Some(SfuConfig { node_ip: Some(ip), ports, .. }) = config {
        let covers = |rule: &PeerRule| {
            rule.range.contains(*ip)
                && rule.ports().contains(ports.start())
                && rule.ports().contains(ports.end())
        };
        if !rules.iter().any(covers) {
            return Verdict::Wrong(format!(
                "the relay's peer overlay does not cover LiveKit's {ip}:{}-{}; see the log of `hairpin-livekit run`, or list it in \
                 peers.addresses",
                ports.start(),
                ports.end()
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

    #[test]
    fn livekit_s_configuration_is_read() {
        let config = read(FILE).unwrap();
        assert_eq!(
            (config.node_ip, config.ports.clone(), config.has_turn),
            ("203.0.113.7".parse().ok(), 50_000..=50_100, false)
        );
        let expected = ["turn:turn.example.org:3478?transport=udp", "turns:[2001:db8::1]:5349?transport=tcp"];
        assert_eq!(config.turn_servers, expected.map(|url| IceUrl::parse(url).unwrap()));
        assert_eq!(read("rtc:\n  udp_port: 7882\n").unwrap().ports, 7882..=7882);
        assert_eq!(read("rtc:\n  udp_port: 7882-7892\n").unwrap().ports, 7882..=7892);
        assert_eq!(read("port: 7880\n").unwrap().ports, 50_000..=60_000);
        assert!(read("turn:\n  enabled: true\n").unwrap().has_turn);
        for text in ["", "- a\n", "rtc: 5\n", "rtc:\n  turn_servers: 7\n"] {
            assert!(read(text).unwrap().turn_servers.is_empty(), "{text:?}");
        }
        assert!(read("a: [\n").unwrap_err().contains("not YAML"));
    }

    #[test]
    fn a_registration_that_is_not_current_is_named() {
        let config = read(FILE).unwrap();
        let urls = ["turn:turn.example.org:3478?transport=udp", "turns:[2001:db8::1]:5349?transport=tcp"]
            .map(str::to_owned);
        assert!(matches!(registration(&config, &urls), Verdict::Good(_)));
        let lacks = wrong(registration(
            &config,
            &[&urls[..], &["turn:turn.example.org:3478?transport=tcp".into()]].concat(),
        ));
        assert!(lacks.contains("lacks tcp turn.example.org:3478; "), "{lacks}");
        let strange = wrong(registration(&config, &urls[..1]));
        assert!(strange.contains("lists tls 2001:db8::1:5349, which is no URL"), "{strange}");
        assert!(matches!(registration(&read("").unwrap(), &urls), Verdict::Hint(_)));
        assert!(matches!(registration(&read("turn: {enabled: true}").unwrap(), &urls), Verdict::Good(_)));
    }

    #[test]
    fn ports_that_both_want_are_named() {
        let config = read(FILE).unwrap();
        assert_eq!(shared_ports(&config, "30000-39999"), None);
        let Some(Verdict::Hint(said)) = shared_ports(&config, "49152-65535") else { panic!() };
        assert!(said.contains("have 50000-50100 in common"), "{said}");
    }

    #[test]
    fn webhooks_are_seen_in_livekit_s_configuration_only() {
        let config = read(FILE).unwrap();
        assert!(matches!(webhook(Some(&config), "127.0.0.1:9643"), Verdict::Good(_)));
        assert!(matches!(webhook(None, "127.0.0.1:9643"), Verdict::Hint(_)));
        let none = wrong(webhook(Some(&read("").unwrap()), "127.0.0.1:9643"));
        assert!(none.contains("add webhook.urls: [http://127.0.0.1:9643/v1/webhook]"), "{none}");
    }

    #[test]
    fn the_overlay_must_cover_the_sfu() {
        let config = read(FILE).unwrap();
        let overlay =
            |mode: &str, address: &str| json!({ "owner": "livekit", "mode": mode, "addresses": [address] });
        let judged = |overlay: &Value| peers(PeersMode::Only, Some(overlay), Some(&config));
        assert!(matches!(judged(&overlay("only", "203.0.113.7:50000-60000")), Verdict::Good(_)));
        assert!(matches!(judged(&overlay("only", "203.0.113.7")), Verdict::Good(_)));
        assert!(
            wrong(judged(&overlay("only", "203.0.113.7:50000-50050")))
                .contains("does not cover LiveKit's 203.0.113.7:50000-50100")
        );
        assert!(wrong(judged(&overlay("only", "203.0.113.8"))).contains("does not cover"));
        assert!(wrong(judged(&overlay("add", "203.0.113.7"))).contains("has the mode add"));
        assert!(wrong(peers(PeersMode::Only, None, Some(&config))).contains("start `hairpin-livekit run`"));
        assert!(matches!(peers(PeersMode::Off, None, None), Verdict::Hint(_)));
    }
}
