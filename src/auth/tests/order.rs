//! One request after the other through the checks of RFC 8489 §9.2.4; the bid-down matrix has its own file.

use proptest::prelude::*;

use super::*;

/// RFC 8489 §9.2.3.1, §9.2.4: the first request has no credentials; the challenge has all it takes to make some.
#[test]
fn a_client_of_rfc_5389_is_challenged_and_let_in() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    assert_eq!(TestRequest::new().refused(&auth), (401, AuthReason::NoCredentials));
    assert_eq!(challenged(&auth, NOW, attribute::REALM), REALM.as_bytes());
    assert_eq!(challenged(&auth, NOW, attribute::PASSWORD_ALGORITHMS), BOTH);

    let authenticated = classic(&auth, "alice", "wonder").allocate(&auth).expect("let in");
    assert_eq!(&**authenticated.credential().username(), "alice");
    assert_eq!(authenticated.credential().algorithm(), PasswordAlgorithm::Md5);

    let bytes = signed(&authenticated);
    let answer = Message::parse(&bytes).unwrap();
    assert!(answer.verify_sha1(&key(PasswordAlgorithm::Md5, "alice", "wonder")));
    assert!(!answer.has_integrity_sha256());
}

/// RFC 8489 §9.2.4, §9.2.5: USERHASH, both algorithm attributes, and the answer with MESSAGE-INTEGRITY-SHA256.
#[test]
fn a_client_of_rfc_8489_is_let_in_under_its_hash() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let ask = modern(&auth, "alice", "wonder")
        .without(attribute::USERNAME)
        .with(attribute::USERHASH, userhash(b"alice", REALM.as_bytes()));
    let authenticated = ask.allocate(&auth).expect("let in");
    assert_eq!(&**authenticated.credential().username(), "alice");

    let bytes = signed(&authenticated);
    let answer = Message::parse(&bytes).unwrap();
    assert!(answer.verify_sha256(&key(PasswordAlgorithm::Sha256, "alice", "wonder")));
    assert!(!answer.has_integrity_sha1());
}

/// RFC 8489 §9.2.4, second check: 400, which carries no challenge and no integrity.
#[test]
fn integrity_without_its_attributes_is_a_bad_request() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    for missing in [attribute::USERNAME, attribute::REALM, attribute::NONCE] {
        for ask in [classic(&auth, "alice", "wonder"), modern(&auth, "alice", "wonder")] {
            assert_eq!(
                ask.without(missing).refused(&auth),
                (400, AuthReason::MissingAttribute),
                "{missing:#06x}"
            );
        }
    }
    // Even with a wrong key, and with nothing at all.
    assert_eq!(TestRequest::new().sha1(b"x").refused(&auth), (400, AuthReason::MissingAttribute));
    assert_eq!(TestRequest::new().sha256(b"x").refused(&auth), (400, AuthReason::MissingAttribute));
}

/// RFC 8489 §9.2.4, first check: names alone prove nothing, whatever else is wrong with them.
#[test]
fn no_integrity_comes_first() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let ask = named(&auth, "alice").with(attribute::PASSWORD_ALGORITHM, SHA256);
    assert_eq!(ask.refused(&auth), (401, AuthReason::NoCredentials));
}

/// RFC 8489 §14.5: what follows the integrity is not covered by it, so it does not count.
#[test]
fn attributes_after_integrity_are_ignored() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let mut bytes = named(&auth, "alice")
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

/// RFC 8489 §14: of an attribute that comes twice the first counts.
#[test]
fn the_first_of_two_counts() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let alice = key(PasswordAlgorithm::Md5, "alice", "wonder");
    let ask = named(&auth, "alice").with(attribute::USERNAME, "bob").with(attribute::REALM, "x").sha1(&alice);
    assert!(ask.allocate(&auth).is_ok());
    let ask = named(&auth, "bob").with(attribute::USERNAME, "alice").sha1(&alice);
    assert_eq!(ask.refused(&auth), (401, AuthReason::WrongPassword));
}

/// RFC 8489 §9.2.4: whatever is wrong with user or password, the answer is the same to the byte.
#[test]
fn all_401_look_alike() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    let expired = format!("{}:bob", NOW - 1);
    let foreign_bit =
        |ask: TestRequest| ask.without(attribute::NONCE).with(attribute::NONCE, "obMatJos2AAAA");
    let cases = [
        (TestRequest::new(), AuthReason::NoCredentials),
        (classic(&auth, "nobody", "wonder"), AuthReason::UnknownUser),
        (modern(&auth, "nobody", "wonder"), AuthReason::UnknownUser),
        (classic(&auth, "alice", "wrong"), AuthReason::WrongPassword),
        (modern(&auth, "alice", "wrong"), AuthReason::WrongPassword),
        (classic(&auth, "1800000000:bob", "wrong"), AuthReason::WrongPassword),
        (classic(&auth, &expired, &time_limited_password(b"north", &expired)), AuthReason::Expired),
        (
            classic(&auth, "alice", "wonder").without(attribute::REALM).with(attribute::REALM, "other"),
            AuthReason::WrongRealm,
        ),
        (
            foreign_bit(classic(&auth, "alice", "wonder")).with(attribute::PASSWORD_ALGORITHM, [0, 3, 0, 0]),
            AuthReason::NoKey,
        ),
    ];
    let expected = answer(&auth, &AuthReason::NoCredentials.into());
    for (ask, reason) in cases {
        let refusal = ask.allocate(&auth).expect_err("refused");
        assert_eq!(refusal.reason, reason);
        assert!(refusal.signed.is_none());
        assert_eq!(answer(&auth, &refusal), expected, "{reason:?}");
    }
}

