//! Who asks for ICE servers: a participant with its own token for LiveKit, or a backend with a token of the sidecar.

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use jsonwebtoken::dangerous::insecure_decode_claims;
use serde::Deserialize;

use super::response::Failure;
use crate::admin::times::shown;
use crate::config::tokens::Tokens;
use crate::livekit::token::{Keys, Participant, TokenError};

/// The most bytes of a token: what it costs to refuse one has a bound, too.
const TOKEN: usize = 16 << 10;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A participant, for itself.
    Participant(Participant),
    /// A backend, for anybody.
    Backend,
}

/// When a token is valid. Its signature has been verified before these are looked at.
#[derive(Deserialize)]
struct Times {
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Caller {
    /// Its name in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Caller::Participant(_) => "participant",
            Caller::Backend => "backend",
        }
    }

    /// Finds out who sends these headers at `unix`.
    pub fn identify(headers: &HeaderMap, tokens: &Tokens, keys: &Keys, unix: u64) -> Result<Caller, Failure> {
        let Some(presented) = bearer(headers) else {
            let message = "send the participant's access token, or a token of http.tokens_file, with the header \
                           Authorization: Bearer TOKEN";
            return Err(Failure::unauthorized("unauthorized", message));
        };
        if presented.len() > TOKEN {
            let message = format!("the token has more than {TOKEN} bytes");
            return Err(Failure::unauthorized(TokenError::Malformed.code(), message));
        }
        if tokens.find(presented.as_bytes()).is_some() {
            return Ok(Caller::Backend);
        }
        keys.participant(presented, unix)
            .map(Caller::Participant)
            .map_err(|error| refusal(error, presented, unix))
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 section 2.1); the scheme is case-insensitive (RFC 9110 section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_at_checked(7)?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("Bearer ") && !token.is_empty()).then_some(token)
}

