//! Which program this is: its version, the commit that it was built from, and what it supports.

/// The version and the commit, like `0.1.0 (115f540)`.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("HAIRPIN_COMMIT"), ")");

/// `concat!` takes literals only.
macro_rules! features {
    () => {
        "udp tcp tls1.2 tls1.3 ipv6 gro gso aws-lc-rs"
    };
}

/// What this program supports.
pub const FEATURES: &str = features!();

/// What `hairpin --version` prints after the name.
pub const LONG_VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("HAIRPIN_COMMIT"), ") features: ", features!());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_version_has_all_parts() {
        assert_eq!(LONG_VERSION, format!("{VERSION} features: {FEATURES}"));
        assert!(!VERSION.contains("()"), "{VERSION}");
    }
}
