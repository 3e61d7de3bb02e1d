//! A classic BPF program that selects the socket of a listener group for each datagram.
//!
//! Every worker has two sockets in a group: *control* for requests and *data* for ChannelData and Send indications, so that
//! a flood of requests fills a queue of its own. The worker is chosen by a hash of the source address and port, the same
//! for both kinds, and keyed so that an attacker cannot target one worker. The kind is only a hint, because one GRO batch
//! may contain both: either socket accepts everything.
//!
//! In the program, offset 0 is the start of the UDP payload, and `SKF_NET_OFF` is the start of the IP header.

use crate::datapath::sys::option::Instruction;
use crate::wire::ChannelRange;

/// The two sockets that a worker has in each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum QueueKind {
    /// Requests, and everything else that is not data.
    Control,
    /// ChannelData and Send indications.
    Data,
}

impl QueueKind {
    /// The number of kinds.
    pub(in crate::datapath) const COUNT: usize = 2;

    /// The index in a group of `worker`'s socket of this kind.
    pub(in crate::datapath) fn index(self, worker: usize) -> usize {
        worker * QueueKind::COUNT + self as usize
    }

    /// The kind of the socket at an index in a group.
    pub(in crate::datapath) fn of(index: usize) -> QueueKind {
        if index % QueueKind::COUNT == QueueKind::Control as usize {
            QueueKind::Control
        } else {
            QueueKind::Data
        }
    }
}

/// The multiplier of the hash: an odd number near 2^32 divided by the golden ratio, as in Fibonacci hashing.
const MULTIPLIER: u32 = 0x9E37_79B1;

/// Scratch memory slots of the kind and of the hash.
const KIND: u32 = 0;
const HASH: u32 = 1;

