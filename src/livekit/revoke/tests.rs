//! Revocations on their way to a relay that comes and goes.

use std::path::Path;

use prometheus::Registry;
use serde_json::json;
use tokio::task::JoinHandle;

use super::super::fakes::{self, eventually};
use super::super::rooms::UserKind;
use super::*;
use crate::auth::Secret;

/// A sidecar with one relay.
struct Pushing {
    revoker: Arc<Revoker>,
    relay: Arc<Relay>,
    tags: Arc<Tags>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn pushing(socket: &Path) -> Pushing {
    let relay = fakes::relay_at(socket.to_owned());
    let metrics = Arc::new(LifecycleMetrics::new(&Registry::new()));
    let revoker =
        Arc::new(Revoker::new(std::slice::from_ref(&relay), Arc::default(), metrics, Instant::now()));
    let tags = Arc::new(Tags::new(&Secret::new("a shared secret for these tests")));
    let (watched, pushed, known) = (relay.clone(), revoker.clone(), tags.clone());
    let tasks = vec![
        tokio::spawn(async move { watched.watch().await }),
        tokio::spawn(async move { pushed.serve(0, &known).await }),
    ];
    Pushing { revoker, relay, tags, tasks }
}

fn order(user: &str, until: u64) -> Order {
    Order { user: user.into(), kind: UserKind::Sid, until, since: Duration::ZERO }
}

fn page(metrics: &LifecycleMetrics, outcome: RevocationOutcome) -> u64 {
    metrics.revocations_of(UserKind::Sid, outcome)
}

#[tokio::test]
async fn revocations_arrive_in_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let fake = fakes::relay(&socket, "one");
    let pushing = pushing(&socket);
    let later = unix_now() + 1000;
    for n in 0..50 {
        pushing.revoker.push(order(&format!("PA_{n:02}"), later));
    }
    pushing.revoker.push(order("PA_past", unix_now() - 1));
    eventually("all have arrived", || fake.revoked().len() == 50).await;
    let arrived: Vec<_> = fake
        .revoked()
        .into_iter()
        .map(|(user, until)| {
            assert_eq!(until, later);
            user[3..].parse::<usize>().unwrap()
        })
        .collect();
    // A few are under way at the same time.
    assert!(
        arrived.iter().enumerate().all(|(place, n)| place.abs_diff(*n) < place::IN_FLIGHT),
        "{arrived:?}"
    );
    let metrics = &pushing.revoker.metrics;
    eventually("all are confirmed", || page(metrics, RevocationOutcome::Confirmed) == 50).await;
    assert_eq!(metrics.revocation_seconds.get_sample_count(), 50);
}

/// A relay that does not answer gets them when it does; one that was restarted gets all of them again, for it may have lost them.
#[tokio::test]
async fn a_relay_that_was_away_gets_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let pushing = pushing(&socket);
    let later = unix_now() + 1000;
    pushing.revoker.push(order("PA_1", later));
    pushing.revoker.push(order("PA_2", later));
    pushing.revoker.push(order("PA_1", later + 5));
    let fake = fakes::relay(&socket, "one");
    eventually("they arrive", || fake.revoked().len() == 2).await;
    drop(fake);
    std::fs::remove_file(&socket).unwrap();
    pushing.revoker.push(order("PA_3", later));
    let fake = fakes::relay(&socket, "two");
    eventually("they arrive again", || fake.revoked().len() >= 3).await;
    let mut arrived = fake.revoked();
    arrived.sort();
    arrived.dedup();
    let expected = [("PA_1", later + 5), ("PA_2", later), ("PA_3", later)];
    assert_eq!(arrived, expected.map(|(user, until)| (user.to_owned(), until)));
    let metrics = &pushing.revoker.metrics;
    eventually("each counts once", || page(metrics, RevocationOutcome::Confirmed) == 3).await;
    assert_eq!(metrics.revocation_seconds.get_sample_count(), 3);
}

#[tokio::test]
async fn what_a_relay_refuses_holds_up_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let fake = fakes::relay(&socket, "one");
    fake.answer(|asked| match asked.body["user"] == "PA_bad" {
        true => (409, json!({ "error": { "code": "refused", "message": "no" } }).to_string()),
        false => fakes::relay_answer("one", asked),
    });
    let pushing = pushing(&socket);
    for user in ["PA_bad", "PA_1", "PA_2", "PA_3", "PA_4", "PA_5"] {
        pushing.revoker.push(order(user, unix_now() + 1000));
    }
    let metrics = &pushing.revoker.metrics;
    eventually("the others arrive", || page(metrics, RevocationOutcome::Confirmed) == 5).await;
    eventually("it is given up", || page(metrics, RevocationOutcome::Refused) == 1).await;
    assert_eq!(fake.revoked().iter().filter(|(user, _)| user == "PA_bad").count(), usize::from(REFUSALS));
}

