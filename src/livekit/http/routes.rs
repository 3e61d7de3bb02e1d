//! Which request is which operation. docs/livekit-openapi.yaml has the same list.

use hyper::Method;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    IceServers,
    Webhook,
    Live,
    Ready,
    Metrics,
}

/// An operation with its method and path.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub operation: Operation,
}

/// Every operation. Each path has one.
pub static ROUTES: [Route; 5] = [
    Route { method: Method::GET, path: "/v1/ice-servers", operation: Operation::IceServers },
    Route { method: Method::POST, path: "/v1/webhook", operation: Operation::Webhook },
    Route { method: Method::GET, path: "/livez", operation: Operation::Live },
    Route { method: Method::GET, path: "/readyz", operation: Operation::Ready },
    Route { method: Method::GET, path: "/metrics", operation: Operation::Metrics },
];

impl Route {
    /// That of a path.
    pub fn find(path: &str) -> Option<&'static Route> {
        ROUTES.iter().find(|route| route.path == path)
    }

    /// Whether it is called with this method. HEAD is GET without a body (RFC 9110 section 9.3.2).
    pub fn takes(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }

    /// The methods, for `Allow`. Only the ICE-server API is for web pages, whose browsers ask with OPTIONS before.
    pub fn allowed(&self) -> &'static str {
        match self.operation {
            Operation::IceServers => "GET, HEAD, OPTIONS",
            Operation::Webhook => "POST",
            Operation::Live | Operation::Ready | Operation::Metrics => "GET, HEAD",
        }
    }
}

/// Every path, for a sentence.
pub fn list() -> String {
    let paths = ROUTES.each_ref().map(|route| route.path);
    let (last, others) = paths.split_last().expect("there are routes");
    format!("{} and {last}", others.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The OpenAPI file describes every operation, and no other.
    #[test]
    fn the_openapi_file_has_every_route() {
        let mut routes: BTreeSet<String> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        routes.insert("OPTIONS /v1/ice-servers".into());
        let mut described = BTreeSet::new();
        let mut path = "";
        for line in include_str!("../../../docs/livekit-openapi.yaml").lines() {
            let indent = line.len() - line.trim_start().len();
            match (indent, line.trim().strip_suffix(':')) {
                (2, Some(name)) if name.starts_with('/') => path = name,
                (2 | 0, _) => path = if line.trim().is_empty() { path } else { "" },
                (4, Some(method @ ("get" | "put" | "post" | "delete" | "patch" | "options" | "head")))
                    if !path.is_empty() =>
                {
                    described.insert(format!("{} {path}", method.to_uppercase()));
                }
                _ => {}
            }
        }
        assert_eq!(described, routes);
        let page = include_str!("../../../docs/livekit.md");
        for route in &ROUTES {
            assert!(
                page.contains(&format!("`{} {}`", route.method, route.path)),
                "docs/livekit.md: {route:?}"
            );
        }
    }
}
