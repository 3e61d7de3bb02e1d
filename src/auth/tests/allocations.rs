//! Requests on a 5-tuple that has an allocation: RFC 8656 §5 (441), the key it kept, and expiry during a call.

use super::*;

/// RFC 8656 §5: 441, signed with the key that was verified, except for Allocate.
#[test]
fn another_user_may_not_touch_an_allocation() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let alice = Arc::clone(classic(&auth, "alice", "wonder").allocate(&auth).unwrap().credential());

    let refusal =
        classic(&auth, "bob", "builder").check(&auth, NOW, AuthPurpose::Other, Some(&alice)).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (441, AuthReason::OtherUser));
    let bytes = signed(&refusal.signed.expect("signed"));
    assert!(Message::parse(&bytes).unwrap().verify_sha1(&key(PasswordAlgorithm::Md5, "bob", "builder")));

    let refusal =
        modern(&auth, "bob", "builder").check(&auth, NOW, AuthPurpose::Other, Some(&alice)).unwrap_err();
    let bytes = signed(&refusal.signed.expect("signed"));
    assert!(Message::parse(&bytes).unwrap().verify_sha256(&key(PasswordAlgorithm::Sha256, "bob", "builder")));

    let refusal =
        classic(&auth, "bob", "wonder").check(&auth, NOW, AuthPurpose::Other, Some(&alice)).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::WrongPassword));
    assert!(refusal.signed.is_none());

    let let_in =
        classic(&auth, "bob", "builder").check(&auth, NOW, AuthPurpose::Allocate, Some(&alice)).unwrap();
    assert_eq!(&**let_in.credential().username(), "bob");

    // The same user with the other algorithm is the same user.
    assert!(modern(&auth, "alice", "wonder").check(&auth, NOW, AuthPurpose::Other, Some(&alice)).is_ok());
}

/// RFC 8656 §5: the user name is the whole name, its expiry included.
#[test]
fn the_same_user_with_another_expiry_is_another_name() {
    let auth = auth(&[], &["north"]);
    let ask = |name: &str| classic(&auth, name, &time_limited_password(b"north", name));
    let first = Arc::clone(ask("1800000000:bob").allocate(&auth).unwrap().credential());
    assert_eq!(&**first.user(), "bob");
    assert!(ask("1800000000:bob").check(&auth, NOW, AuthPurpose::Other, Some(&first)).is_ok());
    let refusal = ask("1800000001:bob").check(&auth, NOW, AuthPurpose::Other, Some(&first)).unwrap_err();
    assert_eq!(refusal.code, 441);
    assert_eq!(&**refusal.signed.unwrap().credential().user(), "bob");
}

/// RFC 8656 §5, RFC 8489 §9.2.4: the allocation's own key outlives the user and the secret it came from.
#[test]
fn a_running_call_survives_the_end_of_its_user() {
    let before = auth(&[plain("alice", "wonder"), plain("carol", "x")], &["north"]);
    let name = "1800000000:bob";
    let password = time_limited_password(b"north", name);
    // The same keys make the same nonces; what is offered must not change, or the nonce is stale.
    let after = auth(&[plain("carol", "x")], &["south"]);
    for ask in [
        classic(&before, "alice", "wonder"),
        modern(&before, "alice", "wonder"),
        modern(&before, "alice", "wonder")
            .without(attribute::USERNAME)
            .with(attribute::USERHASH, userhash(b"alice", REALM.as_bytes())),
        classic(&before, name, &password),
        modern(&before, name, &password),
    ] {
        let known = Arc::clone(ask.allocate(&before).unwrap().credential());
        let again = ask.check(&after, NOW, AuthPurpose::Other, Some(&known)).expect("the kept key");
        assert!(Arc::ptr_eq(&known, again.credential()));
        assert!(matches!(ask.refused(&after), (401, AuthReason::UnknownUser | AuthReason::WrongPassword)));
    }
    // The kept key is one algorithm's.
    let known = Arc::clone(classic(&before, "alice", "wonder").allocate(&before).unwrap().credential());
    let refusal =
        modern(&before, "alice", "wonder").check(&after, NOW, AuthPurpose::Other, Some(&known)).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::UnknownUser));
    // Nor does it serve the other's name.
    let mixed = modern(&before, "alice", "wonder").sha256(known.key());
    let refusal = mixed.check(&after, NOW, AuthPurpose::Other, Some(&known)).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::UnknownUser));
    // It opens nothing to a wrong password.
    let refusal =
        classic(&before, "alice", "wrong").check(&after, NOW, AuthPurpose::Other, Some(&known)).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::UnknownUser));
}

/// RFC 8489 §9.2.4: a password changed during a call: the old one serves the call, the new one too.
#[test]
fn a_changed_password_serves_beside_the_kept_key() {
    let before = auth(&[plain("alice", "wonder")], &[]);
    let after = auth(&[plain("alice", "looking-glass")], &[]);
    let known = Arc::clone(classic(&before, "alice", "wonder").allocate(&before).unwrap().credential());
    let old =
        classic(&after, "alice", "wonder").check(&after, NOW, AuthPurpose::Other, Some(&known)).unwrap();
    let new = classic(&after, "alice", "looking-glass")
        .check(&after, NOW, AuthPurpose::Other, Some(&known))
        .unwrap();
    assert!(Arc::ptr_eq(old.credential(), &known));
    assert!(!Arc::ptr_eq(new.credential(), &known));
    assert_eq!(classic(&after, "alice", "wonder").refused(&after), (401, AuthReason::WrongPassword));
}

/// draft-uberti-behave-turn-rest: only Allocate judges the expiry, until the second it names.
#[test]
fn a_name_expires_for_new_allocations_alone() {
    let auth = auth(&[], &["north"]);
    for expiry_known in [false, true] {
        let name = format!("{NOW}:bob");
        let password = time_limited_password(b"north", &name);
        let ask = classic(&auth, &name, &password);
        let known = ask.allocate(&auth).expect("not over yet");
        let known = expiry_known.then_some(known.credential());
        let later = ask.check(&auth, NOW + 1, AuthPurpose::Allocate, known).expect_err("over");
        assert_eq!((later.code, later.reason), (401, AuthReason::Expired));
        assert!(ask.check(&auth, NOW + 1, AuthPurpose::Other, known).is_ok());
        // RFC 8489 §9.2.4: the user is judged before the nonce.
        let stale = ask.check(&auth, NOW + 600, AuthPurpose::Allocate, known).expect_err("over");
        assert_eq!(stale.reason, AuthReason::Expired);
        // The log tells a wrong password from a late one.
        let wrong =
            classic(&auth, &name, "wrong").check(&auth, NOW + 1, AuthPurpose::Allocate, known).unwrap_err();
        assert_eq!(wrong.reason, AuthReason::WrongPassword);
    }
}
