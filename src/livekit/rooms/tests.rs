//! Stories of rooms: who leaves, what LiveKit tells of it, and what is revoked.

use super::*;

const TTL: u64 = 14_400;

/// The story begins at this Unix time.
const START: u64 = 1_800_000_000;

/// A deployment as the sidecar sees it: its own clock, events and lists of one room.
struct Story {
    rooms: Rooms,
    millis: u64,
}

impl Story {
    fn new() -> Story {
        Story { rooms: Rooms::new(TTL), millis: 1000 }
    }

    fn moment(&self) -> Moment {
        Moment { now: Duration::from_millis(self.millis), unix: START + self.millis / 1000 }
    }

    fn pass(&mut self, millis: u64) {
        self.millis += millis;
    }

    fn joined(&mut self, sid: &str, tag: &str) {
        self.rooms.joined(self.moment(), seat(sid, tag));
    }

    /// A session leaves now.
    fn left(&mut self, sid: &str, tag: &str, how: Departure) {
        self.left_at(sid, tag, how, self.moment().unix);
    }

    fn left_at(&mut self, sid: &str, tag: &str, how: Departure, at: u64) {
        self.rooms.left(self.moment(), seat(sid, tag), (None, at), how);
    }

    /// Whether a list is asked for now, and if so, what it answers.
    fn asked(&mut self, answer: Option<&[(&str, &str)]>) -> bool {
        let asked = self.moment();
        if self.rooms.asks(asked.now, 1).is_empty() {
            return false;
        }
        self.pass(5);
        match answer {
            Some(list) => self.rooms.listed(self.moment(), asked, "a-room", list),
            None => self.rooms.failed("a-room"),
        }
        true
    }

    /// The list that is compared every few seconds, whether something waits for it or not.
    fn compared(&mut self, list: &[(&str, &str)]) {
        self.pass(5000);
        let asked = self.moment();
        assert!(self.rooms.begin(asked.now, "a-room"));
        self.pass(5);
        self.rooms.listed(self.moment(), asked, "a-room", list);
    }

    fn orders(&mut self) -> Vec<(String, u64)> {
        std::iter::from_fn(|| self.rooms.order()).map(|order| (order.user.to_string(), order.until)).collect()
    }

    /// The users that are revoked.
    fn revoked(&mut self) -> Vec<String> {
        self.orders().into_iter().map(|(user, _)| user).collect()
    }
}

fn seat<'a>(sid: &'a str, tag: &'a str) -> Seat<'a> {
    Seat { room: "a-room", sid, tag }
}

const NOBODY: [&str; 0] = [];

#[test]
fn a_session_that_has_left_is_revoked_at_once_and_its_tag_when_a_list_lacks_the_participant() {
    for how in [Departure::Final, Departure::Lost] {
        let mut story = Story::new();
        story.joined("PA_1", "lk-a");
        story.joined("PA_2", "lk-b");
        story.pass(60_000);
        story.left("PA_1", "lk-a", how);
        let at = story.moment().unix;
        assert_eq!(story.orders(), [("PA_1".into(), at + DAY + AHEAD)]);
        if how == Departure::Lost {
            assert!(!story.asked(None), "it may be about to come back");
            story.pass(2000);
        }
        assert!(story.asked(Some(&[("PA_2", "lk-b")])));
        assert_eq!(story.orders(), [("lk-a".into(), at + TTL)]);
        assert!(!story.asked(None) && story.rooms.next().is_none(), "nothing is left to do");
    }
}

#[test]
fn a_session_of_longer_credentials_is_revoked_for_longer() {
    let mut rooms = Rooms::new(3 * DAY);
    let moment = Moment { now: Duration::from_secs(1), unix: START };
    rooms.left(moment, seat("PA_1", ""), (None, START), Departure::Final);
    assert_eq!(rooms.order().unwrap().until, START + 3 * DAY + AHEAD);
    assert!(rooms.asks(moment.now, 9).is_empty(), "a participant without an identity has no tag");
}

/// The sidecar was started later, or the event of the join was lost.
#[test]
fn a_session_that_was_never_seen_is_revoked_when_it_leaves() {
    let mut story = Story::new();
    story.left("PA_1", "lk-a", Departure::Final);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_1", "lk-a"], "the event is explicit, so an empty list confirms it");
    assert_eq!(story.rooms.held(), 0);
}

