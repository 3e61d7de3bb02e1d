//! A relay and a LiveKit server for tests, as far as the sidecar sees them: HTTP that answers as a test says.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, DATE, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::relays::Relay;
use super::settings::{ApiKey, LiveKitSettings, RelaySettings};
use crate::auth::Secret;
use crate::http::body;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub authorization: String,
    pub body: Value,
}

/// What is answered: a status and a body.
pub type Answer = Box<dyn FnMut(&Asked) -> (u16, String) + Send>;

/// A server. It ends when this is dropped.
pub struct Fake {
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub answer: Arc<Mutex<Answer>>,
    /// The value of `Date`, if it is not the time.
    pub date: Arc<Mutex<Option<String>>>,
    tasks: JoinSet<()>,
}

impl Fake {
    fn new(answer: Answer) -> Fake {
        Fake {
            asked: Arc::default(),
            answer: Arc::new(Mutex::new(answer)),
            date: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// What was asked so far with this at the beginning of its path.
    pub fn asked(&self, start: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.starts_with(start)).cloned().collect()
    }

    /// The users that were revoked, with their times.
    pub fn revoked(&self) -> Vec<(String, u64)> {
        let asked = self.asked("/v1/revocations").into_iter().filter(|asked| asked.body.is_object());
        asked
            .map(|asked| (asked.body["user"].as_str().unwrap().into(), asked.body["until"].as_u64().unwrap()))
            .collect()
    }

    pub fn answer(&self, answer: impl FnMut(&Asked) -> (u16, String) + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    /// Serves a connection.
    pub async fn serve<S>(
        stream: S,
        asked: Arc<Mutex<Vec<Asked>>>,
        answer: Arc<Mutex<Answer>>,
        date: Arc<Mutex<Option<String>>>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let (all, answer, date) = (asked.clone(), answer.clone(), date.clone());
            async move {
                let authorization = request.headers().get(AUTHORIZATION);
                let authorization = authorization.map(|one| one.to_str().unwrap().to_owned());
                let path = request.uri().to_string();
                let body = body::bytes(request.into_body(), 1 << 20).await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let asked = Asked { path, authorization: authorization.unwrap_or_default(), body };
                all.lock().unwrap().push(asked.clone());
                let (status, body) = answer.lock().unwrap()(&asked);
                let mut response = Response::builder().status(status);
                if let Some(date) = &*date.lock().unwrap() {
                    response = response.header(DATE, date);
                }
                if (300..400).contains(&status) {
                    response = response.header(LOCATION, "http://127.0.0.1:1/elsewhere");
                }
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

/// A relay with this instance, which revokes whatever it is told.
pub fn relay(socket: &Path, instance: &str) -> Fake {
    let instance = instance.to_owned();
    let mut fake = Fake::new(Box::new(move |asked| relay_answer(&instance, asked)));
    let listener = UnixListener::bind(socket).unwrap();
    let (asked, answer, date) = (fake.asked.clone(), fake.answer.clone(), fake.date.clone());
    fake.tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(Fake::serve(stream, asked.clone(), answer.clone(), date.clone()));
        }
    });
    fake
}

/// What a relay answers.
pub fn relay_answer(instance: &str, asked: &Asked) -> (u16, String) {
    let answer = match asked.path.as_str() {
        "/v1/status" => json!({
            "instance": instance, "version": crate::VERSION, "ready": true, "not_ready": null, "draining": null,
            "ice_urls": [], "listeners": [], "relay_addresses": [],
        }),
        _ if asked.body.is_object() => {
            json!({ "user": asked.body["user"], "ended": 1, "silent_workers": [] })
        }
        _ => json!({ "revocations": [], "allocations": [], "next": null }),
    };
    (200, answer.to_string())
}

/// The relay at this socket, as the sidecar sees it.
pub fn relay_at(socket: PathBuf) -> Arc<Relay> {
    let settings = RelaySettings { name: "a-relay".into(), socket: Some(socket), ..RelaySettings::default() };
    Arc::new(Relay::new(settings).unwrap())
}

/// A LiveKit server, and settings that name it.
pub async fn livekit(
    answer: impl FnMut(&Asked) -> (u16, String) + Send + 'static,
) -> (Fake, LiveKitSettings) {
    let mut fake = Fake::new(Box::new(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (asked, answer, date) = (fake.asked.clone(), fake.answer.clone(), fake.date.clone());
    fake.tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(Fake::serve(stream, asked.clone(), answer.clone(), date.clone()));
        }
    });
    (fake, livekit_at(url))
}

/// Settings for LiveKit at this URL.
pub fn livekit_at(url: String) -> LiveKitSettings {
    let key = ApiKey { key: "APITestKey".into(), secret: Secret::new("TestSecret") };
    LiveKitSettings { url, keys: vec![key], ..LiveKitSettings::default() }
}

/// Lists of one room with these sessions and identities.
pub fn lists(asked: &Asked, list: &[(&str, &str)]) -> (u16, String) {
    let participants: Vec<_> =
        list.iter().map(|(sid, identity)| json!({ "sid": sid, "identity": identity })).collect();
    let answer = match asked.path.as_str() {
        "/twirp/livekit.RoomService/ListRooms" => {
            json!({ "rooms": [{ "name": "a-room", "num_participants": 0, "turn_password": "a-room-secret" }] })
        }
        _ => json!({ "participants": participants }),
    };
    (200, answer.to_string())
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 30 s: {what}");
}
