//! The checks of RFC 8489 §9.2.4 in order. The bid-down matrix has its own file.

use proptest::prelude::*;

use super::*;

/// RFC 8489 §9.2.3.1, §9.2.4: the first request is challenged, and the challenge suffices to authenticate.
#[test]
fn a_client_of_rfc_5389_authenticates() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    assert_eq!(TestRequest::new().rejected(&auth), (401, AuthReason::NoCredentials));
    assert_eq!(challenged(&auth, NOW, attribute::REALM), REALM.as_bytes());
    assert_eq!(challenged(&auth, NOW, attribute::PASSWORD_ALGORITHMS), BOTH);

    let authenticated = rfc5389(&auth, "alice", "wonder").allocate(&auth).expect("authenticated");
    assert_eq!(&**authenticated.credential().username(), "alice");
    assert_eq!(authenticated.credential().algorithm(), PasswordAlgorithm::Md5);

    let bytes = signed(&authenticated);
    let response = Message::parse(&bytes).unwrap();
    assert!(response.verify_sha1(&key(PasswordAlgorithm::Md5, "alice", "wonder")));
    assert!(!response.has_integrity_sha256());
}

/// RFC 8489 §9.2.4, §9.2.5: with USERHASH and both algorithm attributes, the response has MESSAGE-INTEGRITY-SHA256.
#[test]
fn a_client_of_rfc_8489_authenticates_by_userhash() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let request = rfc8489(&auth, "alice", "wonder")
        .without(attribute::USERNAME)
        .with(attribute::USERHASH, userhash(b"alice", REALM.as_bytes()));
    let authenticated = request.allocate(&auth).expect("authenticated");
    assert_eq!(&**authenticated.credential().username(), "alice");

    let bytes = signed(&authenticated);
    let response = Message::parse(&bytes).unwrap();
    assert!(response.verify_sha256(&key(PasswordAlgorithm::Sha256, "alice", "wonder")));
    assert!(!response.has_integrity_sha1());
}

/// RFC 8489 §9.2.4, second check: 400 without challenge and integrity.
#[test]
fn integrity_without_its_attributes_is_a_bad_request() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    for missing in [attribute::USERNAME, attribute::REALM, attribute::NONCE] {
        for request in [rfc5389(&auth, "alice", "wonder"), rfc8489(&auth, "alice", "wonder")] {
            assert_eq!(
                request.without(missing).rejected(&auth),
                (400, AuthReason::MissingAttribute),
                "{missing:#06x}"
            );
        }
    }
    // This applies with a wrong key too.
    assert_eq!(TestRequest::new().sha1(b"x").rejected(&auth), (400, AuthReason::MissingAttribute));
    assert_eq!(TestRequest::new().sha256(b"x").rejected(&auth), (400, AuthReason::MissingAttribute));
}

/// RFC 8489 §9.2.4, first check: missing integrity is detected before other errors.
#[test]
fn missing_integrity_is_checked_first() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let request = unsigned(&auth, "alice").with(attribute::PASSWORD_ALGORITHM, SHA256);
    assert_eq!(request.rejected(&auth), (401, AuthReason::NoCredentials));
}

/// RFC 8489 §14.5: attributes after the integrity are not covered by it, so they are ignored.
#[test]
fn attributes_after_integrity_are_ignored() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let mut bytes = unsigned(&auth, "alice")
        .without(attribute::USERNAME)
        .sha1(&key(PasswordAlgorithm::Md5, "alice", "wonder"))
        .bytes();
    bytes.extend_from_slice(&[0x00, 0x06, 0x00, 0x05, b'a', b'l', b'i', b'c', b'e', 0, 0, 0]);
    let length = (bytes.len() as u16 - 20).to_be_bytes();
    bytes[2..4].copy_from_slice(&length);
    let request = Message::parse(&bytes).unwrap();
    let refusal = auth.authenticate(NOW, client(), &request, AuthPurpose::Allocate, None).unwrap_err();
    assert_eq!(refusal.reason, AuthReason::MissingAttribute);
}

