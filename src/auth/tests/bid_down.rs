//! The whole bid-down matrix of RFC 8489 §9.2.1 and §9.2.4: every combination of what a client, or someone between,
//! can make of nonce, PASSWORD-ALGORITHMS, PASSWORD-ALGORITHM, integrity and key, against a table of the section's
//! sentences. Then the attacks of §16.1.3 as stories.

use super::*;
use PasswordAlgorithm::{Md5, Sha256};

/// How the NONCE comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Untouched,
    /// Untouched, its lifetime over.
    Old,
    /// Sent to another client.
    OthersNonce,
    /// Sent by a server with the same key that offers the other list.
    OtherList,
    /// Cookie with the password algorithms bit cleared.
    WithoutPassword,
    /// Cookie with the username anonymity bit turned over.
    AnonymityTurned,
    /// Cookie with a bit set that nobody has assigned.
    WithUnassigned,
    /// Cookie without any bit.
    NoBits,
    /// What follows the cookie, without it.
    NoCookie,
}

use Sent::*;

impl Sent {
    const ALL: [Sent; 9] = [
        Untouched,
        Old,
        OthersNonce,
        OtherList,
        WithoutPassword,
        AnonymityTurned,
        WithUnassigned,
        NoBits,
        NoCookie,
    ];

    /// RFC 8489 §9.2.4: does the NONCE start with the nonce cookie with "Password algorithms" set to 1?
    fn password_bit(self) -> bool {
        !matches!(self, WithoutPassword | NoBits | NoCookie)
    }

    /// Did this server send it to this client?
    fn ours(self) -> bool {
        matches!(self, Untouched | Old)
    }

    fn nonce(self, auth: &Auth) -> Vec<u8> {
        let sent = challenged(auth, NOW, attribute::NONCE);
        // RFC 8489 §18.1, erratum 6290: three bits are in the last of the cookie's characters, `A` to `H`.
        let bits = sent[12] - b'A';
        let turned = |bits: u8| [&sent[..12], &[b'A' + bits], &sent[13..]].concat();
        match self {
            Untouched => sent,
            Old => challenged(auth, NOW - 600, attribute::NONCE),
            OthersNonce => auth.nonces.make(NOW, "192.0.2.99:5000".parse().unwrap()).to_vec(),
            OtherList => challenged(&other_list(auth), NOW, attribute::NONCE),
            WithoutPassword => turned(bits & !1),
            AnonymityTurned => turned(bits ^ 2),
            WithUnassigned => turned(bits | 4),
            NoBits => turned(0),
            NoCookie => sent[13..].to_vec(),
        }
    }
}

/// The same server, had it another choice of users.
fn other_list(one: &Auth) -> Auth {
    let secrets: &[&str] = if one.secrets.parse("1").is_some() { &["north"] } else { &[] };
    let user = if one.offer == Offer::Both { stored("bob", "x") } else { plain("bob", "x") };
    auth(&[user], secrets)
}

const REORDERED: &[u8] = &[0, 1, 0, 0, 0, 2, 0, 0];
const EXTENDED: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0];
const SHORTENED: &[u8] = &[0, 2, 0, 0];

/// What PASSWORD-ALGORITHMS can hold.
const LISTS: [Option<&[u8]>; 7] =
    [None, Some(BOTH), Some(MD5), Some(REORDERED), Some(EXTENDED), Some(SHORTENED), Some(&[])];

const UNKNOWN: &[u8] = &[0, 3, 0, 0];
const PARAMETER: &[u8] = &[0, 2, 0, 1, 9, 0, 0, 0];

/// What PASSWORD-ALGORITHM can hold.
const CHOSEN: [Option<&[u8]>; 6] = [None, Some(MD5), Some(SHA256), Some(UNKNOWN), Some(PARAMETER), Some(&[])];

/// Which integrity attributes there are, and whether they were made with the key.
#[derive(Clone, Copy, Debug)]
enum Signed {
    Sha1,
    Sha256,
    Both,
    /// MESSAGE-INTEGRITY-SHA256 made with something else.
    BothSha1Right,
    /// MESSAGE-INTEGRITY made with something else.
    BothSha256Right,
}

const SIGNED: [Signed; 5] =
    [Signed::Sha1, Signed::Sha256, Signed::Both, Signed::BothSha1Right, Signed::BothSha256Right];

/// What the third check makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Processed with this algorithm's key.
    Use(PasswordAlgorithm),
    /// Nothing to compare, but no key either: the integrity cannot match.
    NoKey,
    /// 400 (Bad Request).
    Bad,
}

