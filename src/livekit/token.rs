//! LiveKit's access tokens: JWTs signed with HS256 and the secret of an API key, which `iss` names. The sidecar makes some for what
//! it asks of LiveKit, and verifies those of participants and of webhooks.
//!
//! Time is passed in. No error contains a token or a part of one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, dangerous, decode, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::settings::ApiKey;

/// How far the clock of whoever made a token may be ahead, in seconds. It is LiveKit's own.
const AHEAD: u64 = 60;

/// For how many seconds a token is still accepted after its expiry.
const EXPIRED_FOR: u64 = 5;

/// For how many seconds the sidecar's own tokens are valid.
const VALID_FOR: u64 = 60;

/// The API keys of a LiveKit deployment.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The first one signs.
    pairs: Vec<ApiKey>,
}

/// Whom a token lets into a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// The room.
    pub room: String,
    /// The participant's identity.
    pub identity: String,
    /// When the token expires, in Unix seconds.
    pub expires: u64,
}

/// What a token of the sidecar is for.
#[derive(Clone, Copy, Debug)]
pub enum Grant<'a> {
    /// Listing rooms.
    Rooms,
    /// Listing and removing participants of this room.
    Room(&'a str),
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is not a JWT, or not signed with HS256.
    #[error("it is not an access token of LiveKit: a JWT that is signed with HS256")]
    Malformed,
    /// No key pair has its `iss`.
    #[error("it names an API key that the sidecar does not have")]
    UnknownKey,
    /// It was signed with another secret.
    #[error("its signature is not that of its API key")]
    BadSignature,
    /// Its time is over, or it has none.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet; compare the clocks of the machines")]
    NotYetValid,
    /// `video.roomJoin` is not set.
    #[error("it does not let anybody join a room (video.roomJoin)")]
    NoJoin,
    /// `video.room` is missing.
    #[error("it names no room (video.room)")]
    NoRoom,
    /// `sub` is missing.
    #[error("it names no participant (sub)")]
    NoIdentity,
    /// The claim `sha256` of a webhook is not that of its body.
    #[error("it was made for another body (sha256)")]
    OtherBody,
}

impl TokenError {
    /// A word for programs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            TokenError::Malformed => "malformed_token",
            TokenError::UnknownKey => "unknown_key",
            TokenError::BadSignature => "bad_signature",
            TokenError::Expired => "expired",
            TokenError::NotYetValid => "not_yet_valid",
            TokenError::NoJoin => "no_room_join",
            TokenError::NoRoom => "no_room",
            TokenError::NoIdentity => "no_identity",
            TokenError::OtherBody => "body_hash",
        }
    }
}

/// The claims that every token has. Their times may have fractions (RFC 7519 §2).
#[derive(Deserialize)]
struct Times {
    exp: Option<f64>,
    nbf: Option<f64>,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

#[derive(Deserialize)]
struct Joining {
    #[serde(flatten)]
    times: Times,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    jti: String,
    #[serde(default)]
    video: Video,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Video {
    room_join: bool,
    room: String,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(flatten)]
    times: Times,
    #[serde(default)]
    sha256: String,
}

#[derive(Serialize)]
struct Service<'a> {
    iss: &'a str,
    nbf: u64,
    exp: u64,
    video: ServiceGrant<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ServiceGrant<'a> {
    #[serde(rename_all = "camelCase")]
    Rooms { room_list: bool },
    #[serde(rename_all = "camelCase")]
    Room { room_admin: bool, room: &'a str },
}

impl Keys {
    /// These key pairs, of which the first one signs.
    pub fn new(pairs: &[ApiKey]) -> Keys {
        Keys { pairs: pairs.to_vec() }
    }

    /// The API key that signs; it is no secret.
    pub fn first(&self) -> &str {
        self.pairs.first().map_or("", |pair| &pair.key)
    }

