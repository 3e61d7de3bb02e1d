"""What clients without credentials get: the rate limit for unauthenticated responses, malformed datagrams, RFC 3489
clients. RFC 8489 §6.3, §11, §12; RFC 8656 §21.
"""

import os
import socket
import struct

import pytest

import stun
from hosts import eventually

BURST = 20


def flood(relay, clients, method, each):
    """Sends `each` requests from each client; returns how many were sent and how many were answered."""
    before = relay.metric("dropped_packets_total", reason="unauthenticated_rate")
    answered = 0
    for _ in range(each):
        for client in clients:
            client.socket.sendto(client.prepare(method, sign=False)[0], client.server)

    def all_are_accounted_for():
        nonlocal answered
        answered += sum(client.drain() for client in clients)
        withheld = relay.metric("dropped_packets_total", reason="unauthenticated_rate") - before
        return answered + withheld == each * len(clients)

    eventually(all_are_accounted_for)
    return each * len(clients), answered


@pytest.fixture
def limited(start, host, workers):
    """A relay with a small rate limit for unauthenticated responses."""
    limits = {"unauthenticated_burst": BURST, "unauthenticated_rate": 1}
    return start(host, workers=workers, limits=limits)


@pytest.mark.parametrize("method", [stun.BINDING, stun.ALLOCATE, stun.CREATE_PERMISSION])
def test_responses_to_strangers_are_limited(method, limited, connect, switch):
    """Binding success responses and 401 responses share one bucket per client IP address, across ports and workers."""
    sent, answered = flood(limited, [connect() for _ in range(10)], method, 20)
    assert BURST <= answered < sent / 2
    other = connect(at=switch.host("another client"))
    assert other.binding()[0] == other.socket.getsockname()[0]


def test_ipv6_limit_is_per_64(limited, host, clients, connect):
    """IPv6 clients share a bucket per /64."""
    for n in range(0x100, 0x104):
        clients.add_address(f"2001:db8:1::{n:x}/64")
    asked = [connect(server=(host.v6, 3478), source=f"2001:db8:1::{n:x}") for n in range(0x100, 0x104)]
    sent, answered = flood(limited, asked, stun.BINDING, 30)
    assert BURST <= answered < sent / 2


def test_authenticated_clients_are_not_limited(limited, connect, peers):
    """An empty bucket does not affect a running call, because its requests are authenticated."""
    client = connect()
    client.allocate()
    sent, answered = flood(limited, [client], stun.BINDING, 5 * BURST)
    assert answered < sent / 2
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        for _ in range(5 * BURST):
            assert client.refresh() == 600
        client.send_channel(channel, b"still here")
        assert peer.recvfrom(100)[0] == b"still here"


def test_limit_can_be_disabled(start, host, connect):
    """A rate of 0 disables the limit."""
    start(host, limits={"unauthenticated_burst": 1, "unauthenticated_rate": 0})
    client = connect()
    for _ in range(100):
        client.binding()


def test_amplification_is_small(start, host, connect):
    """A challenge is not much longer than the request that causes it, and a Binding response is short."""
    start(host)
    client = connect()
    request, _ = client.prepare(stun.BINDING)
    assert len(client.ask(stun.BINDING).raw) <= 32 and len(request) == 20
    challenge = client.ask(stun.ALLOCATE, sign=False)
    assert len(challenge.raw) <= 7 * len(request), "REALM, NONCE, PASSWORD-ALGORITHMS and a reason phrase"
    assert challenge.get(stun.SOFTWARE) is None


