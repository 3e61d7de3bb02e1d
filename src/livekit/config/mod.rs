//! The sidecar's configuration: one table of settings, as the relay has, made into [`Settings`](super::settings::Settings).
//!
//! - `table`: every setting with its key, kind, field, default and documentation
//! - `kinds`, [`urls`]: how values are read that the relay has not; `relay`: `[[relay]]`
//! - `checks`: whether settings agree with each other; `changes`: what differs between two configurations
//! - [`load()`]: from the text of a file to settings, with every mistake; [`read()`]: the same with the files of this machine
//! - [`pages`]: the reference page and the sample

mod changes;
mod checks;
mod kinds;
mod load;
pub mod pages;
mod read;
mod relay;
mod table;
pub mod urls;

pub use changes::changes;
pub use load::{Loaded, Purpose, load};
pub use read::{LOCAL_FILE, SYSTEM_FILE, default_path, read};
pub use relay::is_loopback;
pub use table::SECRET_VARIABLE;

#[cfg(test)]
mod tests;
