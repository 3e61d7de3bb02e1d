//! How results are written.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::routes::API_VERSION;
use super::times::rfc3339_of;
use crate::auth::{ProbeCredential, Revocation};
use crate::config::tokens::Scope;
use crate::config::{Change, Reload};
use crate::daemon::certificates::CertificateStatus;
use crate::daemon::drain::{Drain, DrainStatus};
use crate::daemon::overlays::Overlay;
use crate::daemon::status::{AuthStatus, Counts, LastReload, ListenerStatus, PeerEntry, Status};
use crate::datapath::{Backend, BackendStats, RatedAllocation, Route, SpliceStats};
use crate::tls::CertificateName;
use crate::turn::{PeerRows, Transport};

/// A status, as those see it who may do as much as `scope`.
pub fn status(status: &Status, drain: Drain, scope: Scope) -> Value {
    let relay = |(ip, external): &(IpAddr, Option<IpAddr>)| json!({ "address": ip.to_string(), "external": external.map(|ip| ip.to_string()) });
    let limits: Map<String, Value> =
        status.limits.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "api": API_VERSION,
        "instance": status.instance.id,
        "started": rfc3339_of(status.instance.started),
        "uptime": status.uptime.as_secs(),
        "ready": status.not_ready.is_none(),
        "not_ready": status.not_ready,
        "draining": draining(drain),
        "listeners": status.listeners.iter().map(listener).collect::<Vec<_>>(),
        "http": status.http.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "control_socket": status.control_socket.as_ref().map(|path| path.display().to_string()),
        "admin": status.admin.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "relay_addresses": status.relay.iter().map(relay).collect::<Vec<_>>(),
        "relay_ports": format!("{}-{}", status.relay_ports.start(), status.relay_ports.end()),
        "ice_urls": status.ice_urls,
        "domain": status.domain,
        "auth": auth(&status.auth, scope),
        "limits": limits,
        "counts": counts(&status.counts, &status.splices),
        "backends": status.splices.backends.iter().map(backend).collect::<Vec<_>>(),
        "peers": status.peers.iter().map(peer).collect::<Vec<_>>(),
        "overlays": status.overlays.iter().map(overlay).collect::<Vec<_>>(),
        "certificates": status.certificates.iter().map(certificate).collect::<Vec<_>>(),
        "revoked_users": status.revoked,
        "last_reload": status.last_reload.as_ref().map(last_reload),
    })
}

/// A listener for clients. Of one for UDP there is nothing to say about connections.
fn listener(one: &ListenerStatus) -> Value {
    let (transport, address) = (one.transport.as_str(), one.address.to_string());
    if !one.transport.is_stream() {
        return json!({ "transport": transport, "address": address });
    }
    let service = &one.service;
    let backend = |one: &Backend| json!({ "address": one.to_string(), "send_proxy": one.send_proxy });
    let route = |(name, route): (&CertificateName, &Route)| match route {
        Route::Pass(to) => json!({ "name": name.to_string(), "pass": backend(to) }),
        Route::Terminate { http, h2c } => {
            json!({ "name": name.to_string(), "http": http.as_ref().map(backend), "h2c": h2c.as_ref().map(backend) })
        }
    };
    let from: Vec<String> = service.proxy_from.iter().map(ToString::to_string).collect();
    json!({
        "transport": transport,
        "address": address,
        "protocols": one.protocols.iter().map(|one| one.as_str()).collect::<Vec<_>>(),
        "routes": service.routes.iter().map(route).collect::<Vec<_>>(),
        "default_backend": service.default_backend.as_ref().map(backend),
        "http": service.http.as_ref().map(backend),
        "proxy": (!from.is_empty()).then(|| service.proxy.as_str()),
        "proxy_from": from,
        "mss": service.mss,
    })
}

/// Whether the relay drains. A drain that has ended counts until the process has: whoever waits for it must not take it for one
/// that was taken back.
fn draining(drain: Drain) -> Value {
    drain.status().map_or(Value::Null, |status| self::drain(&status))
}

/// A drain that goes on.
pub fn drain(status: &DrainStatus) -> Value {
    json!({
        "since": rfc3339_of(status.since),
        "deadline": status.deadline.map(rfc3339_of),
        "allocations": status.allocations,
    })
}

/// Who may use the relay. Whoever may only look learns nothing about where secrets are.
fn auth(auth: &AuthStatus, scope: Scope) -> Value {
    let files = || auth.secret_files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    json!({
        "realm": auth.realm,
        "shared_secrets": auth.shared_secrets,
        "secret_files": (scope == Scope::Admin).then(files),
        "livekit_keys": auth.livekit_keys,
        "livekit_two_part": auth.livekit_two_part,
        "users": auth.users,
        "max_lifetime": auth.max_lifetime,
    })
}

fn counts(counts: &Counts, splices: &SpliceStats) -> Value {
    let relayed: Map<String, Value> = Transport::ALL
        .iter()
        .zip(&counts.relayed)
        .map(|(transport, relays)| {
            (transport.as_str().to_owned(), json!({ "ipv4": relays.v4, "ipv6": relays.v6 }))
        })
        .collect();
    json!({
        "allocations": counts.allocations,
        "relayed_addresses": relayed,
        "permissions": counts.permissions,
        "channels": counts.channels,
        "spliced_connections": splices.connections,
    })
}

/// A backend, and since when it cannot be reached if it cannot.
fn backend(backend: &BackendStats) -> Value {
    let failure = backend.failure();
    json!({
        "backend": backend.name,
        "connections": backend.open,
        "failing_since": failure.map(|(since, _)| rfc3339_of(since)),
        "error": failure.map(|(_, error)| error),
    })
}

