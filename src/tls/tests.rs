//! Keys and chains in every common format. Handshakes are tested with whole relays.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
};

use super::*;

/// A self-signed certificate for a key.
fn certificate(key: &KeyPair) -> String {
    CertificateParams::new(["relay.example.org".to_owned()]).unwrap().self_signed(key).unwrap().pem()
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The value of the DER element at the beginning of `der`, and the bytes after it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (header, len) = match der[1] {
        short @ 0..0x80 => (2, usize::from(short)),
        long => {
            let count = usize::from(long & 0x7F);
            (2 + count, der[2..2 + count].iter().fold(0, |len, &byte| len << 8 | usize::from(byte)))
        }
    };
    der[header..].split_at(len)
}

/// The key inside PKCS#8 (RFC 5208): PKCS#1 for RSA, SEC1 for ECDSA.
fn traditional(key: &KeyPair) -> Vec<u8> {
    let der = key.serialize_der();
    let (content, _) = element(&der);
    let (_version, content) = element(content);
    let (_algorithm, content) = element(content);
    element(content).0.to_vec()
}

fn load(chain: &str, key: &str) -> Result<Identity, IdentityError> {
    Identity::from_pem(chain.as_bytes(), key.as_bytes())
}

/// RFC 8489 §6.2.3
#[test]
fn keys_in_every_format() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256] {
        let key = key(algorithm);
        let certificate = certificate(&key);
        load(&certificate, &key.serialize_pem()).unwrap();
        let label = match algorithm {
            rsa if *rsa == PKCS_RSA_SHA256 => "RSA PRIVATE KEY",
            ed if *ed == PKCS_ED25519 => continue,
            _ => "EC PRIVATE KEY",
        };
        load(&certificate, &pem(label, &traditional(&key))).unwrap();
    }
}

/// As openssl writes key files: parameters before the key, text around the sections.
#[test]
fn text_and_sections_around_a_key_are_ignored() {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let parameters = "Private-Key: (256 bit)\n-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let file = format!("{parameters}{}", pem("EC PRIVATE KEY", &traditional(&key)));
    load(&certificate(&key), &file).unwrap();
    let both = format!("{file}{}", certificate(&key));
    load(&both, &both).unwrap();
}

/// The server's own certificate must be the first of a chain.
#[test]
fn the_order_of_a_chain() {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key(&PKCS_ECDSA_P256_SHA256)).unwrap();
    let own = key(&PKCS_RSA_SHA256);
    let params = CertificateParams::new(["relay.example.org".to_owned()]).unwrap();
    let certificate = params.signed_by(&own, &authority).unwrap().pem();
    load(&format!("{certificate}{}", authority.pem()), &own.serialize_pem()).unwrap();
    let reversed = load(&format!("{}{certificate}", authority.pem()), &own.serialize_pem());
    let error = reversed.map(|_| ()).unwrap_err();
    assert!(error.what.contains("does not belong to the first certificate"), "{error:?}");
}