/// A thread of the relay that does not respond may have allocations of the user.
#[tokio::test]
async fn a_revocation_is_repeated_until_every_thread_of_the_relay_has_carried_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let fake = fakes::relay(&socket, "one");
    let mut silent = 8;
    fake.answer(move |asked| match asked.body.is_object() && silent > 0 {
        true => {
            silent -= 1;
            (200, json!({ "ended": 0, "silent_workers": [1] }).to_string())
        }
        false => fakes::relay_answer("one", asked),
    });
    let pushing = pushing(&socket);
    pushing.revoker.push(order("PA_1", unix_now() + 1000));
    let metrics = &pushing.revoker.metrics;
    eventually("it is confirmed", || page(metrics, RevocationOutcome::Confirmed) == 1).await;
    assert_eq!(fake.revoked().len(), 9);
}

/// A reload: what was pushed is not pushed again, what was under way is, and what comes later follows.
#[tokio::test]
async fn a_renewed_sidecar_goes_on_where_the_former_one_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let fake = fakes::relay(&socket, "one");
    let mut pushing = pushing(&socket);
    pushing.revoker.push(order("PA_1", unix_now() + 1000));
    let metrics = pushing.revoker.metrics.clone();
    eventually("it is confirmed", || page(&metrics, RevocationOutcome::Confirmed) == 1).await;
    pushing.tasks.drain(..).for_each(|task| task.abort());
    pushing.revoker.push(order("PA_2", unix_now() + 1000));
    assert!(pushing.revoker.take(&pushing.revoker.relays[0].1).is_some(), "it is under way");
    let relay = fakes::relay_at(socket);
    let relays = [relay.clone(), fakes::relay_at("/nowhere".into())];
    let renewed = Arc::new(pushing.revoker.with_relays(&relays, Arc::default(), metrics.clone()));
    renewed.push(order("PA_3", unix_now() + 1000));
    let (watched, pushed, tags) = (relay.clone(), renewed.clone(), pushing.tags.clone());
    pushing.tasks.push(tokio::spawn(async move { watched.watch().await }));
    pushing.tasks.push(tokio::spawn(async move { pushed.serve(0, &tags).await }));
    eventually("all are confirmed", || page(&metrics, RevocationOutcome::Confirmed) == 3).await;
    let mut users: Vec<_> = fake.revoked().into_iter().map(|(user, _)| user).collect();
    users.sort();
    assert_eq!(users, ["PA_1", "PA_2", "PA_3"]);
    assert!(relay.is_usable());
}

/// A thread of the relay hangs, and the relay refuses one: neither holds up what comes later.
#[tokio::test]
async fn what_fails_again_and_again_delays_nothing_that_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let fake = fakes::relay(&socket, "one");
    fake.answer(|asked| match asked.body["user"].as_str() {
        Some(user) if user.starts_with("PA_silent") => {
            (200, json!({ "ended": 0, "silent_workers": [1] }).to_string())
        }
        _ => fakes::relay_answer("one", asked),
    });
    let pushing = pushing(&socket);
    for n in 0..20 {
        pushing.revoker.push(order(&format!("PA_silent{n}"), unix_now() + 1000));
    }
    let metrics = &pushing.revoker.metrics;
    eventually("they are repeated", || fake.revoked().len() > 60).await;
    for n in 0..10 {
        pushing.revoker.push(order(&format!("PA_{n}"), unix_now() + 1000));
        eventually("it is confirmed", || page(metrics, RevocationOutcome::Confirmed) == n + 1).await;
    }
    let pending = metrics.pending.with_label_values(&["a-relay"]);
    eventually("the others are counted", || pending.get() == 20).await;
}

/// The gauge tells how many wait for a relay that is away.
#[tokio::test]
async fn pending_revocations_are_counted_while_a_relay_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let pushing = pushing(&folder.path().join("relay"));
    let pending = pushing.revoker.metrics.pending.with_label_values(&["a-relay"]);
    for n in 1..4 {
        pushing.revoker.push(order(&format!("PA_{n}"), unix_now() + 1000));
        eventually("it is counted", || pending.get() == n).await;
    }
}

