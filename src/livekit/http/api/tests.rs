//! The server on a loopback port, with relays whose control sockets are fakes and real tokens of participants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

use super::*;
use crate::auth::{Secret, time_limited_password};
use crate::config::tokens::Tokens;
use crate::livekit::health::Part;
use crate::livekit::http::selection::Candidate;
use crate::livekit::http::server::HttpServer;
use crate::livekit::ice_url::ClientTransport;
use crate::livekit::relays::{Probe, Relay};
use crate::livekit::settings::{ApiKey, HttpSettings, RelaySettings, Settings};
use crate::livekit::token::tests::signed;

const BACKEND: &str = "0123456789abcdef0123456789abcdef";
const SECRET: &str = "a shared secret for these tests";
const PAGE: &str = "https://meet.example.org";

/// A relay's control socket that always tells the status of a file.
struct FakeRelay {
    status: Arc<Mutex<Value>>,
    settings: RelaySettings,
}

impl FakeRelay {
    fn new(folder: &Path, name: &str, region: &str, urls: &[&str]) -> FakeRelay {
        let socket: PathBuf = folder.join(name);
        let status = Arc::new(Mutex::new(json!({
            "instance": name, "version": "0", "ready": true, "not_ready": null, "draining": null, "ice_urls": urls,
            "listeners": [], "relay_addresses": [],
        })));
        let (listener, told) = (UnixListener::bind(&socket).unwrap(), status.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let body = told.lock().unwrap().to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        let settings = RelaySettings {
            name: name.into(),
            socket: Some(socket),
            region: region.into(),
            ..RelaySettings::default()
        };
        FakeRelay { status, settings }
    }

    fn set(&self, key: &str, value: Value) {
        self.status.lock().unwrap()[key] = value;
    }
}

struct Place {
    folder: TempDir,
    sidecar: Arc<Sidecar>,
    relays: Vec<FakeRelay>,
    at: SocketAddr,
}

impl Place {
    /// A sidecar that runs, with these relays: names with regions and URLs.
    async fn new(relays: &[(&str, &str, &[&str])], change: impl FnOnce(&mut Settings)) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let relays: Vec<FakeRelay> = relays
            .iter()
            .map(|(name, region, urls)| FakeRelay::new(folder.path(), name, region, urls))
            .collect();
        let mut settings = Settings::default();
        settings.livekit.url = "ws://127.0.0.1:1".into();
        settings.lifecycle.state_dir = Some(folder.path().join("state"));
        // What probes and LiveKit's health show is the tests' to say.
        (settings.health.probe, settings.health.interval, settings.lifecycle.reconcile) = (false, 3600, 3600);
        settings.livekit.keys = vec![ApiKey { key: "APITestKey".into(), secret: Secret::new("TestSecret") }];
        settings.relays = relays.iter().map(|relay| relay.settings.clone()).collect();
        settings.credentials.secrets =
            vec![Secret::new(SECRET), Secret::new("an older one, for verification")];
        settings.http = HttpSettings {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            tokens: Tokens::in_file(format!("app:read:{BACKEND}\n").as_bytes()).0,
            origins: vec![PAGE.into()],
            ..HttpSettings::default()
        };
        change(&mut settings);
        let server = Arc::new(HttpServer::open(&settings.http).unwrap());
        let at = server.addresses()[0];
        let sidecar = Arc::new(Sidecar::new(settings).unwrap());
        tokio::spawn(crate::livekit::service::work(sidecar.clone(), server));
        let place = Place { folder, sidecar, relays, at };
        place.settled().await;
        place
    }

