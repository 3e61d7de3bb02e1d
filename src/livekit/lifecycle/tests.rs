//! From an event of LiveKit to a revocation at a relay.

use std::path::Path;

use serde_json::json;
use tokio::task::AbortHandle;

use super::super::fakes::{self, Fake, eventually};
use super::super::reconcile;
use super::super::settings::{LifecycleSettings, LiveKitSettings};
use super::super::webhook::tests::token;
use super::*;
use crate::auth::Secret;
use crate::livekit::metrics::Metrics;

/// A sidecar between a LiveKit server and a relay. It ends when this is dropped.
struct Running {
    lifecycle: Arc<Lifecycle>,
    tags: Arc<Tags>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Starts one, which compares its rooms with LiveKit's lists every so often.
fn run(folder: &Path, livekit: &LiveKitSettings, reconcile: Duration) -> Running {
    let mut settings = Settings { livekit: livekit.clone(), ..Settings::default() };
    settings.lifecycle = LifecycleSettings { state_dir: Some(folder.join("state")), ..settings.lifecycle };
    let relay = fakes::relay_at(folder.join("relay"));
    let tags = Arc::new(Tags::new(&Secret::new("a shared secret for these tests")));
    let shared = Shared {
        server: Arc::new(Server::new(livekit).unwrap()),
        tags: tags.clone(),
        health: Arc::default(),
        metrics: Metrics::new().lifecycle,
    };
    let lifecycle = Arc::new(Lifecycle::new(&settings, std::slice::from_ref(&relay), shared));
    let tasks = vec![
        tokio::spawn(async move { relay.watch().await }).abort_handle(),
        tokio::spawn(lifecycle.clone().work()).abort_handle(),
        tokio::spawn(reconcile::run(lifecycle.clone(), reconcile)).abort_handle(),
    ];
    Running { lifecycle, tags, tasks }
}

const NEVER: Duration = Duration::from_secs(3600);

impl Running {
    fn tell(&self, event: &str, sid: &str, identity: &str) {
        let now = unix_now();
        let body = json!({
            "event": event, "id": format!("EV_{event}_{sid}"), "createdAt": now.to_string(),
            "room": { "name": "a-room" }, "participant": { "sid": sid, "identity": identity },
        });
        let body = body.to_string();
        let token = token(body.as_bytes(), now);
        self.lifecycle.webhook(Some(&token), Some("application/webhook+json"), body.as_bytes()).unwrap();
    }

