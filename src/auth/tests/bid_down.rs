//! Bid-down attacks (RFC 8489 §9.2.1, §9.2.4): all combinations of nonce, PASSWORD-ALGORITHMS, PASSWORD-ALGORITHM,
//! integrity and key that a client or attacker can send, compared with a table of the section's sentences. After that, the
//! attacks of §16.1.3 as stories.

use super::*;
use PasswordAlgorithm::{Md5, Sha256};

/// The NONCE that a client sends back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NonceCase {
    Unmodified,
    /// Unmodified but expired.
    Expired,
    /// The nonce of another client.
    OfAnotherClient,
    /// The nonce of a server with the same key and another offer.
    WithAnotherOffer,
    /// The bit for password algorithms cleared.
    WithoutAlgorithmsBit,
    /// The bit for username anonymity flipped.
    AnonymityFlipped,
    /// An unassigned bit set.
    WithUnassignedBit,
    /// All feature bits cleared.
    WithoutBits,
    /// The nonce cookie removed.
    WithoutCookie,
}

use NonceCase::*;

impl NonceCase {
    const ALL: [NonceCase; 9] = [
        Unmodified,
        Expired,
        OfAnotherClient,
        WithAnotherOffer,
        WithoutAlgorithmsBit,
        AnonymityFlipped,
        WithUnassignedBit,
        WithoutBits,
        WithoutCookie,
    ];

    /// RFC 8489 §9.2.4: does the NONCE start with the nonce cookie with "Password algorithms" set to 1?
    fn has_algorithms_bit(self) -> bool {
        !matches!(self, WithoutAlgorithmsBit | WithoutBits | WithoutCookie)
    }

    /// Whether this server sent it to this client.
    fn is_ours(self) -> bool {
        matches!(self, Unmodified | Expired)
    }

    fn nonce(self, auth: &Auth) -> Vec<u8> {
        let sent = challenged(auth, NOW, attribute::NONCE);
        // RFC 8489 §18.1, erratum 6290: the last character of the cookie holds the three lowest bits, `A` to `H`.
        let bits = sent[12] - b'A';
        let with_bits = |bits: u8| [&sent[..12], &[b'A' + bits], &sent[13..]].concat();
        match self {
            Unmodified => sent,
            Expired => challenged(auth, NOW - 600, attribute::NONCE),
            OfAnotherClient => auth.nonces.make(NOW, "192.0.2.99:5000".parse().unwrap()).to_vec(),
            WithAnotherOffer => challenged(&server_with_another_offer(auth), NOW, attribute::NONCE),
            WithoutAlgorithmsBit => with_bits(bits & !1),
            AnonymityFlipped => with_bits(bits ^ 2),
            WithUnassignedBit => with_bits(bits | 4),
            WithoutBits => with_bits(0),
            WithoutCookie => sent[13..].to_vec(),
        }
    }
}

/// A server with the same key and another offer.
fn server_with_another_offer(one: &Auth) -> Auth {
    let secrets: &[&str] = if one.secrets.parse("1").is_some() { &["north"] } else { &[] };
    let user = if one.offer == AlgorithmOffer::Both { stored("bob", "x") } else { plain("bob", "x") };
    auth(&[user], secrets)
}

const REORDERED: &[u8] = &[0, 1, 0, 0, 0, 2, 0, 0];
const EXTENDED: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0];
const SHORTENED: &[u8] = &[0, 2, 0, 0];

/// Values of PASSWORD-ALGORITHMS.
const LISTS: [Option<&[u8]>; 7] =
    [None, Some(BOTH), Some(MD5), Some(REORDERED), Some(EXTENDED), Some(SHORTENED), Some(&[])];

const UNKNOWN: &[u8] = &[0, 3, 0, 0];
const PARAMETER: &[u8] = &[0, 2, 0, 1, 9, 0, 0, 0];

/// Values of PASSWORD-ALGORITHM.
const CHOSEN: [Option<&[u8]>; 6] = [None, Some(MD5), Some(SHA256), Some(UNKNOWN), Some(PARAMETER), Some(&[])];

