//! What LiveKit, and what is mistaken for it, answers.

use std::path::PathBuf;

use jsonwebtoken::dangerous::insecure_decode_claims;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, pki_types};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::fakes::{self, Fake, lists, livekit_at};
use super::*;

fn error_of<T: std::fmt::Debug>(result: Result<T, ServerError>) -> (&'static str, String) {
    let error = result.unwrap_err();
    (error.code(), error.to_string())
}

#[tokio::test]
async fn lists_are_asked_for_with_a_token_for_just_that() {
    let (fake, settings) = fakes::livekit(|asked| lists(asked, &[("PA_1", "alice")])).await;
    let server = Server::new(&settings).unwrap();
    assert_eq!(server.rooms().await.unwrap(), [Room { name: "a-room".into() }]);
    let listed = server.participants("a \"room\"").await.unwrap();
    assert_eq!(listed, [Listed { sid: "PA_1".into(), identity: "alice".into() }]);
    let asked = fake.asked("/twirp/livekit.RoomService/");
    assert_eq!(asked[1].body, serde_json::json!({ "room": "a \"room\"" }));
    let claims = |n: usize| {
        let token = asked[n].authorization.strip_prefix("Bearer ").unwrap();
        insecure_decode_claims::<Value>(token).unwrap()["video"].clone()
    };
    assert_eq!(claims(0), serde_json::json!({ "roomList": true }));
    assert_eq!(claims(1), serde_json::json!({ "roomAdmin": true, "room": "a \"room\"" }));
    assert_eq!(server.clock_offset(), Some(0));
}

