//! The configuration that `init` writes: complete and commented. The table of settings has the rest.

use std::fmt::Write;
use std::path::Path;

use toml_edit::Value;

use super::{Found, Wish};
use crate::livekit::peers::addresses::rule;
use crate::livekit::peers::sfu::DEFAULT_PORTS;

/// The text of the configuration.
pub fn text(wish: &Wish, found: &Found) -> String {
    let mut page = String::from(HEAD);
    let mut line = |text: &str| {
        let _ = writeln!(page, "{text}");
    };
    if let Some(socket) = &wish.socket {
        line("\n# The relay on this machine, by its control socket.");
        line("[[relay]]");
        line(&format!("socket = {}", path(socket)));
    } else {
        line("\n# The relay is that of this machine, at its usual control socket. Others can be added:");
        line("#[[relay]]");
        line("#url = \"https://turn-2.example.org:9642\"           # admin.listen of that relay");
        line("#token_file = \"/etc/hairpin/turn-2-token\"          # a token of it whose scope is admin");
        line(
            "#region = \"eu-central\"                             # clients that ask for it get this relay first",
        );
    }
    line("\n[livekit]");
    line("# Where clients connect to.");
    line(&format!("url = {}", quoted(&wish.livekit_url)));
    line("# Where the sidecar reaches LiveKit, if not there.");
    match &found.api_url {
        Some(url) => line(&format!("api_url = {}", quoted(url))),
        None => line("#api_url = \"http://127.0.0.1:7880\""),
    }
    line("# LiveKit's API keys: lines like API_KEY: SECRET. The first one signs, all are accepted.");
    line(&format!("keys_file = {}", path(&wish.keys_file)));
    line(
        "# LiveKit's own configuration, if LiveKit runs on this machine: it tells the SFU's addresses and ports.",
    );
    match &wish.livekit_config {
        Some(file) => line(&format!("config_file = {}", path(file))),
        None => line("#config_file = \"/etc/livekit/livekit.yaml\""),
    }
    if let Some(file) = &wish.ca_file {
        line("# Authorities that LiveKit's certificate may come from.");
        line(&format!("ca_file = {}", path(file)));
    }
    line("\n[credentials]");
    line("# The shared secret of the relay. It is needed for rtc.turn_servers and for the ICE-server API.");
    match &found.secret_file {
        Some(file) => line(&format!("secret_file = {}", path(file))),
        None => line("#secret_file = \"/etc/hairpin/secret\""),
    }
    line("# Seconds for which a credential can make allocations. Allocations that exist live on.");
    line("#ttl = 14400");
    line("\n[http]");
    line(
        "# The ICE-server API, LiveKit's webhooks, /livez, /readyz and /metrics. Let a proxy with TLS pass /v1/ice-servers on from",
    );
    line("# outside, or set a certificate here.");
    line("listen = [\"127.0.0.1:9643\"]");
    line("#cert = \"/etc/hairpin/fullchain.pem\"");
    line("#key = \"/etc/hairpin/privkey.pem\"");
    line(
        "# Web pages that may ask for ICE servers, and tokens of backends that ask on behalf of participants.",
    );
    line("#origins = [\"https://meet.example.org\"]");
    line("#tokens_file = \"/etc/hairpin/livekit-tokens\"");
    line("\n[peers]");
    line(
        "# Clients of the relay reach the SFU, each other, and nothing else. \"add\": the SFU besides what the relay's own configuration",
    );
    line("# allows. \"off\": only what that allows.");
    line("mode = \"only\"");
    line("# The SFU's addresses with their UDP ports, if LiveKit's configuration does not tell them.");
    let ports = found.ports.clone().unwrap_or(DEFAULT_PORTS);
    let rules: Vec<String> = found.sfu.iter().map(|ip| quoted(&rule(*ip, &ports))).collect();
    match rules.is_empty() {
        true => line("#addresses = [\"203.0.113.7:50000-60000\"]"),
        false => line(&format!("addresses = [{}]", rules.join(", "))),
    }
    line(
        "# Redis, where the nodes of a distributed deployment register, and the private networks that they may be in.",
    );
    line("#redis = \"redis://10.0.0.5:6379/0\"");
    line("#redis_password_file = \"/etc/hairpin/redis-password\"");
    line("#allow = [\"10.0.0.0/16\"]");
    line("\n[lifecycle]");
    line("# The credentials of participants who have left are revoked, and their allocations end.");
    line("revoke = true");
    line("\n[health]");
    line("# The relay is probed by allocations of the sidecar's own.");
    line("probe = true");
    line("\n[log]");
    line("level = \"info\"");
    page
}

const HEAD: &str = "\
# Configuration of hairpin-livekit, written by `hairpin-livekit init`. docs/livekit-configuration.md has every setting.
# `hairpin-livekit check` proves that it works; SIGHUP makes a running sidecar read it again.
";

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::ReadContext;
    use crate::livekit::config::{Purpose, load};

    fn wish() -> Wish {
        Wish {
            livekit_url: "wss://livekit.example.org".into(),
            api_url: None,
            keys_file: "/etc/hairpin/livekit-keys".into(),
            livekit_config: None,
            ca_file: None,
            socket: None,
            secret_file: None,
        }
    }

    /// Whatever is known, the result is a configuration that can be used.
    #[test]
    fn what_is_written_can_be_read() {
        let keys = |_: &Path| Ok("APIkey: an API secret of at least thirty-two characters\n".into());
        let context = ReadContext { read: &keys, ..ReadContext::NONE };
        let read = |wish: &Wish, found: &Found| {
            let text = text(wish, found);
            load("file", &text, Purpose::Run, &context)
                .unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{text}"))
                .settings
        };
        let settings = read(&wish(), &Found::default());
        assert_eq!(settings.livekit.url, "wss://livekit.example.org");
        assert_eq!((settings.relays.len(), &settings.livekit.config_file), (1, &None));
        let full = Wish {
            livekit_config: Some("/etc/livekit \"1\"/livekit.yaml".into()),
            socket: Some("/run/other/control.sock".into()),
            ..wish()
        };
        let found = Found {
            api_url: Some("http://127.0.0.1:7880".into()),
            sfu: vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            ports: Some(7882..=7882),
            ..Found::default()
        };
        let settings = read(&full, &found);
        assert_eq!(settings.livekit.config_file, full.livekit_config);
        assert_eq!(settings.relays[0].socket, Some(PathBuf::from("/run/other/control.sock")));
        assert_eq!(format!("{:?}", settings.peers.addresses), "[203.0.113.7:7882, [2001:db8::7]:7882]");
    }

    #[test]
    fn every_comment_fits_the_screen() {
        assert!(text(&wish(), &Found::default()).lines().all(|line| line.len() <= 132));
    }
}