#[test]
fn mistakes_are_reported() {
    let (key, other) = (key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ECDSA_P256_SHA256));
    let (certificate, good) = (certificate(&key), key.serialize_pem());
    let error = |chain: &str, key: &str| load(chain, key).unwrap_err();
    let says = |error: IdentityError, words: &str, fix: &str| {
        assert!(error.what.contains(words) && error.fix.contains(fix), "{error:?}");
    };
    says(
        error(&certificate, &other.serialize_pem()),
        "the private key does not belong to the first certificate",
        "that the certificate was made for",
    );
    says(error("", &good), "the certificate file is empty", "fullchain.pem");
    says(error("text", &good), "no certificate", "fullchain.pem");
    says(
        error(&good, &good),
        "no certificate: it needs at least one -----BEGIN CERTIFICATE----- section",
        "fullchain.pem",
    );
    says(error(&good, &good), "it has a private key", "fullchain.pem");
    says(error(&certificate, "text"), "no private key", "privkey.pem");
    says(error(&certificate, &certificate), "no private key", "privkey.pem");
    says(error(&certificate, &certificate), "it has a certificate", "privkey.pem");
    let encrypted = pem("ENCRYPTED PRIVATE KEY", &[1, 2, 3]);
    says(error(&certificate, &encrypted), "without a passphrase", "openssl pkey -in FILE");
    let headers = "EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n";
    let encrypted = pem("EC PRIVATE KEY", &[1, 2, 3]).replacen("EC PRIVATE KEY-----\n", headers, 1);
    says(error(&certificate, &encrypted), "without a passphrase", "openssl pkey -in FILE");
    let openssh = pem("OPENSSH PRIVATE KEY", b"openssh-key-v1");
    says(error(&certificate, &openssh), "OpenSSH", "ssh-keygen");
    says(error(&certificate, &pem("PRIVATE KEY", &[1, 2, 3])), "the private key is not supported", "");
    let mislabelled = pem("PRIVATE KEY", &traditional(&key));
    says(
        error(&certificate, &mislabelled),
        "labelled PRIVATE KEY, but contains something else",
        "openssl pkey",
    );
    let damaged = "-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n";
    says(error(&certificate, damaged), "the key file, line 2, is damaged", "copy the original");
    says(error(&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n"), "the key file, line 1, is cut off", "");
    let malformed = error(&pem("CERTIFICATE", &[1, 2, 3]), &good);
    says(malformed, "certificate 1 of the certificate file is malformed", "");
    let request = pem("CERTIFICATE REQUEST", &[1, 2, 3]);
    says(error(&request, &good), "an authority has yet to sign", "");
    let lines = certificate.lines().count();
    let second = format!("{certificate}-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n");
    says(error(&second, &good), &format!("the certificate file, line {}, is damaged", lines + 2), "");
}

/// Files that are not PEM are named, with the command that converts them.
#[test]
fn other_formats_are_named() {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let params = CertificateParams::new(["relay.example.org".to_owned()]).unwrap();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    let (certificate, good) = (certificate(&key), key.serialize_pem());
    let of = |chain: &[u8], key: &[u8]| Identity::from_pem(chain, key).map(|_| ()).unwrap_err();
    for (error, what, fix) in [
        (of(&der, good.as_bytes()), "is a certificate in DER", "openssl x509 -inform DER -in FILE"),
        (
            of(certificate.as_bytes(), &key.serialize_der()),
            "is a private key in DER",
            "openssl pkey -inform DER",
        ),
        (of(b"\x30\x80\x02\x01\x03\x30\x80", b""), "is PKCS#12", "openssl pkcs12 -in FILE"),
        (of(b"\xFF\xFE-\0-\0", b""), "UTF-16", "UTF-8"),
    ] {
        assert!(error.what.contains(what) && error.fix.contains(fix), "{error:?}");
    }
}

/// What editors, copies and older systems leave in a file: a byte order mark, CRLF, CR alone, blanks, no end of the last line.
#[test]
fn marks_and_line_ends_are_understood() {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let (certificate, good) = (certificate(&key), key.serialize_pem());
    let changes: [fn(&str) -> String; 6] = [
        |pem| format!("\u{FEFF}{pem}"),
        |pem| pem.replace('\n', "\r\n"),
        |pem| pem.replace("\r\n", "\n").replace('\n', "\r"),
        |pem| pem.replace('\n', "  \n"),
        |pem| pem.lines().map(|line| format!("    {line}\n")).collect(),
        |pem| pem.trim_end().to_owned(),
    ];
    for change in changes {
        load(&change(&certificate), &change(&good)).unwrap();
    }
}

/// No error contains a byte of a private key, whatever has happened to the file.
#[test]
fn errors_never_quote_a_key() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256] {
        let key = key(algorithm);
        let (certificate, good) = (certificate(&key), key.serialize_pem());
        let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
        let windows: HashSet<&[u8]> = body.as_bytes().windows(8).collect();
        let mut damaged = vec![
            good.replace('\n', ""),
            good.replace('\n', " "),
            good.replace('\n', "\\n"),
            good.replace("-----END PRIVATE KEY-----", ""),
            good.replace("KEY-----\n", "KEY"),
            good.replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN "),
            good.replace("PRIVATE KEY", &body),
            good.replace("PRIVATE KEY", "RSA PRIVATE KEY"),
            good.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"),
            good.replace("PRIVATE KEY", "CERTIFICATE"),
            good.replace("PRIVATE KEY", "PUBLIC KEY"),
            good.replacen("PRIVATE", "EC PRIVATE", 1),
            body.clone(),
            format!("-----BEGIN {body}-----\n"),
            format!("{{\"key\": \"{body}\"}}"),
            good.replace("M", "\u{200B}"),
        ];
        damaged.extend((1..good.len()).step_by(17).map(|end| good[..end].to_owned()));
        damaged
            .extend((0..good.len() - 1).step_by(23).map(|at| format!("{}?{}", &good[..at], &good[at + 1..])));
        damaged
            .extend((0..good.len() - 1).step_by(23).map(|at| format!("{}{}", &good[..at], &good[at + 1..])));
        let der = key.serialize_der();
        let files = damaged
            .into_iter()
            .map(String::into_bytes)
            .chain((1..der.len()).step_by(9).map(|end| der[..end].to_vec()));
        for file in files {
            for result in [
                Identity::from_pem(certificate.as_bytes(), &file),
                Identity::from_pem(&file, good.as_bytes()),
                Identity::from_pem(&file, &file),
            ] {
                let Err(error) = result else { continue };
                let said = format!("{error} {error:?}");
                let leaks = said.as_bytes().windows(8).any(|window| windows.contains(window));
                assert!(!leaks && said.is_ascii(), "{said}");
            }
        }
    }
}

#[test]
fn debug_shows_nothing_of_it() {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let identity = load(&certificate(&key), &key.serialize_pem()).unwrap();
    assert_eq!(format!("{identity:?}"), "Identity");
}