/// A signal reconnect keeps the sid: LiveKit sends no event, and lists go on to have it.
#[test]
fn a_resume_revokes_nothing() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    for _ in 0..10 {
        story.compared(&[("PA_1", "lk-a")]);
        story.joined("PA_1", "lk-a");
    }
    assert_eq!(story.revoked(), NOBODY);
}

#[test]
fn a_tag_is_not_revoked_while_another_session_of_it_is_there() {
    // Known from the list
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.left("PA_1", "lk-a", Departure::Final);
    assert!(story.asked(Some(&[("PA_2", "lk-a")])));
    assert_eq!(story.revoked(), ["PA_1"]);
    // Known from an event, while LiveKit's list lacks it
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.joined("PA_2", "lk-a");
    story.left("PA_1", "lk-a", Departure::Final);
    assert!(story.asked(Some(&[("PA_3", "lk-b")])));
    assert_eq!(story.revoked(), ["PA_1"]);
}

/// DUPLICATE_IDENTITY: the new session's credential was fetched before the old one left, and for a moment no list has it.
#[test]
fn a_session_that_replaces_another_is_not_hurt() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.left("PA_1", "lk-a", Departure::Replaced);
    assert!(!story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_1"]);
    story.joined("PA_2", "lk-a");
    story.pass(60_000);
    story.left("PA_2", "lk-a", Departure::Final);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_2", "lk-a"], "its own end counts");
}

/// A full reconnect after a failed resume: between the two sessions no list has the participant.
#[test]
fn a_client_that_comes_back_at_once_is_not_hurt() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.left("PA_1", "lk-a", Departure::Lost);
    story.pass(1500);
    assert!(!story.asked(Some(&[])));
    story.pass(500);
    assert!(story.asked(Some(&[("PA_2", "lk-a")])));
    assert_eq!(story.revoked(), ["PA_1"]);
}

/// The page was loaded again and has fetched its credential after the event, and before the event was delivered.
#[test]
fn a_page_reload_is_not_hurt_by_an_event_that_is_late() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.pass(60_000);
    let left = story.moment().unix;
    story.pass(4000);
    let issued = story.moment().unix + TTL + 1;
    story.left_at("PA_1", "lk-a", Departure::Final, left);
    assert!(story.asked(Some(&[])));
    let tag = story.orders().pop().unwrap();
    assert_eq!(tag, ("lk-a".into(), left + TTL));
    assert!(tag.1 < issued);
}

/// Times have whole seconds: a credential that is issued in the second of the event belongs to whoever has left only if LiveKit says
/// that it has joined in this second, too.
#[test]
fn a_participant_that_stays_for_less_than_a_second_is_revoked_as_well() {
    let left = START + 1;
    for (joined, more) in [(None, 0), (Some(left), 1), (Some(left - 1), 0)] {
        let mut story = Story::new();
        story.rooms.left(story.moment(), seat("PA_1", "lk-a"), (joined, left), Departure::Final);
        story.asked(Some(&[]));
        assert_eq!(story.orders()[1], ("lk-a".into(), left + TTL + more), "{joined:?}");
    }
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.rooms.left(story.moment(), seat("PA_1", "lk-a"), (Some(left - 1), left), Departure::Final);
    story.asked(Some(&[]));
    assert_eq!(story.orders()[1], ("lk-a".into(), left + TTL), "the earlier time counts");
    // Seen first in the second in which it leaves, which does not say when it has joined
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.left("PA_1", "lk-a", Departure::Final);
    story.asked(Some(&[]));
    assert_eq!(story.orders()[1], ("lk-a".into(), left + TTL));
}

/// LiveKit is stopped and started: its events say that all have left, its first list is empty, and the clients come back one after the
/// other, with the credentials that they have.
#[test]
fn a_shutdown_of_livekit_revokes_sessions_and_no_tag_of_those_who_come_back() {
    let mut story = Story::new();
    for (sid, tag) in [("PA_1", "lk-a"), ("PA_2", "lk-b"), ("PA_3", "lk-c")] {
        story.joined(sid, tag);
        story.pass(1000);
        story.left(sid, tag, Departure::Shutdown);
    }
    let at = story.moment().unix;
    assert!(!story.asked(None), "no list can decide it now");
    assert_eq!(story.revoked(), ["PA_1", "PA_2", "PA_3"]);
    for _ in 0..20 {
        story.compared(&[]);
    }
    story.compared(&[("PA_11", "lk-a")]);
    story.compared(&[("PA_11", "lk-a"), ("PA_12", "lk-b")]);
    assert_eq!(story.revoked(), NOBODY);
    for _ in 0..6 {
        story.compared(&[("PA_11", "lk-a"), ("PA_12", "lk-b")]);
    }
    assert_eq!(
        story.orders(),
        [("lk-c".into(), at + TTL)],
        "it has not come back, and the others are settled"
    );
}