    /// Waits until every relay was asked again, and has said who is revoked.
    async fn settled(&self) {
        for relay in &self.sidecar.relays {
            let mut state = relay.follow();
            for _ in 0..2 {
                state.mark_unchanged();
                state.changed().await.unwrap();
            }
            while relay.obstacle().is_some_and(|why| why.ends_with("has not said yet who is revoked")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    async fn request(&self, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
        exchange(TcpStream::connect(self.at).await.unwrap(), line, headers, body).await
    }

    /// Asks for ICE servers with this token: the status, and the answer.
    async fn ask(&self, query: &str, token: &str) -> (u16, Value) {
        let authorization = format!("Bearer {token}");
        let line = format!("GET /v1/ice-servers{query}");
        let (status, _, body) = self.request(&line, &[("Authorization", &authorization)], "").await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

/// Sends a request; returns the status, the head and the body of the response.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, String) {
    let mut text = format!("{line} HTTP/1.1\r\nHost: ice.example.org\r\n");
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    let _ = stream.write_all((text + "\r\n" + body).as_bytes()).await;
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// A token of a participant that expires in a minute.
fn token(room: &str, identity: &str) -> String {
    let claims =
        json!({ "sub": identity, "exp": unix_now() + 60, "video": { "roomJoin": true, "room": room } });
    signed("APITestKey", &claims)
}

const UDP: &str = "turn:192.0.2.1:3478?transport=udp";
const TLS: &str = "turns:turn.example.org:443?transport=tcp";

#[tokio::test]
async fn a_participant_gets_ice_servers_that_its_sdk_takes() {
    let place = Place::new(&[("turn-1", "eu", &[TLS, UDP])], |_| ()).await;
    let before = unix_now();
    let (status, answer) = place.ask("", &token("math", "ada lovelace")).await;
    assert_eq!(status, 200, "{answer}");
    let servers = answer["iceServers"].as_array().unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0]["urls"], json!([UDP, TLS]));
    let username = servers[0]["username"].as_str().unwrap();
    let (expiry, tag) = username.split_once(':').unwrap();
    // However soon the token of the participant expires
    let expires: u64 = expiry.parse().unwrap();
    assert!((before + 14_400..=unix_now() + 14_401).contains(&expires), "{answer}");
    assert_eq!((&answer["ttl"], &answer["expires"]), (&json!(14_400), &json!(expires)));
    assert_eq!(tag, place.sidecar.tags.tag("math", "ada lovelace"));
    assert!(!username.contains("math") && !username.contains("ada"), "USERNAME travels in clear");
    assert_eq!(servers[0]["credential"], time_limited_password(SECRET.as_bytes(), username));

    let authorization = format!("Bearer {}", token("math", "ada"));
    let headers = [("Authorization", &*authorization), ("Origin", PAGE)];
    let (status, head, body) = place.request("HEAD /v1/ice-servers", &headers, "").await;
    assert_eq!((status, &*body), (200, ""));
    for header in [
        "cache-control: no-store",
        "content-type: application/json",
        "vary: origin",
        "access-control-allow-origin: https://meet.example.org",
    ] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    let page = place.request("GET /metrics", &[], "").await.2;
    assert!(page.contains("hairpin_livekit_credentials_issued_total{caller=\"participant\"} 2"), "{page}");
    assert!(!page.contains("math") && !page.contains("ada"), "{page}");
}

#[tokio::test]
async fn a_backend_names_the_participant_and_may_shorten_the_credential() {
    let place = Place::new(&[("turn-1", "eu", &[UDP])], |_| ()).await;
    let (status, answer) = place.ask("?room=math&identity=ada%20lovelace&ttl=600", BACKEND).await;
    assert_eq!((status, &answer["ttl"]), (200, &json!(600)), "{answer}");
    let username = answer["iceServers"][0]["username"].as_str().unwrap();
    assert!(username.ends_with(&place.sidecar.tags.tag("math", "ada lovelace")), "{answer}");
    let expires = answer["expires"].as_u64().unwrap();
    assert!((unix_now() + 590..=unix_now() + 601).contains(&expires));
    for (query, status, said) in [
        ("", 400, "room is missing"),
        ("?room=math", 400, "identity is missing"),
        ("?room=math&identity=", 400, "identity is missing"),
        ("?room=math&identity=ada&ttl=14401", 400, "from 1 to 14400"),
        ("?room=math&identity=ada&ttl=0", 400, "from 1 to 14400"),
        ("?room=math&identity=ada&ttl=soon", 400, "from 1 to 14400"),
        ("?room=math&identity=ada&user=1", 400, "unknown key"),
    ] {
        let (found, answer) = place.ask(query, BACKEND).await;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!("bad_request")), "{query}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(said), "{answer}");
    }
    // A participant asks for itself only
    let own = token("math", "ada");
    assert_eq!(place.ask("?room=math&identity=ada", &own).await.0, 200);
    assert_eq!(place.ask("?room=math&identity=bob", &own).await.0, 403);
    assert_eq!(place.ask("?room=physics", &own).await.0, 403);
    assert_eq!(place.ask("?ttl=60", &own).await.0, 400);
}

#[tokio::test]
async fn refusals_say_why_and_never_show_the_token() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    let (status, head, body) = place.request("GET /v1/ice-servers", &[], "").await;
    assert_eq!(status, 401);
    assert!(head.contains("www-authenticate: bearer realm=") && body.contains("Authorization: Bearer TOKEN"));
    let late =
        json!({ "sub": "ada", "exp": unix_now() - 600, "video": { "roomJoin": true, "room": "math" } });
    let late = signed("APITestKey", &late);
    let (status, answer) = place.ask("", &late).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("expired")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("expired 10m"), "{answer}");
    assert!(!answer.to_string().contains(&late[..30]));
    let page = place.request("GET /metrics", &[], "").await.2;
    for reason in ["unauthorized", "expired"] {
        let line = format!("hairpin_livekit_credentials_refused_total{{reason=\"{reason}\"}} 1");
        assert!(page.contains(&line), "{page}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_get_nothing_from_a_browser() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    let asks = ("Access-Control-Request-Method", "GET");
    let line = "OPTIONS /v1/ice-servers";
    let (status, head, _) = place.request(line, &[("Origin", PAGE), asks], "").await;
    assert_eq!(status, 204);
    for header in [
        "access-control-allow-origin: https://meet.example.org",
        "access-control-allow-headers: authorization, content-type",
        "vary: origin",
    ] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    let (status, head, _) = place.request(line, &[("Origin", "https://evil.example"), asks], "").await;
    assert!(status == 403 && !head.contains("access-control-allow"), "{head}");
    // A page reads errors, too
    let (status, head, _) = place.request("GET /v1/ice-servers", &[("Origin", PAGE)], "").await;
    assert!(status == 401 && head.contains("access-control-allow-origin: https://meet"), "{head}");
    let authorization = format!("Bearer {}", token("math", "ada"));
    let headers = [("Origin", "https://evil.example"), ("Authorization", &*authorization)];
    let (_, head, _) = place.request("GET /v1/ice-servers", &headers, "").await;
    assert!(!head.contains("access-control-allow"), "{head}");
}

/// A token for every participant must not be in the code of a page: `*` does not open that.
#[tokio::test]
async fn any_origin_is_for_participants_only() {
    let any = |settings: &mut Settings| settings.http.origins = vec!["*".into()];
    let place = Place::new(&[("turn-1", "", &[UDP])], any).await;
    for (token, status) in [(token("math", "ada"), 200), (BACKEND.to_owned(), 403)] {
        let authorization = format!("Bearer {token}");
        let headers = [("Origin", "https://any.example"), ("Authorization", &*authorization)];
        let line = "GET /v1/ice-servers?room=math&identity=ada";
        let (found, head, body) = place.request(line, &headers, "").await;
        assert_eq!(found, status, "{body}");
        assert!(head.contains("access-control-allow-origin: *"), "{head}");
    }
    assert_eq!(place.ask("?room=math&identity=ada", BACKEND).await.0, 200, "a program sends no Origin");
}

#[tokio::test]
async fn a_participant_that_asks_too_often_waits_and_others_do_not() {
    let few = |settings: &mut Settings| (settings.http.burst, settings.http.per_minute) = (3, 1);
    let place = Place::new(&[("turn-1", "", &[UDP])], few).await;
    for _ in 0..3 {
        assert_eq!(place.ask("", &token("math", "ada")).await.0, 200);
    }
    let authorization = format!("Bearer {}", token("math", "ada"));
    let (status, head, _) =
        place.request("GET /v1/ice-servers", &[("Authorization", &authorization)], "").await;
    assert_eq!(status, 429);
    let wait = head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=60).contains(&wait.parse::<u32>().unwrap()), "{head}");
    assert_eq!(place.ask("?room=math&identity=ada", BACKEND).await.0, 429, "whoever asks for it");
    assert_eq!(place.ask("", &token("math", "bob")).await.0, 200);
    assert_eq!(place.ask("", &token("physics", "ada")).await.0, 200);
}

