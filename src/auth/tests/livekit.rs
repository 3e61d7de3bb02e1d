//! LiveKit's own credentials: username b62(`apiKey|PA_sid|expiry`), password b62(SHA-256(`apiSecret|PA_sid|expiry`)), and the
//! older form without an expiry.

use proptest::prelude::*;

use super::*;

const API_KEY: &str = "APITestKey";
const API_SECRET: &str = "TestSecret";
const SID: &str = "PA_valid";
const THREE_PARTS: (&str, &str) =
    ("wADMwADMwADMywHZpxWY29VQQxXeKbJ6mrMqSCqgA", "oKMUpxGjMeShED8Lybhy0u12sSfQ7S0TxAVayZRrZTP");
const TWO_PARTS: (&str, &str) =
    ("klGbhZ3XBBFfyrslobuyoKJoCC", "MBNwDgWAurjXLb7T98CekoAkS42N4NxOFeUvgXQJueMA");

fn pair(name: &str, secret: &str) -> LiveKitKey {
    LiveKitKey { name: name.into(), secret: Secret::new(secret) }
}

fn with_keys(keys: &[(&str, &str)], change: impl FnOnce(&mut AuthConfig)) -> Auth {
    let mut config = config(&[], &[]);
    config.livekit_keys = keys.iter().map(|(name, secret)| pair(name, secret)).collect();
    change(&mut config);
    Auth::new(config, NonceKeys { current: [7; 32], previous: None }).expect("a valid configuration")
}

fn livekit() -> Auth {
    with_keys(&[(API_KEY, API_SECRET)], |_| {})
}

fn issued(sid: &str, expires: Option<u64>) -> (String, String) {
    livekit_credential(API_KEY, API_SECRET.as_bytes(), sid, expires)
}

fn request(auth: &Auth, (username, password): &(String, String)) -> TestRequest {
    rfc5389(auth, username, password)
}

fn refused(auth: &Auth, issued: &(String, String)) -> Option<AuthReason> {
    let outcome = request(auth, issued).allocate(auth).err();
    assert!(outcome.as_ref().is_none_or(|refusal| refusal.code == 401 && refusal.signed.is_none()));
    outcome.map(|refusal| refusal.reason)
}

/// The vectors of LiveKit, with both algorithms of RFC 8489 §18.5 and in two realms: any realm does.
#[test]
fn the_vectors_of_livekit_authenticate() {
    assert_eq!(
        md5_key(THREE_PARTS.0, "livekit", THREE_PARTS.1),
        0x41e3_0b4b_609e_94b9_1aee_cd64_b9df_47d5_u128.to_be_bytes()
    );
    for ((username, password), expires) in [(THREE_PARTS, Some(2_000_000_000)), (TWO_PARTS, None)] {
        assert_eq!(issued(SID, expires), (username.to_owned(), password.to_owned()));
        let auth = livekit();
        for request in [rfc5389(&auth, username, password), rfc8489(&auth, username, password)] {
            let authenticated = request.allocate(&auth).expect("authenticated");
            let credential = authenticated.credential();
            assert_eq!(&**credential.username(), username, "441 compares all of it");
            assert_eq!(credential.account(), &Account::person(SID));
            assert_eq!(credential.expires(), expires);
        }
        let auth = with_keys(&[(API_KEY, API_SECRET)], |config| config.realm = "livekit".into());
        let request = unsigned(&auth, username)
            .without(attribute::REALM)
            .with(attribute::REALM, "livekit")
            .sha1(&md5_key(username, "livekit", password));
        assert!(request.allocate(&auth).is_ok());
    }
}

/// LiveKit picks any of its API keys, and the one in the name selects the secret.
#[test]
fn the_api_key_in_the_name_selects_the_secret() {
    let auth = with_keys(&[("one", "secret of one"), ("two", "secret of two")], |_| {});
    let made = |name: &str, secret: &str| livekit_credential(name, secret.as_bytes(), SID, Some(NOW));
    for (name, secret, expected) in [
        ("one", "secret of one", None),
        ("two", "secret of two", None),
        ("one", "secret of two", Some(AuthReason::WrongPassword)),
        ("three", "secret of one", Some(AuthReason::UnknownUser)),
        ("", "secret of one", Some(AuthReason::UnknownUser)),
    ] {
        assert_eq!(refused(&auth, &made(name, secret)), expected, "{name} {secret}");
    }
}

