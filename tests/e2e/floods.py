"""Floods of datagrams from a separate process. The datagrams are prepared in advance and sent with `sendmmsg`, hundreds
per call, so that the relay is overloaded and not the test.

Strangers (clients without credentials) send from any number of addresses (`give_sources`). A test can also flood from
its own sockets (`from_sockets`). A flood ends by itself after a while; `Flood.stop` ends it earlier and returns what
was sent.
"""

import ctypes
import ipaddress
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import stun
from hosts import Background

# Strangers use the benchmarking range (RFC 2544).
SOURCES = ipaddress.ip_network("198.18.0.0/19")

STRANGERS = ("binding", "requests", "passwords", "garbage", "data")

IP_PKTINFO = 8
BATCH = 256

_libc = ctypes.CDLL(None, use_errno=True)


class Flood(Background):
    """A flood that runs on a host."""

    def __init__(self, host, *words, sockets=(), cpu=None):
        pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
        python = [sys.executable, Path(__file__), *words]
        pipes = {"stdout": subprocess.PIPE, "text": True, "pass_fds": [opened.fileno() for opened in sockets]}
        self.process = host.start(*pinned, *python, **pipes)

    def runs(self):
        """Whether the flood is still running."""
        return self.process.poll() is None

    def stop(self):
        """Ends the flood; returns how many datagrams were sent: per flow for `from_sockets`, in total for
        `of_strangers`.
        """
        self.process.send_signal(signal.SIGTERM)
        return json.loads(self.process.stdout.read())


def give_sources(flooder, relay_host):
    """Gives a host all addresses of `SOURCES`, and the relay's host a route to them."""
    flooder.run("ip", "route", "add", "local", SOURCES, "dev", "lo")
    relay_host.run("ip", "route", "add", SOURCES, "via", flooder.v4)


def of_strangers(flooder, kind, server, sources, rate, seconds=30):
    """Sends `rate` datagrams of a kind per second from `sources` addresses."""
    return Flood(flooder, "strangers", kind, *server, sources, rate, seconds)


def from_sockets(host, flows, size, seconds=30, rate=0, cpu=None):
    """Sends datagrams from sockets that this process has open, as fast as possible or `rate` per second. `flows` are
    tuples (socket, destination, header); a datagram is `header` padded to `size` bytes.
    """
    sockets = [opened for opened, _, _ in flows]
    words = [f"{opened.fileno()},{to[0]},{to[1]},{header.hex()}" for opened, to, header in flows]
    return Flood(host, "sockets", size, seconds, rate, *words, sockets=sockets, cpu=cpu)


# Arguments of sendmmsg(2)


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("namelen", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Vector)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_char_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("header", _Header), ("sent", ctypes.c_uint)]


class Batch:
    """Datagrams for one call: tuples (payload, destination, source address or None)."""

    def __init__(self, datagrams):
        self.count = len(datagrams)
        self._keep = []
        self._messages = (_Message * self.count)()
        for message, (payload, to, source) in zip(self._messages, datagrams):
            name = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", to[1], socket.inet_aton(to[0]))
            control = b""
            if source is not None:
                control = struct.pack("=QiiI4s4x4x", 28, socket.IPPROTO_IP, IP_PKTINFO, 0, socket.inet_aton(source))
            vector = _Vector(payload, len(payload))
            self._keep.append((name, control, vector, payload))
            header = message.header
            header.name, header.namelen = name, len(name)
            header.vector, header.vectors = ctypes.pointer(vector), 1
            header.control, header.controllen = control or None, len(control)

    def send(self, opened, first=0, count=None):
        """Sends `count` datagrams from index `first` on; returns how many were sent."""
        end = min(self.count, first + count) if count else self.count
        sent = _libc.sendmmsg(opened.fileno(), ctypes.byref(self._messages[first]), end - first, 0)
        return max(sent, 0)


# The flooding process


