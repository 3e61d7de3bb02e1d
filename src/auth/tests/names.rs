//! Who a USERNAME or USERHASH is: RFC 8489 §9.2.2, §14.3, §14.4, and time-limited names.

use super::*;

/// draft-uberti-behave-turn-rest, rotation: every configured secret verifies, one that is gone does not.
#[test]
fn several_secrets_at_a_time() {
    let auth = auth(&[], &["new", "old"]);
    let name = "1800000000:bob";
    for secret in ["new", "old"] {
        let password = time_limited_password(secret.as_bytes(), name);
        assert!(classic(&auth, name, &password).allocate(&auth).is_ok());
        assert!(modern(&auth, name, &password).allocate(&auth).is_ok());
    }
    let password = time_limited_password(b"older", name);
    assert_eq!(classic(&auth, name, &password).refused(&auth), (401, AuthReason::WrongPassword));
}

/// draft-uberti-behave-turn-rest: the user for quota and logs, whichever way the name is written.
#[test]
fn the_user_is_the_part_beside_the_expiry() {
    let mut config = config(&[plain("alice", "wonder")], &["north"]);
    config.user_before_expiry = true;
    let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
    for (name, user) in [
        ("1800000000:bob", "bob"),
        ("1800000000:@bob:example.org", "@bob:example.org"),
        ("1800000000", "1800000000"),
        ("@bob:example.org:1800000000", "@bob:example.org"),
    ] {
        let authenticated =
            classic(&auth, name, &time_limited_password(b"north", name)).allocate(&auth).unwrap();
        let credential = authenticated.credential();
        assert_eq!((&**credential.username(), &**credential.user()), (name, user));
        assert_eq!(credential.expires(), Some(1_800_000_000));
    }
    let authenticated = classic(&auth, "alice", "wonder").allocate(&auth).unwrap();
    assert_eq!(&**authenticated.credential().user(), "alice");
    assert_eq!(authenticated.credential().expires(), None);
}

/// RFC 8489 §14.3: a configured user is that user, also when the name reads as a time-limited one.
#[test]
fn a_static_user_shadows_a_time_limited_name() {
    let auth = auth(&[plain("1:bob", "builder")], &["north"]);
    assert!(classic(&auth, "1:bob", "builder").allocate(&auth).is_ok());
    let password = time_limited_password(b"north", "1:bob");
    assert_eq!(classic(&auth, "1:bob", &password).refused(&auth), (401, AuthReason::WrongPassword));
}

/// RFC 8489 §14.4: 32 bytes, of a user in this realm; a time-limited name has none that could be looked up.
#[test]
fn only_the_hash_of_a_static_user_is_a_user() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    let alice = key(PasswordAlgorithm::Md5, "alice", "wonder");
    let hashed = |hash: &[u8]| named(&auth, "x").without(attribute::USERNAME).with(attribute::USERHASH, hash);
    let right = userhash(b"alice", REALM.as_bytes());
    assert!(hashed(&right).sha1(&alice).allocate(&auth).is_ok());
    assert_eq!(hashed(&right).sha1(b"wrong").refused(&auth), (401, AuthReason::WrongPassword));
    assert_eq!(hashed(&right[..31]).sha1(&alice).refused(&auth), (401, AuthReason::UnknownUser));
    assert_eq!(
        hashed(&[&right[..], &[0]].concat()).sha1(&alice).refused(&auth),
        (401, AuthReason::UnknownUser)
    );
    assert_eq!(
        hashed(&userhash(b"alice", b"other")).sha1(&alice).refused(&auth),
        (401, AuthReason::UnknownUser)
    );

    let name = "1800000000:bob";
    let bob = key(PasswordAlgorithm::Md5, name, &time_limited_password(b"north", name));
    let hash = userhash(name.as_bytes(), REALM.as_bytes());
    assert_eq!(hashed(&hash).sha1(&bob).refused(&auth), (401, AuthReason::UnknownUser));

    // With both attributes USERNAME counts.
    assert!(hashed(&[0; 32]).with(attribute::USERNAME, "alice").sha1(&alice).allocate(&auth).is_ok());
    let nobody = hashed(&right).with(attribute::USERNAME, "nobody").sha1(&alice);
    assert_eq!(nobody.refused(&auth), (401, AuthReason::UnknownUser));
}

/// RFC 8489 §9.2.2: quotes and trailing nulls belong neither to the name nor to the realm.
#[test]
fn quotes_and_trailing_nulls_are_removed() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    let alice = key(PasswordAlgorithm::Md5, "alice", "wonder");
    let ask = |name: &str, realm: &str| {
        named(&auth, name).without(attribute::REALM).with(attribute::REALM, realm).sha1(&alice)
    };
    for name in ["alice\0", "\"alice\"", "\"alice\"\0\0"] {
        let authenticated = ask(name, REALM).allocate(&auth).expect(name);
        assert_eq!(&**authenticated.credential().username(), "alice");
    }
    for realm in ["example.org\0", "\"example.org\""] {
        assert!(ask("alice", realm).allocate(&auth).is_ok(), "{realm}");
    }
    for realm in ["", "EXAMPLE.ORG", " example.org", "example.org."] {
        assert_eq!(ask("alice", realm).refused(&auth), (401, AuthReason::WrongRealm), "{realm}");
    }
}

/// RFC 8489 §14.3: up to 763 bytes of UTF-8 are understood.
#[test]
fn a_username_has_a_size() {
    let auth = auth(&[], &["north"]);
    let ask = |length: usize| {
        let name = format!("1800000000:{}", "x".repeat(length - 11));
        classic(&auth, &name, &time_limited_password(b"north", &name))
    };
    assert!(ask(763).allocate(&auth).is_ok());
    assert_eq!(ask(764).refused(&auth), (401, AuthReason::UnknownUser));
    let not_utf8 = named(&auth, "").without(attribute::USERNAME).with(attribute::USERNAME, [b'1', 0xFF]);
    assert_eq!(not_utf8.sha1(b"x").refused(&auth), (401, AuthReason::UnknownUser));
    assert_eq!(classic(&auth, "", "x").refused(&auth), (401, AuthReason::UnknownUser));
}
