//! Text as editors, terminals and configuration management leave it in files: its encoding, and characters that nobody sees.
//!
//! A sentence from here never quotes the text, which may be a secret.

/// Why bytes are not text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotText {
    /// The first line that is not.
    pub line: usize,
    /// Whether all of the file has another encoding.
    pub is_encoding: bool,
    /// What is wrong; completes a sentence about the line or, with `is_encoding`, about the file.
    pub what: &'static str,
    /// How to fix it.
    pub fix: &'static str,
}

impl NotText {
    /// What is wrong, as a sentence.
    pub fn sentence(&self) -> String {
        format!("the {} {}", if self.is_encoding { "file" } else { "line" }, self.what)
    }
}

/// The text of a file, without a byte order mark.
///
/// # Errors
///
/// The bytes are not UTF-8, or contain NUL bytes.
pub fn of(bytes: &[u8]) -> Result<&str, NotText> {
    const SAVE: &str = "save it as UTF-8 without a byte order mark";
    let encoding = |what| Err(NotText { line: 1, is_encoding: true, what, fix: SAVE });
    let not = |at, what, fix| Err(NotText { line: line_of(bytes, at), is_encoding: false, what, fix });
    match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return encoding("is text in UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            return encoding("is text in UTF-16, as some Windows programs write it");
        }
        _ => {}
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        // Every other byte of ASCII in UTF-16 is zero.
        let zeros = bytes.iter().filter(|byte| **byte == 0).count();
        if zeros * 3 > bytes.len() {
            return encoding("is text in UTF-16, or not text");
        }
        return not(at, "contains a NUL byte", "remove it, or save the file again");
    }
    let text = str::from_utf8(bytes).or_else(|error| {
        let fix = "save the file as UTF-8, or convert it with `iconv -f WINDOWS-1252 -t UTF-8`";
        not(error.valid_up_to(), "is not UTF-8", fix)
    })?;
    Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text))
}

/// The line of the byte at `at`, counted from 1.
fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The first character of a line that nobody sees and that is neither a space nor a tab, with its name.
pub fn invisible(line: &str) -> Option<(char, String)> {
    let found = line.chars().find(|c| *c != '\t' && (c.is_control() || is_invisible(*c)))?;
    let what = match found {
        '\r' => "a carriage return without a line feed",
        c if c.is_control() => "a control character",
        '\u{A0}' | '\u{202F}' | '\u{2060}' => "a non-breaking space",
        '\u{200B}'..='\u{200D}' => "a zero-width character",
        '\u{FEFF}' => "a byte order mark",
        '\u{FFFD}' => "the mark of a character that could not be decoded",
        c if c.is_whitespace() => "a space that is not the usual one",
        _ => "an invisible character",
    };
    Some((found, format!("{what} (U+{:04X})", u32::from(found))))
}

/// Characters without ink, beside the control characters: Unicode's formats, fillers, selectors, and spaces other than U+0020.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{A0}' | '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{1680}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{2000}'..='\u{200F}' | '\u{2028}'..='\u{202F}' | '\u{205F}'..='\u{206F}'
        | '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
        | '\u{FFF9}'..='\u{FFFD}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(of(b"\xEF\xBB\xBFkey = 1"), Ok("key = 1"));
        assert_eq!(of("Z\u{FC}rich".as_bytes()), Ok("Z\u{FC}rich"));
        assert_eq!(of(b""), Ok(""));
    }

    #[test]
    fn other_encodings_are_named_with_their_line() {
        let utf16 = |mark: &[u8], text: &str, bytes: fn(u16) -> [u8; 2]| {
            [mark, &text.encode_utf16().flat_map(bytes).collect::<Vec<_>>()].concat()
        };
        for (bytes, line, what) in [
            (utf16(&[0xFF, 0xFE], "secret\r\n", u16::to_le_bytes), 1, "is text in UTF-16"),
            (utf16(&[0xFE, 0xFF], "secret\r\n", u16::to_be_bytes), 1, "is text in UTF-16"),
            (utf16(&[], "secret\n", u16::to_le_bytes), 1, "is text in UTF-16"),
            (b"\xFF\xFE\0\0a\0\0\0".to_vec(), 1, "is text in UTF-32"),
            (b"one\ntwo\nZ\xFCrich\n".to_vec(), 3, "is not UTF-8"),
            (b"one\ntwo\0\nand more text\n".to_vec(), 2, "contains a NUL byte"),
        ] {
            let found = of(&bytes).unwrap_err();
            assert_eq!(found.line, line, "{found:?}");
            assert!(found.what.starts_with(what), "{found:?}");
        }
    }

    #[test]
    fn invisible_characters_have_names() {
        let name = |text| invisible(text).map(|(_, name)| name);
        assert_eq!(name("spaces and\ttabs, \u{E9}, \u{65E5}\u{672C}"), None);
        for (text, expected) in [
            ("a\u{200B}b", "a zero-width character (U+200B)"),
            ("a\u{A0}b", "a non-breaking space (U+00A0)"),
            ("a\u{7}b", "a control character (U+0007)"),
            ("a\rb", "a carriage return without a line feed (U+000D)"),
            ("\u{FEFF}ab", "a byte order mark (U+FEFF)"),
            ("ab\u{3000}", "a space that is not the usual one (U+3000)"),
            ("ab\u{202E}", "an invisible character (U+202E)"),
        ] {
            assert_eq!(name(text).as_deref(), Some(expected));
        }
    }
}
