//! What is refused whatever the operator says or by default, and the well-known NAT64 prefix.

/// Refused by default: everything that is not a global unicast address (IANA's special-purpose registries, and its IPv6
/// address space registry for what is outside of 2000::/3).
pub(super) const DENIED: [(&str, &str); 43] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, cloud metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relays"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved, broadcast"),
    ("::/8", "reserved"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/8", "reserved"),
    ("100::/64", "discard only"),
    ("200::/7", "reserved"),
    ("400::/6", "reserved"),
    ("800::/5", "reserved"),
    ("1000::/4", "reserved"),
    ("2001::/23", "protocol assignments"),
    ("2001:2::/48", "benchmarking"),
    ("2001:10::/28", "ORCHID"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("4000::/3", "reserved"),
    ("5f00::/16", "segment routing"),
    ("6000::/3", "reserved"),
    ("8000::/3", "reserved"),
    ("a000::/3", "reserved"),
    ("c000::/3", "reserved"),
    ("e000::/4", "reserved"),
    ("f000::/5", "reserved"),
    ("f800::/6", "reserved"),
    ("fc00::/7", "private"),
    ("fe00::/9", "reserved"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
];

/// IPv6 addresses that stand for IPv4 ones or for tunnels: always refused (RFC 8656 section 21.4). The unspecified and the
/// loopback address are in ::/96 too, but they are neither.
pub(super) const TUNNELS: [(&str, &str); 4] = [
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::/96", "IPv4-compatible"),
    ("2002::/16", "6to4"),
    ("2001::/32", "Teredo"),
];

/// The well-known NAT64 prefix (RFC 6052 section 2.1).
pub(super) const NAT64: &str = "64:ff9b::/96";
