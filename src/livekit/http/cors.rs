//! Which web pages may ask: those of `http.origins` (the CORS protocol of the Fetch standard).
//!
//! A browser asks first whether a page may send `Authorization`. Cookies play no part, so a page gets nothing that whoever has the
//! token could not get without a browser.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{Response, StatusCode};

use super::response::Failure;
use crate::livekit::config::urls::ANY_ORIGIN as ANY;

/// The methods of the ICE-server API.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What a page says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// There is no page: a program asks, or a page of the same origin.
    None,
    /// A page that is listed, or any page where `*` is. The value is that of `Access-Control-Allow-Origin`.
    Allowed(HeaderValue),
    /// Another page. Browsers do not show it the answer.
    Other(String),
}

impl Origin {
    /// That of a request.
    pub fn of(headers: &HeaderMap, origins: &[String]) -> Origin {
        let Some(origin) = headers.get(ORIGIN) else { return Origin::None };
        if origins.iter().any(|known| origin.as_bytes() == known.as_bytes()) {
            return Origin::Allowed(origin.clone());
        }
        if origins.iter().any(|known| known == ANY) {
            return Origin::Allowed(HeaderValue::from_static(ANY));
        }
        Origin::Other(String::from_utf8_lossy(origin.as_bytes()).into_owned())
    }

    /// Whether it is a page that is not listed by its own name.
    pub fn is_unnamed(&self) -> bool {
        match self {
            Origin::None => false,
            Origin::Allowed(value) => value == ANY,
            Origin::Other(_) => true,
        }
    }

    /// Lets the page see a response. Caches keep responses to different pages apart.
    pub fn complete(&self, response: &mut Response<String>) {
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if let Origin::Allowed(origin) = self {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        }
    }

    /// The response to OPTIONS, by which a browser asks what a page may do.
    pub fn preflight(&self, request: &HeaderMap) -> Response<String> {
        if let Origin::Other(origin) = self {
            let shown: String = origin.chars().take(200).collect();
            let message = format!("pages of {shown:?} may not ask for ICE servers; add it to http.origins");
            return Failure::forbidden(message).into_response();
        }
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ALLOW, METHODS);
        if *self != Origin::None && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            // `*` would not include Authorization.
            let allowed = HeaderValue::from_static("Authorization, Content-Type");
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://meet.example.org";

    fn origin(presented: Option<&str>, listed: &[&str]) -> Origin {
        let mut headers = HeaderMap::new();
        if let Some(origin) = presented {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        let listed: Vec<String> = listed.iter().map(|one| (*one).to_owned()).collect();
        Origin::of(&headers, &listed)
    }

    fn header<'a>(response: &'a Response<String>, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    fn completed(origin: &Origin) -> Response<String> {
        let mut response = Response::new(String::new());
        origin.complete(&mut response);
        response
    }

    #[test]
    fn only_listed_pages_see_answers() {
        let allowed = |presented, listed: &[&str]| {
            let response = completed(&origin(Some(presented), listed));
            assert_eq!(header(&response, "vary"), Some("Origin"));
            header(&response, "access-control-allow-origin").map(str::to_owned)
        };
        assert_eq!(allowed(PAGE, &["https://other.example", PAGE]).as_deref(), Some(PAGE));
        for other in [
            "http://meet.example.org",
            "https://meet.example.org:8443",
            "https://meet.example.org.evil.example",
            "https://evil.example",
            "https://MEET.example.org",
            "null",
        ] {
            assert_eq!(allowed(other, &[PAGE]), None, "{other}");
            assert_eq!(allowed(other, &[]), None, "{other}");
        }
        assert_eq!(allowed("https://evil.example", &["*"]).as_deref(), Some("*"));
        assert_eq!(header(&completed(&origin(None, &[PAGE])), "access-control-allow-origin"), None);
    }

    #[test]
    fn a_preflight_allows_the_authorization_header() {
        let mut asks = HeaderMap::new();
        asks.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
        let response = origin(Some(PAGE), &[PAGE]).preflight(&asks);
        assert_eq!(response.status(), 204);
        assert_eq!(header(&response, "access-control-allow-headers"), Some("Authorization, Content-Type"));
        assert_eq!(header(&response, "access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
        let response = origin(Some("https://evil.example"), &[PAGE]).preflight(&asks);
        assert_eq!(response.status(), 403);
        assert_eq!(header(&response, "access-control-allow-headers"), None);
        assert!(response.body().contains("http.origins"), "{}", response.body());
        let response = origin(None, &[PAGE]).preflight(&HeaderMap::new());
        assert_eq!(
            (response.status().as_u16(), header(&response, "allow")),
            (204, Some("GET, HEAD, OPTIONS"))
        );
    }
}