#[test]
fn whoever_leaves_after_it_has_come_back_from_a_shutdown_is_revoked() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.left("PA_1", "lk-a", Departure::Shutdown);
    story.pass(10_000);
    story.joined("PA_11", "lk-a");
    story.left("PA_11", "lk-a", Departure::Final);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_1", "PA_11", "lk-a"], "this event is explicit");
    // A room that ends because of the shutdown
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.joined("PA_2", "lk-b");
    story.left("PA_1", "lk-a", Departure::Shutdown);
    story.pass(1000);
    story.rooms.finished(story.moment(), "a-room", story.moment().unix);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_1", "PA_2"]);
}

/// What was issued before a reload has shortened `credentials.ttl` is valid for longer.
#[test]
fn a_shorter_ttl_shortens_no_revocation_of_what_was_issued_before() {
    let mut story = Story::new();
    story.pass(60_000);
    let reload = story.moment().unix;
    story.rooms.set_ttl(60, reload);
    story.pass(10_000);
    story.left("PA_1", "lk-a", Departure::Final);
    story.asked(Some(&[]));
    assert_eq!(story.orders()[1], ("lk-a".into(), reload + TTL));
}

/// The first shared secret was replaced: allocations may have the tag of the former one.
#[test]
fn every_tag_of_a_participant_is_revoked() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-older");
    story.joined("PA_1", "lk-new lk-old");
    story.left("PA_1", "lk-new lk-old", Departure::Final);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_1", "lk-new", "lk-old", "lk-older"]);
    // Lost while the sidecar was restarted with another secret: it is there with another session.
    let mut story = Story::new();
    story.rooms.restore(seat("PA_2", "lk-old"), START);
    for _ in 0..3 {
        story.compared(&[("PA_3", "lk-new lk-old")]);
    }
    assert_eq!(story.revoked(), ["PA_2"]);
}

/// A reload gives up lists that are under way.
#[test]
fn a_list_that_a_reload_has_given_up_is_asked_for_again_at_once() {
    let mut story = Story::new();
    story.left("PA_1", "lk-a", Departure::Final);
    assert_eq!(story.rooms.asks(story.moment().now, 1).len(), 1);
    story.rooms.abandon();
    story.pass(1000);
    assert!(story.asked(Some(&[])));
}

#[test]
fn a_tag_is_never_revoked_beyond_the_time_of_receipt() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.pass(5000);
    let receipt = story.moment().unix;
    story.left_at("PA_1", "lk-a", Departure::Final, receipt + 500);
    story.asked(Some(&[]));
    assert_eq!(story.orders()[1], ("lk-a".into(), receipt + TTL));
}

/// Every credential that the event could revoke has expired.
#[test]
fn an_event_from_long_ago_revokes_no_tag() {
    let mut story = Story::new();
    story.left_at("PA_1", "lk-a", Departure::Final, START - TTL - 60);
    story.asked(Some(&[]));
    assert_eq!(story.revoked(), ["PA_1"]);
}

#[test]
fn a_list_that_fails_says_nothing_and_is_asked_for_again() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.left("PA_1", "lk-a", Departure::Final);
    let mut attempts = 0;
    for _ in 0..60 {
        attempts += usize::from(story.asked(None));
        story.pass(500);
    }
    assert!((5..=12).contains(&attempts), "{attempts} attempts in 30 s");
    assert_eq!(story.revoked(), ["PA_1"], "a failed answer never means that all are gone");
    story.pass(10_000);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["lk-a"]);
}

/// Whoever joined while a list was under way is not in it, and whoever left meanwhile still is.
#[test]
fn only_a_list_that_was_asked_for_after_the_event_decides() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    let asked = story.moment();
    assert!(story.rooms.begin(asked.now, "a-room"));
    story.pass(10);
    story.left("PA_1", "lk-a", Departure::Final);
    assert!(!story.asked(Some(&[])), "one at a time");
    story.pass(10);
    story.rooms.listed(story.moment(), asked, "a-room", &[("PA_1", "lk-a")]);
    assert_eq!(story.revoked(), ["PA_1"]);
    story.pass(1000);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["lk-a"]);
}