/// The sidecar is restarted before a relay has confirmed a revocation.
#[tokio::test]
async fn what_was_kept_arrives_after_a_restart_of_the_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let fake = fakes::relay(&socket, "one");
    let later = unix_now() + 1000;
    let first = pushing(&socket);
    first.revoker.push(order("PA_1", later));
    first.revoker.push(order("PA_2", later));
    let metrics = first.revoker.metrics.clone();
    eventually("they are confirmed", || page(&metrics, RevocationOutcome::Confirmed) == 2).await;
    assert!(first.revoker.take_changed() && !first.revoker.take_changed());
    drop(fake);
    std::fs::remove_file(&socket).unwrap();
    first.revoker.push(order("PA_3", later));
    let kept = first.revoker.kept();
    let kept: Vec<_> = kept.iter().map(|(user, kind, until, done)| (&**user, *kind, *until, *done)).collect();
    let expected = [("PA_1", true), ("PA_2", true), ("PA_3", false)];
    assert_eq!(kept, expected.map(|(user, done)| (user, UserKind::Sid, later, done)));
    let kept = first.revoker.kept();
    drop(first);
    let fake = fakes::relay(&socket, "one");
    // It has forgotten PA_2.
    fake.answer(move |asked| match asked.path.as_str() {
        "/v1/revocations?limit=1000&cursor=PA_" => {
            let known =
                json!({ "user": "PA_1", "since": "2026-12-01T08:00:00Z", "until": "2036-01-01T00:00:00Z" });
            (200, json!({ "revocations": [known], "next": null }).to_string())
        }
        _ => fakes::relay_answer("one", asked),
    });
    let relay = fakes::relay_at(socket);
    let metrics = Arc::new(LifecycleMetrics::new(&Registry::new()));
    let revoker =
        Arc::new(Revoker::new(std::slice::from_ref(&relay), Arc::default(), metrics, Instant::now()));
    revoker.push(order("PA_4", later));
    revoker.restore(&kept);
    let (pushed, tags) =
        (revoker.clone(), Arc::new(Tags::new(&Secret::new("a shared secret for these tests"))));
    let tasks = [
        tokio::spawn(async move { relay.watch().await }),
        tokio::spawn(async move { pushed.serve(0, &tags).await }),
    ];
    eventually("they have arrived", || fake.revoked().len() == 3).await;
    assert_eq!(
        fake.revoked().iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>(),
        ["PA_3", "PA_4", "PA_2"]
    );
    // The relay has counted them before the sidecar has read its answers.
    eventually("both are confirmed", || page(&revoker.metrics, RevocationOutcome::Confirmed) == 2).await;
    tasks.iter().for_each(JoinHandle::abort);
}

/// The sidecar was restarted: what a relay has revoked before is known before a credential is issued for it.
#[tokio::test]
async fn tags_that_a_relay_has_revoked_are_read_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relay");
    let fake = fakes::relay(&socket, "one");
    let until = |user: &str| json!({ "user": user, "since": "2026-12-01T08:00:00Z", "until": "2036-01-01T00:00:00Z" });
    let mut failures = 2;
    fake.answer(move |asked| {
        let answer = match asked.path.as_str() {
            path if path.starts_with("/v1/revocations") && failures > 0 => {
                failures -= 1;
                return (503, json!({ "error": { "code": "unavailable", "message": "no" } }).to_string());
            }
            "/v1/revocations?limit=1000&cursor=lk-" => {
                json!({ "revocations": [until("lk-a")], "next": "lk-a" })
            }
            "/v1/revocations?limit=1000&cursor=lk-a" => {
                let fixed = json!({ "user": "lk-static", "since": "2026-12-01T08:00:00Z", "until": null });
                json!({ "revocations": [until("lk-b"), fixed, until("mallory")], "next": "mallory" })
            }
            path if path.starts_with("/v1/revocations") => panic!("{path} is not needed"),
            _ => return fakes::relay_answer("one", asked),
        };
        (200, answer.to_string())
    });
    let pushing = pushing(&socket);
    eventually("the relay has answered", || pushing.relay.state().status.is_some()).await;
    assert!(!pushing.relay.is_usable());
    eventually("its tags are known", || pushing.relay.is_usable()).await;
    let known = unix_time("2036-01-01T00:00:00Z").unwrap() + 1;
    let expiry = |tag| pushing.tags.expiry(tag, 1000, 60);
    assert_eq!((expiry("lk-a"), expiry("lk-b"), expiry("lk-static")), (known, known, 1061));
}

/// The bound: the oldest ones, which relays have long since, make room.
#[test]
fn a_full_queue_drops_the_oldest() {
    let mut queue = Queue::default();
    for n in 0..5 {
        assert_eq!(queue.push(order(&n.to_string(), 100 + n), 5), None);
    }
    assert_eq!(queue.push(order("3", 50), 5), None, "a known user needs no room, and keeps the later time");
    assert_eq!(queue.push(order("more", 200), 5), Some((0, UserKind::Sid)));
    let users: Vec<_> = queue.revocations.values().map(|one| (&*one.user, one.until)).collect();
    assert_eq!(users, [("1", 101), ("2", 102), ("4", 104), ("3", 103), ("more", 200)]);
    assert_eq!((queue.end(), queue.users.len()), (7, 5));
    assert_eq!(
        (queue.number("1", 101), queue.number("1", 100), queue.number("0", 101)),
        (Some(1), None, None)
    );
    queue.prune(103);
    assert_eq!((queue.revocations.len(), queue.users.len()), (2, 2));
}
