//! Creating an allocation.

use hairpin::auth::{AuthConfig, Password, Secret, StaticUser, time_limited_password};
use hairpin::turn::{
    AllocationLimits, Answer, Ask, CloseReason, Denial, Families, PerFamily, PortUse, RelayRequest,
    TurnConfig,
};
use hairpin::wire::{Encoder, Family, Method, attribute};

use crate::world::{Client, PEER, PRIVATE, Reply, START, World, addr, config, credentials};

const A: &str = "198.51.100.1:40000";
const B: &str = "198.51.100.2:40000";

const V4: [u8; 4] = [1, 0, 0, 0];
const V6: [u8; 4] = [2, 0, 0, 0];

fn family(answer: &Reply) -> Vec<Family> {
    answer.relayed().iter().map(|relayed| Family::of(relayed.ip())).collect()
}

/// RFC 8656 §7.2: a client learns realm and nonce, repeats its request, and gets the attributes that the RFC lists.
#[test]
fn a_client_allocates() {
    let mut world = World::default();
    let mut client = Client::new(A);
    let refused = client.request(Method::Allocate, |_| {});
    assert_eq!(world.ask(&client.tuple, &refused).code(), 438);

    let answer = client.allocate(&mut world, |_| {});
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.relayed(), [addr("192.0.2.1:50000")]);
    assert_eq!(answer.lifetime(), Some(600));
    assert_eq!(answer.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address(), Ok(addr(A)));
    assert_eq!(answer.token(), None);
    assert!(answer.message().verify_sha1(&client.key()));
    assert_eq!(world.opened.len(), 1);
    assert_eq!(&*world.opened[0].user, "alice");
    assert_eq!(world.server.stats().allocations, 1);
    assert_eq!(world.server.stats().relays[0], PerFamily { v4: 1, v6: 0 });
}

/// RFC 8656 §7.2, 2.: one allocation per 5-tuple.
#[test]
fn a_second_allocate_is_a_mismatch() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 437);
    let mut other = Client { nonce: client.nonce.clone(), ..client.clone().named("bob", "builder") };
    assert_eq!(other.allocate(&mut world, |_| {}).code(), 437);
    assert_eq!(world.sockets.len(), 1);
}

/// RFC 8656 §7.2, 3.: REQUESTED-TRANSPORT must be present and be UDP.
#[test]
fn only_udp_is_relayed() {
    let mut world = World::default();
    let mut client = Client::new(A);
    for (value, code) in
        [(None, 400), (Some(&[17][..]), 400), (Some(&[6, 0, 0, 0]), 442), (Some(&[0, 0, 0, 0]), 442)]
    {
        let answer = client.ask(&mut world, Method::Allocate, |request| {
            if let Some(value) = value {
                request.bytes(attribute::REQUESTED_TRANSPORT, value);
            }
        });
        assert_eq!(answer.code(), code, "{value:?}");
        assert!(answer.message().verify_sha1(&client.key()), "a response after authentication is signed");
    }
    world.assert_empty();
}

/// RFC 8656 §7.2, 4.: DONT-FRAGMENT is understood.
#[test]
fn dont_fragment_is_accepted() {
    let mut world = World::default();
    let answer = Client::new(A).allocate(&mut world, |request| request.bytes(attribute::DONT_FRAGMENT, &[]));
    assert_eq!(answer.code(), 0);
}

/// RFC 8489 §6.3.1: unknown comprehension-required attributes are listed; others are ignored.
#[test]
fn unknown_attributes_are_named() {
    let mut world = World::default();
    let mut client = Client::new(A);
    let answer = client.allocate(&mut world, |request| {
        request.bytes(0x7F01, &[1]);
        request.bytes(0xC001, &[2]);
        request.bytes(0x0003, &[0, 0, 0, 0]);
    });
    assert_eq!(answer.code(), 420);
    let unknown = answer.attribute(attribute::UNKNOWN_ATTRIBUTES).unwrap();
    assert_eq!(unknown.value, [0x7F, 0x01, 0x00, 0x03]);
    assert!(answer.message().verify_sha1(&client.key()));
    assert_eq!(client.allocate(&mut world, |request| request.bytes(0xC001, &[2])).code(), 0);
}