#[test]
fn a_room_is_listed_once_a_second_at_the_most() {
    let mut story = Story::new();
    let mut lists = 0;
    for n in 0..100 {
        story.left(&format!("PA_{n}"), &format!("lk-{n}"), Departure::Final);
        lists += usize::from(story.asked(Some(&[])));
        story.pass(50);
    }
    assert!((4..=6).contains(&lists), "{lists} lists in 5 s");
    story.pass(1000);
    story.asked(Some(&[]));
    assert_eq!(story.revoked().len(), 200, "one list decides for all who have left");
}

/// A reload gives up what is under way.
#[test]
fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
    let mut story = Story::new();
    story.left("PA_1", "lk-a", Departure::Final);
    assert_eq!(story.rooms.asks(story.moment().now, 1).len(), 1);
    story.pass(10_000);
    assert!(!story.asked(None));
    story.pass(5000);
    assert_eq!(story.rooms.next(), Some(story.moment().now));
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_1", "lk-a"]);
}

#[test]
fn events_in_the_wrong_order_do_not_bring_a_session_back() {
    let mut story = Story::new();
    story.left("PA_1", "lk-a", Departure::Final);
    story.joined("PA_1", "lk-a");
    assert!(story.asked(Some(&[("PA_1", "lk-a")])), "an old list has it, too");
    assert_eq!(story.revoked(), ["PA_1", "lk-a"]);
    assert_eq!(story.rooms.held(), 0);
}

/// The event of the old session arrives when the new one is there already.
#[test]
fn an_old_event_after_a_new_join_revokes_the_old_session_alone() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.pass(10_000);
    story.joined("PA_2", "lk-a");
    story.left_at("PA_1", "lk-a", Departure::Final, START + 2);
    assert!(story.asked(Some(&[("PA_2", "lk-a")])));
    assert_eq!(story.revoked(), ["PA_1"]);
}

#[test]
fn an_event_that_comes_twice_revokes_once() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.left("PA_1", "lk-a", Departure::Final);
    story.left("PA_1", "lk-a", Departure::Final);
    story.asked(Some(&[]));
    assert_eq!(story.revoked(), ["PA_1", "lk-a"]);
}

/// Webhooks lost: two lists in a row lack a session that was there, and others are in them.
#[test]
fn a_session_whose_event_was_lost_is_found_by_two_lists() {
    let mut story = Story::new();
    story.compared(&[("PA_1", "lk-a"), ("PA_2", "lk-b")]);
    let seen = story.moment().unix;
    story.compared(&[("PA_2", "lk-b")]);
    assert_eq!(story.revoked(), NOBODY, "one list is not enough");
    story.pass(1500);
    assert!(
        story.asked(Some(&[("PA_2", "lk-b")])),
        "it is confirmed without waiting for the next comparison"
    );
    let orders = story.orders();
    assert_eq!(orders.iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>(), ["PA_1", "lk-a"]);
    assert_eq!(orders[1].1, seen + TTL, "credentials that were issued since it was seen stay valid");
    story.left("PA_1", "lk-a", Departure::Final);
    assert_eq!(story.revoked(), NOBODY, "the event comes after all");
}

#[test]
fn an_empty_list_never_means_that_all_are_gone() {
    let mut story = Story::new();
    story.compared(&[("PA_1", "lk-a"), ("PA_2", "lk-b")]);
    for _ in 0..100 {
        story.compared(&[]);
    }
    assert_eq!(story.revoked(), NOBODY);
    // Nor is it one of two lists in a row.
    story.compared(&[("PA_2", "lk-b")]);
    story.compared(&[]);
    story.compared(&[("PA_2", "lk-b")]);
    assert_eq!(story.revoked(), NOBODY);
    story.pass(1500);
    story.asked(Some(&[("PA_2", "lk-b")]));
    assert_eq!(story.revoked(), ["PA_1", "lk-a"]);
}

#[test]
fn a_session_that_is_in_a_list_again_was_never_gone() {
    let mut story = Story::new();
    story.compared(&[("PA_1", "lk-a"), ("PA_2", "lk-b")]);
    for _ in 0..5 {
        story.compared(&[("PA_2", "lk-b")]);
        story.compared(&[("PA_1", "lk-a"), ("PA_2", "lk-b")]);
    }
    assert_eq!(story.revoked(), NOBODY);
}

