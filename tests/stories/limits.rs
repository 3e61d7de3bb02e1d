//! Limits of the server's tables, each reached.

use hairpin::auth::{AuthConfig, Secret, time_limited_password};
use hairpin::turn::bucket::{Rate, Rates};
use hairpin::turn::stats::Dropped;
use hairpin::turn::{AllocationLimits, ExemptSources, TurnConfig};
use hairpin::wire::{Method, attribute};

use crate::world::{Client, World, config, credentials};

fn with(limits: AllocationLimits) -> World {
    World::new(TurnConfig { limits, ..config() }, credentials())
}

fn client(port: u16) -> Client {
    Client::new(&format!("198.51.100.1:{port}"))
}

/// RFC 8656 §7.2: 508 when the table of allocations is full.
#[test]
fn allocations() {
    let mut world = with(AllocationLimits { allocations: 3, ..AllocationLimits::default() });
    let mut clients: Vec<Client> = (1..=4).map(client).collect();
    let codes: Vec<u16> =
        clients.iter_mut().map(|client| client.allocate(&mut world, |_| {}).code()).collect();
    assert_eq!(codes, [0, 0, 0, 508]);
    clients[0].refresh(&mut world, 0);
    assert_eq!(clients[3].allocate(&mut world, |_| {}).code(), 0);
}

/// RFC 8656 §7.2: 508 when too many requests are pending.
#[test]
fn pending_requests() {
    let mut world = with(AllocationLimits { pending: 2, ..AllocationLimits::default() });
    let mut clients: Vec<Client> = (1..=3).map(client).collect();
    for client in &mut clients {
        // Learns its nonce
        client.allocate(&mut world, |_| {});
        client.refresh(&mut world, 0);
    }
    world.hold = true;
    for client in &mut clients[..2] {
        let request =
            client.request(Method::Allocate, |r| r.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
        world.ignores(&client.tuple, &request);
    }
    assert_eq!(clients[2].allocate(&mut world, |_| {}).code(), 508);
    world.pass(5);
    assert_eq!(world.replies.drain(..).count(), 2);
    world.hold = false;
    assert_eq!(clients[2].allocate(&mut world, |_| {}).code(), 0);
}

/// A thousand allocations come and go and leave nothing behind.
#[test]
fn churn_leaves_nothing() {
    let mut world = World::default();
    for round in 0..10 {
        for port in 1..=100 {
            let mut client = client(port);
            assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
            client.permit(&mut world, &["8.8.8.8:1", "8.8.4.4:1"]);
            client.bind(&mut world, 0x4000, "8.8.8.8:1");
            if (port + round) % 3 == 0 {
                client.refresh(&mut world, 0);
            }
        }
        world.pass(600);
        world.assert_empty();
    }
    assert_eq!(world.server.stats().allocations_total, 1000);
}

/// RFC 8656 §5: data beyond an allocation's bandwidth is dropped, each direction by itself; requests never are.
#[test]
fn bandwidth() {
    let mut world = with(AllocationLimits { bandwidth: 10_000, ..AllocationLimits::default() });
    let mut client = world.allocated("198.51.100.1:1");
    client.permit(&mut world, &["8.8.8.8:1"]);
    client.bind(&mut world, 0x4000, "8.8.8.8:2");
    let data = [0; 1000];
    let sent = |world: &mut World, client: &mut Client| {
        let channel = (0..8).filter(|_| client.channel_data(world, 0x4000, &data).is_some()).count();
        channel + (0..8).filter(|_| client.send(world, "8.8.8.8:1", &data).is_some()).count()
    };
    let heard = |world: &mut World, client: &Client| {
        (0..16).filter(|_| world.peer_sends(client.relay(), "8.8.8.8:1", &data).is_some()).count()
    };
    assert_eq!((sent(&mut world, &mut client), heard(&mut world, &client)), (10, 10));
    assert_eq!(world.server.stats().dropped(Dropped::Bandwidth), 12);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    world.pass(1);
    assert_eq!((sent(&mut world, &mut client), heard(&mut world, &client)), (10, 10));
    // Other allocations are not affected
    let mut other = world.allocated("198.51.100.1:2");
    other.bind(&mut world, 0x4000, "8.8.8.8:2");
    assert!(other.channel_data(&mut world, 0x4000, &data).is_some());
}

/// RFC 8656 §7.2, 12.: new allocations are rated per user, and where many clients share the name, per user and source. A
/// 5-tuple that holds an allocation is never affected.
#[test]
fn new_allocations() {
    let secret = || Secret::new(*b"a shared secret");
    let credentials = AuthConfig { secrets: vec![secret()], ..credentials() };
    let new_allocations = Rate { burst: 10, per_second: 3 };
    let exempt = ExemptSources::new(&["198.51.100.9".parse().unwrap()]);
    let rates = Rates { new_allocations, exempt, ..Rates::default() };
    let mut world = World::with_rates(config(), credentials, rates);
    let mut port = 1000;
    let mut opens = |world: &mut World, ip: &str, user: &str, password: &str| {
        let mut open = || {
            port += 1;
            let mut client = Client::new(&format!("{ip}:{port}")).named(user, password);
            match client.allocate(world, |_| {}).code() {
                0 => Some(client),
                code => {
                    assert_eq!(code, 486);
                    let fix = &world.refused.last().unwrap().fix;
                    assert_eq!(fix.to_string(), "raise limits.new_allocations_rate");
                    None
                }
            }
        };
        std::iter::from_fn(&mut open).take(1001).collect::<Vec<Client>>()
    };
    let person = |name: &str| (name.to_owned(), time_limited_password(secret().as_bytes(), name));
    let (carol, password) = person("1700009999:carol");
    let mut held = opens(&mut world, "198.51.100.1", &carol, &password);
    assert_eq!(held.len(), 10);
    // The same person from elsewhere, and with another expiry
    assert_eq!(opens(&mut world, "198.51.100.2", &carol, &password).len(), 0);
    let (again, password) = person("1700008888:carol");
    assert_eq!(opens(&mut world, "198.51.100.2", &again, &password).len(), 0);
    // Another person, and names that many share: per source
    let (dave, password) = person("1700009999:dave");
    assert_eq!(opens(&mut world, "198.51.100.2", &dave, &password).len(), 10);
    let (anyone, password) = person("1700009999");
    for (user, password) in [("alice", "wonder"), (&anyone[..], &password[..])] {
        assert_eq!(opens(&mut world, "198.51.100.3", user, password).len(), 10, "{user}");
        assert_eq!(opens(&mut world, "198.51.100.4", user, password).len(), 10, "{user}");
        assert_eq!(opens(&mut world, "198.51.100.9", user, password).len(), 1000, "{user}, exempt");
    }
    // Who has an allocation is not affected
    for client in &mut held {
        assert_eq!(client.refresh(&mut world, 600).code(), 0);
        assert_eq!(client.permit(&mut world, &["8.8.8.8:1"]).code(), 0);
        assert_eq!(client.allocate(&mut world, |_| {}).code(), 437);
    }
    world.pass(1);
    let (carol, password) = person("1700009999:carol");
    let fresh = opens(&mut world, "198.51.100.5", &carol, &password);
    assert_eq!(fresh.len(), 3);
}
