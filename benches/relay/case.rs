//! The loads that contestants are put under.

/// One load.
pub struct Case {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    pub allocations: usize,
    /// Bytes of payload in a packet.
    pub payload: usize,
    /// Packets back to back.
    pub burst: usize,
    /// Packets a second, both directions together.
    pub rate: u64,
}

/// Every case, in the order of the table.
pub const CASES: &[Case] = &[
    Case {
        name: "thin-40k",
        about: "thin flows: 100 allocations, 200 B, both directions, 40,000 packets a second",
        allocations: 100,
        payload: 200,
        burst: 1,
        rate: 40_000,
    },
    Case {
        name: "thin-100k",
        about: "thin flows: 100 allocations, 200 B, both directions, 100,000 packets a second",
        allocations: 100,
        payload: 200,
        burst: 1,
        rate: 100_000,
    },
    Case {
        name: "bursts",
        about: "video bursts: 50 allocations, 8 x 1100 B back to back, both directions, 100,000 packets a second",
        allocations: 50,
        payload: 1100,
        burst: 8,
        rate: 100_000,
    },
];
