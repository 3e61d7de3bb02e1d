//! Files with LiveKit's API keys, in the format of LiveKit's own `key_file`: a YAML map with a line `API_KEY: SECRET` per key.
//!
//! The events of the YAML parser are read one by one, so nothing is built of what is nested. A sentence from here never quotes a
//! line.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::report::ERRORS_MAX;
use super::secrets::{WrongLine, leftover, text_of};
use crate::auth::{LiveKitKey, Secret};
use crate::plural::counted;
use crate::text;

/// The most API keys.
const KEYS_MAX: usize = 10_000;

/// LiveKit logs an error about secrets that are shorter.
const SECRET_MIN: usize = 32;

/// LiveKit does not accept one in an API key: it separates the parts of a user name.
const SEPARATOR: char = '|';

const FORM: &str = "write lines like API_KEY: SECRET, with a blank after the colon, as in LiveKit's key_file";

/// What a file has.
#[derive(Default)]
pub struct KeysFile {
    /// The API keys with their lines.
    pub keys: Vec<(usize, LiveKitKey)>,
    /// The lines that are wrong.
    pub wrong: Vec<WrongLine>,
    /// The lines to warn about.
    pub weak: Vec<WrongLine>,
}

/// Reads a file.
pub fn livekit_keys_in_file(bytes: &[u8]) -> KeysFile {
    let text = match text_of(bytes) {
        Ok(text) => text,
        Err(error) => return KeysFile { wrong: vec![error], ..KeysFile::default() },
    };
    let mut reader = Reader::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => reader.take(&event, span),
            Err(error) => {
                reader.not_yaml(text, &error);
                break;
            }
        }
        if reader.is_done() {
            break;
        }
    }
    reader.finish(text)
}

/// Where in the file the next event is.
#[derive(Default)]
struct Reader {
    file: KeysFile,
    names: HashSet<String>,
    /// How many maps and lists are open.
    depth: usize,
    /// The API key whose secret comes next, with its line; `None` in it if the key is wrong.
    key: Option<(usize, Option<String>)>,
    documents: usize,
    gave_up: bool,
}

impl Reader {
    fn take(&mut self, event: &Event<'_>, span: Span) {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.give_up(line, "a second YAML document begins here", "keep one document");
                }
            }
            Event::MappingStart(_, _) if self.depth == 0 => self.depth = 1,
            Event::MappingStart(_, _) | Event::SequenceStart(_, _) => {
                if self.depth <= 1 {
                    self.nested(line, matches!(event, Event::MappingStart(_, _)));
                }
                self.depth += 1;
            }
            Event::MappingEnd | Event::SequenceEnd => self.depth = self.depth.saturating_sub(1),
            Event::Scalar(value, style, _, tag) => match self.depth {
                0 if is_null(value, *style) => {}
                0 => self.wrong(line, "is not an API key with its secret", FORM),
                1 => self.scalar(line, value, *style, tag.as_deref()),
                _ => {}
            },
            Event::Alias(_) if self.depth <= 1 => {
                self.key = match self.key.take() {
                    None => Some((line, None)),
                    Some(_) => None,
                };
                self.wrong(line, "an alias stands for a key or a secret", "write it itself");
            }
            Event::Alias(_) | Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {
            }
        }
    }

    /// A key or a secret.
    fn scalar(&mut self, line: usize, value: &str, style: ScalarStyle, tag: Option<&Tag>) {
        let is_key = self.key.is_none();
        let problem = match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == "str") => Some((
                "has a tag, which is not read",
                "remove what begins with an exclamation mark, or put quotes around it",
            )),
            _ if is_null(value, style) => match is_key {
                true => Some(("has a secret without an API key", FORM)),
                false => Some(("has an API key without a secret", FORM)),
            },
            _ => None,
        };
        match self.key.take() {
            None => {
                let name = match problem.or_else(|| key_problem(value)) {
                    None => Some(value.to_owned()),
                    Some((what, fix)) => {
                        self.wrong(line, what, fix);
                        None
                    }
                };
                self.key = Some((line, name));
            }
            Some((line, name)) => match problem.or_else(|| secret_problem(value)) {
                None => self.pair(line, name, value),
                Some((what, fix)) => self.wrong(line, what, fix),
            },
        }
    }

    fn pair(&mut self, line: usize, name: Option<String>, secret: &str) {
        let Some(name) = name else { return };
        if !self.names.insert(name.clone()) {
            return self.wrong(line, "has an API key that the file has already", "remove one of the lines");
        }
        if self.file.keys.len() >= KEYS_MAX {
            let fix = format!("keep at most {KEYS_MAX} in a file");
            return self.give_up(line, "there are too many API keys", &fix);
        }
        let length = secret.chars().count();
        if length < SECRET_MIN && self.file.weak.len() < ERRORS_MAX {
            let what = format!("has a secret of {}, which may be guessed", counted(length, "character"));
            let fix = format!(
                "LiveKit asks for at least {SECRET_MIN}; `livekit-server generate-keys` makes a good pair for both"
            );
            self.file.weak.push(WrongLine { line: Some(line), what, fix });
        }
        self.file.keys.push((line, LiveKitKey { name, secret: Secret::new(secret) }));
    }

    /// Something with parts of its own, in the place of the whole file, of an API key or of a secret.
    fn nested(&mut self, line: usize, is_map: bool) {
        let (what, fix) = match self.key.take() {
            _ if self.depth == 0 => ("is not an API key with its secret", FORM),
            None => {
                self.key = Some((line, None));
                ("has a list or a map in the place of an API key", FORM)
            }
            Some((_, Some(name))) if is_map && name == "keys" => {
                let fix = "write what is below keys: into a file of its own, and set key_file to it in LiveKit's too";
                return self.give_up(line, "is of a configuration of LiveKit, and not of its key_file", fix);
            }
            Some(_) => ("has a list or a map in the place of a secret", FORM),
        };
        self.wrong(line, what, fix);
    }

    fn not_yaml(&mut self, text: &str, error: &ScanError) {
        // The parser may notice a mistake one line early or late.
        let noticed = error.marker().line().clamp(1, text.lines().count().max(1));
        let line =
            text.lines().take(noticed + 1).position(|line| !may_be_pair(line)).map_or(noticed, |n| n + 1);
        self.give_up(line, "is not valid YAML", FORM);
    }

    fn wrong(&mut self, line: usize, what: &str, fix: &str) {
        if self.file.wrong.len() < ERRORS_MAX {
            self.file.wrong.push(WrongLine { line: Some(line), what: what.into(), fix: fix.into() });
        }
    }

    fn give_up(&mut self, line: usize, what: &str, fix: &str) {
        self.wrong(line, what, fix);
        self.gave_up = true;
    }

    fn is_done(&self) -> bool {
        self.gave_up || self.file.wrong.len() >= ERRORS_MAX
    }

    fn finish(mut self, text: &str) -> KeysFile {
        if self.file.keys.is_empty() && self.file.wrong.is_empty() {
            let what = match text.trim().is_empty() {
                true => "the file is empty",
                false => "the file has no API key",
            };
            self.file.wrong.push(WrongLine { line: None, what: what.into(), fix: FORM.into() });
        }
        self.file
    }
}