/// RFC 8489 §14: duplicates of an attribute are ignored.
#[test]
fn duplicate_attributes_are_ignored() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let alice = key(PasswordAlgorithm::Md5, "alice", "wonder");
    let request =
        unsigned(&auth, "alice").with(attribute::USERNAME, "bob").with(attribute::REALM, "x").sha1(&alice);
    assert!(request.allocate(&auth).is_ok());
    let request = unsigned(&auth, "bob").with(attribute::USERNAME, "alice").sha1(&alice);
    assert_eq!(request.rejected(&auth), (401, AuthReason::WrongPassword));
}

/// RFC 8489 §9.2.4: all responses with 401 have the same bytes, so they do not reveal which users exist.
#[test]
fn all_401_responses_are_identical() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    let expired = format!("{}:bob", NOW - 1);
    let without_feature_bits =
        |request: TestRequest| request.without(attribute::NONCE).with(attribute::NONCE, "obMatJos2AAAA");
    let cases = [
        (TestRequest::new(), AuthReason::NoCredentials),
        (rfc5389(&auth, "nobody", "wonder"), AuthReason::UnknownUser),
        (rfc8489(&auth, "nobody", "wonder"), AuthReason::UnknownUser),
        (rfc5389(&auth, "alice", "wrong"), AuthReason::WrongPassword),
        (rfc8489(&auth, "alice", "wrong"), AuthReason::WrongPassword),
        (rfc5389(&auth, "1800000000:bob", "wrong"), AuthReason::WrongPassword),
        (rfc5389(&auth, &expired, &time_limited_password(b"north", &expired)), AuthReason::Expired),
        (
            rfc5389(&auth, "alice", "wonder").without(attribute::REALM).with(attribute::REALM, "other"),
            AuthReason::WrongRealm,
        ),
        (
            without_feature_bits(rfc5389(&auth, "alice", "wonder"))
                .with(attribute::PASSWORD_ALGORITHM, [0, 3, 0, 0]),
            AuthReason::NoKey,
        ),
    ];
    let expected = error_response(&auth, &AuthReason::NoCredentials.into());
    for (request, reason) in cases {
        let refusal = request.allocate(&auth).expect_err("rejected");
        assert_eq!(refusal.reason, reason);
        assert!(refusal.signed.is_none());
        assert_eq!(error_response(&auth, &refusal), expected, "{reason:?}");
    }
}

/// RFC 8489 §9.2.4: the integrity is checked before the nonce, and the nonce before the allocation's user.
#[test]
fn the_nonce_is_checked_after_the_integrity() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let alice = Arc::clone(rfc5389(&auth, "alice", "wonder").allocate(&auth).unwrap().credential());
    let request = |name, password| rfc5389(&auth, name, password);
    let at = |unix, request: TestRequest, known| {
        let refusal = request.authenticate(&auth, unix, AuthPurpose::Other, known).expect_err("rejected");
        (refusal.code, refusal.reason)
    };
    assert!(request("alice", "wonder").authenticate(&auth, NOW + 599, AuthPurpose::Other, None).is_ok());
    assert_eq!(at(NOW + 600, request("alice", "wonder"), None), (438, AuthReason::StaleNonce));
    assert_eq!(at(NOW + 600, request("alice", "wonder"), Some(&alice)), (438, AuthReason::StaleNonce));
    assert_eq!(at(NOW + 600, request("alice", "wrong"), Some(&alice)), (401, AuthReason::WrongPassword));
    assert_eq!(at(NOW + 600, request("nobody", "wonder"), None), (401, AuthReason::UnknownUser));
    assert_eq!(at(NOW + 600, request("bob", "builder"), Some(&alice)), (438, AuthReason::StaleNonce));
    // A nonce from the future, after the clock was set back.
    assert_eq!(at(NOW - 1, request("alice", "wonder"), None), (438, AuthReason::StaleNonce));
    let made_up = |request: TestRequest| {
        request.without(attribute::NONCE).with(attribute::NONCE, "f//499k954d6OL34oL9FSTvy64sA")
    };
    assert_eq!(at(NOW, made_up(request("alice", "wonder")), None), (438, AuthReason::ForeignNonce));
    assert_eq!(at(NOW, made_up(request("alice", "wrong")), None), (401, AuthReason::WrongPassword));
}

