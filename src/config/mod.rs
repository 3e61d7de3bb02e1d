//! The configuration. One table of settings is the source of the loader, the reference page, the sample and the
//! configuration types of the layers below.
//!
//! - [`settings`]: the settings as plain data
//! - `table`: every setting with its key, kind, field, default, documentation and coturn names
//! - [`files`]: sentences about files that cannot be read
//! - `kind`, `kinds`: how the values of each kind are read
//! - `secrets`: which texts are shared secrets and passwords, and how files hold them; `livekit_keys`: files with LiveKit's API keys
//! - `users_file`: files with users, as TOML or one per line
//! - `document`: reads files by tables of settings, for the relay and for the sidecar
//! - `section`: reads settings and repeated sections by rows of the table; `user`: `[[auth.user]]`; `sibling`: `[[sibling]]`;
//!   `certificate_section`: `[[tls.certificate]]`; `listener_section`: `[[listener]]`
//! - `listener`: listeners and their settings; `service`: what their TCP connections are; `listener_checks`,
//!   `service_checks`: whether these agree with other settings; `backend`: the text of a server that connections are passed on to
//! - [`load()`]: from the text of a file to settings, with every mistake
//! - `changes`: what differs between two configurations
//! - [`coturn`]: `turnserver.conf` made into a configuration
//! - `argument`, `overrides`: settings of arguments and the environment; `service_links`: variables that are Kubernetes' and no settings
//! - `checks`: whether settings agree with each other
//! - `hosts`: the addresses of host names without DNS
//! - `own_addresses`: whether `[peers]` agrees with the addresses of this machine
//! - `layers`: the configuration of `auth`, `turn` and `datapath`
//! - [`external`]: the addresses of a relay behind a NAT
//! - [`tls`]: the certificates for TLS clients and their files; [`server_certificate`], [`certificate`]: what is in them
//! - [`tokens`]: who may use the admin API over TCP
//! - [`pages`]: the reference page and the sample
//!
//! What reads tables and makes pages of them is the sidecar's, too, which has tables of its own (`livekit::config`).
//!
//! Nothing here opens a socket, reads a file or the environment: these are passed in as a [`ReadContext`].

mod argument;
mod backend;
pub mod certificate;
mod certificate_section;
mod changes;
mod checks;
pub mod coturn;
pub(crate) mod document;
pub mod external;
pub mod files;
mod hosts;
pub(crate) mod kind;
pub(crate) mod kinds;
mod layers;
mod listener;
mod listener_checks;
mod listener_section;
pub(crate) mod livekit_keys;
mod load;
mod overrides;
pub mod own_addresses;
pub mod pages;
pub(crate) mod report;
pub(crate) mod secrets;
pub(crate) mod section;
pub mod server_certificate;
mod service;
mod service_checks;
mod service_links;
pub mod settings;
mod sibling;
mod table;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tokens;
mod user;
mod users_file;

pub use argument::Argument;
pub use changes::Change;
#[cfg(test)]
pub use changes::every_key;
pub use kind::{FileContents, ReadContext, Reload};
pub use kinds::port_range;
pub use layers::Site;
pub use listener::{Listener, ListenerPeers, ListenerSettings, PeersMode, PublicAddress};
pub use load::{Loaded, load, without_file};
pub use overrides::PREFIX;
pub use report::{Finding, Note};
pub use secrets::{WrongLine, secrets_in_file};
pub use service::{Protocol, ProxyMode, ServiceSettings};
pub use settings::Settings;
pub use table::SECRET_VARIABLE;
