//! Whether a file is what a section belongs to. Written into another file the section would do nothing, or break that file.

use super::yaml::outline::{self, Node, Outline, Shape};
use super::yaml::{self, Refusal};

/// A configuration that gets a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// livekit.yaml
    LiveKit,
    /// mediamtx.yml
    MediaMtx,
}

/// Keys at the top of LiveKit's configuration.
const LIVEKIT: [&str; 18] = [
    "port",
    "rtc",
    "keys",
    "key_file",
    "bind_addresses",
    "turn",
    "room",
    "node_selector",
    "signal_relay",
    "prometheus_port",
    "region",
    "limit",
    "development",
    "webhook",
    "redis",
    "logging",
    "log_level",
    "audio",
];

/// Keys that only LiveKit's configuration has together, wherever it is.
const LIVEKIT_INSIDE: [&str; 4] = ["port", "rtc", "keys", "key_file"];

/// Keys at the top of MediaMTX's configuration.
const MEDIAMTX: [&str; 6] =
    ["paths", "pathDefaults", "logLevel", "logDestinations", "authMethod", "authInternalUsers"];

/// How other keys of MediaMTX's begin.
const MEDIAMTX_BEGINS: [&str; 6] = ["webrtc", "rtsp", "rtmp", "hls", "srt", "runOn"];

/// Keys of LiveKit's companions (egress, ingress, SIP, agents), which connect to it.
const COMPANION: [&str; 3] = ["api_key", "api_secret", "ws_url"];

/// How deep a configuration may be inside another file.
const DEPTH_MAX: usize = 4;

/// Checks that a document is of this kind.
///
/// # Errors
///
/// It is something else, as a sentence.
pub fn check(text: &str, outline: &Outline, kind: Kind) -> Result<(), Refusal> {
    let foreign = |sentence: String| Err(Refusal::Foreign(sentence));
    let root = &outline.root;
    if root.is_empty() {
        return Err(Refusal::Empty);
    }
    let Shape::Mapping { entries, .. } = &root.shape else {
        return foreign(format!("the file is not {}: it is no mapping", kind.name()));
    };
    let has = |key: &str| root.get(key).is_some();
    let is_mediamtx = MEDIAMTX.iter().any(|key| has(key)) || {
        let keys = entries.iter().filter_map(|(key, _)| key.scalar());
        keys.into_iter().any(|key| MEDIAMTX_BEGINS.iter().any(|begin| key.starts_with(begin)))
    };
    let is_livekit = LIVEKIT.iter().any(|key| has(key));
    match kind {
        Kind::MediaMtx if is_mediamtx => return Ok(()),
        Kind::MediaMtx if is_livekit => {
            return foreign(
                "the file is LiveKit's configuration and not MediaMTX's; leave out --mode mediamtx".into(),
            );
        }
        Kind::MediaMtx => {
            return foreign(
                "the file does not look like MediaMTX's configuration: it has none of its keys".into(),
            );
        }
        Kind::LiveKit => {}
    }
    if has("apiVersion") && has("kind") {
        let what = root.get("kind").and_then(|(_, value)| value.scalar()).unwrap_or("manifest");
        return foreign(format!(
            "the file is a Kubernetes manifest ({what}); LiveKit's configuration is inside it, and that is not edited"
        ));
    }
    if let Some((path, line)) = inside(text, root, 0).filter(|_| !is_livekit || has("livekit")) {
        let like = if has("services") { "docker-compose files" } else { "Helm values" };
        return foreign(format!(
            "line {line}: LiveKit's configuration is not the file itself but inside it, below `{path}`, as in {like}; that is not \
             edited"
        ));
    }
    if let Some(key) = COMPANION.iter().find(|key| has(key)) {
        return foreign(format!(
            "the file is of a program that connects to LiveKit: it has `{key}`; LiveKit's own has `keys`"
        ));
    }
    if is_mediamtx && !has("rtc") {
        return foreign("the file is MediaMTX's configuration; use --mode mediamtx".into());
    }
    if !is_livekit {
        return foreign(
            "the file does not look like LiveKit's configuration: it has none of its keys, like port, rtc or keys".into(),
        );
    }
    Ok(())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::LiveKit => "LiveKit's configuration",
            Kind::MediaMtx => "MediaMTX's configuration",
        }
    }
}