/// No unknown API key is accepted, whatever takes the place of its secret while time is spent.
#[test]
fn the_placeholder_of_unknown_keys_is_no_secret() {
    for two_part in [true, false] {
        let auth = with_keys(&[(API_KEY, API_SECRET)], |config| config.livekit_two_part = two_part);
        for expires in [None, Some(NOW)] {
            let made = livekit_credential("APIother", &[b'x'; 44], SID, expires);
            assert_eq!(refused(&auth, &made), Some(AuthReason::UnknownUser));
        }
    }
}

/// Of another sid or another expiry than its own, a password is wrong; so is one of the other form.
#[test]
fn a_password_belongs_to_one_name() {
    let auth = livekit();
    let names = [
        issued(SID, Some(NOW)),
        issued("PA_other", Some(NOW)),
        issued(SID, Some(NOW + 1)),
        issued(SID, None),
    ];
    for (n, (name, _)) in names.iter().enumerate() {
        for (m, (_, password)) in names.iter().enumerate() {
            let expected = (n != m).then_some(AuthReason::WrongPassword);
            assert_eq!(refused(&auth, &(name.clone(), password.clone())), expected, "{n} {m}");
        }
    }
}

/// RFC 8656 §5, as for time-limited names: an expiry matters to Allocate, and not to Refresh, CreatePermission and ChannelBind.
/// `auth.max_lifetime` applies; the form without an expiry has none to judge.
#[test]
fn the_expiry_is_judged_when_allocating() {
    let auth = with_keys(&[(API_KEY, API_SECRET)], |config| config.max_lifetime = 300);
    for (expires, expected) in [
        (Some(NOW), None),
        (Some(NOW + 300), None),
        (Some(NOW - 1), Some(AuthReason::Expired)),
        (Some(NOW + 301), Some(AuthReason::ExpiryTooFar)),
        (Some(NOW * 1000), Some(AuthReason::ExpiryTooFar)),
        (None, None),
    ] {
        let made = issued(SID, expires);
        assert_eq!(refused(&auth, &made), expected, "{expires:?}");
        assert!(
            request(&auth, &made).authenticate(&auth, NOW, AuthPurpose::Other, None).is_ok(),
            "{expires:?}"
        );
    }
}

/// Without `auth.livekit_two_part` the older form is an unknown user, and the newer one works.
#[test]
fn the_form_without_an_expiry_can_be_refused() {
    let auth = with_keys(&[(API_KEY, API_SECRET)], |config| config.livekit_two_part = false);
    assert_eq!(refused(&auth, &issued(SID, None)), Some(AuthReason::UnknownUser));
    assert_eq!(refused(&auth, &issued(SID, Some(NOW))), None);
}

/// RFC 8489 §14.3: a static user of exactly this name comes first, then a time-limited username.
#[test]
fn a_static_user_shadows_a_name_of_livekit() {
    let (name, password) = issued(SID, None);
    let auth = with_keys(&[(API_KEY, API_SECRET)], |config| {
        config.users.push(plain(&name, "wonder"));
        config.secrets.push(Secret::new("north"));
    });
    let authenticated = rfc5389(&auth, &name, "wonder").allocate(&auth).unwrap();
    assert_eq!(authenticated.credential().account().kind(), AccountKind::Static);
    assert_eq!(rfc5389(&auth, &name, &password).rejected(&auth), (401, AuthReason::WrongPassword));
    for name in ["1800000000", "1800000000:PA_x"] {
        let password = time_limited_password(b"north", name);
        assert!(rfc5389(&auth, name, &password).allocate(&auth).is_ok(), "{name}");
    }
}

