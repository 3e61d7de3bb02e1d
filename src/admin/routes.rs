//! Which request is which operation. docs/openapi.yaml has the same list.

use hyper::Method;

use super::percent::decoded;
use super::response::Failure;
use crate::turn::AllocationName;

/// The version of this API: the first segment of every path.
pub const API_VERSION: &str = "v1";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Status,
    ListAllocations,
    ShowAllocation,
    EndAllocation,
    EndUser,
    Drain,
    Undrain,
    Reload,
    ListRevocations,
    ShowRevocation,
    Revoke,
    Unrevoke,
    ListPeers,
    SetPeers,
    ClearPeers,
    ProbeCredentials,
}

/// Every operation with its method and path. A segment in braces stands for any text.
pub static ROUTES: &[(Method, &str, Operation)] = &[
    (Method::GET, "/v1/status", Operation::Status),
    (Method::GET, "/v1/allocations", Operation::ListAllocations),
    (Method::GET, "/v1/allocations/{id}", Operation::ShowAllocation),
    (Method::DELETE, "/v1/allocations/{id}", Operation::EndAllocation),
    (Method::DELETE, "/v1/users/{user}/allocations", Operation::EndUser),
    (Method::POST, "/v1/drain", Operation::Drain),
    (Method::POST, "/v1/undrain", Operation::Undrain),
    (Method::POST, "/v1/reload", Operation::Reload),
    (Method::GET, "/v1/revocations", Operation::ListRevocations),
    (Method::POST, "/v1/revocations", Operation::Revoke),
    (Method::GET, "/v1/revocations/{user}", Operation::ShowRevocation),
    (Method::DELETE, "/v1/revocations/{user}", Operation::Unrevoke),
    (Method::GET, "/v1/peers", Operation::ListPeers),
    (Method::PUT, "/v1/peers/{owner}", Operation::SetPeers),
    (Method::DELETE, "/v1/peers/{owner}", Operation::ClearPeers),
    (Method::POST, "/v1/probe-credentials", Operation::ProbeCredentials),
];

/// An operation, and the segment of the path that a braced one of the pattern stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub operation: Operation,
    /// Empty if the pattern has none.
    pub subject: String,
}

impl Route {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        use Operation as Op;
        match self.operation {
            Op::Status
            | Op::ListAllocations
            | Op::ShowAllocation
            | Op::ListRevocations
            | Op::ShowRevocation
            | Op::ListPeers
            | Op::ProbeCredentials => false,
            Op::EndAllocation
            | Op::EndUser
            | Op::Drain
            | Op::Undrain
            | Op::Reload
            | Op::Revoke
            | Op::Unrevoke
            | Op::SetPeers
            | Op::ClearPeers => true,
        }
    }

    /// Whether a token must have the scope `admin` for it.
    pub fn needs_admin(&self) -> bool {
        // Credentials let someone in, although making them changes nothing.
        self.changes() || self.operation == Operation::ProbeCredentials
    }

    /// The allocation that it changes, for the audit log.
    pub fn session(&self) -> Option<AllocationName> {
        match self.operation {
            Operation::EndAllocation => self.subject.parse().ok(),
            _ => None,
        }
    }

    /// What it does, in the words of `hairpin ctl`, for the audit log.
    pub fn action(&self) -> String {
        let verb = match self.operation {
            Operation::Status => "status",
            Operation::ListAllocations => "list",
            Operation::ShowAllocation => "show",
            Operation::EndAllocation => "end",
            Operation::EndUser => "end-user",
            Operation::Drain => "drain",
            Operation::Undrain => "undrain",
            Operation::Reload => "reload",
            Operation::ListRevocations | Operation::ShowRevocation => "revocations",
            Operation::Revoke => "revoke",
            Operation::Unrevoke => "unrevoke",
            Operation::ListPeers => "peers list",
            Operation::SetPeers => "peers set",
            Operation::ClearPeers => "peers clear",
            Operation::ProbeCredentials => "probe-credentials",
        };
        if self.subject.is_empty() { verb.to_owned() } else { format!("{verb} {}", self.subject) }
    }
}