def main(kind, *words):
    """Floods until it is terminated or its time is over, then prints what was sent."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    flood = {"strangers": _strangers, "sockets": _sockets}[kind](*words)
    sent = None
    try:
        for sent in flood:
            pass
    except SystemExit:
        pass
    print(json.dumps(sent))


def _strangers(kind, address, port, sources, rate, seconds):
    server = (address, int(port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        opened.bind(("", 0))
        addresses = [str(SOURCES[n + 1]) for n in range(int(sources))]
        if kind == "passwords":
            datagrams = [(wrong, server, source) for source, wrong in _wrong_passwords(opened, server, addresses)]
        else:
            datagrams = [(_stranger(kind, n), server, source) for n, source in enumerate(addresses)]
        batches = [Batch(datagrams[n : n + BATCH]) for n in range(0, len(datagrams), BATCH)]
        for sent in _paced(int(rate), float(seconds), lambda n, _: batches[n % len(batches)].send(opened)):
            yield sent  # Responses are not read; they overflow this socket's queue.


def _stranger(kind, n):
    if kind == "binding":
        return stun.Message(stun.REQUEST, stun.BINDING).encode()
    if kind == "requests":
        transport = (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))
        return stun.Message(stun.REQUEST, stun.ALLOCATE, [transport]).encode()
    if kind == "data":
        # The relay classifies ChannelData and Send indications as data.
        data = os.urandom(n % 400)
        if n % 2:
            return stun.channel_data(0x4000 + n % 0x1000, data)
        peer = (stun.XOR_PEER_ADDRESS, stun.xor_address(("203.0.113.9", 9)))
        return stun.Message(stun.INDICATION, stun.SEND, [peer, (stun.DATA_ATTRIBUTE, data)]).encode()
    return os.urandom(1 + n % 1200)


def _wrong_passwords(opened, server, addresses):
    """An Allocate request for each address, with the nonce it was given and a wrong key."""
    asked = Batch([(_stranger("requests", 0), server, source) for source in addresses])
    waiting = set(addresses)
    while waiting:
        for n in range(0, asked.count, BATCH):
            asked.send(opened, n, BATCH)
            time.sleep(0.005)
            while select.select([opened], [], [], 0)[0]:
                raw, control, _, _ = opened.recvmsg(2048, 64)
                source = socket.inet_ntoa(control[0][2][8:12])
                if source in waiting:
                    waiting.remove(source)
                    yield source, _signed(stun.parse(raw))


def _signed(challenge):
    attributes = [
        (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0])),
        (stun.USERNAME, b"alice"),
        (stun.REALM, challenge.get(stun.REALM)),
        (stun.NONCE, challenge.get(stun.NONCE)),
    ]
    return stun.Message(stun.REQUEST, stun.ALLOCATE, attributes).encode(os.urandom(16))


def _sockets(size, seconds, rate, *flows):
    ways = []
    for flow in flows:
        fd, address, port, header = flow.split(",")
        opened = socket.socket(fileno=int(fd))
        header = bytes.fromhex(header)
        payload = header + bytes(int(size) - len(header))
        ways.append((opened, Batch([(payload, (address, int(port)), None)] * 32)))
    sent = [0] * len(ways)

    def send(n, most):
        way = n % len(ways)
        opened, batch = ways[way]
        count = batch.send(opened, 0, min(most, batch.count))
        sent[way] += count
        return count

    for _ in _paced(int(rate), float(seconds), send):
        yield sent


def _paced(rate, seconds, send):
    """Calls `send(n, most)` such that `rate` datagrams are sent per second; yields the running total from time to time.
    """
    start = time.monotonic()
    sent = n = 0
    while (elapsed := time.monotonic() - start) < seconds:
        due = elapsed * rate - sent if rate else BATCH
        if due < 1:
            yield sent
            time.sleep(0.001)
            continue
        sent += send(n, int(due))
        n += 1
        if n % 16 == 0:
            yield sent


if __name__ == "__main__":
    main(*sys.argv[1:])
