//! One table of settings, made into everything else: the loader, the reference page, the sample configuration and the
//! layers' own configuration types.
//!
//! - [`table`]: every setting with its key, kind, place, default, documentation and coturn's name for it
//! - [`field`]: what a setting may be and where it goes
//! - `values`: how each kind of value is read
//! - [`settings`]: the settings once read
//! - [`load()`]: a file's text to settings, every mistake reported at once
//! - `layers`: what the layers below are told of them
//! - [`external`]: what relayed addresses are called behind a NAT
//! - [`tls`], `certificate`: who this server is to TLS clients
//! - `checks`: whether settings agree with each other
//! - [`pages`]: the reference page and the sample
//!
//! Nothing here opens a socket, reads a file or the environment: what is needed of them is passed in as a [`ReadContext`].

mod certificate;
mod checks;
pub mod external;
pub mod field;
mod layers;
mod load;
pub mod pages;
mod report;
pub mod settings;
pub mod table;
#[cfg(test)]
mod tests;
pub mod tls;
mod values;

pub use field::ReadContext;
pub use layers::Site;
pub use load::{Loaded, SECRET_VARIABLE, load, without_file};
pub use report::Finding;
pub use settings::Settings;