#[tokio::test]
async fn a_relay_that_drains_or_fails_its_probes_is_left_out() {
    let other = "turn:192.0.2.2:3478?transport=udp";
    let place = Place::new(&[("turn-1", "eu", &[UDP, TLS]), ("turn-2", "us", &[other])], |_| ()).await;
    let urls = async |query: &str| -> Vec<Value> {
        let (status, answer) = place.ask(query, &token("math", "ada")).await;
        assert_eq!(status, 200, "{answer}");
        answer["iceServers"].as_array().unwrap().iter().map(|server| server["urls"].clone()).collect()
    };
    assert_eq!(urls("?region=us").await, [json!([other]), json!([UDP, TLS])]);
    assert_eq!(urls("?region=eu").await, [json!([UDP, TLS]), json!([other])]);
    let probe = |transport, outcome: Result<Duration, String>| Probe {
        transport,
        target: "192.0.2.1".into(),
        port: if transport == ClientTransport::Tls { 443 } else { 3478 },
        outcome,
    };
    let fails = || Err("no answer; open the port".to_owned());
    place.sidecar.relays[0]
        .probed(vec![probe(ClientTransport::Udp, fails()), probe(ClientTransport::Tls, Ok(Duration::ZERO))]);
    assert_eq!(urls("?region=eu").await, [json!([TLS]), json!([other])]);
    place.relays[1].set("draining", json!({ "since": "2026-11-30T00:00:00Z" }));
    place.settled().await;
    assert_eq!(urls("?region=us").await, [json!([TLS])]);
    // Also the only one that is left: the answer says that there is none.
    place.sidecar.relays[0]
        .probed(vec![probe(ClientTransport::Udp, fails()), probe(ClientTransport::Tls, fails())]);
    let (status, answer) = place.ask("?room=math&identity=ada", BACKEND).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_relay")), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("no probe of a listener succeeds: no answer; open the port"), "{message}");
    place.sidecar.relays[0].forget_probes();
    assert_eq!(urls("?region=us").await, [json!([UDP, TLS])]);

    place.relays[0].set("ready", json!(false));
    place.relays[0].set("not_ready", json!("there is no address to relay with"));
    place.settled().await;
    let authorization = format!("Bearer {}", token("math", "ada"));
    let (status, head, body) =
        place.request("GET /v1/ice-servers", &[("Authorization", &authorization)], "").await;
    assert!(status == 503 && head.contains("retry-after: 5"), "{head}");
    // Participants are not told about the inside.
    assert!(body.contains("\"no relay can be used now; ask again in a moment\""), "{body}");
    let (_, answer) = place.ask("?room=math&identity=ada", BACKEND).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("no address to relay with") && message.contains("turn-2 is draining"),
        "{message}"
    );
}