/// Whether a line looks like what belongs into the file.
fn may_be_pair(line: &str) -> bool {
    let text = line.trim();
    let is_other =
        text.is_empty() || ["#", "---", "...", "{", "}", "?", ":"].iter().any(|mark| text.starts_with(mark));
    is_other || !line.starts_with('\t') && (text.contains(": ") || text.ends_with(':'))
}

/// YAML's null, which LiveKit reads as empty text.
fn is_null(value: &str, style: ScalarStyle) -> bool {
    value.is_empty() || style == ScalarStyle::Plain && ["~", "null", "Null", "NULL"].contains(&value)
}

type Problem = (&'static str, &'static str);

fn key_problem(name: &str) -> Option<Problem> {
    if name.contains(SEPARATOR) {
        return Some(("has an API key with a |, which LiveKit cannot use", "use letters and digits"));
    }
    (text::invisible(name).is_some() || name.contains('\t'))
        .then_some(("has an API key with an invisible character", "write it again, without that character"))
}

fn secret_problem(secret: &str) -> Option<Problem> {
    if text::invisible(secret).is_some() {
        return Some(("has a secret with an invisible character", "write it again, without that character"));
    }
    leftover(secret).map(|what| (what, "write the secret that LiveKit has"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn keys(text: &str) -> Vec<(usize, String, String)> {
        let KeysFile { keys, wrong, .. } = livekit_keys_in_file(text.as_bytes());
        assert!(wrong.is_empty(), "{text:?}: {}", wrong[0].what);
        let plain = |(line, key): (usize, LiveKitKey)| {
            (line, key.name, String::from_utf8(key.secret.as_bytes().to_vec()).unwrap())
        };
        keys.into_iter().map(plain).collect()
    }

    fn wrong(bytes: &[u8]) -> Vec<String> {
        let found = livekit_keys_in_file(bytes).wrong;
        found.iter().map(|wrong| format!("{:?} {}; {}", wrong.line, wrong.what, wrong.fix)).collect()
    }

    /// What LiveKit reads: comments, quotes, blank lines, a byte order mark, either kind of line ends, numbers as text.
    #[test]
    fn the_format_is_that_of_livekits_key_file() {
        let text = "\u{FEFF}# keys of our SFU\r\n---\r\nAPIone: one # of last year\r\n\r\n\"APItwo\": 'it''s two'\r\n1234: 0x10\r\n";
        let expected = [(3, "APIone", "one"), (5, "APItwo", "it's two"), (6, "1234", "0x10")];
        let expected: Vec<_> = expected.map(|(line, key, secret)| (line, key.into(), secret.into())).into();
        assert_eq!(keys(text), expected);
        for text in
            ["k: \"s\"", "{k: s}", "k:\n  s\n", "k: !!str s", "? k\n: s\n", "k: s\n...\n", "k: &a s\n"]
        {
            assert_eq!(keys(text).len(), 1, "{text:?}");
        }
        assert_eq!(keys("k: a=b:c#d|e==\n")[0].2, "a=b:c#d|e==");
    }

    #[test]
    fn wrong_lines_are_named_and_not_quoted() {
        for (text, line, said) in [
            ("", "None", "the file is empty"),
            ("# only a comment\n", "None", "the file has no API key"),
            ("~\n", "None", "the file has no API key"),
            ("{}\n", "None", "the file has no API key"),
            ("hushhush\n", "Some(1)", "is not an API key with its secret; write lines like API_KEY: SECRET"),
            ("k:hushhush\n", "Some(1)", "with a blank after the colon"),
            ("a: x\nb:hushhush\nc: y\n", "Some(2)", "is not valid YAML"),
            ("- hushhush\n", "Some(1)", "is not an API key with its secret"),
            ("a: x\nb:\n", "Some(2)", "an API key without a secret"),
            ("a: x\nb: ~\n", "Some(2)", "an API key without a secret"),
            ("b: ''\n", "Some(1)", "an API key without a secret"),
            ("'': hushhush\n", "Some(1)", "a secret without an API key"),
            ("a: x\na: hushhush\n", "Some(2)", "the file has already"),
            ("a: x\nb: [hushhush]\n", "Some(2)", "a list or a map in the place of a secret"),
            ("a: {{ hushhush }}\n", "Some(1)", "in the place of a secret"),
            ("[a]: hushhush\n", "Some(1)", "a list or a map in the place of an API key"),
            ("port: 7880\nkeys:\n  hush: hushhush\n", "Some(3)", "a configuration of LiveKit"),
            ("a: &x hushhush\nb: *x\n", "Some(2)", "an alias"),
            ("a: !!binary aHVzaA==\n", "Some(1)", "has a tag"),
            ("a: !hushhush\n", "Some(1)", "has a tag"),
            ("a: x\n---\nb: hushhush\n", "Some(2)", "a second YAML document"),
            ("a|b: hushhush\n", "Some(1)", "an API key with a |"),
            ("a\u{200B}: hushhush\n", "Some(1)", "an API key with an invisible character"),
            ("a: hush\u{A0}hush\n", "Some(1)", "a secret with an invisible character"),
            ("a: \"hush\\nhush\"\n", "Some(1)", "a secret with an invisible character"),
            ("a: '${HUSH}hush'\n", "Some(1)", "a template was not filled in"),
            ("a: ENC[AES256_GCM,data:hush]\n", "Some(1)", "was not decrypted"),
            ("a: x\n\tb: hushhush\n", "Some(2)", "is not valid YAML"),
            ("a: \"hushhush\n", "Some(1)", "is not valid YAML"),
            ("a: @hushhush\n", "Some(1)", "is not valid YAML"),
        ] {
            let found = wrong(text.as_bytes());
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert!(found[0].starts_with(line) && found[0].contains(said), "{text:?}: {found:?}");
            assert!(!found[0].to_lowercase().contains("hush"), "{found:?}");
        }
        assert!(wrong(b"a: \xFFhush\n")[0].starts_with("Some(1) is not UTF-8"));
        assert_eq!(wrong(b"a:\nb: x\nc: [x]\n").len(), 2, "every mistake is reported");
    }

    /// LiveKit starts with a short secret, and logs an error; so the relay warns.
    #[test]
    fn a_short_secret_is_warned_about() {
        let found = |text: &str| livekit_keys_in_file(text.as_bytes()).weak;
        assert_eq!(found(&format!("a: {SECRET}\n")).len(), 0);
        let weak = found(&format!("a: {SECRET}\ndevkey: secret\n"));
        assert_eq!((weak.len(), weak[0].line), (1, Some(2)));
        assert!(weak[0].what.contains("6 characters") && weak[0].fix.contains("at least 32"));
    }

    /// A file may be long or deep, and what is made of it is bounded.
    #[test]
    fn what_one_file_comes_to_is_bounded() {
        let many: String = (0..KEYS_MAX + 5).map(|n| format!("k{n}: {SECRET}\n")).collect();
        let KeysFile { keys, wrong, .. } = livekit_keys_in_file(many.as_bytes());
        assert_eq!((keys.len(), wrong.len()), (KEYS_MAX, 1));
        assert!(wrong[0].what.contains("too many API keys"));
        let bad: String = (0..5000).map(|n| format!("k{n}:\n")).collect();
        assert_eq!(wrong_count(&bad), ERRORS_MAX);
        let weak: String = (0..5000).map(|n| format!("k{n}: x\n")).collect();
        assert_eq!(livekit_keys_in_file(weak.as_bytes()).weak.len(), ERRORS_MAX);
        assert!(wrong_count(&format!("a: {}", "[".repeat(100_000))) > 0);
        assert!(wrong_count(&"- ".repeat(100_000)) > 0);
    }

    fn wrong_count(text: &str) -> usize {
        wrong(text.as_bytes()).len()
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "\\PC*|([a-c:\\[\\]{}&*!|>'\"#?,~ \n-]{0,60})") {
            let KeysFile { keys, wrong, .. } = livekit_keys_in_file(text.as_bytes());
            prop_assert!(!keys.is_empty() || !wrong.is_empty());
        }
    }
}