/// The integrity attributes of a request, and which of them are made with the key.
#[derive(Clone, Copy, Debug)]
enum IntegrityCase {
    Sha1,
    Sha256,
    Both,
    /// MESSAGE-INTEGRITY-SHA256 is made with another key.
    BothSha1Right,
    /// MESSAGE-INTEGRITY is made with another key.
    BothSha256Right,
}

const INTEGRITY_CASES: [IntegrityCase; 5] = [
    IntegrityCase::Sha1,
    IntegrityCase::Sha256,
    IntegrityCase::Both,
    IntegrityCase::BothSha1Right,
    IntegrityCase::BothSha256Right,
];

/// The outcome of the third check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ThirdCheck {
    /// The request is processed with the key of this algorithm.
    Use(PasswordAlgorithm),
    /// Nothing is compared, but there is no key for the algorithm, so the integrity cannot verify.
    NoKey,
    /// 400 (Bad Request).
    Bad,
}

/// A sentence of the RFC or part of one. An empty column matches everything, and the first matching row applies.
struct MatrixRow {
    /// The sentence in RFC 8489 §9.2.4, third check.
    says: &'static str,
    algorithms_bit: &'static [bool],
    is_ours: &'static [bool],
    /// The list that this server sent.
    sent: &'static [&'static [u8]],
    list: &'static [Option<&'static [u8]>],
    chosen: &'static [Option<&'static [u8]>],
    then: ThirdCheck,
}

const ANY: MatrixRow = MatrixRow {
    says: "",
    algorithms_bit: &[],
    is_ours: &[],
    sent: &[],
    list: &[],
    chosen: &[],
    then: ThirdCheck::Bad,
};
const BIT: MatrixRow = MatrixRow { algorithms_bit: &[true], ..ANY };
const NO_BIT: MatrixRow =
    MatrixRow { algorithms_bit: &[false], says: "the checks apply to nonces with the bit", ..ANY };

const NEITHER: &str = "contains neither [...] is processed as though PASSWORD-ALGORITHM were MD5";
const ONE: &str = "unless (1) PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS are both present";
const TWO: &str = "(2) PASSWORD-ALGORITHMS matches the value sent in the response that sent this NONCE";
const THREE: &str = "(3) PASSWORD-ALGORITHM matches one of the entries in PASSWORD-ALGORITHMS";

const TABLE: [MatrixRow; 14] = [
    MatrixRow { says: NEITHER, list: &[None], chosen: &[None], then: ThirdCheck::Use(Md5), ..ANY },
    MatrixRow { says: ONE, list: &[None], then: ThirdCheck::Bad, ..BIT },
    MatrixRow { says: ONE, chosen: &[None], then: ThirdCheck::Bad, ..BIT },
    // A foreign nonce was not sent by this server, so only lists that no server of this kind sends are rejected.
    MatrixRow {
        says: TWO,
        list: &[Some(REORDERED), Some(EXTENDED), Some(SHORTENED), Some(&[])],
        then: ThirdCheck::Bad,
        ..BIT
    },
    MatrixRow {
        says: TWO,
        is_ours: &[true],
        sent: &[BOTH],
        list: &[Some(MD5)],
        then: ThirdCheck::Bad,
        ..BIT
    },
    MatrixRow {
        says: TWO,
        is_ours: &[true],
        sent: &[MD5],
        list: &[Some(BOTH)],
        then: ThirdCheck::Bad,
        ..BIT
    },
    MatrixRow {
        says: THREE,
        chosen: &[Some(UNKNOWN), Some(PARAMETER), Some(&[])],
        then: ThirdCheck::Bad,
        ..BIT
    },
    MatrixRow { says: THREE, list: &[Some(MD5)], chosen: &[Some(SHA256)], then: ThirdCheck::Bad, ..BIT },
    MatrixRow { says: THREE, chosen: &[Some(MD5)], then: ThirdCheck::Use(Md5), ..BIT },
    MatrixRow { says: THREE, chosen: &[Some(SHA256)], then: ThirdCheck::Use(Sha256), ..BIT },
    MatrixRow { chosen: &[None], then: ThirdCheck::Use(Md5), ..NO_BIT },
    MatrixRow { chosen: &[Some(MD5)], then: ThirdCheck::Use(Md5), ..NO_BIT },
    MatrixRow { chosen: &[Some(SHA256)], then: ThirdCheck::Use(Sha256), ..NO_BIT },
    MatrixRow { then: ThirdCheck::NoKey, ..NO_BIT },
];