    fn tag(&self, identity: &str) -> String {
        self.tags.tag("a-room", identity)
    }
}

fn users(fake: &Fake) -> Vec<String> {
    fake.revoked().into_iter().map(|(user, _)| user).collect()
}

#[tokio::test]
async fn a_participant_that_leaves_is_revoked_at_the_relay() {
    let folder = tempfile::tempdir().unwrap();
    let relay = fakes::relay(&folder.path().join("relay"), "one");
    let (livekit, settings) = fakes::livekit(|asked| fakes::lists(asked, &[("PA_2", "bob")])).await;
    let running = run(folder.path(), &settings, NEVER);
    running.tell("participant_joined", "PA_1", "alice");
    running.tell("participant_left", "PA_1", "alice");
    let left = unix_now();
    let tag = running.tag("alice");
    eventually("both have arrived", || users(&relay) == ["PA_1", &tag]).await;
    let until = relay.revoked()[1].1;
    assert!(until >= left + 14_399 && until <= left + 14_401, "{until}");
    // What is issued from now on, even by a clock that is behind, is valid.
    assert!(running.tags.expiry(&tag, left - 1000, 60) > until);
    assert_eq!(
        livekit.asked("/twirp/livekit.RoomService/ListParticipants")[0].body,
        json!({ "room": "a-room" })
    );
}

#[tokio::test]
async fn a_tag_is_revoked_when_livekit_answers_again() {
    let folder = tempfile::tempdir().unwrap();
    let relay = fakes::relay(&folder.path().join("relay"), "one");
    let (livekit, settings) = fakes::livekit(|_| (503, String::new())).await;
    let running = run(folder.path(), &settings, NEVER);
    running.tell("participant_left", "PA_1", "alice");
    eventually("it was asked twice", || livekit.asked("/twirp/livekit.RoomService/ListPart").len() >= 2)
        .await;
    assert_eq!(users(&relay), ["PA_1"]);
    livekit.answer(|asked| fakes::lists(asked, &[]));
    let tag = running.tag("alice");
    eventually("it is revoked", || users(&relay) == ["PA_1", &tag]).await;
}

/// Webhooks are lost.
#[tokio::test]
async fn comparisons_find_who_has_left_and_never_believe_empty_lists() {
    let folder = tempfile::tempdir().unwrap();
    let relay = fakes::relay(&folder.path().join("relay"), "one");
    let (livekit, settings) =
        fakes::livekit(|asked| fakes::lists(asked, &[("PA_1", "alice"), ("PA_2", "bob")])).await;
    let running = run(folder.path(), &settings, Duration::from_millis(1100));
    let held = || running.lifecycle.with_rooms(|rooms| rooms.held());
    let lists = || livekit.asked("/twirp/livekit.RoomService/ListPart").len();
    eventually("both are known", || held() == 2).await;
    livekit.answer(|asked| fakes::lists(asked, &[]));
    let before = lists();
    eventually("the room was empty", || lists() > before + 3).await;
    livekit.answer(|_| (500, String::new()));
    let before = livekit.asked("/twirp/").len();
    eventually("LiveKit has failed", || livekit.asked("/twirp/").len() > before + 3).await;
    assert_eq!((users(&relay).len(), held()), (0, 2));
    livekit.answer(|asked| fakes::lists(asked, &[("PA_2", "bob")]));
    let tag = running.tag("alice");
    eventually("alice has left", || users(&relay) == ["PA_1", &tag]).await;
    assert_eq!(held(), 1);
    assert_eq!(running.lifecycle.shared().metrics.up.get(), 1);
}

/// Who leaves while the sidecar is down is found when it is up again. A file that is damaged keeps nobody from starting.
#[tokio::test]
async fn a_restarted_sidecar_knows_who_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let relay = fakes::relay(&folder.path().join("relay"), "one");
    let (livekit, settings) =
        fakes::livekit(|asked| fakes::lists(asked, &[("PA_1", "alice"), ("PA_2", "bob")])).await;
    let file = folder.path().join("state/participants");
    let running = run(folder.path(), &settings, Duration::from_secs(1));
    eventually("it is kept", || std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == 3))
        .await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("alice"), "no identity is kept: {text}");
    let tag = running.tag("alice");
    let lifecycle = Arc::downgrade(&running.lifecycle);
    drop(running);
    eventually("the lock is released", || lifecycle.strong_count() == 0).await;
    livekit.answer(|asked| fakes::lists(asked, &[("PA_2", "bob")]));
    let running = run(folder.path(), &settings, Duration::from_secs(1));
    eventually("alice has left", || users(&relay) == ["PA_1", &tag]).await;
    let lifecycle = Arc::downgrade(&running.lifecycle);
    drop(running);
    eventually("the lock is released", || lifecycle.strong_count() == 0).await;
    std::fs::write(&file, "damaged").unwrap();
    let running = run(folder.path(), &settings, Duration::from_secs(1));
    eventually("bob is known", || running.lifecycle.with_rooms(|rooms| rooms.held()) == 1).await;
}

/// The relay is away when alice leaves, and the sidecar is stopped before it is back.
#[tokio::test]
async fn what_a_relay_has_not_got_before_a_restart_of_the_sidecar_it_gets_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (_livekit, settings) = fakes::livekit(|asked| fakes::lists(asked, &[])).await;
    let running = run(folder.path(), &settings, NEVER);
    let tag = running.tag("alice");
    running.lifecycle.stop();
    assert!(
        !folder.path().join("state").exists(),
        "what an earlier run has kept is not replaced before it was read"
    );
    eventually("it has started", || running.lifecycle.restored.load(Ordering::Relaxed)).await;
    running.tell("participant_left", "PA_1", "alice");
    eventually("the tag is revoked", || running.lifecycle.revoker.held() == 2).await;
    running.lifecycle.stop();
    let lifecycle = Arc::downgrade(&running.lifecycle);
    drop(running);
    eventually("the lock is released", || lifecycle.strong_count() == 0).await;
    let relay = fakes::relay(&folder.path().join("relay"), "one");
    let running = run(folder.path(), &settings, NEVER);
    eventually("both arrive", || users(&relay) == ["PA_1", &tag]).await;
    let until = relay.revoked()[1].1;
    assert!(running.tags.expiry(&tag, 0, 60) > until, "what is issued now is valid");
    let ends: Vec<_> = relay
        .asked("/v1/revocations")
        .into_iter()
        .filter_map(|asked| asked.body["end"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(ends, ["all", "refused"], "a page with a newer credential of the tag keeps its allocations");
}

#[test]
fn times_of_events_are_by_our_clock() {
    for (at, ahead, expected) in
        [(1000, 0, 1000), (1000, 2500, 997), (1000, -2500, 1002), (1000, 1, 999), (1, 5000, 0)]
    {
        assert_eq!(by_our_clock(at, ahead), expected, "{at} {ahead}");
    }
}
