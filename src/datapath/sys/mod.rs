//! The one room with `unsafe`: what the standard library, socket2 and tokio do not offer of Linux's sockets.
//!
//! Each file wraps one thing behind a safe function: [`address`] (socket addresses as the kernel lays them out), [`cmsg`]
//! (control messages; no `unsafe` needed), [`receive`] and [`send`] (batches of datagrams), [`option`] (socket options
//! and the steering program), [`epoll`] (a set of sockets to wait for).
//!
//! Nothing here keeps a pointer beyond the system call it was made for, so every structure may be moved and every
//! buffer belongs to its caller.

#![allow(unsafe_code)]

pub(super) mod address;
pub(super) mod cmsg;
pub(super) mod epoll;
pub(super) mod option;
pub(super) mod receive;
pub(super) mod send;

use std::io;

/// The result of a system call that returns -1 on failure.
fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Lowers the weight of the calling thread, as nice(1) does. `setpriority(2)`.
pub(super) fn give_way(nice: i32) {
    // SAFETY: no pointers. On Linux this is about the calling thread alone, and anyone may lower a weight.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}