/// The keys that lead to a configuration of LiveKit inside another document, as a mapping or as text, and its line.
fn inside(text: &str, node: &Node, depth: usize) -> Option<(String, usize)> {
    let Shape::Mapping { entries, .. } = &node.shape else { return None };
    entries.iter().find_map(|(key, value)| {
        let name = key.scalar()?;
        let is_it = match &value.shape {
            Shape::Mapping { .. } => looks_like_livekit(value),
            Shape::Scalar { text, .. } => {
                text.contains('\n') && yaml::outline(text).is_ok_and(|inner| looks_like_livekit(&inner.root))
            }
            Shape::Sequence { .. } => false,
        };
        if is_it {
            return Some((name.to_owned(), outline::line_number(text, key.start)));
        }
        let (path, line) = inside(text, value, depth + 1).filter(|_| depth < DEPTH_MAX)?;
        Some((format!("{name}.{path}"), line))
    })
}

fn looks_like_livekit(node: &Node) -> bool {
    node.get("rtc").is_some() || LIVEKIT_INSIDE.iter().filter(|key| node.get(key).is_some()).count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, kind: Kind) -> Result<(), String> {
        check(text, &yaml::outline(text).unwrap(), kind).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn configurations_of_livekit_are_recognised() {
        for text in [
            "port: 7880\n",
            "rtc:\n  tcp_port: 7881\n",
            "keys:\n  a: b\n",
            "key_file: keys.yaml\n",
            "redis:\n  address: a:1\n",
            "development: true\n",
            "{port: 7880}\n",
            "port: 7880\nrtc: {}\nroom:\n  room_configurations:\n    x:\n      rtc: 1\n",
        ] {
            assert_eq!(checked(text, Kind::LiveKit), Ok(()), "{text}");
        }
    }

    #[test]
    fn other_files_are_named() {
        for (text, expected) in [
            (
                "apiVersion: v1\nkind: ConfigMap\ndata:\n  livekit.yaml: |\n    port: 1\n    rtc:\n      a: 1\n",
                "Kubernetes manifest (ConfigMap)",
            ),
            (
                "replicaCount: 1\nlivekit:\n  rtc:\n    use_external_ip: true\n",
                "line 2: LiveKit's configuration is not the file itself but inside it, below `livekit`",
            ),
            ("livekit:\n  port: 7880\n  keys: {}\nredis: {}\n", "below `livekit`"),
            ("livekit-server:\n  livekit:\n    rtc: {}\n", "below `livekit-server.livekit`"),
            (
                "services:\n  livekit:\n    environment:\n      LIVEKIT_CONFIG: |\n        port: 7880\n        rtc:\n          a: 1\n",
                "below `services.livekit.environment.LIVEKIT_CONFIG`, as in docker-compose files",
            ),
            ("config: |\n  port: 1\n  keys:\n    a: b\n", "below `config`"),
            (
                "api_key: a\nws_url: ws://x\nredis:\n  address: a:1\n",
                "a program that connects to LiveKit: it has `api_key`",
            ),
            ("paths:\n  all:\n", "is MediaMTX's configuration; use --mode mediamtx"),
            ("name: x\nversion: 1\n", "has none of its keys"),
            ("- port: 1\n", "it is no mapping"),
            ("text\n", "it is no mapping"),
            ("~\n", "the file is empty"),
        ] {
            let found = checked(text, Kind::LiveKit).expect_err(text);
            assert!(found.contains(expected), "{found}\n{text}");
        }
    }

    #[test]
    fn configurations_of_mediamtx_are_recognised() {
        for text in ["paths:\n", "webrtcAddress: :8889\n", "logLevel: info\n", "webrtcICEServers2: []\n"] {
            assert_eq!(checked(text, Kind::MediaMtx), Ok(()), "{text}");
        }
        assert!(
            checked("port: 7880\nrtc: {}\n", Kind::MediaMtx)
                .unwrap_err()
                .contains("leave out --mode mediamtx")
        );
        assert!(checked("a: 1\n", Kind::MediaMtx).unwrap_err().contains("none of its keys"));
    }
}
