"""Bursts of datagrams in one system call, sent and received as the kernel's segmentation offloads do it (UDP_SEGMENT,
UDP_GRO): what applications with much to send do, and what a relay has to carry without changing a byte.
"""

import socket
import struct

UDP_SEGMENT, UDP_GRO = 103, 104

# The most that one call may send: 64 datagrams, and no more bytes than one datagram could have.
MOST_SEGMENTS, MOST_BYTES = 64, 65000


def send(opened, datagrams, to):
    """Sends datagrams in as few calls as can be: runs of the same length, of which the last may be shorter."""
    run = []
    for datagram in datagrams:
        ends = run and (
            len(datagram) > len(run[0])
            or len(run[-1]) < len(run[0])
            or len(run) == MOST_SEGMENTS
            or sum(map(len, run)) + len(datagram) > MOST_BYTES
            or not datagram
        )
        if ends:
            _send_run(opened, run, to)
            run = []
        run.append(datagram)
    if run:
        _send_run(opened, run, to)


def accept(opened):
    """Lets the kernel hand over bursts in one piece."""
    opened.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)


def receive(opened, count, timeout=10):
    """So many datagrams, and the number of pieces they came in."""
    datagrams, pieces = [], 0
    opened.settimeout(timeout)
    while len(datagrams) < count:
        try:
            piece, control, _, _ = opened.recvmsg(65536, 100)
        except TimeoutError:
            raise AssertionError(f"{count - len(datagrams)} of {count} datagrams are missing") from None
        size = next((struct.unpack("i", data)[0] for _, kind, data in control if kind == UDP_GRO), len(piece))
        size = size or 1
        datagrams += [piece[n : n + size] for n in range(0, len(piece), size)] or [b""]
        pieces += 1
    assert len(datagrams) == count, "more datagrams than were sent"
    return datagrams, pieces


def _send_run(opened, run, to):
    control = []
    if len(run) > 1:
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(run[0])))]
    sent = opened.sendmsg([b"".join(run)], control, 0, to)
    assert sent == sum(map(len, run))
