//! Relaying over TCP takes nothing from the heap once it runs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use hairpin::turn::Transport;

use crate::client::{channel_message, send_message};
use crate::world::{alone, peer, receive, relay};

/// Counts what all threads take but those of tests.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TAKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_TEST: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout, as the caller says.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, len) }
    }
}

fn count() {
    if !IS_TEST.try_with(Cell::get).unwrap_or(true) {
        TAKEN.fetch_add(1, Ordering::Relaxed);
    }
}

/// RFC 8656 §12: ChannelData and indications, both ways, whole or in pieces.
#[test]
fn relaying_over_tcp_allocates_nothing() {
    if !alone("allocations::relaying_over_tcp_allocates_nothing") {
        return;
    }
    IS_TEST.set(true);
    let relay = relay("127.1.11.1");
    let (mut client, peer, other) = (relay.allocated(Transport::Tcp), peer(), peer());
    client.bind(0x4001, &peer);
    client.permit(&other);
    let mut round = |n: usize| {
        let data = vec![n as u8; n % 1200];
        let whole = [channel_message(0x4001, &data), send_message(&other, &data)].concat();
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
    let before = TAKEN.load(Ordering::Relaxed);
    (0..2500).for_each(&mut round);
    assert_eq!(TAKEN.load(Ordering::Relaxed) - before, 0, "for 10,000 packets");
    relay.stop();
}