fn peer(entry: &PeerEntry) -> Value {
    json!({
        "peer": entry.peer,
        "action": if entry.allowed { "allow" } else { "deny" },
        "origin": entry.origin,
        "what": entry.what,
    })
}

/// The rules about peers.
pub fn peer_rules(status: &Status) -> Value {
    json!({
        "peers": status.peers.iter().map(peer).collect::<Vec<_>>(),
        "overlays": status.overlays.iter().map(overlay).collect::<Vec<_>>(),
    })
}

/// What a program has set.
pub fn overlay(overlay: &Overlay) -> Value {
    json!({
        "owner": overlay.owner,
        "mode": overlay.mode.as_str(),
        "addresses": overlay.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "since": rfc3339_of(overlay.since),
    })
}

fn certificate(certificate: &CertificateStatus) -> Value {
    json!({
        "file": certificate.file,
        "expires": certificate.expiry.map(rfc3339_of),
        "names": certificate.names,
        "self_signed": certificate.is_self_signed,
        "failing": certificate.is_failing,
    })
}

fn last_reload(reload: &LastReload) -> Value {
    let (Ok(said) | Err(said)) = &reload.outcome;
    json!({
        "at": rfc3339_of(reload.at),
        "by": reload.by,
        "ok": reload.outcome.is_ok(),
        "outcome": said,
    })
}

/// An allocation.
pub fn allocation(rated: &RatedAllocation) -> Value {
    let RatedAllocation { row, rates } = rated;
    let traffic = |packets: u64, bytes: u64, rate: Option<(u64, u64)>| {
        json!({
            "packets": packets,
            "bytes": bytes,
            "packets_per_second": rate.map(|(packets, _)| packets),
            "bytes_per_second": rate.map(|(_, bytes)| bytes),
        })
    };
    let (totals, rates) = (&row.totals, rates.as_ref());
    let to_peer = rates.map(|rates| (rates.to_peer_packets, rates.to_peer_bytes));
    let to_client = rates.map(|rates| (rates.to_client_packets, rates.to_client_bytes));
    let relayed = row
        .relayed
        .iter()
        .map(|relay| json!({ "address": relay.address.to_string(), "external": relay.external.to_string() }));
    let mut value = json!({
        "id": row.name.to_string(),
        "user": *row.user,
        "client": row.client.to_string(),
        "transport": row.transport.as_str(),
        "server": row.server.to_string(),
        "relayed": relayed.collect::<Vec<_>>(),
        "created": rfc3339_of(row.created),
        "age": row.age,
        "expires_in": row.expires_in,
        "permissions": row.permissions,
        "channels": row.channels,
        "to_peer": traffic(totals.to_peer_packets, totals.to_peer_bytes, to_peer),
        "to_client": traffic(totals.to_client_packets, totals.to_client_bytes, to_client),
    });
    if let Some(peers) = &row.peers {
        value["peers"] = self::peers(peers);
    }
    value
}

fn peers(peers: &PeerRows) -> Value {
    let permissions = peers
        .permissions
        .iter()
        .map(|(peer, expires)| json!({ "peer": peer.to_string(), "expires_in": expires }));
    let channels = peers.channels.iter().map(|(number, peer, expires)| {
        json!({ "number": number, "peer": peer.to_string(), "expires_in": expires })
    });
    json!({
        "permissions": permissions.collect::<Vec<_>>(),
        "channels": channels.collect::<Vec<_>>(),
    })
}

/// The revocation of a user. That of a static user has no end.
pub fn revocation(user: &str, revocation: &Revocation) -> Value {
    json!({
        "user": user,
        "since": rfc3339_of(revocation.since),
        "until": (!revocation.is_static).then(|| rfc3339_of(revocation.until)),
    })
}

/// A credential for a probe.
pub fn probe_credential(made: &ProbeCredential) -> Value {
    json!({
        "username": made.username,
        "password": made.password,
        "realm": made.realm,
        "expires": rfc3339_of(made.expires),
    })
}

/// A setting that a reload has changed.
pub fn change(change: &Change) -> Value {
    let holds = match change.holds {
        Reload::Live => "live",
        Reload::NewAllocations => "new_allocations",
        Reload::Restart => "restart",
    };
    json!({ "key": change.key, "change": change.what, "holds": holds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::drain::DrainEnd;

    /// Paths of secrets are for those who may change the relay.
    #[test]
    fn who_may_only_look_does_not_see_where_secrets_are() {
        let status = AuthStatus {
            realm: "example.org".into(),
            shared_secrets: 2,
            secret_files: vec!["/etc/hairpin/secret".into()],
            livekit_keys: 1,
            livekit_two_part: true,
            users: 3,
            max_lifetime: 86_400,
        };
        let expected = |files: Value| {
            json!({
                "realm": "example.org", "shared_secrets": 2, "secret_files": files, "livekit_keys": 1,
                "livekit_two_part": true, "users": 3, "max_lifetime": 86_400,
            })
        };
        assert_eq!(auth(&status, Scope::Admin), expected(json!(["/etc/hairpin/secret"])));
        assert_eq!(auth(&status, Scope::Read), expected(Value::Null));
    }

    #[test]
    fn a_relay_that_stops_after_its_drain_still_drains() {
        let status = DrainStatus { since: 0, deadline: None, allocations: 0 };
        for drain in [Drain::On(status), Drain::Ended(DrainEnd::Complete, status)] {
            assert_eq!(draining(drain)["since"], "1970-01-01T00:00:00Z");
        }
        assert_eq!(draining(Drain::Off), Value::Null);
    }
}