/// One sentence, or part of one. An empty column fits everything; the first row that fits decides.
struct MatrixRow {
    /// RFC 8489 §9.2.4, third check.
    says: &'static str,
    password_bit: &'static [bool],
    ours: &'static [bool],
    /// The list this server sent.
    sent: &'static [&'static [u8]],
    list: &'static [Option<&'static [u8]>],
    chosen: &'static [Option<&'static [u8]>],
    then: Then,
}

const ANY: MatrixRow =
    MatrixRow { says: "", password_bit: &[], ours: &[], sent: &[], list: &[], chosen: &[], then: Then::Bad };
const BIT: MatrixRow = MatrixRow { password_bit: &[true], ..ANY };
const NO_BIT: MatrixRow =
    MatrixRow { password_bit: &[false], says: "the checks are for nonces with the bit", ..ANY };

const NEITHER: &str = "contains neither [...] is processed as though PASSWORD-ALGORITHM were MD5";
const ONE: &str = "unless (1) PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS are both present";
const TWO: &str = "(2) PASSWORD-ALGORITHMS matches the value sent in the response that sent this NONCE";
const THREE: &str = "(3) PASSWORD-ALGORITHM matches one of the entries in PASSWORD-ALGORITHMS";

const TABLE: [MatrixRow; 14] = [
    MatrixRow { says: NEITHER, list: &[None], chosen: &[None], then: Then::Use(Md5), ..ANY },
    MatrixRow { says: ONE, list: &[None], then: Then::Bad, ..BIT },
    MatrixRow { says: ONE, chosen: &[None], then: Then::Bad, ..BIT },
    // No response of this server's sent a foreign nonce, so only what no response of its kind ever says is refused.
    MatrixRow {
        says: TWO,
        list: &[Some(REORDERED), Some(EXTENDED), Some(SHORTENED), Some(&[])],
        then: Then::Bad,
        ..BIT
    },
    MatrixRow { says: TWO, ours: &[true], sent: &[BOTH], list: &[Some(MD5)], then: Then::Bad, ..BIT },
    MatrixRow { says: TWO, ours: &[true], sent: &[MD5], list: &[Some(BOTH)], then: Then::Bad, ..BIT },
    MatrixRow { says: THREE, chosen: &[Some(UNKNOWN), Some(PARAMETER), Some(&[])], then: Then::Bad, ..BIT },
    MatrixRow { says: THREE, list: &[Some(MD5)], chosen: &[Some(SHA256)], then: Then::Bad, ..BIT },
    MatrixRow { says: THREE, chosen: &[Some(MD5)], then: Then::Use(Md5), ..BIT },
    MatrixRow { says: THREE, chosen: &[Some(SHA256)], then: Then::Use(Sha256), ..BIT },
    MatrixRow { chosen: &[None], then: Then::Use(Md5), ..NO_BIT },
    MatrixRow { chosen: &[Some(MD5)], then: Then::Use(Md5), ..NO_BIT },
    MatrixRow { chosen: &[Some(SHA256)], then: Then::Use(Sha256), ..NO_BIT },
    MatrixRow { then: Then::NoKey, ..NO_BIT },
];

impl MatrixRow {
    fn fits(&self, nonce: Sent, sent: &[u8], list: Option<&[u8]>, chosen: Option<&[u8]>) -> bool {
        (self.password_bit.is_empty() || self.password_bit.contains(&nonce.password_bit()))
            && (self.ours.is_empty() || self.ours.contains(&nonce.ours()))
            && (self.sent.is_empty() || self.sent.contains(&sent))
            && (self.list.is_empty() || self.list.contains(&list))
            && (self.chosen.is_empty() || self.chosen.contains(&chosen))
    }
}

/// How a request ends: the algorithm of the key and whether SHA-256 signs the answer, or the refusal.
type Outcome = Result<(PasswordAlgorithm, bool), (u16, AuthReason)>;

