//! The only `unsafe` code: system calls on Linux sockets that the standard library, `nix` and `socket2` do not offer.
//!
//! Each file wraps one thing behind safe functions: [`address`] (socket addresses in the kernel's layout), [`cmsg`]
//! (control messages; no `unsafe` needed), [`receive`] and [`send`] (batches of datagrams), [`option`] (socket options).
//!
//! No pointer outlives the system call that it was created for, so every structure may be moved and every buffer belongs
//! to its caller.

#![allow(unsafe_code)]

pub(super) mod address;
pub(super) mod cmsg;
pub(super) mod option;
pub(super) mod receive;
pub(super) mod send;

use std::io;

/// The result of a system call that returns -1 on failure.
fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// How much a thread yields to workers, as nice(1) counts: it has a tenth of their weight.
const NICE: i32 = 10;

/// Lowers the scheduling weight of the calling thread, and of those that it starts from now on, below that of workers.
/// `setpriority(2)`.
pub(crate) fn yield_to_workers() {
    // SAFETY: no pointers. On Linux this affects only the calling thread, and lowering a weight needs no privilege.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}
