//! Pages made from the table: `docs/configuration.md` and `conf/hairpin.toml`. Tests fail when these files are out of date;
//! `HAIRPIN_WRITE_PAGES=1 cargo test --lib config::pages` writes them.

use std::fmt::Write;

use super::document::Tables;
use super::kind::Setting;
use super::section::{RepeatedSection, Row};
use super::table::TABLES;

/// `docs/configuration.md`.
pub fn reference() -> String {
    reference_of(&TABLES, REFERENCE_HEAD)
}

/// `conf/hairpin.toml`.
pub fn sample() -> String {
    sample_of(&TABLES, SAMPLE_HEAD)
}

/// A page with every setting, below `head`.
pub(crate) fn reference_of<T>(tables: &'static Tables<T>, head: &str) -> String {
    let mut page = String::from(head);
    for (section, introduction) in tables.sections {
        let title = if section.is_empty() { "Top of the file".to_owned() } else { format!("`[{section}]`") };
        let _ = write!(page, "\n## {title}\n\n{introduction}\n");
        let (settings, repeated) = in_section(tables, section);
        settings.for_each(|row| entry(&mut page, row.key, &row));
        for RepeatedSection { key, entry: inner, doc, coturn: names } in repeated {
            let _ = write!(page, "\n### `[[{key}]]`\n\nSection that can be repeated");
            coturn(&mut page, names);
            let _ = write!(page, ".\n\n{doc}\n");
            inner.rows().iter().for_each(|row| entry(&mut page, &format!("{key}.{}", row.key), row));
        }
    }
    page
}

/// A configuration with every setting, commented out, at its default or with an example.
pub(crate) fn sample_of<T>(tables: &'static Tables<T>, head: &str) -> String {
    let mut page = String::from(head);
    for (section, introduction) in tables.sections {
        if !section.is_empty() {
            let _ = write!(page, "\n\n");
            comment(&mut page, introduction);
            let _ = writeln!(page, "[{section}]");
        }
        let (settings, repeated) = in_section(tables, section);
        settings.for_each(|row| {
            let name = row.key.rsplit('.').next().unwrap_or(row.key);
            line(&mut page, name, &row);
        });
        // TOML would take settings after a repeated section for its own, so these come last.
        for RepeatedSection { key, entry: inner, doc, .. } in repeated {
            let _ = writeln!(page);
            comment(&mut page, doc);
            let _ = writeln!(page, "#[[{key}]]");
            inner.rows().iter().for_each(|row| line(&mut page, row.key, row));
        }
    }
    page
}

const REFERENCE_HEAD: &str = "\
# Configuration

This page is generated from the table of settings (`src/config/table.rs`).

