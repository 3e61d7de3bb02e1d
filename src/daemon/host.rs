//! The kernel's UDP error counters, for losses that no socket reports: above all datagrams to clients that were dropped at a
//! full device queue, which the kernel only reports to sockets that receive ICMP errors.
//!
//! The counters belong to the network namespace, so they include other programs. They are read when metrics are requested.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// A counter of the kernel: the address family, the error, and its count.
pub type UdpErrors = (&'static str, &'static str, u64);

/// The errors: their names here and in the kernel's tables for IPv4 and IPv6.
const ERRORS: [(&str, &str, &str); 4] = [
    ("receive_buffer", "RcvbufErrors", "Udp6RcvbufErrors"),
    ("send_buffer", "SndbufErrors", "Udp6SndbufErrors"),
    ("checksum", "InCsumErrors", "Udp6InCsumErrors"),
    ("memory", "MemErrors", "Udp6MemErrors"),
];

/// The most bytes of a table that are read.
const TABLE: usize = 64 << 10;

/// The kernel's tables. They are kept open, to be read when there is no file descriptor left.
pub struct HostTables {
    snmp: Option<File>,
    snmp6: Option<File>,
}

impl HostTables {
    /// Opens those that the kernel has.
    pub fn open() -> HostTables {
        let table = |name| File::open(format!("/proc/net/{name}")).ok();
        HostTables { snmp: table("snmp"), snmp6: table("snmp6") }
    }

    /// The counters that the kernel has.
    pub fn udp_errors(&self) -> Vec<UdpErrors> {
        let text = |table: &Option<File>| table.as_ref().map(contents).unwrap_or_default();
        read(&text(&self.snmp), &text(&self.snmp6))
    }
}

/// What a table contains now.
fn contents(table: &File) -> String {
    let (mut text, mut len) = (vec![0; TABLE], 0);
    while let Ok(read @ 1..) = table.read_at(&mut text[len..], len as u64) {
        len += read;
    }
    String::from_utf8_lossy(&text[..len]).into_owned()
}

fn read(snmp: &str, snmp6: &str) -> Vec<UdpErrors> {
    let v4 = ERRORS.iter().map(|&(error, name, _)| ("ipv4", error, in_snmp(snmp, name)));
    let v6 = ERRORS.iter().map(|&(error, _, name)| ("ipv6", error, in_snmp6(snmp6, name)));
    v4.chain(v6).filter_map(|(family, error, count)| Some((family, error, count?))).collect()
}

/// In this table each protocol has a line of names and a line of values.
fn in_snmp(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let place = lines.next()?.split_whitespace().position(|found| found == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

/// In this table each counter has its own line.
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
    fn both_tables_are_read() {
        let errors = ["receive_buffer", "send_buffer", "checksum", "memory"];
        let rows = |family, first| errors.into_iter().zip(first..).map(move |(error, n)| (family, error, n));
        assert_eq!(read(SNMP, SNMP6), rows("ipv4", 11).chain(rows("ipv6", 21)).collect::<Vec<_>>());
    }

    #[test]
    fn missing_counters_are_left_out() {
        assert_eq!(read("", ""), []);
        assert_eq!(read("Udp: RcvbufErrors\n", ""), []);
        assert_eq!(
            read("Udp: RcvbufErrors\nUdp: 7\n", "Udp6SndbufErrors\n"),
            [("ipv4", "receive_buffer", 7)]
        );
    }

    #[test]
    fn this_kernel_has_every_counter() {
        let tables = HostTables::open();
        let errors = tables.udp_errors();
        assert_eq!(tables.udp_errors().len(), errors.len(), "they can be read again");
        assert!(ERRORS.iter().all(|&(error, ..)| errors.iter().any(|row| (row.0, row.1) == ("ipv4", error))));
    }
}
