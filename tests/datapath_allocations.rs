//! Relaying does not allocate memory. Each test runs in a process of its own, because the allocator counts for the process.

#![allow(unsafe_code, reason = "a global allocator requires it")]
#![cfg(test)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use hairpin::turn::Transport;

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "datapath/client.rs"]
mod client;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "datapath/world.rs"]
mod world;

use client::{channel_message, padded_channel_message, send_indication};
use world::{addr, alone, peer, receive, relay};

/// Counts the allocations of all threads except those that have set [`EXEMPT`].
struct CountingAllocator;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !EXEMPT.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: all methods forward to the system allocator, and counting does not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the same contract, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the same contract, and `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// RFC 8656 §12.6, §12.7, §11.2, §11.3: 10,000 packets over UDP. The test itself does not allocate either.
#[test]
fn relaying_over_udp_does_not_allocate() {
    if !alone("relaying_over_udp_does_not_allocate") {
        return;
    }
    let relay = relay("127.1.3.1");
    let mut client = relay.allocated(Transport::Udp);
    let (bound, permitted) = (peer(), peer());
    client.bind(0x4001, addr(&bound));
    client.permit(addr(&permitted));
    let messages = [channel_message(0x4001, &[1; 1000]), send_indication(addr(&permitted), &[2; 1000])];
    let relayed = client.relayed[0];
    let mut buffer = [0; 2048];
    let mut exchange = |count| {
        for _ in 0..count {
            for (message, peer) in messages.iter().zip([&bound, &permitted]) {
                client.send(message);
                assert_eq!(peer.recv(&mut buffer).unwrap(), 1000);
                peer.send_to(&buffer[..1000], relayed).unwrap();
                assert!(client.udp().recv(&mut buffer).unwrap() > 1000);
            }
        }
    };
    exchange(100);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    exchange(2500);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    relay.stop();
}

/// RFC 8656 §12: ChannelData and indications over TCP in both directions, whole or in pieces.
#[test]
fn relaying_over_tcp_does_not_allocate() {
    if !alone("relaying_over_tcp_does_not_allocate") {
        return;
    }
    EXEMPT.set(true);
    let relay = relay("127.1.11.1");
    let (mut client, peer, other) = (relay.allocated(Transport::Tcp), peer(), peer());
    client.bind(0x4001, addr(&peer));
    client.permit(addr(&other));
    let mut round = |n: usize| {
        let data = vec![n as u8; n % 1200];
        let whole = [padded_channel_message(0x4001, &data), send_indication(addr(&other), &data)].concat();
        let (first, second) = whole.split_at(n % whole.len());
        client.send(first);
        client.send(second);
        assert_eq!(receive(&peer).0, data);
        assert_eq!(receive(&other).0, data);
        peer.send_to(&data, client.relayed[0]).unwrap();
        assert_eq!(client.channel_data().1, data);
        other.send_to(&data, client.relayed[0]).unwrap();
        assert_eq!(client.indication().1, data);
    };
    (0..2000).for_each(&mut round);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..2500).for_each(&mut round);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "for 10,000 packets");
    relay.stop();
}