impl MatrixRow {
    fn matches(&self, nonce: NonceCase, sent: &[u8], list: Option<&[u8]>, chosen: Option<&[u8]>) -> bool {
        (self.algorithms_bit.is_empty() || self.algorithms_bit.contains(&nonce.has_algorithms_bit()))
            && (self.is_ours.is_empty() || self.is_ours.contains(&nonce.is_ours()))
            && (self.sent.is_empty() || self.sent.contains(&sent))
            && (self.list.is_empty() || self.list.contains(&list))
            && (self.chosen.is_empty() || self.chosen.contains(&chosen))
    }
}

/// The algorithm of the key and whether the response has MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256, or the refusal.
type AuthOutcome = Result<(PasswordAlgorithm, bool, bool), (u16, AuthReason)>;

/// A server and its client's credentials.
struct TestServer {
    auth: Auth,
    username: &'static str,
    password: String,
    /// Whether the user has a SHA-256 key, which takes the password and not its MD5 key (RFC 8489 §18.5.1.2).
    sha256: bool,
}

fn servers() -> [TestServer; 4] {
    let name = "1800000000:alice";
    let wonder = || "wonder".to_owned();
    [
        TestServer {
            auth: auth(&[plain("alice", "wonder")], &[]),
            username: "alice",
            password: wonder(),
            sha256: true,
        },
        TestServer {
            auth: auth(&[], &["south", "north"]),
            username: name,
            password: time_limited_password(b"north", name),
            sha256: true,
        },
        TestServer {
            auth: auth(&[plain("alice", "wonder"), stored("bob", "x")], &[]),
            username: "alice",
            password: wonder(),
            sha256: true,
        },
        TestServer {
            auth: auth(&[stored("alice", "wonder")], &["north"]),
            username: "alice",
            password: wonder(),
            sha256: false,
        },
    ]
}

/// The remaining checks of RFC 8489 §9.2.4 in order.
fn expected(
    server: &TestServer,
    then: ThirdCheck,
    nonce: NonceCase,
    neither: bool,
    signed: IntegrityCase,
    key_used: KeyUsed,
) -> AuthOutcome {
    let algorithm = match then {
        ThirdCheck::Bad => return Err((400, AuthReason::PasswordAlgorithms)),
        // "If the value of the USERNAME or USERHASH attribute is not valid"
        _ if key_used == KeyUsed::OfUnknownUser => return Err((401, AuthReason::UnknownUser)),
        ThirdCheck::NoKey => return Err((401, AuthReason::NoKey)),
        ThirdCheck::Use(Sha256) if !server.sha256 => return Err((401, AuthReason::NoKey)),
        ThirdCheck::Use(algorithm) => algorithm,
    };
    // "If the MESSAGE-INTEGRITY-SHA256 attribute is present, compute [...] Otherwise [...] MESSAGE-INTEGRITY"
    let governing_is_right = !matches!(signed, IntegrityCase::BothSha1Right);
    if key_used != KeyUsed::With(algorithm) || !governing_is_right {
        return Err((401, AuthReason::WrongPassword));
    }
    // "If the NONCE is no longer valid"
    match nonce {
        Unmodified => {}
        Expired => return Err((438, AuthReason::StaleNonce)),
        _ => return Err((438, AuthReason::ForeignNonce)),
    }
    // "MUST include the MESSAGE-INTEGRITY-SHA256 attribute [...] unless [...] neither". Beside it, MESSAGE-INTEGRITY is for
    // clients that name MD5 and know nothing else.
    let knows_sha1_alone = algorithm == Md5 && matches!(signed, IntegrityCase::Sha1);
    Ok((algorithm, neither || knows_sha1_alone, !neither))
}