/// A participant is one user, whichever way its credentials were issued: quotas count it once, and one revocation refuses all.
/// What never expires is refused until the revocation is over.
#[test]
fn one_revocation_of_a_sid_refuses_every_credential() {
    let revocations = Arc::new(Revocations::default());
    let auth = with_keys(&[(API_KEY, API_SECRET)], |config| config.secrets.push(Secret::new("north")));
    let auth = auth.with_revocations(revocations.clone());
    let shared = |expires: u64| {
        let name = format!("{expires}:{SID}");
        let password = time_limited_password(b"north", &name);
        (name, password)
    };
    let all = [issued(SID, Some(NOW + 60)), issued(SID, None), shared(NOW + 60)];
    let accounts: Vec<_> = all
        .iter()
        .map(|one| request(&auth, one).allocate(&auth).unwrap().credential().account().key())
        .collect();
    assert!(accounts.iter().all(|account| *account == accounts[0]), "{accounts:?}");

    let until = NOW + 60;
    revocations.insert(SID, Revocation { since: NOW, until, is_static: false });
    for one in &all {
        assert_eq!(refused(&auth, one), Some(AuthReason::Revoked));
    }
    for fresh in [issued(SID, Some(until + 1)), shared(until + 1), issued("PA_other", None)] {
        assert_eq!(refused(&auth, &fresh), None);
    }
    let [expiring, lasting, _] = &all;
    let later = |one| request(&auth, one).authenticate(&auth, until + 1, AuthPurpose::Allocate, None);
    assert_eq!(later(expiring).unwrap_err().reason, AuthReason::Revoked);
    assert!(later(lasting).is_ok());
}

/// Credentials of a removed pair, or of one with another secret, are gone; `auth.on_removal` decides about their allocations.
/// That a form is refused from now on ends nothing.
#[test]
fn a_credential_is_gone_with_its_pair() {
    let before = with_keys(&[(API_KEY, API_SECRET), ("other", "secret")], |_| {});
    let credentials: Vec<_> = [Some(NOW), None]
        .map(|expires| request(&before, &issued(SID, expires)).allocate(&before).unwrap())
        .iter()
        .map(|authenticated| authenticated.credential().clone())
        .collect();
    let gone = |keys: &[(&str, &str)], two_part: bool, on_removal| {
        let auth = with_keys(keys, |config| {
            config.livekit_two_part = two_part;
            config.users.push(plain("alice", "wonder"));
        });
        let auth = auth.on_removal(on_removal);
        let gone: Vec<_> = credentials.iter().map(|one| auth.no_longer_accepts(one)).collect();
        assert_eq!(gone[0], gone[1]);
        gone[0]
    };
    for (keys, expected) in [
        (&[(API_KEY, API_SECRET)][..], false),
        (&[("another", API_SECRET)], true),
        (&[(API_KEY, "AnotherSecret")], true),
        (&[("other", "secret")], true),
        (&[], true),
    ] {
        for two_part in [true, false] {
            assert_eq!(gone(keys, two_part, OnRemoval::End), expected, "{keys:?}");
            assert!(!gone(keys, two_part, OnRemoval::Keep));
        }
    }
}

/// RFC 8489 §9.2, §14.4: the USERHASH of such a name cannot be looked up, so the nonce does not offer username anonymity.
#[test]
fn username_anonymity_is_not_offered() {
    let auth = with_keys(&[(API_KEY, API_SECRET)], |config| config.users.push(plain("alice", "wonder")));
    assert!(challenged(&auth, NOW, attribute::NONCE).starts_with(b"obMatJos2AAAB"));
    let (name, password) = issued(SID, None);
    let hash = userhash(name.as_bytes(), REALM.as_bytes());
    let hashed = unsigned(&auth, "x")
        .without(attribute::USERNAME)
        .with(attribute::USERHASH, hash)
        .sha1(&key(PasswordAlgorithm::Md5, &name, &password));
    assert_eq!(hashed.rejected(&auth), (401, AuthReason::UnknownUser));
}

/// API keys are credentials: a relay may have no others. One without a secret is no credential.
#[test]
fn api_keys_are_credentials() {
    let new = |secret: &str| {
        let config = AuthConfig { livekit_keys: vec![pair(API_KEY, secret)], ..config(&[], &[]) };
        Auth::new(config, NonceKeys { current: [7; 32], previous: None })
    };
    assert!(new("x").is_ok());
    assert_eq!(new("").unwrap_err(), AuthConfigError::EmptyLiveKitSecret);
}

