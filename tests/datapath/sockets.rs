//! Socket functions that the standard library lacks: GSO, and a filter by TOS.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};

use socket2::{MsgHdr, SockAddr, SockFilter, SockRef};

/// Sends datagrams of one length, the last of which may be shorter, as a GSO batch. Loopback delivers it as a GRO batch.
pub fn send_batch(socket: &UdpSocket, to: SocketAddr, datagrams: &[Vec<u8>]) {
    let (bytes, to) = (datagrams.concat(), SockAddr::from(to));
    // One control message, in the layout of cmsg(3).
    let segment = u16::try_from(datagrams[0].len()).unwrap();
    let mut control = (size_of::<usize>() + 10).to_ne_bytes().to_vec();
    control.extend(libc::SOL_UDP.to_ne_bytes());
    control.extend(libc::UDP_SEGMENT.to_ne_bytes());
    control.extend(segment.to_ne_bytes());
    control.resize(control.len().next_multiple_of(size_of::<usize>()), 0);
    let buffers = [IoSlice::new(&bytes)];
    let mut message = MsgHdr::new().with_addr(&to).with_buffers(&buffers);
    if datagrams.len() > 1 {
        message = message.with_control(&control);
    }
    assert_eq!(SockRef::from(socket).sendmsg(&message, 0).unwrap(), bytes.len());
}

/// Makes the socket drop all IPv4 packets with a different TOS byte.
pub fn accept_only(socket: &UdpSocket, tos: u8) {
    let statement = |code, k| SockFilter::new(code as u16, 0, 0, k);
    let program = [
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, (libc::SKF_NET_OFF as u32).wrapping_add(1)),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, u32::from(tos)),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
        statement(libc::BPF_RET | libc::BPF_K, 0),
    ];
    SockRef::from(socket).attach_filter(&program).unwrap();
}