    /// A token for something that the sidecar asks of LiveKit now.
    ///
    /// # Errors
    /// There is no key pair.
    pub fn service(&self, grant: Grant<'_>, unix: u64) -> Result<String, TokenError> {
        let pair = self.pairs.first().ok_or(TokenError::UnknownKey)?;
        let video = match grant {
            Grant::Rooms => ServiceGrant::Rooms { room_list: true },
            Grant::Room(room) => ServiceGrant::Room { room_admin: true, room },
        };
        // LiveKit's clock may be behind.
        let claims =
            Service { iss: &pair.key, nbf: unix.saturating_sub(AHEAD), exp: unix + VALID_FOR, video };
        let secret = EncodingKey::from_secret(pair.secret.as_bytes()).map_err(|_| TokenError::UnknownKey)?;
        encode(&Header::new(Algorithm::HS256), &claims, &secret).map_err(|_| TokenError::UnknownKey)
    }

    /// Whom a participant's own token lets into a room.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn participant(&self, jwt: &str, unix: u64) -> Result<Participant, TokenError> {
        let claims: Joining = self.verified(jwt)?;
        let expires = claims.times.judge(unix)?;
        if !claims.video.room_join {
            return Err(TokenError::NoJoin);
        }
        // As LiveKit does: an older kind of token has the identity in `jti`.
        let identity = if claims.sub.is_empty() { claims.jti } else { claims.sub };
        match (claims.video.room, identity) {
            (room, _) if room.is_empty() => Err(TokenError::NoRoom),
            (_, identity) if identity.is_empty() => Err(TokenError::NoIdentity),
            (room, identity) => Ok(Participant { room, identity, expires }),
        }
    }

    /// The hash of the body that the token of a webhook was made for, and until when it is accepted, in Unix seconds.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn webhook(&self, jwt: &str, unix: u64) -> Result<(String, u64), TokenError> {
        let claims: Signed = self.verified(jwt)?;
        let expires = claims.times.judge(unix)?;
        match claims.sha256.is_empty() {
            // Tokens of participants are signed with the same keys.
            true => Err(TokenError::OtherBody),
            false => Ok((claims.sha256, expires.saturating_add(EXPIRED_FOR))),
        }
    }

    /// Whether the token of a webhook was made for this body; returns until when it is accepted, in Unix seconds.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn webhook_of(&self, jwt: &str, body: &[u8], unix: u64) -> Result<u64, TokenError> {
        let (hash, until) = self.webhook(jwt, unix)?;
        match hash == STANDARD.encode(Sha256::digest(body)) {
            true => Ok(until),
            false => Err(TokenError::OtherBody),
        }
    }

    /// The claims of a token whose signature is right.
    fn verified<C: DeserializeOwned>(&self, jwt: &str) -> Result<C, TokenError> {
        // The issuer of an unverified token only chooses the secret that it must be signed with.
        let issuer: Issuer = dangerous::insecure_decode_claims(jwt).map_err(|_| TokenError::Malformed)?;
        let pair = self.pairs.iter().find(|pair| pair.key == issuer.iss).ok_or(TokenError::UnknownKey)?;
        let key = DecodingKey::from_secret(pair.secret.as_bytes()).map_err(|_| TokenError::UnknownKey)?;
        // Times are judged by the caller's clock.
        let mut rules = Validation::new(Algorithm::HS256);
        rules.required_spec_claims.clear();
        (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
        let token = decode::<C>(jwt, &key, &rules).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::BadSignature,
            _ => TokenError::Malformed,
        })?;
        Ok(token.claims)
    }
}

impl Times {
    /// When the token expires, if this is its time.
    fn judge(&self, unix: u64) -> Result<u64, TokenError> {
        // A token without an expiry would be valid for ever.
        let expires = self.exp.filter(|exp| *exp >= 0.0).ok_or(TokenError::Expired)? as u64;
        if unix > expires.saturating_add(EXPIRED_FOR) {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf > (unix + AHEAD) as f64) {
            return Err(TokenError::NotYetValid);
        }
        Ok(expires)
    }
}

