//! Pages made from the table: `docs/configuration.md` and `conf/hairpin.toml`. A test tells when they are not current;
//! `HAIRPIN_WRITE_PAGES=1 cargo test --lib config::pages` writes them.

use std::fmt::Write;

use super::table::{SECTIONS, SETTINGS, Setting, USER};

/// `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = String::from(REFERENCE_HEAD);
    for (section, sentence) in SECTIONS {
        let title = if section.is_empty() { "Top of the file".to_owned() } else { format!("`[{section}]`") };
        let _ = write!(page, "\n## {title}\n\n{sentence}\n");
        for setting in in_section(section) {
            entry(&mut page, setting.key, setting);
            if setting.key == "auth.user" {
                USER.iter().for_each(|key| entry(&mut page, &format!("auth.user.{}", key.key), key));
            }
        }
    }
    page
}

/// `conf/hairpin.toml`: every setting, commented out, at its default or with an example.
pub fn sample() -> String {
    let mut page = String::from(SAMPLE_HEAD);
    for (section, sentence) in SECTIONS {
        if !section.is_empty() {
            let _ = write!(page, "\n\n");
            comment(&mut page, sentence);
            let _ = writeln!(page, "[{section}]");
        }
        // Sections of their own would swallow what follows, so they come last.
        for setting in in_section(section).filter(|setting| setting.key != "auth.user") {
            line(&mut page, setting.key, setting);
        }
        if *section == "auth" {
            let _ = writeln!(page, "\n# A user with a password of its own; once for each.\n#[[auth.user]]");
            USER.iter().for_each(|key| line(&mut page, key.key, key));
        }
    }
    page
}

const REFERENCE_HEAD: &str = "\
# Configuration

This page is made from the table of settings (`src/config/table.rs`).

`hairpin serve` runs without a configuration: every default below, and a shared secret that it makes and keeps.
`hairpin serve --config hairpin.toml` reads a file in [TOML](https://toml.io); `conf/hairpin.toml` is a sample with every
setting. `hairpin check hairpin.toml` reports every mistake at once and does nothing else. A lifetime off the RFC's value
is warned about and used.

Secrets and passwords come from the file, from files of their own or, for shared secrets, from the environment variable
`HAIRPIN_AUTH_SECRET`: never from the command line, where every user of the machine could read them.

A list of one may be written without brackets. \"coturn\" names the settings of `turnserver.conf` with the same meaning.
";

const SAMPLE_HEAD: &str = "\
# Sample configuration of hairpin: every setting, commented out. What is shown is the default, or an example where the
# default is empty. `hairpin check` tells what is wrong with a file; docs/configuration.md is the reference.
# One secret or user is needed, see [auth].
";

fn in_section(section: &str) -> impl Iterator<Item = &'static Setting<super::Settings>> {
    SETTINGS
        .iter()
        .filter(move |setting| setting.key.rsplit_once('.').map_or("", |(section, _)| section) == section)
}

fn entry<T>(page: &mut String, key: &str, setting: &Setting<T>) {
    let _ = write!(page, "\n### `{key}`\n\n{}", capital(&setting.field.describe()));
    if !setting.default.is_empty() {
        let _ = write!(page, "; default `{}`", setting.default);
    }
    if !setting.coturn.is_empty() {
        let names: Vec<_> = setting.coturn.iter().map(|name| format!("`{name}`")).collect();
        let _ = write!(page, "; coturn: {}", names.join(", "));
    }
    let _ = write!(page, ".\n\n{}\n", setting.doc);
}

fn line<T>(page: &mut String, key: &str, setting: &Setting<T>) {
    let name = key.rsplit('.').next().unwrap_or(key);
    let value = if setting.example.is_empty() { setting.default } else { setting.example };
    let _ = writeln!(page);
    comment(page, setting.doc);
    let _ = writeln!(page, "#{name} = {value}");
}

/// Markdown as comment lines of at most 100 characters.
fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > 100 {
            let _ = writeln!(page, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(page, "{line}");
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{ReadContext, load, tests};

    /// Compares a page of the repository with what the table makes; writes it when asked to.
    fn current(path: &str, made: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("HAIRPIN_WRITE_PAGES").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, made).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == made,
            "{} is not what the table makes: HAIRPIN_WRITE_PAGES=1 writes it",
            path.display()
        );
    }

    #[test]
    fn the_reference_is_current() {
        current("docs/configuration.md", &reference());
    }

    #[test]
    fn the_sample_is_current() {
        current("conf/hairpin.toml", &sample());
    }

    #[test]
    fn the_sample_with_everything_switched_on_is_right() {
        let on: Vec<String> = sample()
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned()
            })
            // A user has one of the three.
            .filter(|line| !line.starts_with("password_file") && !line.starts_with("key = \"0011"))
            .collect();
        let file = |path: &Path| tests::pem(path).unwrap_or_else(|| "0123456789abcdef\n".into());
        let reader = ReadContext { read: &|path| Ok(file(path)), now: 1_893_456_000, ..ReadContext::NONE };
        let loaded =
            load("sample", &on.join("\n"), &reader).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
        assert_eq!(loaded.settings.auth.users.len(), 1);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn every_setting_has_a_section_a_sentence_and_a_name_of_its_own() {
        let mut keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), SETTINGS.len());
        assert_eq!(
            SECTIONS.iter().map(|(section, _)| in_section(section).count()).sum::<usize>(),
            SETTINGS.len()
        );
        assert!(SETTINGS.iter().all(|setting| setting.doc.ends_with('.')));
        let mut aliases: Vec<_> = SETTINGS.iter().flat_map(|setting| setting.coturn).collect();
        let all = aliases.len();
        aliases.sort_unstable();
        aliases.dedup();
        assert_eq!(aliases.len(), all, "a name of coturn's leads to one setting");
    }
}
