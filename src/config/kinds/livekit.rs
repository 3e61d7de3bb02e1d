//! The kind of `auth.livekit_keys_file`.

use std::ops::ControlFlow;

use toml_edit::Value;

use super::secret::{FileKind, each_file};
use crate::auth::LiveKitKey;
use crate::config::files;
use crate::config::kind::{FieldValue, ReadContext, SettingKind, Shape, ValueError};
use crate::config::livekit_keys::{KeysFile, livekit_keys_in_file};
use crate::config::report::ERRORS_MAX;

/// One or several files with LiveKit's API keys.
pub struct LiveKitKeysFile<T: 'static>(pub fn(&mut T) -> &mut Vec<LiveKitKey>);

impl<T> SettingKind<T> for LiveKitKeysFile<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        each_file(value, context, FileKind::LiveKitKeys, |one, name, contents, errors| {
            let error = |line: Option<usize>, what: &str, fix: String| {
                ValueError::of(one, format!("{} {what}", files::place(name, line)), fix)
            };
            let KeysFile { keys, wrong, weak } = livekit_keys_in_file(&contents.bytes);
            errors.extend(wrong.into_iter().map(|wrong| error(wrong.line, &wrong.what, wrong.fix)));
            let weak = weak.into_iter().map(|weak| error(weak.line, &weak.what, weak.fix));
            errors.extend(weak.map(|error| ValueError { warning: true, ..error }));
            let twice = add((self.0)(target), keys);
            errors.extend(twice.into_iter().take(ERRORS_MAX).map(|(line, is_same)| {
                let what = match is_same {
                    true => "has an API key that another file has, too",
                    false => "has an API key that another file has with another secret",
                };
                let twice = error(Some(line), what, "remove one of the lines".into());
                ValueError { warning: is_same, ..twice }
            }));
            ControlFlow::Continue(())
        })
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::hidden(
            (self.0)(target).iter().flat_map(|key| [key.name.as_bytes(), key.secret.as_bytes()]),
        )
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "file, or list of files".into()
    }

    fn shape(&self) -> Shape {
        Shape::List
    }
}

/// Adds the keys of another file. Returns the lines of those that are known, and whether they have the same secret.
fn add(known: &mut Vec<LiveKitKey>, keys: Vec<(usize, LiveKitKey)>) -> Vec<(usize, bool)> {
    let earlier: std::collections::HashMap<&str, &[u8]> =
        known.iter().map(|key| (key.name.as_str(), key.secret.as_bytes())).collect();
    let (mut new, mut twice) = (Vec::new(), Vec::new());
    for (line, key) in keys {
        match earlier.get(key.name.as_str()) {
            Some(secret) => twice.push((line, *secret == key.secret.as_bytes())),
            None => new.push(key),
        }
    }
    known.extend(new);
    twice
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{FileContents, Finding, Loaded, load};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn read(text: &str) -> Result<Loaded, Vec<Finding>> {
        let read = |path: &Path| match path.to_str().and_then(|path| path.rsplit('/').next()) {
            Some("one") => Ok(format!("APIone: {SECRET}\n").as_str().into()),
            Some("two") => Ok(format!("# two\nAPItwo: {SECRET}\nAPIone: {SECRET}\n").as_str().into()),
            Some("other") => Ok(format!("APIone: {SECRET}x\n").as_str().into()),
            Some("weak") => Ok("devkey: secret\n".into()),
            Some("bad") => Ok(format!("APIbad: {SECRET}\n{SECRET}\n").as_str().into()),
            Some("public") => Ok(FileContents {
                is_public: true,
                bytes: format!("APIone: {SECRET}\n").into(),
                ..FileContents::default()
            }),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        let context = ReadContext { read: &read, ..ReadContext::NONE };
        load("file", text, &context)
    }

    fn names(text: &str) -> Vec<String> {
        read(text).unwrap().settings.auth.livekit_keys.into_iter().map(|key| key.name).collect()
    }

    /// The pairs of a file, or of several, are credentials: no others are needed.
    #[test]
    fn api_keys_come_from_one_file_or_several() {
        assert_eq!(names("[auth]\nlivekit_keys_file = \"one\""), ["APIone"]);
        assert_eq!(names("[auth]\nlivekit_keys_file = [\"one\", \"/keys/two\"]"), ["APIone", "APItwo"]);
        let missing = read("[auth]\nlivekit_keys_file = []").unwrap_err();
        assert!(missing[0].to_string().contains("there are no credentials"), "{missing:?}");
        assert!(missing[0].fix.contains("auth.livekit_keys_file"), "{missing:?}");
    }

    #[test]
    fn mistakes_have_file_line_and_fix_and_quote_nothing() {
        for (value, said) in [
            (
                "\"bad\"",
                "file:2: auth.livekit_keys_file = \"bad\": bad:2: is not valid YAML; write lines like API_KEY: SECRET",
            ),
            (
                "[\"one\", \"other\"]",
                "other:1: has an API key that another file has with another secret; remove one",
            ),
            (
                "\"./missing\"",
                "auth.livekit_keys_file = \"./missing\": cannot be read: No such file or directory",
            ),
            ("\"APIkey: 0123456789abcdef\"", "auth.livekit_keys_file = ***: cannot be read"),
            ("7", "auth.livekit_keys_file"),
        ] {
            let found = read(&format!("[auth]\nlivekit_keys_file = {value}")).unwrap_err();
            assert_eq!(found.len(), 1, "{found:?}");
            let line = found[0].to_string();
            assert!(line.contains(said) && !line.contains("0123456789"), "{line}");
        }
    }

    /// A file that everybody may read, a short secret, and a pair that two files have do not keep the relay from starting.
    #[test]
    fn what_is_unusual_is_a_warning() {
        for (value, said) in [
            ("\"public\"", "every user of this machine may read the file; run `chmod o-rwx` on it"),
            ("\"weak\"", "weak:1: has a secret of 6 characters, which may be guessed"),
            (
                "[\"one\", \"two\"]",
                "two:3: has an API key that another file has, too; remove one of the lines",
            ),
        ] {
            let Loaded { warnings, settings, .. } =
                read(&format!("[auth]\nlivekit_keys_file = {value}")).unwrap();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].to_string().contains(said), "{warnings:?}");
            assert!(settings.auth.has_credentials());
        }
    }

    /// A reload says that the pairs have changed, and no more.
    #[test]
    fn changes_are_compared_and_not_shown() {
        let settings = |text: &str| read(&format!("[auth]\nlivekit_keys_file = {text}")).unwrap().settings;
        let changes = settings("\"one\"").changes(&settings("\"other\""));
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].key, &*changes[0].what), ("auth.livekit_keys_file", "changed"));
        assert_eq!(settings("\"one\"").changes(&settings("\"public\"")), []);
        assert!(!format!("{:?}", settings("\"one\"")).contains(SECRET));
    }
}