#[cfg(test)]
pub(in crate::livekit) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::Secret;

    /// `{"iss": "APITestKey", "sub": "an-identity", "nbf": 1800000000, "exp": 1800003600, "video": {"roomJoin": true, "room":
    /// "a-room"}}`, signed by another implementation (Python's hmac).
    const VECTOR: &str = concat!(
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiAiQVBJVGVzdEtleSIsICJzdWIiOiAiYW4taWRlbnRpd",
        "HkiLCAibmJmIjogMTgwMDAwMDAwMCwgImV4cCI6IDE4MDAwMDM2MDAsICJ2aWRlbyI6IHsicm9vbUpvaW4iOiB0cnV",
        "lLCAicm9vbSI6ICJhLXJvb20ifX0.JYCfoKYrjCQ18aWMjzdRN_NuO1FI7QVqQWZZqpUnlQM",
    );

    const NOW: u64 = 1_800_000_000;

    /// Those of the tests.
    pub fn keys() -> Keys {
        let pair = |key: &str, secret: &str| ApiKey { key: key.into(), secret: Secret::new(secret) };
        Keys::new(&[pair("APITestKey", "TestSecret"), pair("APIOther", "another secret")])
    }

    /// A token with these claims, signed for `key`.
    pub fn signed(key: &str, claims: &Value) -> String {
        let keys = keys();
        let pair = keys.pairs.iter().find(|pair| pair.key == key).unwrap();
        let secret = EncodingKey::from_secret(pair.secret.as_bytes()).unwrap();
        let mut claims = claims.clone();
        claims["iss"] = key.into();
        encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap()
    }

    fn joining() -> Value {
        json!({ "sub": "an-identity", "exp": NOW + 60, "video": { "roomJoin": true, "room": "a-room" } })
    }

    fn with(change: impl FnOnce(&mut Value)) -> Result<Participant, TokenError> {
        let mut claims = joining();
        change(&mut claims);
        keys().participant(&signed("APITestKey", &claims), NOW)
    }

    #[test]
    fn a_token_of_another_implementation_is_understood() {
        let found = keys().participant(VECTOR, NOW).unwrap();
        let expected =
            Participant { room: "a-room".into(), identity: "an-identity".into(), expires: NOW + 3600 };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_issuer_chooses_the_secret() {
        assert!(keys().participant(&signed("APIOther", &joining()), NOW).is_ok());
        let foreign = Keys::new(&[ApiKey { key: "APIOther".into(), secret: Secret::new("TestSecret") }]);
        let judged = |key| foreign.participant(&signed(key, &joining()), NOW).unwrap_err();
        assert_eq!(judged("APIOther"), TokenError::BadSignature);
        assert_eq!(judged("APITestKey"), TokenError::UnknownKey);
    }

    /// RFC 8725 §3.1: the algorithm is not the token's choice.
    #[test]
    fn only_hs256_is_accepted() {
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let payload = url.encode(json!({ "iss": "APITestKey", "exp": NOW + 60 }).to_string());
        for alg in ["none", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
            let header = url.encode(json!({ "alg": alg, "typ": "JWT" }).to_string());
            for signature in ["", "AAAA"] {
                let token = format!("{header}.{payload}.{signature}");
                assert_eq!(keys().participant(&token, NOW), Err(TokenError::Malformed), "{alg}");
            }
        }
        for token in ["", "a", "a.b", "a.b.c", "a.b.c.d", "\u{eb}.\u{eb}.\u{eb}"] {
            assert_eq!(keys().participant(token, NOW), Err(TokenError::Malformed), "{token}");
        }
    }

    #[test]
    fn a_token_holds_in_its_time_only() {
        let at = |unix| keys().participant(VECTOR, unix).err();
        assert_eq!(at(NOW - AHEAD - 1), Some(TokenError::NotYetValid));
        assert_eq!(at(NOW - AHEAD), None);
        assert_eq!(at(NOW + 3600 + EXPIRED_FOR), None);
        assert_eq!(at(NOW + 3600 + EXPIRED_FOR + 1), Some(TokenError::Expired));
        assert_eq!(with(|claims| claims["exp"] = Value::Null), Err(TokenError::Expired));
        assert_eq!(with(|claims| claims["exp"] = json!(-1)), Err(TokenError::Expired));
        assert_eq!(with(|claims| claims["exp"] = json!("tomorrow")), Err(TokenError::Malformed));
        assert_eq!(with(|claims| claims["exp"] = json!(NOW as f64 + 0.5)).unwrap().expires, NOW);
    }

    #[test]
    fn a_participant_s_token_names_a_room_and_an_identity_and_lets_it_join() {
        assert!(with(|_| ()).is_ok());
        assert_eq!(with(|claims| claims["video"]["roomJoin"] = false.into()), Err(TokenError::NoJoin));
        assert_eq!(with(|claims| claims["video"] = json!({ "room": "a-room" })), Err(TokenError::NoJoin));
        assert_eq!(
            with(|claims| claims["video"] = json!({ "roomAdmin": true, "room": "a-room" })),
            Err(TokenError::NoJoin)
        );
        assert_eq!(with(|claims| claims["video"]["room"] = "".into()), Err(TokenError::NoRoom));
        assert_eq!(with(|claims| claims["sub"] = "".into()), Err(TokenError::NoIdentity));
        let older = with(|claims| (claims["sub"], claims["jti"]) = ("".into(), "of-jti".into()));
        assert_eq!(older.unwrap().identity, "of-jti");
        let more = with(|claims| (claims["name"], claims["aud"]) = ("A name".into(), "others".into()));
        assert!(more.is_ok(), "other claims are no concern of the sidecar");
    }

    #[test]
    fn a_webhook_s_token_is_for_its_body() {
        let body = br#"{"event":"room_started"}"#;
        let hash = STANDARD.encode(Sha256::digest(body));
        let token = signed("APIOther", &json!({ "exp": NOW + 300, "nbf": NOW, "sha256": hash }));
        assert_eq!(keys().webhook_of(&token, body, NOW), Ok(NOW + 300 + EXPIRED_FOR));
        assert_eq!(keys().webhook_of(&token, b"{}", NOW), Err(TokenError::OtherBody));
        assert_eq!(keys().webhook_of(&token, body, NOW + 400), Err(TokenError::Expired));
        let token = signed("APIOther", &json!({ "exp": NOW + 300 }));
        assert_eq!(keys().webhook_of(&token, body, NOW), Err(TokenError::OtherBody), "there must be a hash");
        assert_eq!(
            keys().webhook_of(&signed("APITestKey", &joining()), body, NOW),
            Err(TokenError::OtherBody)
        );
    }

    #[test]
    fn the_sidecar_s_own_tokens_are_short_and_for_one_purpose() {
        let claims = |grant| {
            let token = keys().service(grant, NOW).unwrap();
            dangerous::insecure_decode_claims::<Value>(token).unwrap()
        };
        let common = |video: Value| json!({ "iss": "APITestKey", "nbf": NOW - AHEAD, "exp": NOW + VALID_FOR, "video": video });
        assert_eq!(claims(Grant::Rooms), common(json!({ "roomList": true })));
        assert_eq!(claims(Grant::Room("a-room")), common(json!({ "roomAdmin": true, "room": "a-room" })));
        assert_eq!(keys().service(Grant::Rooms, NOW).map(|token| keys().participant(&token, NOW)), {
            Ok(Err(TokenError::NoJoin))
        });
        assert_eq!(Keys::default().service(Grant::Rooms, NOW), Err(TokenError::UnknownKey));
    }

    /// What logs may show of them.
    #[test]
    fn neither_secrets_nor_tokens_are_shown() {
        let shown = format!("{:?} {:?}", keys(), keys().participant(VECTOR, 0));
        assert!(!shown.contains("TestSecret") && !shown.contains(&VECTOR[..20]), "{shown}");
    }
}
