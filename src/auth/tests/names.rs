//! Finding the user by USERNAME or USERHASH: RFC 8489 §9.2.2, §14.3, §14.4, and time-limited credentials.

use super::*;

/// RFC 8489 §9.2.2: the configured name and password are prepared with OpaqueString, what the client sends is not.
#[test]
fn configured_names_and_passwords_are_prepared() {
    let auth = auth(&[plain("A\u{30A}sa", "Correct\u{A0}Horse")], &[]);
    assert!(rfc5389(&auth, "\u{C5}sa", "Correct Horse").allocate(&auth).is_ok());
    assert!(rfc8489(&auth, "\u{C5}sa", "Correct Horse").allocate(&auth).is_ok());
    let unprepared = rfc5389(&auth, "A\u{30A}sa", "Correct Horse");
    assert_eq!(unprepared.rejected(&auth), (401, AuthReason::UnknownUser));
}

/// draft-uberti-behave-turn-rest: during rotation all configured secrets are valid, and removed ones are not.
#[test]
fn all_configured_secrets_are_valid() {
    let auth = auth(&[], &["new", "old"]);
    let name = "1800000000:bob";
    for secret in ["new", "old"] {
        let password = time_limited_password(secret.as_bytes(), name);
        assert!(rfc5389(&auth, name, &password).allocate(&auth).is_ok());
        assert!(rfc8489(&auth, name, &password).allocate(&auth).is_ok());
    }
    let password = time_limited_password(b"older", name);
    assert_eq!(rfc5389(&auth, name, &password).rejected(&auth), (401, AuthReason::WrongPassword));
}

/// draft-uberti-behave-turn-rest: the user for quotas and logs is the username without the expiry.
#[test]
fn the_user_excludes_the_expiry() {
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
            rfc5389(&auth, name, &time_limited_password(b"north", name)).allocate(&auth).unwrap();
        let credential = authenticated.credential();
        assert_eq!((&**credential.username(), &**credential.user()), (name, user));
        assert_eq!(credential.expires(), Some(1_800_000_000));
    }
    let authenticated = rfc5389(&auth, "alice", "wonder").allocate(&auth).unwrap();
    assert_eq!(&**authenticated.credential().user(), "alice");
    assert_eq!(authenticated.credential().expires(), None);
}

/// `auth.max_lifetime`: an expiry that is further away opens no allocation, however the name is written. One in milliseconds
/// would be valid for ever.
#[test]
fn an_expiry_too_far_away_is_refused() {
    let mut config = config(&[], &["north"]);
    (config.max_lifetime, config.user_before_expiry) = (86_400, true);
    let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
    let latest = NOW + 86_400;
    for (expiry, expected) in [
        (NOW, None),
        (latest, None),
        (latest + 1, Some(AuthReason::ExpiryTooFar)),
        (latest * 1000, Some(AuthReason::ExpiryTooFar)),
        (u64::MAX, Some(AuthReason::ExpiryTooFar)),
        (NOW - 1, Some(AuthReason::Expired)),
    ] {
        for name in [format!("{expiry}:bob"), format!("{expiry}"), format!("bob:{expiry}")] {
            let password = time_limited_password(b"north", &name);
            for request in [rfc5389(&auth, &name, &password), rfc8489(&auth, &name, &password)] {
                let refused = request.allocate(&auth).err().map(|refusal| (refusal.code, refusal.reason));
                assert_eq!(refused, expected.map(|reason| (401, reason)), "{name}");
            }
            // A wrong password is reported as such, whatever the expiry.
            let wrong = rfc5389(&auth, &name, "wrong").rejected(&auth);
            assert_eq!(wrong, (401, AuthReason::WrongPassword), "{name}");
        }
    }
}

/// RFC 8489 §14.3: a static user takes precedence over a time-limited username.
#[test]
fn a_static_user_shadows_a_time_limited_username() {
    let auth = auth(&[plain("1:bob", "builder")], &["north"]);
    assert!(rfc5389(&auth, "1:bob", "builder").allocate(&auth).is_ok());
    let password = time_limited_password(b"north", "1:bob");
    assert_eq!(rfc5389(&auth, "1:bob", &password).rejected(&auth), (401, AuthReason::WrongPassword));
}

