//! What a file is that is not PEM, or what a section contains: by its first bytes, so that an error can name it and the command
//! that converts it.

/// A file that is not what it should be: what it is, and the command that makes PEM of it, with `FILE` for its name.
/// The command writes to another file than it reads: openssl empties its output before it reads its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Completes "the file ...".
    pub what: &'static str,
    pub command: Option<&'static str>,
}

const fn found(what: &'static str, command: &'static str) -> Option<Found> {
    Some(Found { what, command: Some(command) })
}

const fn only(what: &'static str) -> Option<Found> {
    Some(Found { what, command: None })
}

/// What these bytes are, if they are known.
pub fn file(bytes: &[u8]) -> Option<Found> {
    match bytes {
        [] => return only("is empty"),
        [0xFE, 0xED, 0xFE, 0xED, ..] => {
            return found(
                "is a Java keystore",
                "keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 -deststoretype PKCS12",
            );
        }
        _ => {}
    }
    // The digit 0 is the tag of a sequence, too.
    let is_binary = bytes.iter().any(|byte| *byte < b'\t' || *byte >= 0x80);
    if let Some(kind) = der(bytes).filter(|_| is_binary) {
        return kind.as_file();
    }
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return only("has only blanks");
    }
    if text.starts_with(b"PuTTY-User-Key-File") {
        return found("is a key of PuTTY", "puttygen FILE -O private-openssh -o FILE.new");
    }
    if text.starts_with(b"ssh-") || text.starts_with(b"ecdsa-sha2-") {
        return only("is a public key of SSH");
    }
    if text.starts_with(b"{") || text.starts_with(b"[") {
        return only("is JSON");
    }
    if text.starts_with(b"<") {
        return only("is HTML or XML");
    }
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/= \t\r\n".contains(byte);
    if text.len() >= 64 && text.iter().all(is_base64) {
        return only("is base64 that has lost its BEGIN and END lines");
    }
    None
}

/// A structure in DER or BER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Der {
    Certificate,
    Request,
    Pkcs1,
    Pkcs7,
    Pkcs8,
    EncryptedPkcs8,
    Pkcs12,
    PublicKey,
    Sec1,
    Other,
}

impl Der {
    fn as_file(self) -> Option<Found> {
        match self {
            Der::Certificate => {
                found("is a certificate in DER", "openssl x509 -inform DER -in FILE -out FILE.new")
            }
            Der::Request => only("is a certificate request in DER, which an authority has yet to sign"),
            Der::Pkcs1 | Der::Sec1 | Der::Pkcs8 => {
                found("is a private key in DER", "openssl pkey -inform DER -in FILE -out FILE.new")
            }
            Der::EncryptedPkcs8 => found(
                "is an encrypted private key in DER",
                "openssl pkcs8 -inform DER -in FILE -out FILE.new",
            ),
            Der::Pkcs7 => {
                found("is PKCS#7 in DER", "openssl pkcs7 -inform DER -in FILE -print_certs -out FILE.new")
            }
            Der::Pkcs12 => found("is PKCS#12 (.p12 or .pfx)", "openssl pkcs12 -in FILE -noenc -out FILE.new"),
            Der::PublicKey => only("is a public key in DER"),
            Der::Other => only("is in DER and neither a certificate nor a private key"),
        }
    }
}

/// What these bytes are, if they are a sequence in DER or BER, even one that is cut off.
pub fn der(bytes: &[u8]) -> Option<Der> {
    let (SEQUENCE, inner, _) = element(bytes)? else { return None };
    let (first, content, rest) = element(inner)?;
    let second = element(rest).map(|(tag, ..)| tag);
    Some(match (first, content, second) {
        (INTEGER, [0] | [1], Some(SEQUENCE)) => Der::Pkcs8,
        (INTEGER, [0], Some(INTEGER)) => Der::Pkcs1,
        (INTEGER, [1], Some(OCTETS)) => Der::Sec1,
        (INTEGER, [3], Some(SEQUENCE)) => Der::Pkcs12,
        (OID, [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, ..], _) => Der::Pkcs7,
        (SEQUENCE, _, Some(OCTETS)) => Der::EncryptedPkcs8,
        (SEQUENCE, _, Some(BITS)) => Der::PublicKey,
        (SEQUENCE, signed, Some(SEQUENCE) | None) => match element(signed) {
            // The version of a certificate is tagged, that of a request is not (RFC 5280 section 4.1, RFC 2986 section 4.1).
            Some((VERSION, ..)) => Der::Certificate,
            Some((INTEGER, [0], _)) => Der::Request,
            Some((INTEGER, ..)) => Der::Certificate,
            _ => Der::Other,
        },
        _ if bytes.len() > 16 => Der::Other,
        _ => return None,
    })
}

const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;

/// The tag and the content of the first element, as far as it is there, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, len, rest @ ..] = bytes else { return None };
    let (len, rest) = match len {
        0..0x80 => (usize::from(*len), rest),
        // BER: up to an end mark.
        0x80 => (rest.len(), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(len & 0x7F))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at(len.min(rest.len()));
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn certificates_and_keys_are_named_even_if_they_are_cut_off() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let request = params.serialize_request(&key).unwrap().der().to_vec();
        for (bytes, expected) in
            [(certificate, Der::Certificate), (request, Der::Request), (key.serialize_der(), Der::Pkcs8)]
        {
            assert_eq!(der(&bytes), Some(expected));
            assert_eq!(der(&bytes[..bytes.len() - 9]), Some(expected), "cut off");
        }
        assert_eq!(file(b"0123456789abcdef and more"), None);
    }

    #[test]
    fn other_files_are_named() {
        let pkcs12 = [0x30, 0x80, 2, 1, 3, 0x30, 0x80, 6, 9];
        for (bytes, what) in [
            (&b""[..], "is empty"),
            (b"\n  \n", "has only blanks"),
            (&pkcs12, "is PKCS#12"),
            (b"\xFE\xED\xFE\xED\0\0\0\x02", "is a Java keystore"),
            (b"PuTTY-User-Key-File-3: ssh-rsa", "is a key of PuTTY"),
            (b"{\"kty\":\"EC\"}", "is JSON"),
        ] {
            let found = file(bytes).unwrap();
            assert!(found.what.starts_with(what), "{found:?}");
        }
        assert_eq!(file(b"whatever"), None);
        assert!(file(&[b'M'; 100]).unwrap().what.contains("lost its BEGIN and END lines"));
    }
}