/// RFC 8656 §7.2: at most the maximum, at least the default.
#[test]
fn lifetimes_are_bounded() {
    for (wanted, granted) in
        [(0, 600), (1, 600), (599, 600), (600, 600), (601, 601), (3600, 3600), (u32::MAX, 3600)]
    {
        let mut world = World::default();
        let mut client = Client::new(A);
        let answer = client.allocate(&mut world, |request| request.u32(attribute::LIFETIME, wanted));
        assert_eq!(answer.lifetime(), Some(granted), "{wanted}");
        world.pass(u64::from(granted) - 1);
        assert_eq!(world.sockets.len(), 1);
        world.pass(1);
        assert_eq!(world.closed[0].reason, CloseReason::Expired);
        world.assert_empty();
    }
    let mut world = World::default();
    let answer =
        Client::new(A).allocate(&mut world, |request| request.bytes(attribute::LIFETIME, &[0, 0, 1]));
    assert_eq!(answer.code(), 400);
}

/// RFC 8656 §7.2, 7.: the requested family, by default IPv4; 440 if it is not available or not a family.
#[test]
fn families() {
    let here =
        [Families { v4: true, v6: true }, Families { v4: true, v6: false }, Families { v4: false, v6: true }];
    for families in here {
        for (asked, wanted) in [
            (None, Some(Family::V4)),
            (Some(V4), Some(Family::V4)),
            (Some(V6), Some(Family::V6)),
            (Some([3, 0, 0, 0]), None),
        ] {
            let mut world = World::new(hairpin::turn::TurnConfig { families, ..config() }, credentials());
            let answer = Client::new(A).allocate(&mut world, |request| {
                if let Some(asked) = asked {
                    request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &asked);
                }
            });
            match wanted.filter(|family| families[*family]) {
                Some(wanted) => assert_eq!(family(&answer), [wanted]),
                None => assert_eq!(answer.code(), 440, "{asked:?} of {families:?}"),
            }
        }
    }
    let mut world = World::default();
    let answer = Client::new(A)
        .allocate(&mut world, |request| request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[1]));
    assert_eq!(answer.code(), 400);
}

/// RFC 8656 §7.2: EVEN-PORT with R = 1 reserves the next port; anyone may redeem the token, from any 5-tuple, once.
#[test]
fn a_reservation_is_redeemed() {
    let mut world = World::default();
    let answer = Client::new(A).allocate(&mut world, |request| request.bytes(attribute::EVEN_PORT, &[0x80]));
    let (port, token) = (answer.relayed()[0].port(), answer.token().unwrap());
    assert_eq!(port % 2, 0);

    let mut other = Client::new("[2001:db8::9]:7000").named("bob", "builder");
    let answer = other.allocate(&mut world, |request| request.bytes(attribute::RESERVATION_TOKEN, &token));
    assert_eq!(answer.relayed(), [addr(&format!("192.0.2.1:{}", port + 1))]);
    let answer =
        Client::new(B).allocate(&mut world, |request| request.bytes(attribute::RESERVATION_TOKEN, &token));
    assert_eq!(answer.code(), 508);
}

/// RFC 8656 §7.2, 5.: a token excludes EVEN-PORT and address families, has 8 bytes, and must be valid.
#[test]
fn tokens_stand_alone() {
    let mut world = World::default();
    let beside = [
        (attribute::EVEN_PORT, &[0x80][..]),
        (attribute::REQUESTED_ADDRESS_FAMILY, &V4),
        (attribute::ADDITIONAL_ADDRESS_FAMILY, &V6),
    ];
    for (kind, value) in beside {
        let answer = Client::new(A).allocate(&mut world, |request| {
            request.bytes(attribute::RESERVATION_TOKEN, &[0; 8]);
            request.bytes(kind, value);
        });
        assert_eq!(answer.code(), 400, "{kind:#x}");
    }
    for (token, code) in [(&[0; 8][..], 508), (&[0; 7], 400), (&[0; 9], 400)] {
        let answer =
            Client::new(A).allocate(&mut world, |request| request.bytes(attribute::RESERVATION_TOKEN, token));
        assert_eq!(answer.code(), code);
    }
    world.assert_empty();
}