/// RFC 8489 §9.2.4: the integrity is judged before the nonce's age, the age before the allocation's user.
#[test]
fn a_stale_nonce_is_told_only_to_those_who_have_the_key() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let alice = Arc::clone(classic(&auth, "alice", "wonder").allocate(&auth).unwrap().credential());
    let ask = |name, password| classic(&auth, name, password);
    let at = |unix, ask: TestRequest, known| {
        let refusal = ask.check(&auth, unix, AuthPurpose::Other, known).expect_err("refused");
        (refusal.code, refusal.reason)
    };
    assert!(ask("alice", "wonder").check(&auth, NOW + 599, AuthPurpose::Other, None).is_ok());
    assert_eq!(at(NOW + 600, ask("alice", "wonder"), None), (438, AuthReason::StaleNonce));
    assert_eq!(at(NOW + 600, ask("alice", "wonder"), Some(&alice)), (438, AuthReason::StaleNonce));
    assert_eq!(at(NOW + 600, ask("alice", "wrong"), Some(&alice)), (401, AuthReason::WrongPassword));
    assert_eq!(at(NOW + 600, ask("nobody", "wonder"), None), (401, AuthReason::UnknownUser));
    assert_eq!(at(NOW + 600, ask("bob", "builder"), Some(&alice)), (438, AuthReason::StaleNonce));
    // From the future: the clock was set back.
    assert_eq!(at(NOW - 1, ask("alice", "wonder"), None), (438, AuthReason::StaleNonce));
    // Made up.
    let made_up = |ask: TestRequest| {
        ask.without(attribute::NONCE).with(attribute::NONCE, "f//499k954d6OL34oL9FSTvy64sA")
    };
    assert_eq!(at(NOW, made_up(ask("alice", "wonder")), None), (438, AuthReason::ForeignNonce));
    assert_eq!(at(NOW, made_up(ask("alice", "wrong")), None), (401, AuthReason::WrongPassword));
}

/// RFC 8489 §9.2.4: a nonce is for one source address and port.
#[test]
fn a_nonce_of_another_client_is_stale() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let bytes = classic(&auth, "alice", "wonder").bytes();
    let request = Message::parse(&bytes).unwrap();
    let other = "192.0.2.1:5001".parse().unwrap();
    let refusal = auth.authenticate(NOW, other, &request, AuthPurpose::Allocate, None).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (438, AuthReason::ForeignNonce));
}

/// RFC 8489 §14.6: TURN allows no truncation, so a truncated value is a wrong one.
#[test]
fn a_truncated_integrity_is_refused() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let whole = modern(&auth, "alice", "wonder").bytes();
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
    /// RFC 8489 §9.2.4: whatever the attributes hold, it takes the key.
    #[test]
    fn nothing_but_the_key_opens(
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
        let mut ask = if right_name { named(&auth, "alice") } else { TestRequest::new() };
        for (kind, value) in values {
            ask = ask.with(kind, value);
        }
        ask = ask.sha1(&key);
        if both {
            ask = ask.sha256(&key);
        }
        let refusal = ask.allocate(&auth).expect_err("refused");
        prop_assert!(matches!(refusal.code, 400 | 401));
    }

    /// RFC 8489 §9.2.2, §18.5.1: who has the password is let in, with either algorithm; one bit off is not.
    #[test]
    fn the_right_password_opens(name in "[a-zA-Z0-9@:._-]{1,60}", password in "[ -~]{1,60}", at: usize) {
        let auth = auth(&[plain(&name, &password)], &["north"]);
        for ask in [classic(&auth, &name, &password), modern(&auth, &name, &password)] {
            let authenticated = ask.allocate(&auth).expect("let in");
            prop_assert_eq!(&**authenticated.credential().username(), &name[..]);
            let mut bytes = ask.bytes();
            // Any bit behind the header's length: the message stays one, or is discarded below.
            let bit = 32 + at % (bytes.len() * 8 - 32);
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            if let Ok(request) = Message::parse(&bytes) {
                prop_assert!(auth.authenticate(NOW, client(), &request, AuthPurpose::Allocate, None).is_err());
            }
        }
    }

    /// draft-uberti-behave-turn-rest: who has a secret can make names, who has another cannot.
    #[test]
    fn the_right_secret_opens(secret in "[!-~]{1,40}", user in "\\PC{0,40}", expiry in NOW..) {
        let auth = auth(&[], &[&secret]);
        let name = format!("{expiry}:{user}");
        let password = time_limited_password(secret.as_bytes(), &name);
        prop_assert!(classic(&auth, &name, &password).allocate(&auth).is_ok());
        prop_assert!(modern(&auth, &name, &password).allocate(&auth).is_ok());
        let other = time_limited_password(format!("{secret}x").as_bytes(), &name);
        prop_assert_eq!(classic(&auth, &name, &other).refused(&auth), (401, AuthReason::WrongPassword));
    }
}
