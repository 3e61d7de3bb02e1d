//! Requests on a 5-tuple that has an allocation: RFC 8656 §5 (441), the allocation's key, and expiry during a call.

use super::*;

/// RFC 8656 §5: another user gets a 441 signed with their own key, except for Allocate.
#[test]
fn another_user_may_not_modify_an_allocation() {
    let auth = auth(&[plain("alice", "wonder"), plain("bob", "builder")], &[]);
    let alice = Arc::clone(rfc5389(&auth, "alice", "wonder").allocate(&auth).unwrap().credential());

    let refusal = rfc5389(&auth, "bob", "builder")
        .authenticate(&auth, NOW, AuthPurpose::Other, Some(&alice))
        .unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (441, AuthReason::OtherUser));
    let bytes = signed(&refusal.signed.expect("signed"));
    assert!(Message::parse(&bytes).unwrap().verify_sha1(&key(PasswordAlgorithm::Md5, "bob", "builder")));

    let refusal = rfc8489(&auth, "bob", "builder")
        .authenticate(&auth, NOW, AuthPurpose::Other, Some(&alice))
        .unwrap_err();
    let bytes = signed(&refusal.signed.expect("signed"));
    assert!(Message::parse(&bytes).unwrap().verify_sha256(&key(PasswordAlgorithm::Sha256, "bob", "builder")));

    let refusal = rfc5389(&auth, "bob", "wonder")
        .authenticate(&auth, NOW, AuthPurpose::Other, Some(&alice))
        .unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::WrongPassword));
    assert!(refusal.signed.is_none());

    let accepted = rfc5389(&auth, "bob", "builder")
        .authenticate(&auth, NOW, AuthPurpose::Allocate, Some(&alice))
        .unwrap();
    assert_eq!(&**accepted.credential().username(), "bob");

    // The user may change the algorithm.
    assert!(
        rfc8489(&auth, "alice", "wonder").authenticate(&auth, NOW, AuthPurpose::Other, Some(&alice)).is_ok()
    );
}

/// RFC 8656 §5: the expiry is part of the username.
#[test]
fn another_expiry_is_another_username() {
    let auth = auth(&[], &["north"]);
    let request = |name: &str| rfc5389(&auth, name, &time_limited_password(b"north", name));
    let first = Arc::clone(request("1800000000:bob").allocate(&auth).unwrap().credential());
    assert_eq!(&**first.user(), "bob");
    assert!(request("1800000000:bob").authenticate(&auth, NOW, AuthPurpose::Other, Some(&first)).is_ok());
    let refusal =
        request("1800000001:bob").authenticate(&auth, NOW, AuthPurpose::Other, Some(&first)).unwrap_err();
    assert_eq!(refusal.code, 441);
    assert_eq!(&**refusal.signed.unwrap().credential().user(), "bob");
}

/// RFC 8656 §5, RFC 8489 §9.2.4: the allocation's key remains valid when its user or shared secret is removed.
#[test]
fn an_allocation_survives_the_removal_of_its_user() {
    let before = auth(&[plain("alice", "wonder"), plain("carol", "x")], &["north"]);
    let name = "1800000000:bob";
    let password = time_limited_password(b"north", name);
    // The nonces remain valid, because the keys and the offered algorithms are the same.
    let after = auth(&[plain("carol", "x")], &["south"]);
    for request in [
        rfc5389(&before, "alice", "wonder"),
        rfc8489(&before, "alice", "wonder"),
        rfc8489(&before, "alice", "wonder")
            .without(attribute::USERNAME)
            .with(attribute::USERHASH, userhash(b"alice", REALM.as_bytes())),
        rfc5389(&before, name, &password),
        rfc8489(&before, name, &password),
    ] {
        let known = Arc::clone(request.allocate(&before).unwrap().credential());
        let again = request
            .authenticate(&after, NOW, AuthPurpose::Other, Some(&known))
            .expect("the key of the allocation");
        assert!(Arc::ptr_eq(&known, again.credential()));
        assert!(matches!(
            request.rejected(&after),
            (401, AuthReason::UnknownUser | AuthReason::WrongPassword)
        ));
    }
    // The key is valid for its algorithm only.
    let known = Arc::clone(rfc5389(&before, "alice", "wonder").allocate(&before).unwrap().credential());
    let refusal = rfc8489(&before, "alice", "wonder")
        .authenticate(&after, NOW, AuthPurpose::Other, Some(&known))
        .unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::UnknownUser));
    // It is not valid as the key of the other algorithm either.
    let mixed = rfc8489(&before, "alice", "wonder").sha256(known.key());
    let refusal = mixed.authenticate(&after, NOW, AuthPurpose::Other, Some(&known)).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::UnknownUser));
    // A wrong password is still rejected.
    let refusal = rfc5389(&before, "alice", "wrong")
        .authenticate(&after, NOW, AuthPurpose::Other, Some(&known))
        .unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (401, AuthReason::UnknownUser));
}

/// RFC 8489 §9.2.4: after a change of password, both the old and the new one are valid for a running call.
#[test]
fn old_and_new_password_are_valid_for_an_allocation() {
    let before = auth(&[plain("alice", "wonder")], &[]);
    let after = auth(&[plain("alice", "looking-glass")], &[]);
    let known = Arc::clone(rfc5389(&before, "alice", "wonder").allocate(&before).unwrap().credential());
    let old = rfc5389(&after, "alice", "wonder")
        .authenticate(&after, NOW, AuthPurpose::Other, Some(&known))
        .unwrap();
    let new = rfc5389(&after, "alice", "looking-glass")
        .authenticate(&after, NOW, AuthPurpose::Other, Some(&known))
        .unwrap();
    assert!(Arc::ptr_eq(old.credential(), &known));
    assert!(!Arc::ptr_eq(new.credential(), &known));
    assert_eq!(rfc5389(&after, "alice", "wonder").rejected(&after), (401, AuthReason::WrongPassword));
}

/// draft-uberti-behave-turn-rest: the expiry applies to Allocate only, and includes the second it names.
#[test]
fn a_credential_expires_for_new_allocations_only() {
    let auth = auth(&[], &["north"]);
    for has_allocation in [false, true] {
        let name = format!("{NOW}:bob");
        let password = time_limited_password(b"north", &name);
        let request = rfc5389(&auth, &name, &password);
        let known = request.allocate(&auth).expect("not expired yet");
        let known = has_allocation.then_some(known.credential());
        let later = request.authenticate(&auth, NOW + 1, AuthPurpose::Allocate, known).expect_err("expired");
        assert_eq!((later.code, later.reason), (401, AuthReason::Expired));
        assert!(request.authenticate(&auth, NOW + 1, AuthPurpose::Other, known).is_ok());
        // RFC 8489 §9.2.4: the user is checked before the nonce.
        let stale =
            request.authenticate(&auth, NOW + 600, AuthPurpose::Allocate, known).expect_err("expired");
        assert_eq!(stale.reason, AuthReason::Expired);
        // The log distinguishes a wrong password from an expired credential.
        let wrong = rfc5389(&auth, &name, "wrong")
            .authenticate(&auth, NOW + 1, AuthPurpose::Allocate, known)
            .unwrap_err();
        assert_eq!(wrong.reason, AuthReason::WrongPassword);
    }
}