/// A list that was asked for before a session joined lacks it.
#[test]
fn a_session_that_joins_during_a_list_is_not_missing_in_it() {
    let mut story = Story::new();
    story.compared(&[("PA_2", "lk-b")]);
    for _ in 0..5 {
        story.pass(5000);
        let asked = story.moment();
        assert!(story.rooms.begin(asked.now, "a-room"));
        story.pass(10);
        story.joined("PA_1", "lk-a");
        story.rooms.listed(story.moment(), asked, "a-room", &[("PA_2", "lk-b")]);
    }
    assert_eq!(story.revoked(), NOBODY);
}

/// LiveKit restarts: its lists are empty first, then clients come back one after the other with new sessions, and with the
/// credentials that they have.
#[test]
fn participants_that_come_back_to_a_restarted_livekit_are_not_hurt() {
    let mut story = Story::new();
    story.compared(&[("PA_1", "lk-a"), ("PA_2", "lk-b"), ("PA_3", "lk-c")]);
    for _ in 0..3 {
        story.compared(&[]);
    }
    story.compared(&[("PA_11", "lk-a")]);
    story.compared(&[("PA_11", "lk-a")]);
    story.compared(&[("PA_11", "lk-a"), ("PA_12", "lk-b")]);
    let mut revoked = story.revoked();
    revoked.sort();
    assert_eq!(revoked, ["PA_1", "PA_2", "PA_3"], "the old sessions are over, but no tag is revoked");
    story.compared(&[("PA_11", "lk-a"), ("PA_12", "lk-b"), ("PA_13", "lk-c")]);
    assert_eq!(story.revoked(), NOBODY);
}

/// LiveKit's list has one entry per identity, which the end of an older session may remove although a newer one is there.
#[test]
fn a_session_whose_entry_another_one_has_removed_is_not_missing() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.joined("PA_9", "lk-z");
    story.pass(5000);
    story.joined("PA_2", "lk-a");
    story.left("PA_1", "lk-a", Departure::Replaced);
    for _ in 0..20 {
        story.compared(&[("PA_9", "lk-z")]);
    }
    assert_eq!(story.revoked(), ["PA_1"]);
    story.compared(&[("PA_2", "lk-a"), ("PA_9", "lk-z")]);
    story.compared(&[("PA_9", "lk-z")]);
    story.compared(&[("PA_9", "lk-z")]);
    assert_eq!(story.revoked(), ["PA_2", "lk-a"], "it was there again, and then it was not");
}

/// The events of a lost session and of the participant's next one: the tag is revoked up to the later of them.
#[test]
fn a_tag_that_a_lost_session_keeps_is_revoked_up_to_the_end_of_the_last_one() {
    let mut story = Story::new();
    story.compared(&[("PA_1", "lk-a"), ("PA_9", "lk-z")]);
    story.pass(30_000);
    story.joined("PA_2", "lk-a");
    story.pass(30_000);
    story.left("PA_2", "lk-a", Departure::Final);
    let at = story.moment().unix;
    assert!(story.asked(Some(&[("PA_9", "lk-z")])));
    assert_eq!(story.revoked(), ["PA_2"], "PA_1 is not known to have left");
    story.pass(1500);
    assert!(story.asked(Some(&[("PA_9", "lk-z")])));
    assert_eq!(story.orders()[1], ("lk-a".into(), at + TTL));
}

#[test]
fn a_room_that_is_closed_ends_the_sessions_that_a_list_lacks() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.joined("PA_2", "lk-b");
    story.pass(60_000);
    let at = story.moment().unix;
    // A room of the same name is opened before the event comes.
    story.pass(3000);
    story.joined("PA_3", "lk-b");
    story.rooms.finished(story.moment(), "a-room", at);
    assert_eq!(story.revoked(), NOBODY, "the event may be about an older room of this name");
    assert!(!story.asked(None) || story.revoked() == NOBODY);
    story.pass(2000);
    assert!(story.asked(Some(&[("PA_3", "lk-b")])));
    let mut orders = story.orders();
    orders.sort();
    let sid = story.moment().unix + DAY + AHEAD;
    let expected = [("PA_1".into(), sid), ("PA_2".into(), sid), ("lk-a".into(), at + TTL)];
    assert_eq!(orders, expected, "lk-b is there in the new room");
    story.rooms.finished(story.moment(), "another-room", at);
    assert!(!story.asked(None));
}

/// The last participant's event is lost, and the room is closed.
#[test]
fn a_closed_room_needs_no_other_participants() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.pass(5000);
    story.rooms.finished(story.moment(), "a-room", story.moment().unix);
    assert!(story.asked(Some(&[])));
    assert_eq!(story.revoked(), ["PA_1", "lk-a"]);
}