/// RFC 8656 §7.2, EVEN-PORT with R = 0: nothing is reserved.
#[test]
fn an_even_port_alone() {
    let mut world = World::default();
    let answer = Client::new(A).allocate(&mut world, |request| request.bytes(attribute::EVEN_PORT, &[0x7F]));
    assert_eq!((answer.relayed()[0].port() % 2, answer.token()), (0, None));
    let answer = Client::new(B).allocate(&mut world, |request| request.bytes(attribute::EVEN_PORT, &[]));
    assert_eq!(answer.code(), 400);
}

/// RFC 8656 §7.2, 9. and 10.: quota and capacity; a refused request leaves nothing behind.
#[test]
fn quota_and_capacity() {
    let mut world = World::default();
    let ports = PortUse { range: (50_000, 50_009), ports: 10, in_use: 10 };
    let shortages = [
        (Denial::Total(4), "limits.allocations"),
        (Denial::NoPort(ports), "relay.ports"),
        (Denial::OpenFiles(4), "LimitNOFILE"),
        (Denial::SocketFailed, "could not be opened"),
        (Denial::NoAddress, "/readyz"),
        (Denial::UserReservations(4), "limits.reservation_lifetime"),
        (Denial::Reservations(4), "limits.reservation_lifetime"),
        (Denial::Token, "limits.reservation_lifetime"),
    ]
    .map(|(denial, fix)| (denial, fix, 508));
    let quota = (Denial::Quota(4), "allocations in the [[auth.user]] of this name", 486);
    for (denial, fix, code) in [quota].into_iter().chain(shortages) {
        world.deny = Some(denial);
        let mut client = Client::new(A);
        assert_eq!(client.allocate(&mut world, |_| {}).code(), code);
        world.assert_empty();
        let refused = world.refused.last().unwrap();
        assert_eq!(refused.reason.code(), code);
        assert!(refused.fix.to_string().contains(fix), "{denial:?}");
        assert_eq!(client.allocate(&mut world, |_| {}).code(), 0, "the 5-tuple is free");
        assert_eq!(client.refresh(&mut world, 0).code(), 0);
    }
    world.assert_empty();
}

/// RFC 8656 §7.2, note: a retransmission gets the same response, even if nonce or credential have expired since.
#[test]
fn retransmissions_get_the_same_response() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.nonce = client.allocate(&mut world, |_| {}).bytes(attribute::NONCE).unwrap_or(client.nonce);
    client.refresh(&mut world, 0);
    let request = client.request(Method::Allocate, |request| {
        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        request.bytes(attribute::EVEN_PORT, &[0x80]);
    });
    let first = world.ask(&client.tuple, &request);
    assert!(first.token().is_some());
    let again = world.ask(&client.tuple, &request);
    assert_eq!(again.0, first.0);
    world.pass(30);
    let late = world.ask(&client.tuple, &request);
    assert_eq!((late.relayed(), late.token(), late.lifetime()), (first.relayed(), first.token(), Some(570)));
    assert_eq!(world.sockets.len(), 1);
}