#[tokio::test]
async fn fields_may_be_missing_or_unknown() {
    let (fake, settings) = fakes::livekit(|_| (200, "{}".into())).await;
    let server = Server::new(&settings).unwrap();
    assert_eq!(server.rooms().await.unwrap(), []);
    assert_eq!(server.participants("a-room").await.unwrap(), []);
    fake.answer(|_| {
        let one = r#"{"sid":"PA_1","identity":"a","joinedAt":"5","joined_at":5,"state":2,"tracks":[{}]}"#;
        (200, format!(r#"{{"participants":[{one}],"new":null}}"#))
    });
    assert_eq!(server.participants("a-room").await.unwrap()[0].sid, "PA_1");
}

#[tokio::test]
async fn health_needs_no_key() {
    let (fake, settings) = fakes::livekit(|_| (200, "OK".into())).await;
    let server = Server::new(&settings).unwrap();
    assert_eq!(server.live().await, Ok(Liveness::Ready));
    assert_eq!(fake.asked("/")[0].authorization, "");
    fake.answer(|_| (406, "Not Ready\nNode Updated At 0001-01-01".into()));
    assert_eq!(server.live().await, Ok(Liveness::Stale));
    fake.answer(|_| (200, "<html>Welcome</html>".into()));
    assert_eq!(error_of(server.live().await).0, "not_livekit");
}

/// Each failure is one sentence with the fix, and without anything of the response: it echoes the token.
#[tokio::test]
async fn failures_say_what_is_wrong_and_nothing_of_the_response() {
    let (fake, settings) = fakes::livekit(|_| (200, String::new())).await;
    let server = Server::new(&settings).unwrap();
    for (status, body, code, says) in [
        (401, "invalid token: SECRET, error: signature", "wrong_key", "refuses the API key APITestKey"),
        (403, r#"{"code":"permission_denied","msg":"SECRET"}"#, "wrong_key", "APITestKey"),
        (404, "SECRET page not found", "not_livekit", "it responds with 404"),
        (301, "SECRET", "redirect", "write the URL that it leads to"),
        (307, "SECRET", "redirect", "redirects (307)"),
        (429, "SECRET", "failing", "429"),
        (502, "SECRET", "failing", "or a proxy in front of it, responds with 502"),
        (200, "SECRET", "not_livekit", "something else than LiveKit's lists"),
        (200, r#"["SECRET"]"#, "not_livekit", "something else"),
        (200, r#"{"rooms":"SECRET"}"#, "not_livekit", "something else"),
    ] {
        fake.answer(move |_| (status, body.into()));
        let (found, text) = error_of(server.rooms().await);
        assert_eq!(found, code, "{text}");
        assert!(text.contains(says) && !text.contains("SECRET"), "{text}");
    }
    assert!(fake.asked("/elsewhere").is_empty(), "redirects are not followed");
    fake.answer(|_| (200, "x".repeat(RESPONSE_MAX + 1)));
    assert_eq!(error_of(server.rooms().await).0, "too_long");
}

/// LiveKit refuses a token from another time. That is not about the key.
#[tokio::test]
async fn a_clock_that_differs_is_told_from_a_wrong_key() {
    let (fake, settings) = fakes::livekit(|_| (401, "invalid token".into())).await;
    *fake.date.lock().unwrap() = Some("Sun, 06 Nov 1994 08:49:37 GMT".into());
    let server = Server::new(&settings).unwrap();
    let (code, text) = error_of(server.rooms().await);
    assert!(code == "clock" && text.contains("behind that of this machine"), "{text}");
    assert!(server.clock_offset().unwrap() < -86_400_000);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Server::new(&livekit_at(format!("ws://{address}"))).unwrap();
    let (code, text) = error_of(server.live().await);
    assert!(
        code == "unreachable" && text.contains("refused") && text.contains(&address.to_string()),
        "{text}"
    );
    let server = Server::new(&livekit_at("wss://livekit.invalid".into())).unwrap();
    let (code, text) = error_of(server.live().await);
    assert!(code == "unresolved" && text.contains("livekit.invalid"), "{text}");
}

#[tokio::test]
async fn something_that_is_no_http_server_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH\r\n\r\n").await;
        }
    });
    let found = Server::new(&livekit_at(format!("http://{url}"))).unwrap().live().await;
    assert_eq!(error_of(found).0, "not_livekit");
    let (code, text) = error_of(Server::new(&livekit_at(format!("https://{url}"))).unwrap().live().await);
    assert!(code == "tls" && text.contains("does not speak TLS"), "{text}");
}

#[test]
fn urls_are_those_of_the_api() {
    for (url, expected) in [
        ("wss://livekit.example.org", Some("https://livekit.example.org")),
        ("ws://127.0.0.1:7880/", Some("http://127.0.0.1:7880")),
        ("https://[2001:db8::1]:7443", Some("https://[2001:db8::1]:7443")),
        ("http://proxy.example.org/livekit/", Some("http://proxy.example.org/livekit")),
        ("livekit.example.org", None),
        ("ftp://livekit.example.org", None),
        ("wss://", None),
        ("wss://user:password@livekit.example.org", None),
        ("wss://livekit.example.org?access_token=1", None),
        ("", None),
    ] {
        assert_eq!(base("livekit.url", url).ok().as_deref(), expected, "{url}");
    }
    let settings = LiveKitSettings { api_url: "http://10.0.0.5:7880".into(), ..livekit_at("wss://x".into()) };
    assert_eq!(Server::new(&settings).unwrap().base(), "http://10.0.0.5:7880");
    let wrong = LiveKitSettings { api_url: "10.0.0.5".into(), ..livekit_at("wss://x".into()) };
    assert!(Server::new(&wrong).err().unwrap().to_string().starts_with("livekit.api_url: write"));
}

/// A LiveKit with a certificate for `name`; returns its port, and the file with the authority.
async fn tls(folder: &Path, name: &str) -> (u16, PathBuf) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Vec<CertificateDer> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let answer: fakes::Answer = Box::new(|_| (200, "OK".into()));
            tokio::spawn(Fake::serve(stream, Arc::default(), Arc::new(Mutex::new(answer)), Arc::default()));
        }
    });
    (port, file)
}

/// The names of certificates are verified, with the authorities of this machine and that of the configuration.
#[tokio::test]
async fn tls_is_verified_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (port, file) = tls(folder.path(), "localhost").await;
    let at = |host: &str, ca_file: Option<PathBuf>| {
        Server::new(&LiveKitSettings { ca_file, ..livekit_at(format!("wss://{host}:{port}")) }).unwrap()
    };
    assert_eq!(at("localhost", Some(file.clone())).live().await, Ok(Liveness::Ready));
    let (code, text) = error_of(at("127.0.0.1", Some(file)).live().await);
    assert!(code == "tls" && text.contains("its certificate is for other names"), "{text}");
    assert!(text.contains(&format!("https://127.0.0.1:{port}")), "{text}");
    if let Ok(server) = Server::new(&livekit_at(format!("wss://localhost:{port}"))) {
        let (code, text) = error_of(server.live().await);
        assert!(code == "tls" && text.contains("livekit.ca_file"), "{text}");
    }
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let ca_file = Some(folder.path().join("empty.pem"));
    let empty = LiveKitSettings { ca_file, ..livekit_at("wss://localhost".into()) };
    assert!(Server::new(&empty).err().unwrap().to_string().contains("has no certificates"));
}
