//! The sidecar's HTTP server: ICE servers for clients (way 3 of docs/livekit.md), LiveKit's webhooks, health and metrics.
//! docs/livekit-openapi.yaml describes it.
//!
//! - [`server`]: the sockets; `tls`: the certificate, which is read again when its files change
//! - `api`: what is done with a request; `routes`: which request is which operation; `response`: results and errors
//! - `ice_servers`: credentials; `caller`: who asks for them; `query`: what for; `rate_limit`: how often; `selection`: for which
//!   relays; `cors`: from which web pages
//! - [`counters`]: what it counts

mod api;
mod caller;
mod cors;
pub mod counters;
mod ice_servers;
mod query;
mod rate_limit;
mod response;
mod routes;
mod selection;
pub mod server;
mod tls;