/// RFC 8489 §9.2.4: a nonce is valid for one source address and port.
#[test]
fn a_nonce_of_another_client_is_rejected() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let bytes = rfc5389(&auth, "alice", "wonder").bytes();
    let request = Message::parse(&bytes).unwrap();
    let other = "192.0.2.1:5001".parse().unwrap();
    let refusal = auth.authenticate(NOW, other, &request, AuthPurpose::Allocate, None).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (438, AuthReason::ForeignNonce));
}

/// RFC 8489 §14.6: TURN does not allow truncation, so a truncated value never verifies.
#[test]
fn truncated_integrity_is_rejected() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let whole = rfc8489(&auth, "alice", "wonder").bytes();
    let at = whole.len() - 32;
    for length in [16_u8, 20, 28] {
        let mut bytes = whole[..at + usize::from(length)].to_vec();
        bytes[at - 1] = length;
        let total = (bytes.len() as u16 - 20).to_be_bytes();
        bytes[2..4].copy_from_slice(&total);
        let request = Message::parse(&bytes).unwrap();
        let refusal = auth.authenticate(NOW, client(), &request, AuthPurpose::Allocate, None).unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (401, AuthReason::WrongPassword));
    }
}

proptest! {
    /// RFC 8489 §9.2.4: without the key no request is authenticated, whatever its attributes.
    #[test]
    fn authentication_needs_the_key(
        values in proptest::collection::vec(
            (prop_oneof![
                Just(attribute::USERNAME), Just(attribute::USERHASH), Just(attribute::REALM), Just(attribute::NONCE),
                Just(attribute::PASSWORD_ALGORITHM), Just(attribute::PASSWORD_ALGORITHMS),
            ], proptest::collection::vec(any::<u8>(), 0..40)),
            0..6,
        ),
        right_name: bool,
        key: Vec<u8>,
        both: bool,
    ) {
        let auth = auth(&[plain("alice", "wonder")], &["north"]);
        let mut request = if right_name { unsigned(&auth, "alice") } else { TestRequest::new() };
        for (kind, value) in values {
            request = request.with(kind, value);
        }
        request = request.sha1(&key);
        if both {
            request = request.sha256(&key);
        }
        let refusal = request.allocate(&auth).expect_err("rejected");
        prop_assert!(matches!(refusal.code, 400 | 401));
    }

    /// RFC 8489 §9.2.2, §18.5.1: the password authenticates with either algorithm, and any flipped bit is rejected.
    #[test]
    fn the_right_password_authenticates(name in "[a-zA-Z0-9@:._-]{1,60}", password in "[ -~]{1,60}", at: usize) {
        let auth = auth(&[plain(&name, &password)], &["north"]);
        for request in [rfc5389(&auth, &name, &password), rfc8489(&auth, &name, &password)] {
            let authenticated = request.allocate(&auth).expect("authenticated");
            prop_assert_eq!(&**authenticated.credential().username(), &name[..]);
            let mut bytes = request.bytes();
            // Any bit after the length field. The message may become malformed.
            let bit = 32 + at % (bytes.len() * 8 - 32);
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            if let Ok(request) = Message::parse(&bytes) {
                prop_assert!(auth.authenticate(NOW, client(), &request, AuthPurpose::Allocate, None).is_err());
            }
        }
    }

    /// draft-uberti-behave-turn-rest: credentials made with the shared secret authenticate, and with another do not.
    #[test]
    fn the_right_secret_authenticates(secret in "[!-~]{1,40}", user in "\\PC{0,40}", expiry in NOW..) {
        let auth = auth(&[], &[&secret]);
        let name = format!("{expiry}:{user}");
        let password = time_limited_password(secret.as_bytes(), &name);
        prop_assert!(rfc5389(&auth, &name, &password).allocate(&auth).is_ok());
        prop_assert!(rfc8489(&auth, &name, &password).allocate(&auth).is_ok());
        let other = time_limited_password(format!("{secret}x").as_bytes(), &name);
        prop_assert_eq!(rfc5389(&auth, &name, &other).rejected(&auth), (401, AuthReason::WrongPassword));
    }
}
