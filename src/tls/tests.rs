//! Keys and chains in every common format. Handshakes are tested with whole relays.

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
    assert!(matches!(reversed, Err(IdentityError::Mismatch)), "{reversed:?}");
}

#[test]
fn mistakes_are_reported() {
    let (key, other) = (key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ECDSA_P256_SHA256));
    let (certificate, good) = (certificate(&key), key.serialize_pem());
    let error = |chain: &str, key: &str| load(chain, key).unwrap_err().to_string();
    let says = |error: String, words: &str| assert!(error.contains(words), "{error}");
    says(
        error(&certificate, &other.serialize_pem()),
        "the private key does not belong to the first certificate",
    );
    says(error("", &good), "no certificate");
    says(error(&good, &good), "no certificate");
    says(error(&certificate, ""), "no private key");
    says(error(&certificate, &certificate), "no private key");
    says(error(&certificate, &pem("ENCRYPTED PRIVATE KEY", &[1, 2, 3])), "without a passphrase");
    says(error(&certificate, &pem("PRIVATE KEY", &[1, 2, 3])), "the private key is not supported");
    says(
        error(&certificate, "-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n"),
        "the private key in the key file is malformed",
    );
    says(
        error(&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n"),
        "the private key in the key file is malformed",
    );
    says(error(&pem("CERTIFICATE", &[1, 2, 3]), &good), "certificate 1 of the certificate file is malformed");
    let second = format!("{certificate}-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n");
    says(error(&second, &good), "certificate 2 of the certificate file is malformed");
}

#[test]
fn debug_shows_nothing_of_it() {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let identity = load(&certificate(&key), &key.serialize_pem()).unwrap();
    assert_eq!(format!("{identity:?}"), "Identity");
}