/// The operation of a request. HEAD is GET without a body (RFC 9110 section 9.3.2).
pub fn find(method: &Method, path: &str) -> Result<Route, Failure> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut allowed = Vec::new();
    for (known, pattern, operation) in ROUTES {
        let Some(subject) = subject(pattern, path) else { continue };
        if known == method {
            let subject =
                decoded(subject, false).map_err(|wrong| Failure::bad_request(format!("the path {wrong}")))?;
            return Ok(Route { operation: *operation, subject });
        }
        allowed.push(known.as_str());
        if known == Method::GET {
            allowed.push("HEAD");
        }
    }
    Err(if allowed.is_empty() { Failure::unknown_route(path) } else { Failure::method(&allowed.join(", ")) })
}

/// The segment of `path` that stands for the braced one of `pattern`, or nothing if there is none; `None` if they differ.
fn subject<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let (mut expected, mut found) = (pattern.split('/'), path.split('/'));
    let mut subject = "";
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return Some(subject),
            (Some(one), Some(other)) if one.starts_with('{') && !other.is_empty() => subject = other,
            (Some(one), Some(other)) if one == other => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn found(method: &str, path: &str) -> Result<(Operation, String), (u16, String)> {
        match find(&method.parse().unwrap(), path) {
            Ok(route) => Ok((route.operation, route.subject)),
            Err(failure) => {
                let status = failure.status.as_u16();
                let response = failure.into_response();
                let allow = response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
                Err((status, allow.unwrap_or_default()))
            }
        }
    }

    #[test]
    fn paths_lead_to_operations() {
        for (method, path, operation, subject) in [
            ("GET", "/v1/status", Operation::Status, ""),
            ("HEAD", "/v1/status", Operation::Status, ""),
            ("DELETE", "/v1/allocations/0.5", Operation::EndAllocation, "0.5"),
            ("DELETE", "/v1/users/a%2Fb%3Ac/allocations", Operation::EndUser, "a/b:c"),
            ("DELETE", "/v1/users/a:b@c+d/allocations", Operation::EndUser, "a:b@c+d"),
            ("DELETE", "/v1/users/Zo%C3%AB/allocations", Operation::EndUser, "Zo\u{eb}"),
            ("PUT", "/v1/peers/livekit", Operation::SetPeers, "livekit"),
        ] {
            assert_eq!(found(method, path), Ok((operation, subject.into())), "{method} {path}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        for path in
            ["/", "/v1", "/v1/", "/v2/status", "/v1/status/", "/v1/users//allocations", "/v1/allocations/a/b"]
        {
            assert_eq!(found("GET", path).unwrap_err().0, 404, "{path}");
        }
        assert_eq!(found("POST", "/v1/status"), Err((405, "GET, HEAD".into())));
        assert_eq!(found("PUT", "/v1/allocations/1.2"), Err((405, "GET, HEAD, DELETE".into())));
        assert_eq!(found("GET", "/v1/drain"), Err((405, "POST".into())));
        for path in ["/v1/peers/%zz", "/v1/peers/%f", "/v1/peers/%ff", "/v1/peers/a%00b"] {
            assert_eq!(found("PUT", path).unwrap_err().0, 400, "{path}");
        }
    }

    /// The OpenAPI file and the page beside it describe every operation, and no other.
    #[test]
    fn the_documentation_has_every_route() {
        let routes: BTreeSet<String> =
            ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        let mut described = BTreeSet::new();
        let mut path = "";
        for line in include_str!("../../docs/openapi.yaml").lines() {
            let indent = line.len() - line.trim_start().len();
            match (indent, line.trim().strip_suffix(':')) {
                (2, Some(name)) if name.starts_with('/') => path = name,
                (2 | 0, _) => path = if line.trim().is_empty() { path } else { "" },
                (4, Some(method @ ("get" | "put" | "post" | "delete" | "patch"))) if !path.is_empty() => {
                    described.insert(format!("{} {path}", method.to_uppercase()));
                }
                _ => {}
            }
        }
        assert_eq!(described, routes, "docs/openapi.yaml");
        let page = include_str!("../../docs/api.md");
        let headings: BTreeSet<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`').map(str::to_owned))
            .collect();
        assert_eq!(headings, routes, "docs/api.md");
    }
}
