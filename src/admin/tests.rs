//! Requests to the API of a relay that is stopping: whatever reaches the relay gets 503.

use hyper::{Request, Response};

use super::*;
use crate::config::tokens::Tokens;

const ADMIN: &str = "0123456789abcdef0123456789abcdef";
const READ: &str = "fedcba9876543210fedcba9876543210";

const PROCESS: Caller = Caller::Process { uid: 1000, gid: 1000, pid: Some(1) };

/// The status of the response and its error code.
async fn call(
    caller: Caller,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let settings = AdminSettings {
        tokens: Tokens::in_file(format!("ops:admin:{ADMIN}\nwatch:read:{READ}\n").as_bytes()).0,
        ..AdminSettings::default()
    };
    let access = Access::default().renewed(&settings);
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_owned()).unwrap();
    let response: Response<String> = match respond(Control::stopping(), &access, caller, request).await {
        Ok(value) => response::ok(&value),
        Err(failure) => failure.into_response(),
    };
    assert_eq!(response.headers()[VERSION], crate::VERSION);
    let value: serde_json::Value = serde_json::from_str(response.body()).unwrap();
    (response.status().as_u16(), value["error"]["code"].as_str().unwrap().to_owned())
}

async fn local(method: &str, path: &str, body: &str) -> (u16, String) {
    call(PROCESS, method, path, &[("content-type", "application/json; charset=utf-8")], body).await
}

/// Whoever may open the control socket may do everything; a token for reading may not change anything.
#[tokio::test]
async fn changing_calls_need_the_scope_admin() {
    let remote =
        Caller::Remote { from: "127.0.0.1:50000".parse().unwrap(), to: "127.0.0.1:9642".parse().unwrap() };
    for (method, path, operation) in routes::ROUTES {
        let path = path.replace("{id}", "1").replace("{user}", "alice").replace("{owner}", "livekit");
        let body = match operation {
            routes::Operation::Revoke => r#"{"user": "alice"}"#,
            routes::Operation::SetPeers => r#"{"addresses": ["203.0.113.7:7882"]}"#,
            _ => "",
        };
        let (method, is_get) = (method.as_str(), method.as_str() == "GET");
        assert_eq!(local(method, &path, body).await, (503, "unavailable".into()), "{method} {path}");
        for (token, expected) in [
            (ADMIN, (503, "unavailable")),
            (READ, if is_get { (503, "unavailable") } else { (403, "read_only") }),
            (&ADMIN[1..], (401, "unauthorized")),
        ] {
            let authorization = format!("Bearer {token}");
            let headers = [
                ("host", "localhost"),
                ("authorization", &*authorization),
                ("content-type", "application/json"),
            ];
            let (status, code) = call(remote, method, &path, &headers, body).await;
            assert_eq!((status, &*code), expected, "{method} {path}");
        }
    }
}

/// A typo must not be dropped: a call with something unknown does nothing.
#[tokio::test]
async fn mistakes_are_found_before_anything_is_done() {
    let large = format!("{{\"deadline\": \"{}\"}}", "x".repeat(request::BODY));
    for (method, path, body, status) in [
        ("GET", "/v1/status?verbose=1", "", 400),
        ("GET", "/v1/allocations?limit=0", "", 400),
        ("GET", "/v1/allocations?limit=1001", "", 400),
        ("GET", "/v1/allocations?transport=sctp", "", 400),
        ("GET", "/v1/allocations?client=here", "", 400),
        ("GET", "/v1/allocations?min_age=soon", "", 400),
        ("GET", "/v1/allocations?cursor=xyz", "", 400),
        ("GET", "/v1/allocations?usr=alice", "", 400),
        ("GET", "/v1/allocations/not-an-id", "", 404),
        ("DELETE", "/v1/allocations/1", "{\"force\": true}", 400),
        ("POST", "/v1/drain", "{\"dedline\": 60}", 400),
        ("POST", "/v1/drain", "{\"deadline\": \"soon\"}", 400),
        ("POST", "/v1/drain", "60", 400),
        ("POST", "/v1/drain", &large, 413),
        ("POST", "/v1/undrain", "{\"deadline\": 60}", 400),
        ("POST", "/v1/reload", "{", 400),
        ("POST", "/v1/revocations", "", 400),
        ("POST", "/v1/revocations", "{\"user\": \"\"}", 400),
        ("POST", "/v1/revocations", "{\"user\": 5}", 400),
        ("POST", "/v1/revocations", "{\"user\": \"a\", \"until\": \"soon\"}", 400),
        ("POST", "/v1/revocations", "{\"user\": \"a\", \"until\": 5, \"for\": 5}", 400),
        ("POST", "/v1/revocations", "{\"user\": \"a\", \"end\": \"none\"}", 400),
        ("POST", "/v1/revocations", "{\"user\": \"a\", \"end\": true}", 400),
        ("POST", "/v1/revocations", "{\"user\": \"a\", \"end\": \"all\"}", 503),
        ("POST", "/v1/revocations", "{\"user\": \"a\", \"until\": 5, \"end\": \"refused\"}", 503),
        ("PUT", "/v1/peers/livekit", "", 400),
        ("PUT", "/v1/peers/livekit", "{\"addresses\": \"203.0.113.7\"}", 400),
        ("PUT", "/v1/peers/livekit", "{\"addresses\": [], \"mode\": \"none\"}", 400),
        ("PUT", "/v1/status", "", 405),
        ("GET", "/v1/statistics", "", 404),
    ] {
        assert_eq!(local(method, path, body).await.0, status, "{method} {path} {body}");
    }
    for media_type in ["", "text/plain", "application/x-www-form-urlencoded"] {
        let (status, code) =
            call(PROCESS, "POST", "/v1/drain", &[("content-type", media_type)], "{\"deadline\": 60}").await;
        assert_eq!((status, &*code), (415, "unsupported_media_type"), "{media_type}");
    }
}

/// A panic is an outcome, too: the audit line of the call is written.
#[tokio::test]
async fn a_panic_is_an_internal_error() {
    let outcome = completed(async { panic!("for this test") }).await;
    assert_eq!(outcome.unwrap_err().code, "internal");
}
