//! What `init` prints: what is missing, what to put where, ready to paste, and the next command.

use std::fmt::Write;
use std::path::Path;

use super::{Found, Wish};
use crate::livekit::render::sections::{self, SecretSource};
use crate::livekit::render::servers;
use crate::livekit::render::yaml::scalar;
use crate::livekit::settings::CredentialSettings;

/// What the place of the configuration means.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The other commands find it without being told.
    pub is_default: bool,
    /// systemd runs the sidecar with it, as the user of the package.
    pub is_for_service: bool,
}

/// Everything that is printed after the configuration was written to `output`.
pub fn text(wish: &Wish, found: &Found, output: &Path, place: Place) -> String {
    let mut page = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(page, "{text}");
    };
    if !found.problems.is_empty() {
        line("To do first:");
        found.problems.iter().for_each(|problem| line(&format!("  - {problem}")));
        line("");
    }
    let argument = if place.is_default { String::new() } else { format!(" --config {}", output.display()) };
    let file = wish
        .livekit_config
        .as_ref()
        .map_or_else(|| "livekit.yaml".to_owned(), |file| file.display().to_string());
    match (turn_servers(&found.ice_urls, found.secret_file.as_deref()), &found.secret_file) {
        (Some(section), Some(secret)) => {
            line(&format!(
                "1. Put this into {file}, so that LiveKit gives the relay to its clients, and restart LiveKit once:"
            ));
            line("   turn_servers goes below the rtc: that is there, if there is one. This command does it:");
            line("");
            line(&format!("     hairpin-livekit render{argument} --into {file}"));
            line("");
            line(&format!(
                "   LiveKit 1.13 or later must be able to read {}, and others must not.",
                secret.display()
            ));
            line("");
            line(&section);
        }
        _ => {
            line(&format!(
                "1. `hairpin-livekit render{argument}` prints the section of {file} that gives the relay to clients, once the above is"
            ));
            line("   done.");
            line("");
        }
    }
    line("   Two other ways (docs/livekit.md):");
    line("   - where networks let only TLS through: LiveKit's own credentials, which the relay verifies");
    line("     (`hairpin-livekit render --mode turn`, and auth.livekit_keys_file of the relay)");
    line(
        "   - without touching LiveKit: clients or your backend get ICE servers from http://127.0.0.1:9643/v1/ice-servers",
    );
    line("");
    line(&format!("2. Put this into {file} as well, so that participants who leave lose the relay at once:"));
    line("");
    line("     webhook:");
    line(&format!("       api_key: {}", found.api_key.as_deref().map_or("API_KEY".into(), scalar)));
    line("       urls:");
    line("         - http://127.0.0.1:9643/v1/webhook");
    line("");
    if !found.notes.is_empty() {
        line("Notes:");
        found.notes.iter().for_each(|note| line(&format!("  - {note}")));
        line("");
    }
    if place.is_for_service {
        // The service is not root, whose file this is.
        let keys = shell_word(&wish.keys_file);
        line("3. Run the sidecar as a service, whose user has to be able to read the API keys:");
        line("");
        line(&format!("     chgrp hairpin {keys}"));
        line(&format!("     chmod 640 {keys}"));
        line("     systemctl enable --now hairpin-livekit");
        line("");
    } else {
        line(&format!("3. Run the sidecar:  hairpin-livekit run{argument}"));
    }
    line(&format!("   Prove the path:   hairpin-livekit check{argument}"));
    page
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@:".contains(c));
    if is_plain { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// The section `rtc.turn_servers`, as `render` prints it, indented; `None` if the relay or its secret is not known.
fn turn_servers(urls: &[String], secret: Option<&Path>) -> Option<String> {
    let secret = SecretSource::File(secret?.to_owned());
    let servers = servers::all(urls.iter().cloned(), None).ok().filter(|servers| !servers.is_empty())?;
    let section = sections::turn_servers(&servers, &secret, CredentialSettings::default().ttl).section;
    Some(section.print().lines().map(|line| format!("     {line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use saphyr::{LoadableYamlNode as _, Yaml};

    use super::*;

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

    /// UDP first, a port in every entry, brackets around IPv6 addresses, and no secret.
    #[test]
    fn the_section_is_yaml_that_livekit_takes() {
        let urls = [
            "turns:turn.example.org:5349?transport=tcp",
            "turn:203.0.113.7:3478?transport=tcp",
            "turn:[2001:db8::7]:3478?transport=udp",
        ];
        let section = turn_servers(&urls.map(str::to_owned), Some(Path::new("/var/lib/a b/secret"))).unwrap();
        let yaml = &Yaml::load_from_str(&section).unwrap()[0];
        let servers = yaml.as_mapping_get("rtc").and_then(|rtc| rtc.as_mapping_get("turn_servers")).unwrap();
        let servers = servers.as_vec().unwrap();
        let hosts: Vec<_> =
            servers.iter().map(|one| one.as_mapping_get("host").unwrap().as_str().unwrap()).collect();
        assert_eq!(hosts, ["[2001:db8::7]", "203.0.113.7", "turn.example.org"]);
        let last = &servers[2];
        assert_eq!(last.as_mapping_get("port").and_then(|port| port.as_integer()), Some(5349));
        assert_eq!(last.as_mapping_get("protocol").and_then(|one| one.as_str()), Some("tls"));
        assert_eq!(
            last.as_mapping_get("secret_file").and_then(|one| one.as_str()),
            Some("/var/lib/a b/secret")
        );
    }

    #[test]
    fn what_is_missing_comes_first_and_the_next_command_last() {
        let output = Path::new("/etc/hairpin/hairpin-livekit.toml");
        let found = Found {
            problems: vec!["the relay: it is not there; start it".into()],
            api_key: Some("APIkey".into()),
            ..Found::default()
        };
        let page = text(&wish(), &found, output, Place { is_default: true, is_for_service: false });
        assert!(page.starts_with("To do first:\n  - the relay"), "{page}");
        assert!(page.contains("api_key: APIkey\n") && page.contains("http://127.0.0.1:9643/v1/webhook"));
        assert!(page.ends_with("hairpin-livekit check\n") && page.contains("hairpin-livekit run\n"));
        let elsewhere = Place { is_default: false, is_for_service: false };
        let page = text(&wish(), &Found::default(), Path::new("x.toml"), elsewhere);
        assert!(page.contains("hairpin-livekit run --config x.toml\n") && !page.contains("To do first"));
        assert!(page.contains("`hairpin-livekit render --config x.toml` prints"), "{page}");
    }

    /// The service runs as another user than root, who writes the keys.
    #[test]
    fn a_service_gets_access_to_the_keys_and_is_started() {
        let service = Place { is_default: true, is_for_service: true };
        let wish = Wish { keys_file: "/etc/hairpin/my keys".into(), ..wish() };
        let page = text(&wish, &Found::default(), Path::new("/etc/hairpin/hairpin-livekit.toml"), service);
        let commands = "     chgrp hairpin '/etc/hairpin/my keys'\n     chmod 640 '/etc/hairpin/my keys'\n     \
                        systemctl enable --now hairpin-livekit\n";
        assert!(page.contains(commands) && !page.contains("hairpin-livekit run"), "{page}");
        assert_eq!(shell_word(Path::new("/a/it's")), r"'/a/it'\''s'");
    }
}
