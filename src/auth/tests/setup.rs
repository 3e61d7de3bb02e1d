//! Validation of the configuration, and the offers and nonce features derived from it: RFC 8489 §9.2.2, §9.2.4, §14.9,
//! §18.1.

use super::*;

/// RFC 8489 §9.2.4, §18.1: SHA-256 is offered only if all users have a key for it, USERHASH only if all users are static.
#[test]
fn offers_must_work_for_all_users() {
    for (users, secrets, cookie, offered, warned) in [
        (vec![plain("a", "x"), plain("b", "y")], vec![], "obMatJos2AAAD", BOTH, false),
        (vec![plain("a", "x"), stored("b", "y")], vec![], "obMatJos2AAAD", MD5, true),
        (vec![stored("b", "y")], vec!["north"], "obMatJos2AAAB", MD5, true),
        (vec![plain("a", "x")], vec!["north"], "obMatJos2AAAB", BOTH, false),
        (vec![], vec!["north", "south"], "obMatJos2AAAB", BOTH, false),
    ] {
        let auth = auth(&users, &secrets);
        assert!(challenged(&auth, NOW, attribute::NONCE).starts_with(cookie.as_bytes()), "{cookie}");
        assert_eq!(challenged(&auth, NOW, attribute::PASSWORD_ALGORITHMS), offered);
        assert_eq!(!auth.warnings().is_empty(), warned);
    }
    assert_eq!(
        auth(&[stored("zoe", "x"), stored("bob", "y"), plain("a", "z")], &[]).warnings(),
        [
            "SHA-256 is not offered to any client because these users have only an MD5 key: bob, zoe; configure their passwords instead"
        ]
    );
}

/// RFC 8489 §14.9: invalid realms, secrets, lifetimes and users are rejected with the reason.
#[test]
fn invalid_configurations_are_rejected() {
    let error = |change: fn(&mut AuthConfig)| {
        let mut config = config(&[plain("alice", "wonder")], &["north"]);
        change(&mut config);
        Auth::new(config, NonceKeys { current: [7; 32], previous: None }).err().map(|error| error.to_string())
    };
    assert_eq!(error(|_| {}), None);
    assert_eq!(error(|config| config.realm = "x".repeat(127)), None);
    assert_eq!(error(|config| config.nonce_lifetime = 1), None);
    for (change, expected) in [
        (
            (|config| (config.users, config.secrets) = (vec![], vec![])) as fn(&mut AuthConfig),
            "no user, no shared secret and no LiveKit API key is configured",
        ),
        (|config| config.realm = String::new(), r#"the realm "" is empty"#),
        (|config| config.realm = "a\"b".into(), "contains a quote or a backslash"),
        (|config| config.realm = "a\\b".into(), "contains a quote or a backslash"),
        (|config| config.realm = "a\tb".into(), "OpaqueString"),
        (|config| config.realm = "x".repeat(128), "is longer than 127 characters"),
        (|config| config.secrets.push(Secret::new("")), "a shared secret is empty"),
        (|config| config.nonce_lifetime = 0, "a nonce lifetime of 0 seconds"),
        (|config| config.nonce_lifetime = 1 << 31, "a nonce lifetime of 2147483648 seconds"),
        (|config| config.users.push(plain("alice", "x")), r#"the user "alice" is configured twice"#),
    ] {
        let error = error(change).expect(expected);
        assert!(error.contains(expected), "{error}");
    }
}

/// RFC 8489 §14.3, RFC 8265 §4.2: users that no client could authenticate as are rejected with the reason.
#[test]
fn invalid_users_are_rejected() {
    let error = |users: &[StaticUser]| {
        Auth::new(config(users, &[]), NonceKeys { current: [7; 32], previous: None })
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(error(&[plain("", "a")]), r#"the user name "" is empty"#);
    assert_eq!(
        error(&[plain("a\nb", "a")]),
        r#"the user name "a\nb" contains characters that OpaqueString (RFC 8265) does not allow"#
    );
    assert_eq!(error(&[plain("alice", "")]), r#"the password of user "alice" is empty"#);
    assert_eq!(error(&[plain(&"x".repeat(508), "a")]), "");
    assert!(error(&[plain(&"x".repeat(509), "a")]).ends_with("is longer than 508 bytes"));
    assert!(error(&[plain("\"alice\"", "a")]).contains("is in quotes"));
    for users in [vec![plain("alice:hunter2", "")], vec![plain("alice:hunter2", "a"); 2]] {
        assert!(error(&users).contains("alice:***"), "coturn's form has the password behind the colon");
    }
    let not_text =
        StaticUser { name: "bob".into(), password: Password::Plain(Secret::new([0xFF])), allocations: 0 };
    assert_eq!(error(&[not_text]), r#"the password of user "bob" is not UTF-8"#);
    assert_eq!(
        error(&[plain("\u{C5}", "a"), plain("A\u{30A}", "b")]),
        "the user \"\u{C5}\" is configured twice; remove one of them"
    );
}

/// RFC 8489 §9.2.2: the realm is prepared with OpaqueString.
#[test]
fn the_realm_is_prepared() {
    let mut config = config(&[plain("alice", "wonder")], &[]);
    config.realm = "A\u{30A}\u{A0}s".into();
    let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
    assert_eq!(challenged(&auth, NOW, attribute::REALM), "\u{C5} s".as_bytes());
    let request = unsigned(&auth, "alice")
        .without(attribute::REALM)
        .with(attribute::REALM, "\u{C5} s")
        .sha1(&md5_key("alice", "\u{C5} s", "wonder"));
    assert!(request.allocate(&auth).is_ok());
}

/// RFC 8489 §9.2: keys and secrets do not appear in debug output.
#[test]
fn debug_output_hides_keys() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    assert_eq!(format!("{auth:?}"), r#"Auth { realm: "example.org", .. }"#);
    assert_eq!(format!("{:?}", NonceKeys { current: [7; 32], previous: None }), "NonceKeys(***)");
    let authenticated = rfc5389(&auth, "alice", "wonder").allocate(&auth).unwrap();
    assert!(!format!("{authenticated:?}").contains("key"));
}
