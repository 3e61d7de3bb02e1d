"""What clients without credentials get, and how much of it: the bound on unauthenticated answers, broken datagrams,
clients of RFC 3489. RFC 8489 §6.3, §11, §12; RFC 8656 §21.
"""

import os
import socket
import struct

import pytest

import stun
from hosts import eventually

BURST = 20


def flood(relay, clients, method, each):
    """Sends so many requests from each of the clients; returns how many were sent and how many answered."""
    before = relay.metric("dropped_packets_total", reason="answer_withheld")
    answered = 0
    for _ in range(each):
        for client in clients:
            client.socket.sendto(client.prepare(method, sign=False)[0], client.server)

    def all_are_accounted_for():
        nonlocal answered
        answered += sum(client.drain() for client in clients)
        withheld = relay.metric("dropped_packets_total", reason="answer_withheld") - before
        return answered + withheld == each * len(clients)

    eventually(all_are_accounted_for)
    return each * len(clients), answered


@pytest.fixture
def bounded(start, host, workers):
    """A relay that gives strangers few answers, and hardly any more later."""
    limits = {"unauthenticated_burst": BURST, "unauthenticated_rate": 1}
    return start(host, workers=workers, limits=limits)


@pytest.mark.parametrize("method", [stun.BINDING, stun.ALLOCATE, stun.CREATE_PERMISSION])
def test_answers_to_strangers_are_bounded(method, bounded, connect, switch):
    """Binding successes and 401 draw on one bucket an address, whatever the port and the worker."""
    sent, answered = flood(bounded, [connect() for _ in range(10)], method, 20)
    assert BURST <= answered < sent / 2
    other = connect(at=switch.host("another client"))
    assert other.binding()[0] == other.socket.getsockname()[0]


def test_a_64_is_one_address(bounded, host, clients, connect):
    """IPv6 clients share a bucket by /64."""
    for n in range(0x100, 0x104):
        clients.add_address(f"2001:db8:1::{n:x}/64")
    asked = [connect(server=(host.v6, 3478), source=f"2001:db8:1::{n:x}") for n in range(0x100, 0x104)]
    sent, answered = flood(bounded, asked, stun.BINDING, 30)
    assert BURST <= answered < sent / 2


def test_those_with_credentials_are_not_held_up(bounded, connect, peers):
    """An empty bucket costs a running call nothing: its answers are signed."""
    client = connect()
    client.allocate()
    sent, answered = flood(bounded, [client], stun.BINDING, 5 * BURST)
    assert answered < sent / 2
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        for _ in range(5 * BURST):
            assert client.refresh() == 600
        client.send_channel(channel, b"still here")
        assert peer.recvfrom(100)[0] == b"still here"


def test_no_bound(start, host, connect):
    """A rate of 0 turns it off."""
    start(host, limits={"unauthenticated_burst": 1, "unauthenticated_rate": 0})
    client = connect()
    for _ in range(100):
        client.binding()


def test_amplification_is_small(start, host, connect):
    """A challenge is not much longer than what provokes it, and a Binding answer is short."""
    start(host)
    client = connect()
    request, _ = client.prepare(stun.BINDING)
    assert len(client.ask(stun.BINDING).raw) <= 32 and len(request) == 20
    challenge = client.ask(stun.ALLOCATE, sign=False)
    assert len(challenge.raw) <= 7 * len(request), "REALM, NONCE, PASSWORD-ALGORITHMS and a reason"
    assert challenge.get(stun.SOFTWARE) is None


def test_broken_datagrams_are_discarded(start, host, connect):
    """RFC 8489 §6.3, RFC 7983: nothing answers them, they are counted, and the relay goes on."""
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
    # RFC 3489 has no cookie: random bytes may be a Binding request in theory, and are not in practice.
    assert client.binding() == client.socket.getsockname()
    eventually(lambda: relay.metric("dropped_packets_total") >= len(broken) - 2 + 500)
    assert relay.metric("worker_panics_total") == 0


def test_classic_clients(start, host, connect):
    """RFC 8489 §11, RFC 3489: without the cookie Binding is answered with MAPPED-ADDRESS and the same 16 bytes."""
    start(host)
    client = connect()
    request = struct.pack("!HH", 0x0001, 0) + b"no cookie here!!"
    client.socket.sendto(request, client.server)
    answer = client.socket.recv(200)
    address, port = client.socket.getsockname()
    mapped = struct.pack("!BBH4s", 0, stun.IPV4, port, socket.inet_aton(address))
    assert answer == struct.pack("!HH", 0x0101, 12) + request[4:] + stun.attribute(
        stun.MAPPED_ADDRESS, mapped
    )


def test_unknown_attributes(start, host, connect):
    """RFC 8489 §6.3.1: 420 names those that must be understood, CHANGE-REQUEST too; others are ignored."""
    start(host)
    client = connect()
    answer = client.ask(stun.BINDING, (0x0003, bytes(4)), (0x7FFF, b"x"), (0xC000, b"ignored"))
    assert answer.code == 420
    assert struct.unpack("!HH", answer.get(stun.UNKNOWN_ATTRIBUTES)) == (0x0003, 0x7FFF)
    assert client.ask(stun.BINDING, (0xC000, b"ignored")).code == 0


def test_fingerprint_is_answered_in_kind(start, host, connect):
    """RFC 8489 §7: who sends FINGERPRINT gets one."""
    start(host)
    client = connect()
    for wanted in (True, False):
        message = stun.Message(stun.REQUEST, stun.BINDING)
        client.socket.sendto(message.encode(fingerprint=wanted), client.server)
        answer = client.answer(message.transaction, 5)
        assert (answer.get(stun.FINGERPRINT) is not None) == wanted


def test_software_only_by_a_setting(start, host, connect):
    """RFC 8489 §16.1.2: SOFTWARE is sent only if configured."""
    start(host, software="hairpin")
    assert connect().ask(stun.BINDING).get(stun.SOFTWARE) == b"hairpin"
