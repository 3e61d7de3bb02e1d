//! Reads the header of the PROXY protocol at the start of arbitrary bytes: how they are cut into segments changes nothing, a
//! header lies within the bound and within the input, and its addresses can be written and read again.

#![no_main]

use hairpin::wire::{PROXY_HEADER_MAX, ProxyHeader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = ProxyHeader::read(input);
    let segmented =
        (0..=input.len()).map(|len| ProxyHeader::read(&input[..len])).find(|read| *read != Ok(None));
    assert_eq!(segmented.unwrap_or(Ok(None)), whole, "byte by byte");
    let Ok(Some((header, len))) = whole else { return };
    assert!(len <= PROXY_HEADER_MAX.min(input.len()));
    let Some((client, server)) = header.addresses else { return };
    let mut written = Vec::new();
    ProxyHeader::write_v2(client, server, &mut written);
    assert_eq!(ProxyHeader::read(&written), Ok(Some((header, written.len()))));
});