/// The operator learns which API key, file or clock it is about. What a stranger put into a name is shown only if it is harmless.
#[test]
fn the_remedy_names_the_api_key_and_its_file() {
    let none = auth(&[plain("alice", "wonder")], &[]);
    let some = with_keys(&[(API_KEY, API_SECRET)], |config| config.livekit_two_part = false);
    let unknown = livekit_credential("APIother", b"x", SID, None).0;
    for (auth, reason, name, said) in [
        (
            &none,
            AuthReason::UnknownUser,
            THREE_PARTS.0,
            &["API key APITestKey;", "set auth.livekit_keys_file"][..],
        ),
        (
            &some,
            AuthReason::UnknownUser,
            &unknown,
            &["API key APIother;", "the file of auth.livekit_keys_file"],
        ),
        (&some, AuthReason::UnknownUser, TWO_PARTS.0, &["auth.livekit_two_part = true"]),
        (&some, AuthReason::WrongPassword, THREE_PARTS.0, &["the secret of LiveKit's API key APITestKey"]),
        (&some, AuthReason::Expired, THREE_PARTS.0, &["5 minutes", "clocks"]),
        (&some, AuthReason::ExpiryTooFar, THREE_PARTS.0, &["turn.ttl_seconds", "auth.max_lifetime"]),
        (&some, AuthReason::Revoked, THREE_PARTS.0, &["`hairpin ctl unrevoke PA_valid`"]),
        (&some, AuthReason::UnknownUser, "bob", &["[[auth.user]]"]),
    ] {
        let fix = auth.fix(reason, name).unwrap();
        assert!(said.iter().all(|said| fix.contains(said)), "{fix}");
        assert!(!fix.contains(API_SECRET), "{fix}");
    }
    let hostile = livekit_credential("a\n`reboot`", b"x", "PA_\u{1b}[2J`reboot`", None).0;
    for reason in [AuthReason::UnknownUser, AuthReason::WrongPassword, AuthReason::Revoked] {
        let fix = some.fix(reason, &hostile).unwrap();
        assert!(!fix.contains("reboot") && !fix.contains(char::is_control), "{fix}");
    }
}

/// RFC 8489 §9.2: secrets do not appear in debug output.
#[test]
fn debug_output_hides_the_secret_of_an_api_key() {
    assert_eq!(
        format!("{:?}", pair(API_KEY, API_SECRET)),
        r#"LiveKitKey { name: "APITestKey", secret: *** }"#
    );
    let auth = livekit();
    let authenticated = request(&auth, &issued(SID, None)).allocate(&auth).unwrap();
    assert!(!format!("{auth:?} {authenticated:?}").contains(API_SECRET));
}

proptest! {
    /// Whatever the name is: no panic, and only what was made with a known pair authenticates.
    #[test]
    fn hostile_names_are_refused(name in "\\PC{0,100}|[A-Za-z0-9]{0,700}", inside in "(APITestKey|k)?[|]?(PA_)?[a-z|0-9]{0,20}") {
        let auth = livekit();
        let inside = (super::super::base62::encode(inside.as_bytes()), "x".to_owned());
        for made in [(name, "x".to_owned()), inside] {
            prop_assert!(matches!(refused(&auth, &made), Some(AuthReason::UnknownUser | AuthReason::WrongPassword)));
        }
    }

    #[test]
    fn what_livekit_issues_authenticates(key in "[!-{}~]{1,30}", secret in "[!-~]{1,60}", sid in "[A-Za-z0-9]{1,16}", ttl in 0..300_u64) {
        let auth = with_keys(&[(&key, &secret)], |_| {});
        let sid = format!("PA_{sid}");
        for expires in [Some(NOW + ttl), None] {
            let (name, password) = livekit_credential(&key, secret.as_bytes(), &sid, expires);
            prop_assert!(rfc8489(&auth, &name, &password).allocate(&auth).is_ok());
            let (_, wrong) = livekit_credential(&key, format!("{secret}x").as_bytes(), &sid, expires);
            prop_assert_eq!(refused(&auth, &(name, wrong)), Some(AuthReason::WrongPassword));
        }
    }
}
