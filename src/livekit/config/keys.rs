//! Files with LiveKit's API keys, in the format of LiveKit's own `key_file`: a YAML map with a line `API_KEY: SECRET` for each.
//!
//! No sentence quotes a line.

use saphyr_parser::{Event, Parser};

use crate::auth::Secret;
use crate::livekit::settings::ApiKey;

/// A line that is wrong, or unusual.
pub struct KeyLine {
    /// Counted from 1.
    pub line: Option<usize>,
    pub what: String,
    pub fix: &'static str,
    pub warning: bool,
}

const FORM: &str = "write lines like API_KEY: SECRET, with a blank after the colon, as in LiveKit's key_file";

/// The keys of a file in their order, and the lines that are wrong.
pub fn keys_in_file(bytes: &[u8]) -> (Vec<ApiKey>, Vec<KeyLine>) {
    let (mut keys, mut wrong) = (Vec::<ApiKey>::new(), Vec::new());
    let mistake = |line, what: &str| KeyLine { line, what: what.into(), fix: FORM, warning: false };
    let Ok(text) = str::from_utf8(bytes) else { return (keys, vec![mistake(None, "the file is not UTF-8")]) };
    let (mut depth, mut pending) = (0, None);
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else {
            wrong.push(mistake(None, "the file is not YAML"));
            break;
        };
        let line = Some(span.start.line());
        match event {
            Event::MappingStart(..) if depth == 0 => depth = 1,
            Event::MappingStart(..) | Event::SequenceStart(..) | Event::Alias(_) => {
                wrong.push(mistake(line, "is not an API key with its secret"));
                break;
            }
            Event::Scalar(..) if depth == 0 => {
                wrong.push(mistake(line, "is not an API key with its secret"));
                break;
            }
            Event::Scalar(value, ..) => match pending.take() {
                None => pending = Some(value.into_owned()),
                Some(key) if keys.iter().any(|known| known.key == key) => {
                    wrong.push(mistake(line, "this API key is listed twice"));
                }
                Some(key) if key.is_empty() || value.is_empty() => {
                    wrong.push(mistake(line, "the key or the secret is empty"));
                }
                Some(key) => keys.push(ApiKey { key, secret: Secret::new(&*value) }),
            },
            _ => {}
        }
    }
    if keys.is_empty() && wrong.is_empty() {
        wrong.push(mistake(None, "the file has no API key"));
    }
    (keys, wrong)
}