/// Before the sidecar knows who is revoked at a relay, it could issue a credential that is refused there.
#[tokio::test]
async fn a_relay_that_has_not_said_who_is_revoked_is_left_out() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    let fresh = Relay::new(place.relays[0].settings.clone()).unwrap();
    fresh.look().await;
    assert_eq!(Candidate::of(&fresh), None);
    fresh.note_tags_read();
    assert_eq!(Candidate::of(&fresh).unwrap().urls, [UDP]);
}

/// LiveKit's own credentials (way 2) need no shared secret, and then the sidecar issues nothing.
#[tokio::test]
async fn without_a_shared_secret_nothing_is_issued() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |settings| settings.credentials.secrets.clear()).await;
    let (status, answer) = place.ask("", &token("math", "ada")).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_secret")), "{answer}");
    assert!(!place.sidecar.readiness().problems.iter().any(|one| one.contains("ICE servers")));
}

/// Somebody may ask for ICE servers, after a reload that has removed the secret, too.
#[tokio::test]
async fn a_secret_that_a_reload_removes_is_missed() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    let without = || {
        let mut settings = place.sidecar.settings.clone();
        settings.credentials.secrets.clear();
        settings
    };
    let first = Sidecar::renewed(&place.sidecar, without()).unwrap();
    let again = Sidecar::renewed(&first, without()).unwrap();
    for sidecar in [&first, &again] {
        let problems = sidecar.readiness().problems;
        assert!(problems.iter().any(|one| one.starts_with("ICE servers are not handed out")), "{problems:?}");
    }
    let back = Sidecar::renewed(&again, place.sidecar.settings.clone()).unwrap();
    assert!(!back.readiness().problems.iter().any(|one| one.contains("ICE servers")));
}

