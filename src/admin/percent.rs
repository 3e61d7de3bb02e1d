//! Percent-encoding (RFC 3986 section 2.1), which both sides of the API use for names in paths and queries.

/// Encodes text as a part of a path or query.
pub fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Decodes `%2F` and the like, and `+` as a space if it is a `form`.
///
/// # Errors
/// What is wrong; completes a sentence.
pub fn decoded(text: &str, form: bool) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                    return Err("has a % that two hex digits do not follow");
                };
                (high * 16 + low) as u8
            }
            b'+' if form => b' ',
            byte => byte,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err("contains a NUL byte"),
        Ok(text) => Ok(text),
        Err(_) => Err("is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_text_is_decoded_to_the_same() {
        for text in ["", "a/b:c %\u{eb}+d?e&f=g", "..", "\u{1f600}\n"] {
            for form in [false, true] {
                assert_eq!(decoded(&encoded(text), form).as_deref(), Ok(text));
            }
        }
    }
}