/// One server and the one user who asks it.
struct TestServer {
    auth: Auth,
    username: &'static str,
    password: String,
    /// RFC 8489 §18.5.1.2: SHA-256 takes the password, not its MD5 key.
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

/// RFC 8489 §9.2.4 after the third check, in its order.
fn expected(
    server: &TestServer,
    then: Then,
    nonce: Sent,
    neither: bool,
    signed: Signed,
    made_with: Made,
) -> Outcome {
    let algorithm = match then {
        Then::Bad => return Err((400, AuthReason::PasswordAlgorithms)),
        // "If the value of the USERNAME or USERHASH attribute is not valid"
        _ if made_with == Made::ByNobody => return Err((401, AuthReason::UnknownUser)),
        Then::NoKey => return Err((401, AuthReason::NoKey)),
        Then::Use(Sha256) if !server.sha256 => return Err((401, AuthReason::NoKey)),
        Then::Use(algorithm) => algorithm,
    };
    // "If the MESSAGE-INTEGRITY-SHA256 attribute is present, compute [...] Otherwise [...] MESSAGE-INTEGRITY"
    let governing_is_right = !matches!(signed, Signed::BothSha1Right);
    if made_with != Made::With(algorithm) || !governing_is_right {
        return Err((401, AuthReason::WrongPassword));
    }
    // "If the NONCE is no longer valid"
    match nonce {
        Untouched => {}
        Old => return Err((438, AuthReason::StaleNonce)),
        _ => return Err((438, AuthReason::ForeignNonce)),
    }
    // "MUST include the MESSAGE-INTEGRITY-SHA256 attribute [...] unless [...] neither"
    Ok((algorithm, !neither))
}

/// Whose key made the integrity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    With(PasswordAlgorithm),
    /// The right name, a wrong password.
    Wrong,
    /// A name that nobody has.
    ByNobody,
}