/// RFC 8489 §6.3.1: a retransmission of an Allocate is recognised before anything else, so it gets the same response whatever
/// has happened since: the nonce has aged, the credential has expired, its user, secret or realm was removed, another
/// algorithm is offered, the nonce key or the limits have changed. Only its integrity counts.
#[test]
fn a_late_retransmission_gets_the_same_response() {
    let secret = || Secret::new(*b"a shared secret");
    let with_secret = AuthConfig { secrets: vec![secret()], ..credentials() };
    let name = format!("{}:carol", START + 200);
    let password = time_limited_password(secret().as_bytes(), &name);
    let other = |change: fn(&mut AuthConfig)| {
        let mut config = AuthConfig { secrets: vec![secret()], ..credentials() };
        change(&mut config);
        config
    };
    let changes: [(&str, u64, AuthConfig); 6] = [
        ("nothing", 0, other(|_| {})),
        ("the nonce has aged and the credential has expired", 4000, other(|_| {})),
        (
            "the credentials were removed",
            0,
            other(|config| {
                config.secrets = vec![Secret::new(*b"another secret")];
                config.users.retain(|user| user.name == "bob");
            }),
        ),
        (
            "the passwords were changed",
            4000,
            other(|config| {
                let again =
                    |user: StaticUser| StaticUser { password: Password::Plain(Secret::new(*b"new")), ..user };
                config.users = std::mem::take(&mut config.users).into_iter().map(again).collect();
            }),
        ),
        ("another realm", 0, other(|config| config.realm = "example.net".into())),
        (
            "another offer",
            0,
            other(|config| {
                let password = Password::Md5Key([1; 16]);
                config.users.push(StaticUser { name: "dave".into(), password, allocations: 0 });
            }),
        ),
    ];
    for (what, age, after) in changes {
        for mut client in [Client::new(A), Client::new(A).named(&name, &password)] {
            let mut world = World::new(config(), with_secret.clone());
            client.refresh(&mut world, 0);
            let request = client.request(Method::Allocate, |request| {
                request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                request.u32(attribute::LIFETIME, 3600);
            });
            let first = world.ask(&client.tuple, &request);
            assert_eq!(first.code(), 0);
            world.now.unix += age;
            let limits = AllocationLimits { allocations: 1, ..AllocationLimits::default() };
            world.apply(TurnConfig { limits, ..config() }, after.clone());
            world.pass(0);
            assert_eq!(world.ask(&client.tuple, &request).0, first.0, "{what}");
            world.pass(100);
            let again = world.ask(&client.tuple, &request);
            assert_eq!((again.relayed(), again.lifetime()), (first.relayed(), Some(3500)), "{what}");
            // Its integrity is checked
            let mut forged = request.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert!([401, 438].contains(&world.ask(&client.tuple, &forged).code()), "{what}");
            assert_eq!((world.opened.len(), world.closed.len()), (1, 0));
            // A new Allocate is not a retransmission, and authentication comes first
            let new =
                client.request(Method::Allocate, |r| r.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
            let code = world.ask(&client.tuple, &new).code();
            assert!([401, 437, 438].contains(&code), "{what}: {code}");
            assert_eq!(world.opened.len(), 1);
        }
    }
}

/// RFC 8489 §6.3.1: the other requests are idempotent. A retransmission that comes while clients send some, 40 s, gets the
/// same response although the nonce has aged; a new request gets a 438.
#[test]
fn other_retransmissions_outlive_the_nonce() {
    type Fill = fn(&mut Encoder);
    let fills: [(Method, Fill); 3] = [
        (Method::Refresh, |request| request.u32(attribute::LIFETIME, 900)),
        (Method::CreatePermission, |request| request.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEER))),
        (Method::ChannelBind, |request| {
            request.u32(attribute::CHANNEL_NUMBER, 0x4000 << 16);
            request.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEER));
        }),
    ];
    let mut world = World::default();
    let mut client = world.allocated(A);
    let requests = fills.map(|(method, fill)| client.request(method, fill));
    let first: Vec<_> = requests.iter().map(|request| world.ask(&client.tuple, request).0).collect();
    assert!(first.iter().all(|answer| Reply(answer.clone()).code() == 0));
    world.now.unix += 4000;
    world.pass(39);
    for (request, first) in requests.iter().zip(&first) {
        assert_eq!(world.ask(&client.tuple, request).0, *first);
    }
    let new = client.request(Method::Refresh, |_| {});
    assert_eq!(world.ask(&client.tuple, &new).code(), 438);
    // Another user's request with the same transaction id
    let mut other = Client { next_id: 2, ..client.clone().named("bob", "builder") };
    let stolen = other.request(Method::Refresh, |_| {});
    assert_eq!(world.ask(&client.tuple, &stolen).code(), 438);
    world.pass(2);
    for request in &requests {
        assert_eq!(world.ask(&client.tuple, request).code(), 438);
    }
}