/// The key that the integrity is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyUsed {
    With(PasswordAlgorithm),
    /// The key of a wrong password.
    Wrong,
    /// The key of a user that does not exist.
    OfUnknownUser,
}

/// RFC 8489 §9.2.4, §9.2.1, §18.1, §14.11, §14.12: all combinations have the outcome of the table.
#[test]
fn the_bid_down_matrix() {
    let mut row_uses = [0; TABLE.len()];
    let mut outcomes = std::collections::BTreeSet::new();
    for server in servers() {
        let sent = challenged(&server.auth, NOW, attribute::PASSWORD_ALGORITHMS);
        for nonce in NonceCase::ALL {
            let value = nonce.nonce(&server.auth);
            for list in LISTS {
                for chosen in CHOSEN {
                    let row = TABLE.iter().position(|row| row.matches(nonce, &sent, list, chosen));
                    let row = row.expect("the table is complete");
                    row_uses[row] += 1;
                    for used in
                        [KeyUsed::With(Md5), KeyUsed::With(Sha256), KeyUsed::Wrong, KeyUsed::OfUnknownUser]
                    {
                        for signed in INTEGRITY_CASES {
                            let request = build_request(&server, &value, list, chosen, used, signed);
                            let neither = list.is_none() && chosen.is_none();
                            let expected = expected(&server, TABLE[row].then, nonce, neither, signed, used);
                            assert_eq!(
                                outcome(&server, &request),
                                expected,
                                "{} {nonce:?} {list:?} {chosen:?} {used:?} {signed:?}: {}",
                                server.username,
                                TABLE[row].says
                            );
                            outcomes.insert(format!("{expected:?}"));
                        }
                    }
                }
            }
        }
    }
    assert!(row_uses.iter().all(|&cases| cases > 0), "a row never applies: {row_uses:?}");
    // Four kinds of success, and six reasons for refusal.
    assert_eq!(outcomes.len(), 4 + 6, "{outcomes:?}");
}

fn build_request(
    server: &TestServer,
    nonce: &[u8],
    list: Option<&[u8]>,
    chosen: Option<&[u8]>,
    key_used: KeyUsed,
    signed: IntegrityCase,
) -> TestRequest {
    let username = if key_used == KeyUsed::OfUnknownUser { "nobody" } else { server.username };
    let mut request = TestRequest::new()
        .with(attribute::USERNAME, username)
        .with(attribute::REALM, REALM)
        .with(attribute::NONCE, nonce);
    if let Some(list) = list {
        request = request.with(attribute::PASSWORD_ALGORITHMS, list);
    }
    if let Some(chosen) = chosen {
        request = request.with(attribute::PASSWORD_ALGORITHM, chosen);
    }
    let key = match key_used {
        KeyUsed::With(algorithm) => key(algorithm, username, &server.password),
        KeyUsed::Wrong | KeyUsed::OfUnknownUser => key(Md5, username, "wrong"),
    };
    match signed {
        IntegrityCase::Sha1 => request.sha1(&key),
        IntegrityCase::Sha256 => request.sha256(&key),
        IntegrityCase::Both => request.sha1(&key).sha256(&key),
        IntegrityCase::BothSha1Right => request.sha1(&key).sha256(b"something else"),
        IntegrityCase::BothSha256Right => request.sha1(b"something else").sha256(&key),
    }
}

fn outcome(server: &TestServer, request: &TestRequest) -> AuthOutcome {
    match request.allocate(&server.auth) {
        Err(refusal) => {
            assert!(refusal.signed.is_none());
            Err((refusal.code, refusal.reason))
        }
        Ok(authenticated) => {
            let algorithm = authenticated.credential().algorithm();
            let key = key(algorithm, server.username, &server.password);
            let bytes = signed(&authenticated);
            let response = Message::parse(&bytes).expect("a valid response");
            let (sha1, sha256) = (response.has_integrity_sha1(), response.has_integrity_sha256());
            assert!((sha1 || sha256) && response.verify_sha1(&key) == sha1);
            assert_eq!(response.verify_sha256(&key), sha256);
            Ok((algorithm, sha1, sha256))
        }
    }
}

