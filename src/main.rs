//! The relay's entry.

fn main() {}
