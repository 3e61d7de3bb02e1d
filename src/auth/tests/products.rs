//! The credentials that other servers make, as docs/integrations.md describes them. The passwords were computed with another program:
//! `printf %s NAME | openssl dgst -sha1 -hmac SECRET -binary | base64`.

use super::*;
use crate::auth::{AccountKind, AuthScheme};

const SECRET: &str = "n4Fq-k7mB0zW";

/// Who made a name, with which secret, the name, the password, and whom it counts as.
type Vector = (&'static str, &'static str, &'static str, &'static str, (AccountKind, &'static str));

const VECTORS: &[Vector] = &[
    // expiry:@user:host
    (
        "Synapse",
        SECRET,
        "1800003600:@alice:example.org",
        "Vg/S4/xEdeFUgrbqBeokeSKfsS8=",
        (AccountKind::Person, "@alice:example.org"),
    ),
    // expiry:16 random characters, a new name for each request
    (
        "Nextcloud Talk",
        "thisisasupersecretsecret",
        "1479829425:abcdefghijklmnop",
        "4VJLVbihLzuxgMfDrm5C3zy8kLQ=",
        (AccountKind::Person, "abcdefghijklmnop"),
    ),
    // Prosody's mod_external_services and mod_turncredentials: the expiry and nothing else
    ("Jitsi", SECRET, "1800086400", "XwrDOO4cVJ2rHTiceFoarYWY+hw=", (AccountKind::ExpiryOnly, "1800086400")),
    // The same with a username in external_services
    ("Prosody", SECRET, "1800086400:jitsi", "I8vaBq4ttqSzyooKTgU3yqxvfoI=", (AccountKind::Person, "jitsi")),
    // A service of the TURN REST API for Janus
    ("Janus", SECRET, "1800086400:janus", "ioWx6JPN8qo/8QyKzaleJKKn1As=", (AccountKind::Person, "janus")),
    // expiry:20 random characters
    (
        "MediaMTX",
        SECRET,
        "1800086400:c3k1l0xq8z7m2n4p5r6t",
        "H2q5fIkQlXoh/bN5L/oXIqy/wZY=",
        (AccountKind::Person, "c3k1l0xq8z7m2n4p5r6t"),
    ),
    // expiry:user id of the meeting
    (
        "BigBlueButton",
        SECRET,
        "1800086400:w_hi2cyjqbxlfs",
        "OS5xOaNMEG53JY2PYj+31bMGvgA=",
        (AccountKind::Person, "w_hi2cyjqbxlfs"),
    ),
    // LiveKit's rtc.turn_servers with a secret: expiry:id of the participant
    (
        "Element Call",
        SECRET,
        "1800014400:PA_7DsGnvYbdBhM",
        "o1osadR7DDtoyrQSxH/NVCuDbI0=",
        (AccountKind::Person, "PA_7DsGnvYbdBhM"),
    ),
];

/// An Allocate request of a client that was challenged at this time, and its outcome.
fn allocate_at(auth: &Auth, unix: u64, name: &str, password: &str) -> Result<Authenticated, AuthRefusal> {
    let nonce = challenged(auth, unix, attribute::NONCE);
    let request = unsigned(auth, name).without(attribute::NONCE).with(attribute::NONCE, nonce);
    let request = request.sha1(&md5_key(name, REALM, password));
    request.authenticate(auth, unix, AuthPurpose::Allocate, None)
}

/// Each is accepted until it expires, and counts as the documentation says.
#[test]
fn credentials_of_other_servers() {
    for &(product, secret, name, password, counts_as) in VECTORS {
        assert_eq!(time_limited_password(secret.as_bytes(), name), password, "{product}");
        let expires = name.split(':').next().unwrap().parse().unwrap();
        let auth = auth(&[], &["another secret", secret]);
        let authenticated = allocate_at(&auth, expires - 1, name, password).expect(product);
        let account = authenticated.credential().account();
        assert_eq!((account.kind(), &**account.name()), counts_as, "{product}");
        let late = allocate_at(&auth, expires + 1, name, password).unwrap_err();
        assert_eq!((late.code, late.reason), (401, AuthReason::Expired), "{product}");
        assert_eq!(auth.scheme(name), Some((AuthScheme::TimeLimited, Some(expires))), "{product}");
    }
}

/// A secret that differs, by a letter or by a line end, is said to, and so is an expiry in milliseconds.
#[test]
fn what_is_wrong_is_said() {
    for &(product, secret, name, password, _) in VECTORS {
        let expires: u64 = name.split(':').next().unwrap().parse().unwrap();
        for other in [format!("{secret}\n"), secret.to_uppercase()] {
            let auth = auth(&[], &[&other]);
            let refused = allocate_at(&auth, expires - 1, name, password).unwrap_err();
            assert_eq!((refused.code, refused.reason), (401, AuthReason::WrongPassword), "{product}");
            let fix = auth.fix(refused.reason, name).unwrap();
            assert!(fix.contains("auth.secrets") && fix.contains("HMAC-SHA1"), "{product}: {fix}");
            assert!(!fix.contains(secret), "{product}: {fix}");
        }
        let config = AuthConfig { max_lifetime: 2_592_000, ..config(&[], &[secret]) };
        let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
        let name = name.replacen(&expires.to_string(), &format!("{expires}000"), 1);
        let password = time_limited_password(secret.as_bytes(), &name);
        let refused = allocate_at(&auth, expires - 1, &name, &password).unwrap_err();
        assert_eq!((refused.code, refused.reason), (401, AuthReason::ExpiryTooFar), "{product}");
        assert!(auth.fix(refused.reason, &name).unwrap().contains("in seconds"), "{product}");
    }
}

/// Element Call with LiveKit's own TURN server: LiveKit makes the name with its API key. Those of `rtc.turn_servers` with a secret are
/// among the vectors.
#[test]
fn credentials_of_livekit_for_element_call() {
    let mut config = config(&[], &[]);
    config.livekit_keys = vec![LiveKitKey { name: "APIexample".into(), secret: Secret::new(SECRET) }];
    let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
    let (name, password) = livekit_credential("APIexample", SECRET.as_bytes(), "PA_x", Some(NOW + 300));
    assert!(rfc5389(&auth, &name, &password).allocate(&auth).is_ok(), "{name}");
    assert_eq!(auth.scheme(&name).unwrap().0, AuthScheme::LiveKit);
}
