"""What clients without credentials get: the rate limit for unauthenticated responses, malformed datagrams, RFC 3489
clients. RFC 8489 §6.3, §11, §12; RFC 8656 §21.
"""

import os
import socket
import struct

import pytest

import stun
from hosts import eventually
from relay import REALM

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
    limits = {"unauthenticated_burst": BURST, "unauthenticated_rate": 1, "binding_burst": BURST, "binding_rate": 1}
    return start(host, workers=workers, limits=limits)


@pytest.mark.parametrize("method", [stun.BINDING, stun.ALLOCATE, stun.CREATE_PERMISSION])
def test_responses_to_strangers_are_limited(method, limited, connect, switch):
    """Binding responses have one bucket per client IP address and 401 responses another, across ports and workers."""
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
    """A rate or a burst of 0 disables the limit."""
    for limits in (
        {"unauthenticated_burst": 1, "unauthenticated_rate": 0, "binding_burst": 0, "binding_rate": 1},
        {"unauthenticated_burst": 0, "unauthenticated_rate": 1, "binding_burst": 1, "binding_rate": 0},
    ):
        relay = start(host, limits=limits)
        client = connect()
        for _ in range(100):
            client.binding()
            assert client.ask(stun.ALLOCATE, sign=False).code == 401
        relay.stop()


@pytest.mark.parametrize("first, then", [(stun.BINDING, stun.ALLOCATE), (stun.ALLOCATE, stun.BINDING)])
def test_bindings_and_challenges_are_limited_apart(first, then, limited, connect):
    """RFC 8489 §16.2.1: neither keepalives of an office nor a flood of Bindings in its name keeps clients there from
    authenticating, and the other way round.
    """
    flood(limited, [connect() for _ in range(4)], first, 5 * BURST)
    sent, answered = flood(limited, [connect() for _ in range(BURST)], then, 1)
    assert answered == sent


def test_keepalives_of_an_office_leave_room_for_new_clients(start, host, workers, connect):
    """With the defaults, 3,000 keepalives at once from one address do not keep a hundred new clients from getting in."""
    relay = start(host, workers=workers)
    flood(relay, [connect() for _ in range(100)], stun.BINDING, 30)
    for client in [connect() for _ in range(100)]:
        client.allocate()


def test_a_new_nonce_needs_no_token(limited, connect):
    """RFC 8489 §9.2.4: a 438 to a client that has proved its key is not limited, so that all clients of an office go on
    when their nonces have become invalid.
    """
    clients = [connect() for _ in range(5)]
    for client in clients:
        client.allocate()
    flood(limited, [connect()], stun.ALLOCATE, 5 * BURST)
    for client in clients:
        for nonce in (b"obMatJos2AAAA of another relay", b"x"):
            client.nonce = nonce
            assert client.ask(stun.REFRESH).code == 438
        assert client.refresh() == 600


def test_exempt_sources(start, host, workers, connect, switch):
    """`limits.exempt_sources` have buckets a hundred times as large, but not without a bottom."""
    office = switch.host("office")
    limits = {
        "unauthenticated_burst": 10,
        "unauthenticated_rate": 1,
        "binding_burst": 5,
        "binding_rate": 1,
        "exempt_sources": [f"{office.v4}/32", f"{office.v6}/128"],
    }
    relay = start(host, workers=workers, limits=limits)
    for method, burst in ((stun.ALLOCATE, 1000), (stun.BINDING, 500)):
        for server in ((host.v4, 3478), (host.v6, 3478)):
            asked = [connect(at=office, server=server) for _ in range(10)]
            sent, answered = flood(relay, asked, method, 2 * burst // 10)
            assert burst <= answered < 1.5 * burst
        _, answered = flood(relay, [connect()], method, 100)
        assert answered <= 15


def test_amplification_is_small(start, host, connect):
    """A challenge is not much longer than the request that causes it, and a Binding response is short."""
    start(host)
    client = connect()
    request, _ = client.prepare(stun.BINDING)
    assert len(client.ask(stun.BINDING).raw) <= 32 and len(request) == 20
    challenge = client.ask(stun.ALLOCATE, sign=False)
    assert challenge.get(stun.ERROR_CODE) == bytes([0, 0, 4, 1]), "no reason phrase"
    # Header, ERROR-CODE, REALM, NONCE, PASSWORD-ALGORITHMS
    assert len(challenge.raw) == 20 + 8 + (4 + 12) + (4 + 32) + (4 + 8), f"{REALM} takes 12 bytes"
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