#[tokio::test]
async fn health_pages_say_what_is_wrong() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    assert_eq!(place.request("GET /livez", &[], "").await.2, "ok\n");
    // There is no LiveKit here: what is reported of it is the test's.
    let health = &place.sidecar.health;
    for part in Part::ALL {
        while [Part::LiveKit, Part::Rooms].contains(&part) && health.works(part).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        health.report(part, Ok(()));
    }
    let ready = async || {
        let (status, _, body) = place.request("GET /readyz", &[], "").await;
        (status, body)
    };
    assert_eq!(ready().await, (200, "ok\n".into()));
    health.report(Part::LiveKit, Err("LiveKit does not answer".into()));
    assert_eq!(ready().await, (503, "LiveKit does not answer\n".into()));
    health.report(Part::LiveKit, Ok(()));
    health.report(Part::Revocations, Err("a revocation was lost".into()));
    assert_eq!(ready().await, (200, "ok\na revocation was lost\n".into()));
    place.relays[0].set("draining", json!({}));
    place.settled().await;
    assert_eq!(ready().await, (503, "relay turn-1 is draining\na revocation was lost\n".into()));
}

/// With tokens for metrics, these and the reasons are for whoever has one; the token of a backend is none of them.
#[tokio::test]
async fn metrics_and_reasons_are_for_whoever_has_a_token() {
    let token = "fedcba9876543210fedcba9876543210";
    let place = Place::new(&[("turn-1", "", &[UDP])], |settings| {
        let tokens = Tokens::in_file(format!("prometheus:read:{token}\n").as_bytes()).0;
        settings.http.metrics_tokens = tokens;
    })
    .await;
    let with = |token: &str| format!("Bearer {token}");
    let (status, _, page) = place.request("GET /metrics", &[("Authorization", &with(token))], "").await;
    assert!(status == 200 && page.contains("hairpin_livekit_"), "{page}");
    for authorization in [with(BACKEND), with("x"), "Basic x".into(), String::new()] {
        let (status, head, body) =
            place.request("GET /metrics", &[("Authorization", &authorization)], "").await;
        assert!(status == 401 && head.contains("www-authenticate: bearer realm="), "{authorization}: {head}");
        assert!(body.contains("http.metrics_tokens_file") && !body.contains("hairpin_livekit_"), "{body}");
    }
    place.sidecar.health.report(Part::LiveKit, Err("LiveKit does not answer".into()));
    let (status, _, body) = place.request("GET /readyz", &[], "").await;
    assert_eq!((status, &*body), (503, "not ready\n"));
    let (_, _, body) = place.request("GET /readyz", &[("Authorization", &with(token))], "").await;
    assert!(body.contains("LiveKit does not answer"), "{body}");
    assert_eq!(place.ask("?room=r&identity=i", token).await.0, 401, "it gets no ICE servers");
}

#[tokio::test]
async fn other_paths_methods_and_bodies_are_refused() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    for (line, status, allow) in [
        ("GET /", 404, None),
        ("GET /v1/ice-servers/", 404, None),
        ("POST /v1/ice-servers", 405, Some("allow: get, head, options")),
        ("GET /v1/webhook", 405, Some("allow: post")),
        ("DELETE /metrics", 405, Some("allow: get, head")),
    ] {
        let (found, head, body) = place.request(line, &[], "").await;
        assert_eq!(found, status, "{line}");
        assert!(allow.is_none_or(|allow| head.contains(allow)), "{line}: {head}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["error"]["code"].is_string());
    }
    let long = "x".repeat(BODY_MAX + 1);
    let (status, ..) = place.request("POST /v1/webhook", &[], &long).await;
    assert_eq!(status, 401, "only LiveKit may send a body");
    let token = signed("APITestKey", &json!({ "exp": unix_now() + 60, "sha256": "of another body" }));
    let (status, ..) = place.request("POST /v1/webhook", &[("Authorization", &token)], &long).await;
    assert!([0, 413].contains(&status), "{status}");
    let long = "x".repeat(200_000);
    let (status, ..) = place.request("GET /livez", &[("Authorization", &long)], "").await;
    assert!([0, 431].contains(&status), "{status}");
    let page = place.request("GET /metrics", &[], "").await.2;
    assert!(page.contains("hairpin_livekit_http_requests_total{route=\"other\",status=\"4xx\"} 2"), "{page}");
}