/// RFC 8489 §14.4: USERHASH has 32 bytes and identifies a static user of this realm, but no time-limited username.
#[test]
fn userhash_identifies_static_users_only() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    let alice = key(PasswordAlgorithm::Md5, "alice", "wonder");
    let hashed =
        |hash: &[u8]| unsigned(&auth, "x").without(attribute::USERNAME).with(attribute::USERHASH, hash);
    let right = userhash(b"alice", REALM.as_bytes());
    assert!(hashed(&right).sha1(&alice).allocate(&auth).is_ok());
    assert_eq!(hashed(&right).sha1(b"wrong").rejected(&auth), (401, AuthReason::WrongPassword));
    assert_eq!(hashed(&right[..31]).sha1(&alice).rejected(&auth), (401, AuthReason::UnknownUser));
    assert_eq!(
        hashed(&[&right[..], &[0]].concat()).sha1(&alice).rejected(&auth),
        (401, AuthReason::UnknownUser)
    );
    assert_eq!(
        hashed(&userhash(b"alice", b"other")).sha1(&alice).rejected(&auth),
        (401, AuthReason::UnknownUser)
    );

    let name = "1800000000:bob";
    let bob = key(PasswordAlgorithm::Md5, name, &time_limited_password(b"north", name));
    let hash = userhash(name.as_bytes(), REALM.as_bytes());
    assert_eq!(hashed(&hash).sha1(&bob).rejected(&auth), (401, AuthReason::UnknownUser));

    // USERNAME takes precedence.
    assert!(hashed(&[0; 32]).with(attribute::USERNAME, "alice").sha1(&alice).allocate(&auth).is_ok());
    let nobody = hashed(&right).with(attribute::USERNAME, "nobody").sha1(&alice);
    assert_eq!(nobody.rejected(&auth), (401, AuthReason::UnknownUser));
}

/// RFC 8489 §9.2.2: surrounding quotes and trailing nulls of username and realm are removed.
#[test]
fn quotes_and_trailing_nulls_are_removed() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    let alice = key(PasswordAlgorithm::Md5, "alice", "wonder");
    let request = |name: &str, realm: &str| {
        unsigned(&auth, name).without(attribute::REALM).with(attribute::REALM, realm).sha1(&alice)
    };
    for name in ["alice\0", "\"alice\"", "\"alice\"\0\0"] {
        let authenticated = request(name, REALM).allocate(&auth).expect(name);
        assert_eq!(&**authenticated.credential().username(), "alice");
    }
    for realm in ["example.org\0", "\"example.org\""] {
        assert!(request("alice", realm).allocate(&auth).is_ok(), "{realm}");
    }
    for realm in ["", "EXAMPLE.ORG", " example.org", "example.org."] {
        assert_eq!(request("alice", realm).rejected(&auth), (401, AuthReason::WrongRealm), "{realm}");
    }
}

/// RFC 8489 §14.3: a username is UTF-8 of up to 763 bytes.
#[test]
fn the_length_of_a_username_is_limited() {
    let auth = auth(&[], &["north"]);
    let request = |length: usize| {
        let name = format!("1800000000:{}", "x".repeat(length - 11));
        rfc5389(&auth, &name, &time_limited_password(b"north", &name))
    };
    assert!(request(763).allocate(&auth).is_ok());
    assert_eq!(request(764).rejected(&auth), (401, AuthReason::UnknownUser));
    let not_utf8 = unsigned(&auth, "").without(attribute::USERNAME).with(attribute::USERNAME, [b'1', 0xFF]);
    assert_eq!(not_utf8.sha1(b"x").rejected(&auth), (401, AuthReason::UnknownUser));
    assert_eq!(rfc5389(&auth, "", "x").rejected(&auth), (401, AuthReason::UnknownUser));
}

/// The remedy for an unknown user depends on the name and on what is configured.
#[test]
fn the_remedy_for_an_unknown_user_is_one_that_helps() {
    let fix = |secrets: &[&str], user_before_expiry, name| {
        let mut config = config(&[plain("alice", "wonder")], secrets);
        config.user_before_expiry = user_before_expiry;
        let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
        auth.fix(AuthReason::UnknownUser, name).unwrap()
    };
    assert!(fix(&["north"], false, "bob:1800000000").contains("auth.user_before_expiry = true"));
    for (secrets, setting, name) in [
        (&[][..], false, "bob:1800000000"),
        (&[], false, "1800000000"),
        (&[], false, "1800000000:bob"),
        (&[], true, "bob:1800000000"),
        (&["north"], true, "bob:99999999999999999999999"),
        (&["north"], false, "bob"),
    ] {
        let fix = fix(secrets, setting, name);
        assert!(fix.contains("auth.secrets") && !fix.contains("user_before_expiry"), "{name}: {fix}");
    }
}