/// The next request of a client of RFC 8489 after a challenge, or `None` if the client gives up (§9.2.5).
fn next_request(nonce: &[u8], list: Option<&[u8]>) -> Option<TestRequest> {
    let bit = nonce::features(nonce).is_some_and(|bits| bits & 1 == 1);
    let anonymous = nonce::features(nonce).is_some_and(|bits| bits & 2 == 2);
    let request = match anonymous {
        true => TestRequest::new().with(attribute::USERHASH, userhash(b"alice", REALM.as_bytes())),
        false => TestRequest::new().with(attribute::USERNAME, "alice"),
    };
    let request = request.with(attribute::REALM, REALM).with(attribute::NONCE, nonce);
    let Some(list) = list else {
        return (!bit).then(|| request.sha1(&key(Md5, "alice", "wonder")));
    };
    let algorithm = PasswordAlgorithm::from_value(&list[..4]).expect("a known algorithm");
    let chosen = if algorithm == Sha256 { SHA256 } else { MD5 };
    Some(
        request
            .with(attribute::PASSWORD_ALGORITHMS, list)
            .with(attribute::PASSWORD_ALGORITHM, chosen)
            .sha256(&key(algorithm, "alice", "wonder")),
    )
}

/// RFC 8489 §16.1.3: a client whose challenge was modified to weaken its choice is never authenticated.
#[test]
fn bid_down_attacks_fail() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let nonce = challenged(&auth, NOW, attribute::NONCE);
    assert!(nonce.starts_with(b"obMatJos2AAAD"));
    let with_features = |bits: &[u8]| [b"obMatJos2".as_slice(), bits, &nonce[13..]].concat();

    let unmodified = next_request(&nonce, Some(BOTH))
        .expect("the client continues")
        .allocate(&auth)
        .expect("authenticated");
    assert_eq!(unmodified.credential().algorithm(), Sha256);

    // PASSWORD-ALGORITHMS removed: the client sees the feature bit and gives up.
    assert!(next_request(&nonce, None).is_none());
    // The feature bit removed too: the nonce is not valid.
    let rejected =
        |nonce: &[u8], list| next_request(nonce, list).expect("the client continues").rejected(&auth);
    assert_eq!(rejected(&with_features(b"AAAC"), None), (438, AuthReason::ForeignNonce));
    assert_eq!(rejected(&nonce[13..], None), (438, AuthReason::ForeignNonce));
    // SHA-256 removed from the list, or moved to the end.
    assert_eq!(rejected(&nonce, Some(MD5)), (400, AuthReason::PasswordAlgorithms));
    assert_eq!(rejected(&nonce, Some(REORDERED)), (400, AuthReason::PasswordAlgorithms));
    // The nonce modified too.
    assert_eq!(rejected(&with_features(b"AAAB"), Some(MD5)), (438, AuthReason::ForeignNonce));
    // The bit for username anonymity removed: the client reveals its name, but is not authenticated.
    assert_eq!(rejected(&with_features(b"AAAB"), Some(BOTH)), (438, AuthReason::ForeignNonce));
}

/// RFC 8489 §9.2.4: after a restart with another offer, a client with an old nonce gets 438 and then authenticates.
#[test]
fn a_client_gets_the_new_offer_after_a_restart() {
    let before = auth(&[plain("alice", "wonder")], &[]);
    let after = auth(&[plain("alice", "wonder"), stored("bob", "x")], &[]);
    let kept =
        next_request(&challenged(&before, NOW, attribute::NONCE), Some(BOTH)).expect("the client continues");
    assert_eq!(kept.rejected(&after), (438, AuthReason::ForeignNonce));
    let list = challenged(&after, NOW, attribute::PASSWORD_ALGORITHMS);
    let next =
        next_request(&challenged(&after, NOW, attribute::NONCE), Some(&list)).expect("the client continues");
    assert_eq!(next.allocate(&after).expect("authenticated").credential().algorithm(), Md5);
}
