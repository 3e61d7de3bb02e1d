//! How names, realms and passwords are brought into one form before they are compared or hashed: RFC 8265 §4.2
//! (OpaqueString) as RFC 8489 §9.2.2, §14.3, §14.4 and §14.9 ask for it.
//!
//! What a client sends is not processed again: RFC 8489 §14.3 and §14.9 have it processed already, and a browser that
//! skips that step still computes its key over the bytes it sends.

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;

/// Prepares a configured string; the error completes a sentence that starts with the string's name.
pub(super) fn opaque(text: &str) -> Result<String, &'static str> {
    let text = text.trim_end_matches('\0');
    if text.is_empty() {
        return Err("is empty");
    }
    match OpaqueString::enforce(text) {
        Ok(prepared) => Ok(prepared.into_owned()),
        Err(_) => Err("contains characters that OpaqueString (RFC 8265) does not allow"),
    }
}

/// A USERNAME or REALM value "with any quotes and trailing nulls removed" (RFC 8489 §9.2.2): the quotes are those that
/// stand around a SIP quoted-string, not quotes inside a name.
pub(super) fn bare(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    match &value[..end] {
        [b'"', inner @ .., b'"'] => inner,
        whole => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §9.2.2, RFC 8265 §4.2: other spaces become ASCII spaces, composition is NFC, case is kept.
    #[test]
    fn opaque_string_prepares() {
        assert_eq!(opaque("Correct Horse").as_deref(), Ok("Correct Horse"));
        assert_eq!(opaque("foo\u{1680}bar").as_deref(), Ok("foo bar"));
        assert_eq!(opaque("A\u{30A}").as_deref(), Ok("\u{C5}"));
        assert_eq!(opaque("マトリックス").as_deref(), Ok("マトリックス"));
        assert_eq!(opaque("pass\0\0").as_deref(), Ok("pass"));
    }

    /// RFC 8265 §4.2: the empty string and control characters are refused.
    #[test]
    fn opaque_string_refuses() {
        assert!(opaque("").is_err());
        assert!(opaque("\0").is_err());
        assert!(opaque("tab\there").is_err());
        assert!(opaque("nul\0inside").is_err());
    }

    /// RFC 8489 §9.2.2: quotes and trailing nulls are no part of a name.
    #[test]
    fn bare_strips_what_is_not_the_name() {
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
            assert_eq!(bare(value.as_bytes()), name.as_bytes(), "{value:?}");
        }
    }
}