/// RFC 8656 §7.2, 2., §5: an Allocate of another user on a 5-tuple with an allocation, or with a pending one, is a mismatch,
/// also with the owner's transaction id; other requests are 441 where there is an allocation, and a mismatch where not.
#[test]
fn an_allocate_of_another_user_is_a_mismatch() {
    let allocate = |client: &mut Client, id| {
        client.next_id = id;
        client.request(Method::Allocate, |r| r.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]))
    };
    for hold in [false, true] {
        let mut world = World::default();
        let mut owner = Client::new(A);
        owner.refresh(&mut world, 0);
        let mut other = owner.clone().named("bob", "builder");
        world.hold = hold;
        let first = allocate(&mut owner, 50);
        assert_eq!(world.deliver(&owner.tuple, &first), None);
        world.replies.clear();
        for id in [50, 60] {
            let request = allocate(&mut other, id);
            let answer = world.ask(&owner.tuple, &request);
            assert_eq!(
                (answer.code(), answer.message().verify_sha1(&other.key())),
                (437, true),
                "{id} {hold}"
            );
        }
        assert_eq!(other.refresh(&mut world, 0).code(), if hold { 437 } else { 441 });
        assert_eq!(other.bind(&mut world, 0x4000, PEER).code(), if hold { 437 } else { 441 });
    }
}

/// RFC 8489 §6.3.1: a retransmission of a pending request asks nothing again.
#[test]
fn retransmissions_while_pending() {
    let mut world = World { hold: true, ..World::default() };
    let mut client = Client::new(A);
    world.hold = false;
    client.allocate(&mut world, |_| {});
    client.refresh(&mut world, 0);
    world.hold = true;
    let request =
        client.request(Method::Allocate, |r| r.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
    world.ignores(&client.tuple, &request);
    world.ignores(&client.tuple, &request);
    assert_eq!(world.asked.len(), 1);
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let Ask::OpenRelay(RelayRequest { near, .. }) = &ask else { panic!("{ask:?}") };
    assert_eq!(near[0], client.tuple.server.ip(), "the address that the client came in by is preferred");
    let answer = world.open(&ask);
    world.server.answered(world.now, ticket, answer);
    world.drain();
    let answer = Reply(world.replies.pop_front().unwrap().1);
    assert_eq!(answer.code(), 0);
    assert_eq!(world.ask(&client.tuple, &request).0, answer.0);
}

/// RFC 8656 §5: a request that comes while the Allocate before it is still pending finds no allocation. The datapath answers
/// its questions at once, so this happens only where an answer takes time.
#[test]
fn requests_before_a_late_answer_find_no_allocation() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.refresh(&mut world, 0);
    world.hold = true;
    let request =
        client.request(Method::Allocate, |r| r.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
    world.ignores(&client.tuple, &request);
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 437);
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 437, "another Allocate");
    world.pass(4);
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let answer = world.open(&ask);
    world.server.answered(world.now, ticket, answer);
    world.drain();
    assert_eq!(Reply(world.replies.pop_front().unwrap().1).lifetime(), Some(600));
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    world.pass(599);
    assert_eq!(world.sockets.len(), 1, "its time began with the answer");
    world.pass(1);
    world.assert_empty();
}

/// RFC 8656 §7.2, 508: an unanswered question times out, and sockets that are opened too late are closed again.
#[test]
fn pending_requests_time_out() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.allocate(&mut world, |_| {});
    client.refresh(&mut world, 0);
    world.hold = true;
    let request =
        client.request(Method::Allocate, |r| r.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
    world.ignores(&client.tuple, &request);
    world.pass(5);
    assert_eq!(Reply(world.replies.pop_front().unwrap().1).code(), 508);
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let answer = world.open(&ask);
    assert!(matches!(answer, Answer::Opened { .. }));
    world.server.answered(world.now, ticket, answer);
    world.drain();
    world.assert_empty();
}

/// RFC 8656 §5: without an allocation, requests are a mismatch and data is dropped.
#[test]
fn without_an_allocation() {
    let mut world = World::default();
    let mut client = Client::new(A);
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    assert_eq!(client.permit(&mut world, &[PRIVATE]).code(), 437);
    assert_eq!(client.bind(&mut world, 0x4000, PRIVATE).code(), 437);
    assert_eq!(client.send(&mut world, PRIVATE, b"x"), None);
    assert_eq!(client.channel_data(&mut world, 0x4000, b"x"), None);
    assert!(world.replies.is_empty());
}

/// RFC 8656 §7.2: lifetimes do not depend on the wall clock, which only judges credentials.
#[test]
fn a_clock_that_jumps_ends_nothing() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    world.now.unix = START + 10_000_000;
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    world.now.unix = START - 10_000_000;
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
}