def test_broken_datagrams_are_discarded(start, host, connect):
    """RFC 8489 §6.3, RFC 7983: malformed datagrams are counted and get no response, and the relay keeps working."""
    relay = start(host)
    client = connect()
    whole, _ = client.prepare(stun.BINDING)
    allocate = stun.Message(stun.REQUEST, stun.ALLOCATE, [(stun.LIFETIME, stun.number(600))]).encode()
    broken = {
        "empty": b"",
        "one byte": b"\x00",
        "half a header": whole[:10],
        "length too long": whole[:2] + b"\x00\x04" + whole[4:],
        "length not of words": whole[:2] + b"\x00\x02" + whole[4:] + bytes(2),
        "trailing bytes": whole + bytes(4),
        "attribute past the end": allocate[:22] + b"\x00\xff" + allocate[24:],
        "unknown method": struct.pack("!H", 0x0002) + whole[2:],
        "allocate without cookie": allocate[:4] + os.urandom(4) + allocate[8:],
        "wrong fingerprint": stun.Message(stun.REQUEST, stun.BINDING).encode(fingerprint=True)[:-1] + b"?",
        "TLS": b"\x16\x03\x01" + bytes(60),
        "RTP": b"\x80" + bytes(20),
        "QUIC": b"\xc0" + bytes(1200),
        "response": stun.Message(stun.SUCCESS, stun.BINDING).encode(),
        "channel data": stun.channel_data(0x4000, b"no allocation"),
        "short channel data": b"\x40",
        "reserved channel": stun.channel_data(0x5000, b"x"),
        "send": stun.Message(stun.INDICATION, stun.SEND).encode(),
        "data": stun.Message(stun.INDICATION, stun.DATA).encode(),
    }
    for name, raw in broken.items():
        client.socket.sendto(raw, client.server)
        client.binding()
        assert client.drain() == 0, name
    for _ in range(500):
        client.socket.sendto(os.urandom(1 + os.urandom(1)[0]), client.server)
    # RFC 3489 has no magic cookie, so random bytes could be a Binding request in theory, but hardly in practice.
    assert client.binding() == client.socket.getsockname()
    eventually(lambda: relay.metric("dropped_packets_total") >= len(broken) - 2 + 500)
    assert relay.metric("worker_panics_total") == 0


def test_classic_clients(start, host, connect):
    """RFC 8489 §11, RFC 3489: a Binding request without the magic cookie gets MAPPED-ADDRESS and its own 16-byte
    transaction ID.
    """
    start(host)
    client = connect()
    request = struct.pack("!HH", 0x0001, 0) + b"no cookie here!!"
    client.socket.sendto(request, client.server)
    response = client.socket.recv(200)
    address, port = client.socket.getsockname()
    mapped = struct.pack("!BBH4s", 0, stun.IPV4, port, socket.inet_aton(address))
    assert response == struct.pack("!HH", 0x0101, 12) + request[4:] + stun.attribute(
        stun.MAPPED_ADDRESS, mapped
    )


def test_unknown_attributes(start, host, connect):
    """RFC 8489 §6.3.1: 420 lists unknown comprehension-required attributes, including CHANGE-REQUEST;
    comprehension-optional ones are ignored.
    """
    start(host)
    client = connect()
    response = client.ask(stun.BINDING, (0x0003, bytes(4)), (0x7FFF, b"x"), (0xC000, b"ignored"))
    assert response.code == 420
    assert struct.unpack("!HH", response.get(stun.UNKNOWN_ATTRIBUTES)) == (0x0003, 0x7FFF)
    assert client.ask(stun.BINDING, (0xC000, b"ignored")).code == 0


def test_fingerprint_in_response_to_fingerprint(start, host, connect):
    """RFC 8489 §7: a response has FINGERPRINT if the request has it."""
    start(host)
    client = connect()
    for wanted in (True, False):
        message = stun.Message(stun.REQUEST, stun.BINDING)
        client.socket.sendto(message.encode(fingerprint=wanted), client.server)
        response = client.response(message.transaction, 5)
        assert (response.get(stun.FINGERPRINT) is not None) == wanted


def test_software_only_if_configured(start, host, connect):
    """RFC 8489 §16.1.2: SOFTWARE is sent only if configured."""
    start(host, software="hairpin")
    assert connect().ask(stun.BINDING).get(stun.SOFTWARE) == b"hairpin"
