"""Sends and receives bursts of datagrams with one system call, using the kernel's segmentation offloads (UDP_SEGMENT
and UDP_GRO), as high-bandwidth applications do.
"""

import socket
import struct

UDP_SEGMENT, UDP_GRO = 103, 104

# Limits of one call: 64 segments, and no more bytes than one datagram can hold.
MOST_SEGMENTS, MOST_BYTES = 64, 65000


def send(opened, datagrams, to):
    """Sends datagrams in as few calls as possible. One call carries datagrams of equal length, of which the last may be
    shorter.
    """
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
    """Enables GRO: the kernel may deliver several datagrams in one piece."""
    opened.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)


def receive(opened, count, timeout=10):
    """Receives `count` datagrams; returns them and the number of pieces they arrived in."""
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
