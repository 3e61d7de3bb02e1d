//! LiveKit's webhooks: who has joined, who has left.
//!
//! A webhook is a POST with a JWT in `Authorization` that has the hash of its body, so it is believed only if LiveKit has signed just
//! that, and only once: an event whose id was seen while its token is valid is refused with 409. LiveKit repeats an event only if
//! the response is lost or a 5xx.
//!
//! The HTTP server passes in the two headers and the body, of at most [`BODY_MAX`] bytes; [`Refused`] has the status of the
//! response. Bodies have secrets (`turnPassword`) and personal data: they are never logged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::token::{Keys, TokenError};

/// The most bytes of a body: an event has a room and a participant, both with metadata.
pub const BODY_MAX: usize = 1 << 20;

/// The most events that are remembered: those of five minutes.
const SEEN: usize = 100_000;

/// Verifies webhooks.
pub struct Webhooks {
    keys: Keys,
    seen: Arc<Mutex<Seen>>,
}

/// Events that were accepted.
#[derive(Default)]
struct Seen {
    /// Until when their tokens are accepted, in Unix seconds, by a hash of their id, which is as long as its sender likes.
    events: HashMap<[u8; 16], u64>,
    /// When those that are over were forgotten last.
    pruned: u64,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A participant can send and receive media.
    Joined(Session),
    /// A participant has left, or has never connected.
    Left(Session, Departure),
    /// A room is closed.
    Finished {
        /// Its name.
        room: String,
        /// When, by LiveKit's clock in Unix seconds.
        at: u64,
    },
    /// Something else, which is no concern of the sidecar.
    Other,
}

/// A participant's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The name of the room.
    pub room: String,
    /// Its id, `PA_...`.
    pub sid: String,
    /// The participant's identity.
    pub identity: String,
    /// When it has joined, by LiveKit's clock in Unix seconds; 0 if the event does not say.
    pub joined: u64,
    /// The time of the event by LiveKit's clock, in Unix seconds; 0 if it has none.
    pub at: u64,
}

/// How a participant has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// By its own decision or that of the application, or for a reason that LiveKit does not tell.
    Final,
    /// The connection was lost, or LiveKit asks it to come back: its client may be about to join again.
    Lost,
    /// Another session of the same identity has replaced it.
    Replaced,
    /// Its room is closed or deleted, and so everybody else has left it.
    Closed,
    /// LiveKit is shut down, or moves it to another node: all of the room are about to join again.
    Shutdown,
}

/// Why a webhook is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no token.
    #[error("there is no token in Authorization; only LiveKit itself may send this")]
    NoToken,
    /// The token does not prove that LiveKit has sent this.
    #[error("its token cannot be used: {0}")]
    Token(#[from] TokenError),
    /// The body is no webhook.
    #[error("a webhook has the Content-Type application/webhook+json")]
    ContentType,
    /// The body cannot be read.
    #[error("the body is not an event of LiveKit")]
    Malformed,
    /// It was accepted before.
    #[error("this event was received before")]
    Repeated,
    /// The table is full.
    #[error("too many events within the life of their tokens; send it again later")]
    Busy,
}

impl Refused {
    /// The status of the response. LiveKit sends an event again after a 5xx, and not after others.
    pub fn status(self) -> u16 {
        match self {
            Refused::NoToken | Refused::Token(_) => 401,
            Refused::ContentType => 415,
            Refused::Malformed => 400,
            Refused::Repeated => 409,
            Refused::Busy => 503,
        }
    }

    /// A word for programs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Refused::NoToken => "no_token",
            Refused::Token(error) => error.code(),
            Refused::ContentType => "unsupported_media_type",
            Refused::Malformed => "malformed",
            Refused::Repeated => "repeated",
            Refused::Busy => "busy",
        }
    }
}

impl Webhooks {
    /// Webhooks of a deployment with these keys.
    pub fn new(keys: Keys) -> Webhooks {
        Webhooks { keys, seen: Arc::default() }
    }

    /// The same with other keys.
    pub fn with_keys(&self, keys: Keys) -> Webhooks {
        Webhooks { keys, seen: self.seen.clone() }
    }

    /// Whether the header `Authorization` has the token of a webhook. Nobody else may send a long body.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn may_send(&self, authorization: Option<&str>, unix: u64) -> Result<(), Refused> {
        self.keys.webhook(token(authorization)?, unix)?;
        Ok(())
    }

    /// The event of a webhook, given its headers `Authorization` and `Content-Type`, its body, and the time in Unix seconds.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn receive(
        &self,
        authorization: Option<&str>,
        content_type: Option<&str>,
        body: &[u8],
        unix: u64,
    ) -> Result<Event, Refused> {
        let token = token(authorization)?;
        let until = self.keys.webhook_of(token, body, unix)?;
        let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !["application/webhook+json", "application/json"].iter().any(|one| one.eq_ignore_ascii_case(kind))
        {
            return Err(Refused::ContentType);
        }
        // serde takes an array for a structure, too.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Refused::Malformed);
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| Refused::Malformed)?;
        let id = body.id.clone();
        let event = body.event()?;
        // Without an id, the token is the event's name: its body is the same.
        let id = if id.is_empty() { token } else { &id };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).note(id, until, unix)?;
        Ok(event)
    }
}