/// RFC 8489 §9.2.4, §9.2.1, §18.1, §14.11, §14.12: all combinations against the table.
#[test]
fn the_bid_down_matrix() {
    let mut used = [0; TABLE.len()];
    let mut ends = std::collections::HashMap::new();
    for server in servers() {
        let sent = challenged(&server.auth, NOW, attribute::PASSWORD_ALGORITHMS);
        for nonce in Sent::ALL {
            let value = nonce.nonce(&server.auth);
            for list in LISTS {
                for chosen in CHOSEN {
                    let row = TABLE.iter().position(|row| row.fits(nonce, &sent, list, chosen));
                    let row = row.expect("the table is complete");
                    used[row] += 1;
                    for made in [Made::With(Md5), Made::With(Sha256), Made::Wrong, Made::ByNobody] {
                        for signed in SIGNED {
                            let ask = ask(&server, &value, list, chosen, made, signed);
                            let neither = list.is_none() && chosen.is_none();
                            let expected = expected(&server, TABLE[row].then, nonce, neither, signed, made);
                            assert_eq!(
                                end(&server, &ask),
                                expected,
                                "{} {nonce:?} {list:?} {chosen:?} {made:?} {signed:?}: {}",
                                server.username,
                                TABLE[row].says
                            );
                            *ends.entry(format!("{expected:?}")).or_insert(0) += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(used.iter().all(|&cases| cases > 0), "a row that nothing fits: {used:?}");
    // Three ways in, and every refusal that is not about another check.
    assert_eq!(ends.len(), 3 + 6, "{ends:?}");
}

fn ask(
    server: &TestServer,
    nonce: &[u8],
    list: Option<&[u8]>,
    chosen: Option<&[u8]>,
    made: Made,
    signed: Signed,
) -> TestRequest {
    let username = if made == Made::ByNobody { "nobody" } else { server.username };
    let mut ask = TestRequest::new()
        .with(attribute::USERNAME, username)
        .with(attribute::REALM, REALM)
        .with(attribute::NONCE, nonce);
    if let Some(list) = list {
        ask = ask.with(attribute::PASSWORD_ALGORITHMS, list);
    }
    if let Some(chosen) = chosen {
        ask = ask.with(attribute::PASSWORD_ALGORITHM, chosen);
    }
    let key = match made {
        Made::With(algorithm) => key(algorithm, username, &server.password),
        Made::Wrong | Made::ByNobody => key(Md5, username, "wrong"),
    };
    match signed {
        Signed::Sha1 => ask.sha1(&key),
        Signed::Sha256 => ask.sha256(&key),
        Signed::Both => ask.sha1(&key).sha256(&key),
        Signed::BothSha1Right => ask.sha1(&key).sha256(b"something else"),
        Signed::BothSha256Right => ask.sha1(b"something else").sha256(&key),
    }
}

fn end(server: &TestServer, ask: &TestRequest) -> Outcome {
    match ask.allocate(&server.auth) {
        Err(refusal) => {
            assert!(refusal.signed.is_none());
            Err((refusal.code, refusal.reason))
        }
        Ok(authenticated) => {
            let algorithm = authenticated.credential().algorithm();
            let key = key(algorithm, server.username, &server.password);
            let bytes = signed(&authenticated);
            let answer = Message::parse(&bytes).expect("our own answer");
            assert!(answer.has_integrity_sha256() != answer.has_integrity_sha1());
            assert!(answer.verify_sha256(&key) || answer.verify_sha1(&key));
            Ok((algorithm, answer.has_integrity_sha256()))
        }
    }
}

/// What a client of RFC 8489 that knows both algorithms answers a challenge with; `None` if it stops here (§9.2.5).
fn answer_to(nonce: &[u8], list: Option<&[u8]>) -> Option<TestRequest> {
    let bit = nonce::features(nonce).is_some_and(|bits| bits & 1 == 1);
    let anonymous = nonce::features(nonce).is_some_and(|bits| bits & 2 == 2);
    let ask = match anonymous {
        true => TestRequest::new().with(attribute::USERHASH, userhash(b"alice", REALM.as_bytes())),
        false => TestRequest::new().with(attribute::USERNAME, "alice"),
    };
    let ask = ask.with(attribute::REALM, REALM).with(attribute::NONCE, nonce);
    let Some(list) = list else {
        return (!bit).then(|| ask.sha1(&key(Md5, "alice", "wonder")));
    };
    let algorithm = PasswordAlgorithm::from_value(&list[..4]).expect("one of those it knows");
    let chosen = if algorithm == Sha256 { SHA256 } else { MD5 };
    Some(
        ask.with(attribute::PASSWORD_ALGORITHMS, list)
            .with(attribute::PASSWORD_ALGORITHM, chosen)
            .sha256(&key(algorithm, "alice", "wonder")),
    )
}

/// RFC 8489 §16.1.3: whatever is taken out of a challenge on its way, no request with a weaker choice is accepted.
#[test]
fn bidding_down_gets_nobody_in() {
    let auth = auth(&[plain("alice", "wonder")], &[]);
    let nonce = challenged(&auth, NOW, attribute::NONCE);
    assert!(nonce.starts_with(b"obMatJos2AAAD"));
    let with = |bits: &[u8]| [b"obMatJos2".as_slice(), bits, &nonce[13..]].concat();

    let untouched = answer_to(&nonce, Some(BOTH)).expect("goes on").allocate(&auth).expect("let in");
    assert_eq!(untouched.credential().algorithm(), Sha256);

    // PASSWORD-ALGORITHMS removed: the client sees the bit and stops.
    assert!(answer_to(&nonce, None).is_none());
    // The bit removed as well: the nonce is not the one that was sent.
    let refused = |nonce: &[u8], list| answer_to(nonce, list).expect("goes on").refused(&auth);
    assert_eq!(refused(&with(b"AAAC"), None), (438, AuthReason::ForeignNonce));
    assert_eq!(refused(&nonce[13..], None), (438, AuthReason::ForeignNonce));
    // SHA-256 removed from the list, or put last.
    assert_eq!(refused(&nonce, Some(MD5)), (400, AuthReason::PasswordAlgorithms));
    assert_eq!(refused(&nonce, Some(REORDERED)), (400, AuthReason::PasswordAlgorithms));
    // The same with a nonce that is changed too.
    assert_eq!(refused(&with(b"AAAB"), Some(MD5)), (438, AuthReason::ForeignNonce));
    // The anonymity bit removed: the name was sent in the clear, but nothing comes of it.
    assert_eq!(refused(&with(b"AAAB"), Some(BOTH)), (438, AuthReason::ForeignNonce));
}

/// RFC 8489 §9.2.4: a client that kept its nonce over a restart with other users gets the 438 that lets it go on.
#[test]
fn a_client_from_before_a_restart_is_told_the_new_list() {
    let before = auth(&[plain("alice", "wonder")], &[]);
    let after = auth(&[plain("alice", "wonder"), stored("bob", "x")], &[]);
    let kept = answer_to(&challenged(&before, NOW, attribute::NONCE), Some(BOTH)).expect("goes on");
    assert_eq!(kept.refused(&after), (438, AuthReason::ForeignNonce));
    let list = challenged(&after, NOW, attribute::PASSWORD_ALGORITHMS);
    let next = answer_to(&challenged(&after, NOW, attribute::NONCE), Some(&list)).expect("goes on");
    assert_eq!(next.allocate(&after).expect("let in").credential().algorithm(), Md5);
}
