//! Webhooks of LiveKit, and what is mistaken for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::token::tests::{keys, signed};
use super::*;

const NOW: u64 = 1_800_000_000;

const TYPE: Option<&str> = Some("application/webhook+json");

/// The token of a webhook with this body.
pub fn token(body: &[u8], unix: u64) -> String {
    let hash = STANDARD.encode(Sha256::digest(body));
    signed("APITestKey", &json!({ "nbf": unix, "exp": unix + 300, "sha256": hash }))
}

fn left(id: &str) -> Value {
    json!({
        "event": "participant_left", "id": id, "createdAt": "1800000000",
        "room": { "sid": "RM_x", "name": "a-room", "turnPassword": "secret", "numParticipants": 1 },
        "participant": {
            "sid": "PA_1", "identity": "an-identity", "state": "DISCONNECTED", "joinedAt": "1799999990",
            "disconnectReason": "PARTICIPANT_REMOVED",
        },
    })
}

fn session() -> Session {
    Session {
        room: "a-room".into(),
        sid: "PA_1".into(),
        identity: "an-identity".into(),
        joined: NOW - 10,
        at: NOW,
    }
}

fn received(webhooks: &Webhooks, event: &Value, unix: u64) -> Result<Event, Refused> {
    let body = event.to_string();
    webhooks.receive(Some(&token(body.as_bytes(), unix)), TYPE, body.as_bytes(), unix)
}

#[test]
fn events_are_read_in_both_spellings() {
    let webhooks = Webhooks::new(keys());
    assert_eq!(received(&webhooks, &left("EV_1"), NOW), Ok(Event::Left(session(), Departure::Final)));
    let snake = json!({
        "event": "participant_connection_aborted", "id": "EV_2", "created_at": NOW,
        "room": { "name": "a-room", "turn_password": "secret" },
        "participant": { "sid": "PA_1", "identity": "an-identity", "joined_at": NOW - 10, "disconnect_reason": 14 },
    });
    assert_eq!(received(&webhooks, &snake, NOW), Ok(Event::Left(session(), Departure::Lost)));
    let mut joined = left("EV_3");
    joined["event"] = "participant_joined".into();
    assert_eq!(received(&webhooks, &joined, NOW), Ok(Event::Joined(session())));
    let finished = json!({ "event": "room_finished", "id": "EV_4", "createdAt": NOW.to_string(), "room": { "name": "a-room" } });
    assert_eq!(received(&webhooks, &finished, NOW), Ok(Event::Finished { room: "a-room".into(), at: NOW }));
    for (n, event) in ["room_started", "track_published", "egress_ended", "of_tomorrow"].iter().enumerate() {
        let event = json!({ "event": event, "id": format!("EV_1{n}"), "unknown": [1] });
        assert_eq!(received(&webhooks, &event, NOW), Ok(Event::Other));
    }
}

#[test]
fn the_reason_tells_who_may_come_back() {
    let webhooks = Webhooks::new(keys());
    for (n, (reason, expected)) in [
        (json!("CLIENT_INITIATED"), Departure::Final),
        (json!("DUPLICATE_IDENTITY"), Departure::Replaced),
        (json!(2), Departure::Replaced),
        (json!("STATE_MISMATCH"), Departure::Lost),
        (json!("SERVER_SHUTDOWN"), Departure::Shutdown),
        (json!(8), Departure::Shutdown),
        (json!("CONNECTION_TIMEOUT"), Departure::Lost),
        (json!("A_REASON_OF_TOMORROW"), Departure::Final),
        (Value::Null, Departure::Final),
    ]
    .into_iter()
    .enumerate()
    {
        let mut event = left(&n.to_string());
        event["participant"]["disconnectReason"] = reason;
        assert_eq!(received(&webhooks, &event, NOW), Ok(Event::Left(session(), expected)));
    }
}

#[test]
fn only_livekit_s_signature_of_this_body_is_believed() {
    let webhooks = Webhooks::new(keys());
    let body = left("EV_1").to_string();
    let body = body.as_bytes();
    let good = token(body, NOW);
    let receive = |authorization: Option<&str>, content_type: Option<&str>, body: &[u8]| {
        webhooks.receive(authorization, content_type, body, NOW).unwrap_err()
    };
    assert_eq!(receive(None, TYPE, body), Refused::NoToken);
    assert_eq!(receive(Some("  "), TYPE, body), Refused::NoToken);
    assert_eq!(receive(Some("Basic abc"), TYPE, body), Refused::Token(TokenError::Malformed));
    assert_eq!(receive(Some(&good), TYPE, b"{}"), Refused::Token(TokenError::OtherBody));
    assert_eq!(receive(Some(&good), Some("text/plain"), body), Refused::ContentType);
    assert_eq!(receive(Some(&good), None, body), Refused::ContentType);
    let late = webhooks.receive(Some(&good), TYPE, body, NOW + 400);
    assert_eq!(late, Err(Refused::Token(TokenError::Expired)));
    for body in ["", "[]", "null", r#"{"event": 5}"#, r#"{"event": "participant_left"}"#] {
        let refused = receive(Some(&token(body.as_bytes(), NOW)), TYPE, body.as_bytes());
        assert_eq!(refused, Refused::Malformed, "{body}");
    }
    let participant = signed("APITestKey", &json!({ "exp": NOW + 60, "video": { "roomJoin": true } }));
    let may_send = |authorization| webhooks.may_send(authorization, NOW);
    assert_eq!(may_send(Some(&participant)), Err(Refused::Token(TokenError::OtherBody)));
    assert_eq!((may_send(None), may_send(Some(&good))), (Err(Refused::NoToken), Ok(())));
    // None of these has used up the event's id.
    let bearer = format!("Bearer {good}");
    let accepted = webhooks.receive(Some(&bearer), Some("application/json; charset=utf-8"), body, NOW);
    assert!(accepted.is_ok());
}

#[test]
fn an_event_is_accepted_once_within_the_life_of_its_token() {
    let webhooks = Webhooks::new(keys());
    assert!(received(&webhooks, &left("EV_1"), NOW).is_ok());
    assert_eq!(received(&webhooks, &left("EV_1"), NOW), Err(Refused::Repeated));
    let mut other = left("EV_1");
    other["participant"]["sid"] = "PA_2".into();
    assert_eq!(received(&webhooks, &other, NOW + 299), Err(Refused::Repeated), "the id counts, not the body");
    assert!(received(&webhooks, &left("EV_2"), NOW).is_ok());
    let nameless = left("");
    assert!(received(&webhooks, &nameless, NOW).is_ok());
    assert_eq!(received(&webhooks, &nameless, NOW), Err(Refused::Repeated));
}

/// The bound of the table: what cannot be remembered is refused, so that LiveKit sends it again later.
#[test]
fn a_full_table_refuses_until_tokens_have_expired() {
    let mut seen = Seen::default();
    for n in 0..SEEN {
        assert_eq!(seen.note(&n.to_string(), NOW + (n as u64 % 2) * 10, NOW), Ok(()));
    }
    assert_eq!(seen.note("one more", NOW + 300, NOW), Err(Refused::Busy));
    assert_eq!(seen.note("7", NOW + 300, NOW), Err(Refused::Repeated), "nothing was forgotten for it");
    assert_eq!(seen.note("one more", NOW + 300, NOW + 1), Ok(()));
    assert_eq!((seen.events.len(), Refused::Busy.status()), (SEEN / 2 + 1, 503));
}