`hairpin serve` runs without a configuration: with every default below, and with a shared secret that it generates and keeps.
`hairpin serve --config hairpin.toml` reads a file in [TOML](https://toml.io); `conf/hairpin.toml` is a sample with every
setting. `hairpin check hairpin.toml` reports every mistake in a file and does nothing else. A lifetime that differs from the
RFC's is used, with a warning.

Every setting but secrets and sections that can be repeated can also be given as `--set KEY=VALUE`, which may be repeated, and
as an environment variable: `HAIRPIN_LISTEN_UDP` is `listen.udp`, `HAIRPIN_WORKERS` is `workers`. Flags precede the environment,
and the environment precedes the file; a value replaces that of the file, also a list. `hairpin check` says of each such setting
where its value comes from and what is not used, and so does the log of a start. Values are TOML, but text needs no quotes and a
list no brackets: `HAIRPIN_LISTEN_UDP=0.0.0.0:3478,[::]:3478`. An empty variable counts as unset; `[]` is an empty list, and `\"\"`
is empty text. Relative paths start at the working directory. A variable that begins with `HAIRPIN_` and is unknown causes a
warning; those that Kubernetes adds for services called `hairpin` are passed over. A reload keeps the flags and the environment of
the start.

Secrets and passwords come from the configuration, from separate files or, for shared secrets, from the environment variable
`HAIRPIN_AUTH_SECRET`. They are never command line arguments, which every user of the machine could read. No message shows
them: a value that may be a secret appears as `***`.

Files are UTF-8, with or without a byte order mark, with LF or CRLF, and up to 16 MiB long. A file that every user of the
machine may read although it contains a secret causes a warning.

With `--state-dir`, `hairpin serve --config` generates what the configuration lacks, and keeps it in that directory: a shared
secret if it has no credentials, and a self-signed certificate if it sets `listen.tls` but neither `tls.cert` nor `tls.key`.
`hairpin check` and `hairpin credentials` take the same option. The directory must not be writable for others.

SIGHUP reads the file again, with everything that it names, and applies what has changed. No running allocation ends by that. Each
setting below says when a changed value holds: at once, for new allocations, or after a restart. The log names each change, and
`hairpin_config_reloads_total` counts reloads. A file with a mistake changes nothing, nor does one with a listener that cannot be
bound: the log has every mistake with its line, and the relay serves on as before.

A UDP listener that the new file does not have refuses new allocations with 508, serves its own until they end, and then closes. If
its address returns before, it serves on with the same sockets. Until it has closed, no listener may overlap it, like `0.0.0.0:3478`
and `192.0.2.1:3478` do: such a reload changes nothing. A TCP or TLS listener closes at once, and its connections live on.

SIGTERM, SIGINT and SIGQUIT stop the relay, and SIGUSR1 drains it ([operating.md](operating.md)). Other signals are ignored.

A list with one element may be written without brackets. \"coturn\" names the corresponding settings of `turnserver.conf`.
";

const SAMPLE_HEAD: &str = "\
# Sample configuration of hairpin with every setting, commented out. The values are the defaults, or examples where the
# default is empty or means no limit. `hairpin check` reports the mistakes in a file; docs/configuration.md is the reference.
# At least one secret, LiveKit API key or user is required, see [auth].
";

/// What the pages show of a section: its settings and the sections inside it that may be repeated.
fn in_section<T>(
    tables: &'static Tables<T>,
    section: &str,
) -> (impl Iterator<Item = Row>, impl Iterator<Item = &'static RepeatedSection<T>>) {
    let belongs = move |key: &str| key.rsplit_once('.').map_or("", |(section, _)| section) == section;
    let settings = tables.settings.iter().filter(move |setting| belongs(setting.key)).map(Setting::row);
    (settings, tables.repeated.iter().filter(move |repeated| belongs(repeated.key)))
}

/// An entry of the reference page.
fn entry(page: &mut String, key: &str, row: &Row) {
    let _ = write!(page, "\n### `{key}`\n\n{}", capital(&row.values));
    if !row.default.is_empty() {
        let _ = write!(page, "; default `{}`", row.default);
    }
    let _ = write!(page, "; a changed value holds {}", row.reload.describe());
    coturn(page, row.coturn);
    let _ = write!(page, ".\n\n{}\n", row.doc);
}

fn coturn(page: &mut String, names: &[&str]) {
    if !names.is_empty() {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = write!(page, "; coturn: {}", names.join(", "));
    }
}

/// A setting of the sample.
fn line(page: &mut String, name: &str, row: &Row) {
    let value = if row.example.is_empty() { row.default } else { row.example };
    let _ = writeln!(page);
    comment(page, row.doc);
    let _ = writeln!(page, "#{name} = {value}");
}

/// Markdown as comment lines of at most 100 characters.
fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for (n, paragraph) in text.split("\n\n").enumerate() {
        if n > 0 {
            let _ = writeln!(page, "{line}\n#");
            line.truncate(1);
        }
        for word in paragraph.split(' ') {
            if line.len() + 1 + word.len() > 100 {
                let _ = writeln!(page, "{line}");
                line.truncate(1);
            }
            line.push(' ');
            line.push_str(word);
        }
    }
    let _ = writeln!(page, "{line}");
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// Compares a page of the repository with the generated one, which is written if HAIRPIN_WRITE_PAGES is set.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
pub(crate) fn assert_current(path: &str, made: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("HAIRPIN_WRITE_PAGES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == made, "{} is out of date: run this test with HAIRPIN_WRITE_PAGES=1", path.display());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::secrets::SAMPLE;
    use crate::config::table::{REPEATED, SECTIONS, SETTINGS};
    use crate::config::{ReadContext, load, tests};

    #[test]
    fn the_reference_is_up_to_date() {
        assert_current("docs/configuration.md", &reference());
    }

    #[test]
    fn the_sample_is_up_to_date() {
        assert_current("conf/hairpin.toml", &sample());
    }

    #[test]
    fn the_sample_is_valid_with_every_line_uncommented() {
        assert!(sample().contains(SAMPLE));
        let lines: Vec<String> = sample()
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned()
            })
            // The secret of the sample is refused, because everybody knows it.
            .map(|line| line.replace(SAMPLE, "a secret of this test"))
            // A user has only one of the three.
            .filter(|line| !line.starts_with("password_file") && !line.starts_with("key = \"0011"))
            .collect();
        let file = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
            Some("tokens" | "metrics-tokens") => "ops:admin:0123456789abcdef0123456789abcdef\n".into(),
            Some("users") => "bob:builder\n".into(),
            Some("livekit-keys.yaml") => "APIkey: 0123456789abcdef0123456789abcdef\n".into(),
            _ => tests::pem(path).unwrap_or_else(|| "a secret in a file\n".into()).as_str().into(),
        };
        let reader = ReadContext { read: &|path| Ok(file(path)), now: 1_893_456_000, ..ReadContext::NONE };
        let loaded =
            load("sample", &lines.join("\n"), &reader).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
        assert_eq!(loaded.settings.auth.users.len(), 1);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn every_setting_is_complete_and_unique() {
        let repeated = REPEATED.iter().map(|repeated| (repeated.key, repeated.doc, repeated.coturn));
        let rows: Vec<_> = SETTINGS
            .iter()
            .map(|setting| (setting.key, setting.doc, setting.coturn))
            .chain(repeated)
            .collect();
        let unique = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names.windows(2).all(|pair| pair[0] != pair[1])
        };
        assert!(unique(rows.iter().map(|(key, ..)| *key).collect()));
        assert!(rows.iter().all(|(_, doc, _)| doc.ends_with('.')));
        assert!(
            unique(rows.iter().flat_map(|(.., names)| names.iter().copied()).collect()),
            "coturn's names"
        );
        let in_sections = |(section, _): &(&str, &str)| {
            let (settings, repeated) = in_section(&TABLES, section);
            settings.count() + repeated.count()
        };
        assert_eq!(SECTIONS.iter().map(in_sections).sum::<usize>(), rows.len());
    }
}