/// LiveKit's events: accepted once, and only with its signature.
#[tokio::test]
async fn webhooks_are_taken_once() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    let body = r#"{"event":"room_started","id":"EV_1","room":{"name":"a-room"}}"#;
    let token = crate::livekit::webhook::tests::token(body.as_bytes(), unix_now());
    let other = signed("APITestKey", &json!({ "exp": unix_now() + 60, "sha256": "of another body" }));
    let kind = ("Content-Type", "application/webhook+json");
    for (authorization, expected, code) in [
        ("nonsense", 401, "malformed_token"),
        (other.as_str(), 401, "body_hash"),
        (token.as_str(), 200, ""),
        (token.as_str(), 409, "repeated"),
    ] {
        let headers = [("Authorization", authorization), kind];
        let (status, _, answer) = place.request("POST /v1/webhook", &headers, body).await;
        assert_eq!(status, expected, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"]["code"].as_str().unwrap_or_default(), code);
    }
    let page = place.request("GET /metrics", &[], "").await.2;
    assert!(page.contains("hairpin_livekit_webhooks_total{outcome=\"repeated\"} 1"), "{page}");
}

/// Clients that send nothing hold up nobody.
#[tokio::test]
async fn silent_connections_do_not_block_health() {
    let place = Place::new(&[("turn-1", "", &[UDP])], |_| ()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(place.at).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nX-Slow: ").await.unwrap();
        silent.push(stream);
    }
    let since = Instant::now();
    assert_eq!(place.request("GET /livez", &[], "").await.0, 200);
    assert!(since.elapsed() < Duration::from_secs(4), "nothing timed out");
}

/// A server that takes over from another one keeps its sockets, and what participants have used up.
#[tokio::test]
async fn new_settings_keep_the_listeners() {
    let settings = HttpSettings { listen: vec!["127.0.0.1:0".parse().unwrap()], ..HttpSettings::default() };
    let first = HttpServer::open(&settings).unwrap();
    let more = HttpSettings {
        listen: vec![settings.listen[0], "127.0.0.2:0".parse().unwrap()],
        burst: 1,
        ..HttpSettings::default()
    };
    let second = first.reopen(&more).unwrap();
    let before = first.addresses();
    drop(first);
    assert_eq!(second.addresses()[..1], before[..]);
    assert_eq!(second.addresses().len(), 2);
    let half = HttpSettings { cert: Some("cert.pem".into()), ..settings };
    let error = second.reopen(&half).err().unwrap().to_string();
    assert!(error.contains("http.cert and http.key belong together"), "{error}");
}

mod tls {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Writes a new certificate for ice.example.org and its key.
    fn write(folder: &Path) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["ice.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
        for (name, text) in [("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(folder.join("new"), text).unwrap();
            std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
        }
        CertificateDer::from_pem_slice(cert.pem().as_bytes()).unwrap()
    }

    /// What a client gets that trusts this certificate only; `None` if the handshake fails.
    async fn livez(at: SocketAddr, trusted: &CertificateDer<'static>) -> Option<u16> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(at).await.unwrap();
        let stream =
            connector.connect(ServerName::try_from("ice.example.org").unwrap(), stream).await.ok()?;
        Some(exchange(stream, "GET /livez", &[], "").await.0)
    }

    #[tokio::test]
    async fn a_renewed_certificate_serves_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path());
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let place = Place::new(&[("turn-1", "", &[UDP])], |settings| {
            (settings.http.cert, settings.http.key) = (Some(cert.clone()), Some(key));
        })
        .await;
        assert_eq!(livez(place.at, &first).await, Some(200));
        let (status, ..) = place.request("GET /livez", &[], "").await;
        assert_eq!(status, 0, "nothing is served in the clear");
        std::fs::write(&cert, "damaged").unwrap();
        let second = write(folder.path());
        let renewed = async {
            while livez(place.at, &second).await != Some(200) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), renewed).await.expect("the new certificate serves");
        assert_eq!(livez(place.at, &first).await, None);
        let page = place.sidecar.metrics_page();
        assert!(page.contains("hairpin_livekit_http_certificate_expiry_timestamp_seconds{file="), "{page}");
        assert!(place.folder.path().exists());
    }
}