/// The token of a header.
fn token(authorization: Option<&str>) -> Result<&str, Refused> {
    let token = authorization.map(str::trim).filter(|token| !token.is_empty()).ok_or(Refused::NoToken)?;
    // LiveKit sends the token alone; proxies and tests may write it as usual.
    Ok(match token.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token.trim(),
        _ => token,
    })
}

impl Seen {
    fn note(&mut self, id: &str, until: u64, unix: u64) -> Result<(), Refused> {
        let mut key = [0; 16];
        key.copy_from_slice(&Sha256::digest(id)[..16]);
        if self.events.get(&key).is_some_and(|until| *until >= unix) {
            return Err(Refused::Repeated);
        }
        // Forgetting costs a walk over the table, so it is done at most once per second.
        if self.events.len() >= SEEN && self.pruned != unix {
            self.events.retain(|_, until| *until >= unix);
            self.pruned = unix;
        }
        if self.events.len() >= SEEN && !self.events.contains_key(&key) {
            return Err(Refused::Busy);
        }
        self.events.insert(key, until);
        Ok(())
    }
}

/// An event as protojson writes it, in camelCase; other writers of protobuf's JSON use snake_case.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    event: String,
    #[serde(default)]
    id: String,
    #[serde(default, alias = "created_at")]
    created_at: Option<Word>,
    #[serde(default)]
    room: Option<Named>,
    #[serde(default)]
    participant: Option<Participant>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Participant {
    #[serde(default)]
    sid: String,
    #[serde(default)]
    identity: String,
    #[serde(default, alias = "joined_at")]
    joined_at: Option<Word>,
    #[serde(default, alias = "disconnect_reason")]
    disconnect_reason: Option<Word>,
}

/// A 64-bit number, which protojson writes as text, or an enum, which is a name or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Number(u64),
    Text(String),
}

impl Body {
    fn event(self) -> Result<Event, Refused> {
        let at = seconds(self.created_at.as_ref())?;
        let room = self.room.map(|room| room.name).unwrap_or_default();
        let known =
            ["participant_joined", "participant_left", "participant_connection_aborted", "room_finished"];
        if !known.contains(&self.event.as_str()) {
            return Ok(Event::Other);
        }
        if room.is_empty() {
            return Err(Refused::Malformed);
        }
        if self.event == "room_finished" {
            return Ok(Event::Finished { room, at });
        }
        let Participant { sid, identity, joined_at, disconnect_reason } =
            self.participant.ok_or(Refused::Malformed)?;
        if sid.is_empty() {
            return Err(Refused::Malformed);
        }
        let joined = seconds(joined_at.as_ref())?;
        let session = Session { room, sid, identity, joined, at };
        match self.event.as_str() {
            "participant_joined" => Ok(Event::Joined(session)),
            _ => Ok(Event::Left(session, departure(disconnect_reason.as_ref()))),
        }
    }
}

/// A time; 0 if there is none.
fn seconds(word: Option<&Word>) -> Result<u64, Refused> {
    match word {
        Some(Word::Number(seconds)) => Ok(*seconds),
        Some(Word::Text(text)) => text.parse().map_err(|_| Refused::Malformed),
        None => Ok(0),
    }
}

/// What a reason says (`DisconnectReason` in livekit_models.proto).
fn departure(reason: Option<&Word>) -> Departure {
    let name = match reason {
        Some(Word::Text(name)) => name.as_str(),
        Some(Word::Number(2)) => "DUPLICATE_IDENTITY",
        Some(Word::Number(3)) => "SERVER_SHUTDOWN",
        Some(Word::Number(5)) => "ROOM_DELETED",
        Some(Word::Number(6)) => "STATE_MISMATCH",
        Some(Word::Number(8)) => "MIGRATION",
        Some(Word::Number(9)) => "SIGNAL_CLOSE",
        Some(Word::Number(10)) => "ROOM_CLOSED",
        Some(Word::Number(14)) => "CONNECTION_TIMEOUT",
        Some(Word::Number(15)) => "MEDIA_FAILURE",
        _ => "",
    };
    match name {
        "DUPLICATE_IDENTITY" => Departure::Replaced,
        "ROOM_DELETED" | "ROOM_CLOSED" => Departure::Closed,
        "SERVER_SHUTDOWN" | "MIGRATION" => Departure::Shutdown,
        "STATE_MISMATCH" | "SIGNAL_CLOSE" | "CONNECTION_TIMEOUT" | "MEDIA_FAILURE" => Departure::Lost,
        _ => Departure::Final,
    }
}

#[cfg(test)]
pub(in crate::livekit) mod tests;
