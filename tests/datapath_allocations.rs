//! Nothing is allocated for a relayed packet. The only test of this program, since it watches the whole process.

#![allow(unsafe_code, reason = "a global allocator cannot be made without")]
#![cfg(test)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "datapath/client.rs"]
mod client;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "datapath/world.rs"]
mod world;

use client::channel_message;
use world::{Relay, addr, peer, setup};

/// Packets each way, in ChannelData and in indications.
const PACKETS: usize = 2_500;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is done by the system's allocator; beside that a number is counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that this function asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: likewise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: likewise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// RFC 8656 §12.6, §12.7, §11.2, §11.3: data both ways, and not one allocation once the relay is warm.
#[test]
fn ten_thousand_packets_without_an_allocation() {
    let relay = Relay::start(setup("127.1.3.1"));
    let mut client = relay.allocated();
    let (bound, permitted) = (peer("127.1.3.1"), peer("127.1.3.1"));
    client.bind(0x4001, addr(&bound));
    client.permit(addr(&permitted));
    let there =
        [channel_message(0x4001, &[1; 1000]), client.indication_message(addr(&permitted), &[2; 1000])];
    let relayed = client.relayed[0];
    let mut buffer = [0; 2048];
    let mut exchange = |count| {
        for _ in 0..count {
            for (message, peer) in there.iter().zip([&bound, &permitted]) {
                client.send(message);
                assert_eq!(peer.recv(&mut buffer).unwrap(), 1000);
                peer.send_to(&buffer[..1000], relayed).unwrap();
                assert!(client.socket.recv(&mut buffer).unwrap() > 1000);
            }
        }
    };
    exchange(100);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    exchange(PACKETS);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(allocations, 0);
    relay.stop();
}
