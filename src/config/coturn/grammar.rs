//! The lines of `turnserver.conf`, read as coturn reads them: `key value`, `key=value` or `key`, with any run of blanks, tabs and
//! `=` between the two. What differs from other formats is kept as it is there, because the values have worked: a `#` after a
//! value belongs to it, and so does a trailing `;`.

/// The bytes that coturn reads of one line; the rest is another line to it.
const LINE_MAX: usize = 1023;

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The line, counted from 1.
    pub line: usize,
    /// The key, in the case that it is written in.
    pub key: &'a str,
    /// The value without surrounding quotes; empty if there is none.
    pub value: &'a str,
    /// Whether the line is longer than coturn reads, or is such a rest.
    pub is_cut: bool,
}

impl Entry<'_> {
    /// What coturn makes of a boolean value. `None`: it refuses to start.
    pub fn flag(&self) -> Option<bool> {
        match self.value.as_bytes() {
            [] => Some(true),
            [b'0' | b'n' | b'N' | b'f' | b'F', ..] => Some(false),
            [b'1'..=b'9' | b'y' | b'Y' | b't' | b'T', ..] => Some(true),
            b"on" | b"ON" | b"On" => Some(true),
            b"off" | b"OFF" | b"Off" => Some(false),
            _ => None,
        }
    }

    /// The number at the beginning of the value, as atoi(3) reads it: what follows does not count. `None`: there is none.
    pub fn number(&self) -> Option<i64> {
        let text = self.value.trim_start();
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number = digits.get(..end).filter(|digits| !digits.is_empty())?;
        Some(sign * number.parse::<i64>().unwrap_or(i64::MAX))
    }

    /// What of the value is there by mistake, as far as one can tell: a comment after it, or a semicolon.
    pub fn leftover(&self) -> Option<&'static str> {
        if self.value.contains(" #") || self.value.contains("\t#") {
            return Some("coturn takes `#` after a value for a part of it, and not for a comment");
        }
        self.value.ends_with(';').then_some("coturn takes the `;` at the end for a part of the value")
    }
}

/// Every setting, in the order of the file.
pub fn entries(text: &str) -> Vec<Entry<'_>> {
    let lines =
        text.split('\n').enumerate().flat_map(|(n, line)| pieces(line).map(move |piece| (n + 1, piece)));
    lines.filter_map(|(line, (piece, is_cut))| entry(line, piece, is_cut)).collect()
}

/// A line as coturn reads it: in one piece unless it is too long.
fn pieces(line: &str) -> impl Iterator<Item = (&str, bool)> {
    let is_cut = line.len() > LINE_MAX;
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut end = text.len().min(LINE_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, left) = text.split_at(end);
        rest = (!left.is_empty()).then_some(left);
        Some((piece, is_cut))
    })
}

fn entry(line: usize, text: &str, is_cut: bool) -> Option<Entry<'_>> {
    let text = text.trim_start_matches([' ', '\t']);
    if text.starts_with('#') {
        return None;
    }
    let text = text.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    let between = [' ', '=', '\t'];
    let end = text.find(between).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    let value = rest.trim_start_matches(between);
    let value = match value.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => value,
    };
    (!text.is_empty()).then_some(Entry { line, key, value, is_cut })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (&str, &str) {
        let [Entry { key, value, .. }] = entries(text)[..] else { panic!("{text:?} is not one setting") };
        (key, value)
    }

    #[test]
    fn key_and_value_are_separated_by_blanks_tabs_and_equals_signs() {
        for text in
            ["realm=example.org", "realm example.org", "realm\texample.org", " \trealm = \t example.org \r"]
        {
            assert_eq!(one(text), ("realm", "example.org"), "{text:?}");
        }
        assert_eq!(one("static-auth-secret==ab=c="), ("static-auth-secret", "ab=c="));
        assert_eq!(one("no-cli"), ("no-cli", ""));
        assert_eq!(one("user=alice:a b=c"), ("user", "alice:a b=c"));
        assert_eq!(one("Verbose"), ("Verbose", ""), "keys are case-sensitive");
    }

    #[test]
    fn a_hash_is_a_comment_only_at_the_start_of_a_line() {
        assert!(entries("# realm=example.org\n \t# realm\n\n  \n\r\n").is_empty());
        assert_eq!(one("realm=example.org # ours"), ("realm", "example.org # ours"));
        assert!(entries("realm=example.org # ours")[0].leftover().is_some_and(|said| said.contains('#')));
        assert!(entries("static-auth-secret=a#b")[0].leftover().is_none());
    }

    #[test]
    fn surrounding_quotes_are_stripped_and_a_semicolon_is_not() {
        assert_eq!(one("realm=\"example.org\""), ("realm", "example.org"));
        assert_eq!(one("realm=\"example.org"), ("realm", "example.org"));
        assert_eq!(one("realm=ex\"ample.org\""), ("realm", "ex\"ample.org\""));
        assert_eq!(one("realm=example.org;"), ("realm", "example.org;"));
        assert!(entries("realm=example.org;")[0].leftover().is_some_and(|said| said.contains(';')));
    }

    #[test]
    fn booleans_are_judged_by_their_first_character() {
        let flag = |value: &str| entries(&format!("mobility={value}"))[0].flag();
        for (values, expected) in [
            (&["", "1", "9x", "y", "YES", "true", "T", "on", "On", "ON"][..], Some(true)),
            (&["0", "01", "n", "No", "false", "F", "off", "Off", "OFF"][..], Some(false)),
            (&["oN", "x", "-1", "enabled"][..], None),
        ] {
            values.iter().for_each(|value| assert_eq!(flag(value), expected, "{value}"));
        }
    }

    #[test]
    fn numbers_end_at_the_first_other_character() {
        let number = |value: &str| entries(&format!("max-bps={value}"))[0].number();
        assert_eq!(number("3478"), Some(3478));
        assert_eq!(number("3478 # the port"), Some(3478));
        assert_eq!(number("-5;"), Some(-5));
        assert_eq!(number("99999999999999999999"), Some(i64::MAX));
        assert_eq!((number("x"), number("")), (None, None));
    }

    #[test]
    fn a_long_line_is_several_lines() {
        let long = format!("realm={}\nno-cli", "a".repeat(2000));
        let found = entries(&long);
        assert_eq!(
            found.iter().map(|entry| (entry.line, entry.is_cut)).collect::<Vec<_>>(),
            [(1, true), (1, true), (2, false)]
        );
        assert_eq!(found[0].value.len() + "realm=".len(), LINE_MAX);
        assert_eq!(found[1].key.len(), 2006 - LINE_MAX);
        let umlauts = format!("realm={}", "\u{e4}".repeat(1000));
        assert_eq!(entries(&umlauts).len(), 2, "characters are not cut");
    }
}