/// The program for a group with [`QueueKind::COUNT`] sockets per worker.
pub(in crate::datapath) fn program(workers: usize, key: u32, channels: ChannelRange) -> Vec<Instruction> {
    let mut program = classify(channels);
    program.extend([load_constant(key), stmt(libc::BPF_ST, HASH)]);
    let (v4, v6) = (v4(), v6());
    program.extend([
        load(libc::BPF_B, ip(0)),
        stmt(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 4),
        jump_unless(6, v6.len() + 1),
    ]);
    program.extend(v6);
    program.push(stmt(libc::BPF_JMP | libc::BPF_JA, v4.len() as u32));
    program.extend(v4);
    program.extend([
        stmt(libc::BPF_LD | libc::BPF_MEM, HASH),
        stmt(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers.max(1) as u32),
        stmt(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, QueueKind::COUNT as u32),
        stmt(libc::BPF_LDX | libc::BPF_MEM, KIND),
        stmt(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
        stmt(libc::BPF_RET | libc::BPF_A, 0),
    ]);
    program
}

/// Stores the kind. Data starts with 0x40-0x4F (RFC 8656 section 12.4) or 0x40-0x7F (RFC 5766 section 11), or is a Send
/// indication, whose type is 0x0016 (section 17).
fn classify(channels: ChannelRange) -> Vec<Instruction> {
    let (shift, channel) = match channels {
        ChannelRange::Rfc8656 => (12, 0x4),
        ChannelRange::Rfc5766 => (14, 0x1),
    };
    vec![
        stmt(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0),
        // A load past the end would terminate the program with 0.
        jump(libc::BPF_JGE, 2, 0, 4),
        load(libc::BPF_H, 0),
        jump(libc::BPF_JEQ, 0x0016, 4, 0),
        stmt(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, shift),
        jump(libc::BPF_JEQ, channel, 2, 0),
        load_constant(QueueKind::Control as u32),
        stmt(libc::BPF_JMP | libc::BPF_JA, 1),
        load_constant(QueueKind::Data as u32),
        stmt(libc::BPF_ST, KIND),
    ]
}

/// Mixes in the IPv4 source address, and the source port after a header of variable length.
fn v4() -> Vec<Instruction> {
    let mut part = vec![load(libc::BPF_W, ip(12))];
    part.extend(mix());
    part.push(stmt(libc::BPF_LDX | libc::BPF_MSH | libc::BPF_B, ip(0)));
    part.push(stmt(libc::BPF_LD | libc::BPF_IND | libc::BPF_H, ip(0)));
    part.extend(mix());
    part
}

/// Mixes in the IPv6 source address, and the source port unless there are extension headers before it.
fn v6() -> Vec<Instruction> {
    let mut part = Vec::new();
    for word in 0..4 {
        part.push(load(libc::BPF_W, ip(8 + 4 * word)));
        part.extend(mix());
    }
    let mix = mix();
    part.push(load(libc::BPF_B, ip(6)));
    part.push(jump_unless(libc::IPPROTO_UDP as u32, mix.len() + 1));
    part.push(load(libc::BPF_H, ip(40)));
    part.extend(mix);
    part
}

/// hash = (hash ^ A) * MULTIPLIER; hash ^= hash >> 15
fn mix() -> Vec<Instruction> {
    vec![
        stmt(libc::BPF_LDX | libc::BPF_MEM, HASH),
        stmt(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
        stmt(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, MULTIPLIER),
        stmt(libc::BPF_MISC | libc::BPF_TAX, 0),
        stmt(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 15),
        stmt(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
        stmt(libc::BPF_ST, HASH),
    ]
}

/// The offset of a byte of the IP header.
fn ip(offset: u32) -> u32 {
    (libc::SKF_NET_OFF as u32).wrapping_add(offset)
}

fn load(size: u32, offset: u32) -> Instruction {
    stmt(libc::BPF_LD | libc::BPF_ABS | size, offset)
}

fn load_constant(value: u32) -> Instruction {
    stmt(libc::BPF_LD | libc::BPF_IMM, value)
}

fn stmt(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt, jf, k }
}

/// Skips the next `skip` instructions unless the accumulator is `k`.
fn jump_unless(k: u32, skip: usize) -> Instruction {
    jump(libc::BPF_JEQ, k, 0, u8::try_from(skip).expect("parts are shorter than 256 instructions"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsFd;

    use super::*;
    use crate::datapath::DatapathConfig;
    use crate::datapath::listen::group::ListenerGroup;
    use crate::datapath::sys::receive::Receiver;

    const CONTROL: [&[u8]; 6] =
        [&[], &[0x40], &[0, 0x01, 0, 0], &[0, 0x03, 0, 0], &[0x50, 0, 0, 0], &[0x16, 0xFE, 0, 0]];
    const DATA: [&[u8]; 4] = [&[0x40, 0], &[0x40, 1, 0, 0], &[0x4F, 0xFF, 0, 1, 9], &[0x00, 0x16, 0, 0]];

    /// The number of datagrams that each socket has received. Loopback delivers them before the send returns.
    fn received(group: &ListenerGroup, from: SocketAddr) -> Vec<(usize, QueueKind, usize)> {
        let mut all = Vec::new();
        let mut receiver = Receiver::new(16);
        for worker in 0..group.workers() {
            for kind in [QueueKind::Control, QueueKind::Data] {
                let mut memory = vec![0; 16 * 64];
                let count = receiver
                    .receive(group.socket(worker, kind).unwrap().as_fd(), memory.chunks_mut(64))
                    .unwrap_or(0);
                assert!((0..count).all(|n| receiver.datagram(n).unwrap().from == from));
                if count > 0 {
                    all.push((worker, kind, count));
                }
            }
        }
        all
    }

    /// RFC 5766 §11: with its channel numbers, 0x5000 is data too.
    #[test]
    fn data_of_older_clients() {
        for (channels, kind) in
            [(ChannelRange::Rfc8656, QueueKind::Control), (ChannelRange::Rfc5766, QueueKind::Data)]
        {
            let config = DatapathConfig { channels, ..DatapathConfig::for_workers(1) };
            let group = ListenerGroup::open("127.0.0.1:0".parse().unwrap(), &config, 0xC0FFEE).unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            for first in [0x50, 0x60, 0x7F] {
                client.send_to(&[first, 0, 0, 0], group.local_addr()).unwrap();
                assert_eq!(received(&group, client.local_addr().unwrap()), [(0, kind, 1)], "{first:#x}");
            }
            for first in [0x3F, 0x80, 0xC0] {
                client.send_to(&[first, 0, 0, 0], group.local_addr()).unwrap();
                assert_eq!(received(&group, client.local_addr().unwrap()), [(0, QueueKind::Control, 1)]);
            }
            client.send_to(&[0x40, 0, 0, 0], group.local_addr()).unwrap();
            assert_eq!(received(&group, client.local_addr().unwrap()), [(0, QueueKind::Data, 1)]);
        }
    }

    fn clients_stay_with_a_worker(ip: &str, workers: usize) {
        let group = ListenerGroup::open(
            SocketAddr::new(ip.parse().unwrap(), 0),
            &DatapathConfig::for_workers(workers),
            0xC0FFEE,
        )
        .unwrap();
        let mut seen = HashSet::new();
        for _ in 0..64 {
            let client = UdpSocket::bind((ip, 0)).unwrap();
            for bytes in CONTROL.iter().chain(&DATA) {
                client.send_to(bytes, group.local_addr()).unwrap();
            }
            let got = received(&group, client.local_addr().unwrap());
            let &[(worker, QueueKind::Control, CONTROL_COUNT), (same, QueueKind::Data, DATA_COUNT)] =
                &got[..]
            else {
                panic!("{got:?}")
            };
            assert_eq!(worker, same);
            seen.insert(worker);
        }
        assert_eq!(seen.len(), workers, "all workers have clients");
    }

    const CONTROL_COUNT: usize = CONTROL.len();
    const DATA_COUNT: usize = DATA.len();

    /// Both sockets that receive from a client belong to one worker, and data has a queue of its own.
    #[test]
    fn clients_stay_with_a_worker_over_ipv4() {
        clients_stay_with_a_worker("127.0.0.1", 1);
        clients_stay_with_a_worker("127.0.0.1", 4);
    }

    #[test]
    fn clients_stay_with_a_worker_over_ipv6() {
        clients_stay_with_a_worker("::1", 3);
    }

    /// IPv4 options move the port in the packet, but the client stays on its socket.
    #[test]
    fn ip_options_do_not_move_a_client() {
        let group =
            ListenerGroup::open("127.0.0.1:0".parse().unwrap(), &DatapathConfig::for_workers(4), 1).unwrap();
        for _ in 0..16 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(DATA[0], group.local_addr()).unwrap();
            let plain = received(&group, client.local_addr().unwrap());
            crate::datapath::sys::option::ip_options(client.as_fd(), &[1; 8]).unwrap();
            client.send_to(DATA[0], group.local_addr()).unwrap();
            assert_eq!(received(&group, client.local_addr().unwrap()), plain);
        }
    }

    /// Without the program, the kernel's own hash keeps a client on one socket.
    #[test]
    fn without_steering_a_client_stays_on_one_socket() {
        let config = DatapathConfig { steering: false, ..DatapathConfig::for_workers(2) };
        let group = ListenerGroup::open("127.0.0.1:0".parse().unwrap(), &config, 1).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for bytes in CONTROL.iter().chain(&DATA) {
            client.send_to(bytes, group.local_addr()).unwrap();
        }
        let got = received(&group, client.local_addr().unwrap());
        assert!(matches!(got[..], [(_, _, 10)]), "{got:?}");
    }
}