/// LiveKit drops events when many leave at once, also the one that says that the room has ended.
#[test]
fn whoever_leaves_because_the_room_has_ended_speaks_for_all() {
    let mut story = Story::new();
    for n in 1..=3 {
        story.joined(&format!("PA_{n}"), &format!("lk-{n}"));
    }
    story.pass(5000);
    story.left("PA_1", "lk-1", Departure::Closed);
    assert_eq!(story.revoked(), ["PA_1"]);
    assert!(story.asked(Some(&[])));
    let mut revoked = story.revoked();
    revoked.sort();
    assert_eq!(revoked, ["PA_2", "PA_3", "lk-1", "lk-2", "lk-3"]);
}

/// What was kept while the sidecar was down.
#[test]
fn who_left_while_the_sidecar_was_down_is_found() {
    let mut story = Story::new();
    story.rooms.restore(seat("PA_1", "lk-a"), START - 100);
    story.rooms.restore(seat("PA_2", "lk-b"), START - 100);
    assert!(!story.rooms.take_changed());
    story.compared(&[("PA_2", "lk-b")]);
    assert_eq!(story.revoked(), NOBODY);
    story.pass(1500);
    story.asked(Some(&[("PA_2", "lk-b")]));
    let orders = story.orders();
    assert_eq!(orders[0].0, "PA_1");
    assert_eq!(orders[1], ("lk-a".into(), START - 100 + TTL));
    assert!(story.rooms.take_changed() && !story.rooms.take_changed());
}

/// An allocation outlives the credential that it was made with.
#[test]
fn who_was_seen_last_long_before_it_was_lost_is_revoked_all_the_same() {
    let mut story = Story::new();
    story.rooms.restore(seat("PA_1", "lk-a"), START - 2 * DAY);
    story.rooms.restore(seat("PA_2", "lk-b"), START - 2 * DAY);
    story.rooms.prune(story.moment());
    story.compared(&[("PA_2", "lk-b")]);
    story.pass(1500);
    story.asked(Some(&[("PA_2", "lk-b")]));
    assert_eq!(story.orders()[1], ("lk-a".into(), story.moment().unix + 1));
}

#[test]
fn rooms_are_apart() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    let other = Seat { room: "another-room", ..seat("PA_2", "lk-a2") };
    story.rooms.joined(story.moment(), other);
    story.rooms.left(story.moment(), other, (None, START), Departure::Final);
    assert_eq!(story.rooms.asks(story.moment().now, 9), [Box::<str>::from("another-room")]);
    let moment = story.moment();
    story.rooms.listed(moment, moment, "another-room", &[]);
    assert_eq!(story.revoked(), ["PA_2", "lk-a2"]);
    assert_eq!(story.rooms.names(), [Box::<str>::from("a-room")]);
}

/// The bound: what is beyond it is counted, sessions that leave are revoked all the same, and room is made by those who leave.
#[test]
fn a_full_table_counts_what_it_does_not_follow() {
    let mut story = Story::new();
    for n in 0..MOST {
        story.joined(&format!("PA_{n}"), "lk-a");
    }
    story.joined("PA_more", "lk-b");
    story.left("PA_other", "lk-c", Departure::Final);
    assert_eq!((story.rooms.held(), story.rooms.shed()), (MOST, 2));
    assert_eq!(story.revoked(), ["PA_other"]);
    story.left("PA_1", "lk-a", Departure::Replaced);
    story.joined("PA_more", "lk-b");
    assert_eq!((story.rooms.held(), story.rooms.shed()), (MOST, 2));
}

#[test]
fn who_was_not_seen_for_longer_than_credentials_last_is_forgotten() {
    let mut story = Story::new();
    story.joined("PA_1", "lk-a");
    story.pass(DAY * 1000);
    story.rooms.prune(story.moment());
    assert_eq!(story.rooms.held(), 1);
    story.pass(2000);
    story.rooms.prune(story.moment());
    assert_eq!((story.rooms.held(), story.rooms.names().len()), (0, 0));
}

/// Orders tell when their event happened, as far as the time of receipt and that of the event do.
#[test]
fn a_late_event_counts_from_its_own_time() {
    let mut story = Story::new();
    story.pass(20_000);
    story.left_at("PA_1", "lk-a", Departure::Final, story.moment().unix - 10);
    assert_eq!(story.rooms.order().unwrap().since, story.moment().now - Duration::from_secs(9));
    story.left("PA_2", "lk-b", Departure::Final);
    assert_eq!(story.rooms.order().unwrap().since, story.moment().now);
}
