//! What the kernel says of UDP on this host, for losses that no socket can tell: above all datagrams for clients that a
//! full device queue swallowed, since only a socket that keeps ICMP errors hears of those.
//!
//! The counters are the network namespace's, so every program's. They are read when metrics are asked for.

use std::fs;

/// A counter of the kernel: the address family, what went wrong, and how often.
pub type UdpErrors = (&'static str, &'static str, u64);

/// What can go wrong: its name here, and in the kernel's tables for IPv4 and IPv6.
const ERRORS: [(&str, &str, &str); 4] = [
    ("receive_buffer", "RcvbufErrors", "Udp6RcvbufErrors"),
    ("send_buffer", "SndbufErrors", "Udp6SndbufErrors"),
    ("checksum", "InCsumErrors", "Udp6InCsumErrors"),
    ("memory", "MemErrors", "Udp6MemErrors"),
];

/// The kernel's counters, as far as it has them.
pub fn udp_errors() -> Vec<UdpErrors> {
    let table = |name| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    read(&table("snmp"), &table("snmp6"))
}

fn read(snmp: &str, snmp6: &str) -> Vec<UdpErrors> {
    let v4 = ERRORS.iter().map(|&(error, name, _)| ("ipv4", error, in_snmp(snmp, name)));
    let v6 = ERRORS.iter().map(|&(error, _, name)| ("ipv6", error, in_snmp6(snmp6, name)));
    v4.chain(v6).filter_map(|(family, error, count)| Some((family, error, count?))).collect()
}

/// Each protocol has a line of names and one of values.
fn in_snmp(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let place = lines.next()?.split_whitespace().position(|found| found == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

/// Each counter has a line.
fn in_snmp6(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(char::is_whitespace));
    lines.find(|(found, _)| *found == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "\
Tcp: RtoAlgorithm RcvbufErrors
Tcp: 1 99
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 5422713 3825 2127643 7595555 11 12 13 0 14
UdpLite: InDatagrams RcvbufErrors
UdpLite: 0 98
";

    const SNMP6: &str = "\
Udp6InDatagrams                 \t109432
Udp6RcvbufErrors                \t21
Udp6SndbufErrors                \t22
Udp6InCsumErrors                \t23
Udp6MemErrors                   \t24
UdpLite6RcvbufErrors            \t97
";

    #[test]
    fn both_families_tables() {
        let errors = ["receive_buffer", "send_buffer", "checksum", "memory"];
        let rows = |family, first| errors.into_iter().zip(first..).map(move |(error, n)| (family, error, n));
        assert_eq!(read(SNMP, SNMP6), rows("ipv4", 11).chain(rows("ipv6", 21)).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert_eq!(read("", ""), []);
        assert_eq!(read("Udp: RcvbufErrors\n", ""), []);
        assert_eq!(
            read("Udp: RcvbufErrors\nUdp: 7\n", "Udp6SndbufErrors\n"),
            [("ipv4", "receive_buffer", 7)]
        );
    }

    #[test]
    fn this_kernel_has_them() {
        let errors = udp_errors();
        assert!(ERRORS.iter().all(|&(error, ..)| errors.iter().any(|row| (row.0, row.1) == ("ipv4", error))));
    }
}
