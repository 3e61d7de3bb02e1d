//! Preparation of user names, realms and passwords before they are compared or hashed: OpaqueString (RFC 8265 §4.2) as
//! required by RFC 8489 §9.2.2, §14.3, §14.4 and §14.9.
//!
//! Values from clients are not prepared again. RFC 8489 §14.3 and §14.9 require the client to do so, and browsers that do not
//! still derive their key from the bytes they send.

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;

/// Prepares a configured string. The error completes a sentence that starts with the name of the setting.
pub(super) fn opaque_string(text: &str) -> Result<String, &'static str> {
    let text = text.trim_end_matches('\0');
    if text.is_empty() {
        return Err("is empty");
    }
    // RFC 8265 §4.2 leaves the visible characters of ASCII and the space as they are. Nearly all of many names are such.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(text.to_owned());
    }
    match OpaqueString::enforce(text) {
        Ok(prepared) => Ok(prepared.into_owned()),
        Err(_) => Err("contains characters that OpaqueString (RFC 8265) does not allow"),
    }
}

/// A password as keys are derived from it.
///
/// # Errors
/// It is not allowed; completes a sentence that starts with "the password".
pub fn prepared_password(text: &str) -> Result<String, &'static str> {
    opaque_string(text)
}

/// Why a password is not allowed; completes a sentence that starts with "the password".
pub fn password_problem(text: &str) -> Option<&'static str> {
    opaque_string(text).err()
}

/// The value of USERNAME or REALM "with any quotes and trailing nulls removed" (RFC 8489 §9.2.2). These are the quotes around
/// a SIP quoted-string, not quotes inside a name.
pub(super) fn strip_quotes(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    match &value[..end] {
        [b'"', inner @ .., b'"'] => inner,
        whole => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §9.2.2, RFC 8265 §4.2: spaces are mapped to ASCII and the string to NFC; case is preserved.
    #[test]
    fn opaque_string_normalises() {
        assert_eq!(opaque_string("Correct Horse").as_deref(), Ok("Correct Horse"));
        let ascii: String = (' '..='~').collect();
        assert_eq!(OpaqueString::enforce(&*ascii).as_deref(), Ok(&*ascii));
        assert_eq!(opaque_string(&ascii).as_deref(), Ok(&*ascii));
        assert_eq!(opaque_string("foo\u{1680}bar").as_deref(), Ok("foo bar"));
        assert_eq!(opaque_string("A\u{30A}").as_deref(), Ok("\u{C5}"));
        assert_eq!(opaque_string("マトリックス").as_deref(), Ok("マトリックス"));
        assert_eq!(opaque_string("pass\0\0").as_deref(), Ok("pass"));
    }

    /// RFC 8489 §9.2.2: surrounding quotes and trailing nulls are removed.
    #[test]
    fn quotes_and_nulls_are_stripped() {
        for (value, name) in [
            ("alice", "alice"),
            ("alice\0\0", "alice"),
            ("\"alice\"", "alice"),
            ("\"alice\"\0", "alice"),
            ("al\"ice", "al\"ice"),
            ("\"alice", "\"alice"),
            ("\"", "\""),
            ("\"\"", ""),
            ("\0", ""),
            ("", ""),
        ] {
            assert_eq!(strip_quotes(value.as_bytes()), name.as_bytes(), "{value:?}");
        }
    }
}
