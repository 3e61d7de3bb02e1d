//! What is made of a configuration: RFC 8489 §9.2.2, §9.2.4, §14.9, §18.1.

use super::*;

/// RFC 8489 §9.2.4, §18.1: SHA-256 only if every user's key can verify it, anonymity only with static users alone.
#[test]
fn only_what_every_source_can_verify_is_offered() {
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
            "SHA-256 is not offered to any client, since there is only an MD5 key for: bob, zoe; give their passwords"
        ]
    );
}

/// RFC 8489 §14.9, and what else no server can start with.
#[test]
fn a_configuration_that_cannot_work_is_told() {
    let refused = |change: fn(&mut AuthConfig)| {
        let mut config = config(&[plain("alice", "wonder")], &["north"]);
        change(&mut config);
        Auth::new(config, NonceKeys { current: [7; 32], previous: None }).err().map(|error| error.to_string())
    };
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|config| config.realm = "x".repeat(127)), None);
    assert_eq!(refused(|config| config.nonce_lifetime = 1), None);
    for (change, said) in [
        (
            (|config| (config.users, config.secrets) = (vec![], vec![])) as fn(&mut AuthConfig),
            "no user and no shared secret is configured",
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
        let error = refused(change).expect(said);
        assert!(error.contains(said), "{error}");
    }
}

/// RFC 8489 §9.2.2: the realm is prepared too.
#[test]
fn the_realm_is_prepared() {
    let mut config = config(&[plain("alice", "wonder")], &[]);
    config.realm = "A\u{30A}\u{A0}s".into();
    let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
    assert_eq!(challenged(&auth, NOW, attribute::REALM), "\u{C5} s".as_bytes());
    let ask = named(&auth, "alice")
        .without(attribute::REALM)
        .with(attribute::REALM, "\u{C5} s")
        .sha1(&md5_key("alice", "\u{C5} s", "wonder"));
    assert!(ask.allocate(&auth).is_ok());
}

/// RFC 8489 §9.2: neither keys nor secrets reach a log.
#[test]
fn nothing_of_auth_is_printed() {
    let auth = auth(&[plain("alice", "wonder")], &["north"]);
    assert_eq!(format!("{auth:?}"), r#"Auth { realm: "example.org", .. }"#);
    assert_eq!(format!("{:?}", NonceKeys { current: [7; 32], previous: None }), "NonceKeys(***)");
    let authenticated = classic(&auth, "alice", "wonder").allocate(&auth).unwrap();
    assert!(!format!("{authenticated:?}").contains("key"));
}