/// What whoever has sent the token reads.
fn refusal(error: TokenError, token: &str, unix: u64) -> Failure {
    let times = || insecure_decode_claims::<Times>(token).unwrap_or(Times { exp: None, nbf: None });
    let clocks = "compare the clocks of the machines";
    let message = match error {
        TokenError::Malformed => "the token is neither an access token of LiveKit (a JWT that is signed with HS256) nor one of \
                                  http.tokens_file"
            .to_owned(),
        TokenError::UnknownKey => {
            "the token was made with an API key that the sidecar does not have; add its pair to the file of API keys \
             (livekit.keys_file), or make tokens with a key that is there"
                .to_owned()
        }
        TokenError::BadSignature => {
            "the token was signed with another secret than the one that the sidecar has for its API key; compare the pair with \
             LiveKit's keys"
                .to_owned()
        }
        TokenError::Expired => match times().exp.map(|exp| exp as u64).and_then(|exp| unix.checked_sub(exp)) {
            Some(ago) => format!(
                "the token expired {} ago; make a new one, or if it is new, {clocks}",
                shown(ago)
            ),
            None => "the token has no expiry (exp); make one that expires".to_owned(),
        },
        TokenError::NotYetValid => {
            let wait = times().nbf.map_or(0, |nbf| (nbf as u64).saturating_sub(unix));
            format!("the token becomes valid in {}; {clocks}", shown(wait))
        }
        TokenError::NoJoin => {
            "the token does not let a participant join a room; it needs the grant roomJoin".to_owned()
        }
        TokenError::NoRoom => "the token names no room (video.room); make it for one room".to_owned(),
        TokenError::NoIdentity => "the token names no participant; set its identity (sub)".to_owned(),
        TokenError::OtherBody => format!("the token is not for this: {error}"),
    };
    match error {
        TokenError::NoJoin | TokenError::NoRoom | TokenError::NoIdentity | TokenError::OtherBody => {
            Failure::new(StatusCode::FORBIDDEN, error.code(), message)
        }
        TokenError::Malformed
        | TokenError::UnknownKey
        | TokenError::BadSignature
        | TokenError::Expired
        | TokenError::NotYetValid => Failure::unauthorized(error.code(), message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::livekit::token::tests::{keys, signed};

    const NOW: u64 = 1_800_000_000;
    const BACKEND: &str = "0123456789abcdef0123456789abcdef";

    fn identify(authorization: Option<&str>) -> Result<Caller, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let tokens = Tokens::in_file(format!("app:read:{BACKEND}\n").as_bytes()).0;
        Caller::identify(&headers, &tokens, &keys(), NOW)
    }

    fn with(change: impl FnOnce(&mut Value)) -> Result<Caller, Failure> {
        let mut claims = json!({ "sub": "ada", "nbf": NOW, "exp": NOW + 60, "video": { "roomJoin": true, "room": "math" } });
        change(&mut claims);
        identify(Some(&format!("Bearer {}", signed("APITestKey", &claims))))
    }

    #[test]
    fn a_participant_asks_for_itself_and_a_backend_for_anybody() {
        let Ok(Caller::Participant(found)) = with(|_| ()) else { panic!() };
        assert_eq!((&*found.room, &*found.identity), ("math", "ada"));
        assert_eq!(identify(Some(&format!("bearer {BACKEND}"))), Ok(Caller::Backend));
    }

    #[test]
    fn without_a_token_the_header_is_named() {
        for header in [None, Some("Bearer"), Some("Bearer "), Some("Basic YTpi"), Some(BACKEND)] {
            let failure = identify(header).unwrap_err();
            assert_eq!((failure.status.as_u16(), failure.code), (401, "unauthorized"), "{header:?}");
            assert!(failure.message.contains("Authorization: Bearer TOKEN"));
        }
    }

    /// One clear sentence for each mistake, and never a part of the token.
    #[test]
    fn each_mistake_has_its_sentence() {
        let foreign = {
            let mut token = signed("APITestKey", &json!({ "sub": "ada", "exp": NOW + 60 }));
            token.replace_range(token.len() - 4.., "AAAA");
            identify(Some(&format!("Bearer {token}")))
        };
        let unknown = {
            let mut headers = HeaderMap::new();
            let token = signed("APITestKey", &json!({ "exp": NOW + 60 }));
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            Caller::identify(&headers, &Tokens::default(), &Keys::default(), NOW)
        };
        for (outcome, status, code, said) in [
            (with(|claims| claims["exp"] = json!(NOW - 312)), 401, "expired", "expired 5m 12s ago"),
            (with(|claims| claims["exp"] = Value::Null), 401, "expired", "has no expiry"),
            (with(|claims| claims["nbf"] = json!(NOW + 90)), 401, "not_yet_valid", "becomes valid in 1m 30s"),
            (
                with(|claims| claims["video"]["roomJoin"] = json!(false)),
                403,
                "no_room_join",
                "the grant roomJoin",
            ),
            (with(|claims| claims["video"]["room"] = json!("")), 403, "no_room", "names no room"),
            (with(|claims| claims["sub"] = json!("")), 403, "no_identity", "set its identity"),
            (foreign, 401, "bad_signature", "signed with another secret"),
            (unknown, 401, "unknown_key", "an API key that the sidecar does not have"),
            (identify(Some("Bearer wrong-token-of-a-backend")), 401, "malformed_token", "http.tokens_file"),
            (
                identify(Some(&format!("Bearer {}", "x".repeat(TOKEN + 1)))),
                401,
                "malformed_token",
                "more than",
            ),
        ] {
            let failure = outcome.unwrap_err();
            assert_eq!((failure.status.as_u16(), failure.code), (status, code));
            assert!(failure.message.contains(said), "{}", failure.message);
            assert!(
                !failure.message.contains("eyJ") && !failure.message.contains("wrong-token"),
                "{}",
                failure.message
            );
        }
    }
}
