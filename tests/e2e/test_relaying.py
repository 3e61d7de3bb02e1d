"""Relaying preserves payloads and their boundaries, and ends when lifetimes expire. RFC 8656 §8, §9, §11, §12."""

import os

import pytest

import stun
from hosts import eventually
from turn import User, error_code

# From empty payloads up to nearly the largest that fits in a datagram with the relay's headers.
SIZES = [0, 1, 2, 3, 4, 5, 100, 1199, 1200, 1472, 1473, 9000, 65000]

# The longest UDP payload over IPv4.
MOST = 65535 - 20 - 8


def both_ways(client, peer, channel, payload):
    """Sends a payload to a peer and back, over a channel or in indications."""
    address = peer.getsockname()[:2]
    if channel:
        client.send_channel(channel, payload)
    else:
        client.send(address, payload)
    received, source = peer.recvfrom(65536)
    assert received == payload and source[:2] == (client.relayed_v6 or client.relayed)
    peer.sendto(payload, source)
    assert client.receive()[:2] == (channel or address, payload)


@pytest.mark.parametrize("way", ["channel", "indication"])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_payloads_of_every_size(family, way, start, host, connect, peers):
    """RFC 8656 §11.2, §11.3, §12.4: payloads of every size arrive unchanged, including empty datagrams."""
    relay = start(host)
    client = connect(server=(getattr(host, family), 3478))
    client.allocate(family=stun.IPV6 if family == "v6" else stun.IPV4)
    with peers.udp(getattr(peers, family)) as peer:
        address = peer.getsockname()[:2]
        client.permit(address)
        channel = client.bind(address) if way == "channel" else None
        for size in SIZES:
            both_ways(client, peer, channel, os.urandom(size))
    relay.reaches("relayed_bytes_total", sum(SIZES), direction="to_peer")
    relay.becomes("relayed_bytes_total", sum(SIZES), direction="to_client")
    relay.becomes("relayed_packets_total", len(SIZES), direction="to_client")


def test_largest_datagram(start, host, connect, peers):
    """RFC 8656 §12.7: a datagram that leaves no room for its header is dropped and counted, and affects nothing else.
    """
    relay = start(host)
    client = connect()
    client.allocate()
    with peers.udp() as peer, peers.udp() as other:
        channel = client.bind(peer.getsockname())
        both_ways(client, peer, channel, os.urandom(MOST - 4))
        client.permit(other.getsockname())
        peer.sendto(os.urandom(MOST), client.relayed)
        other.sendto(os.urandom(MOST - 4), client.relayed)
        both_ways(client, peer, channel, b"on it goes")
    eventually(lambda: relay.metric("dropped_packets_total") + relay.metric("unsent_packets_total") == 2)


def test_dual_allocation(start, host, connect, peers):
    """RFC 8656 §7.2, §8.1: an allocation with both families; a Refresh that names a family deletes only that family."""
    relay = start(host)
    client = connect()
    client.allocate((stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0])))
    assert client.relayed[0] == host.v4 and client.relayed_v6[0] == host.v6
    relay.becomes("allocations", 2)
    with peers.udp(peers.v6) as six, peers.udp() as four:
        client.permit(peers.v4, peers.v6)
        client.send(six.getsockname(), b"six")
        assert six.recvfrom(100)[1][:2] == client.relayed_v6
        client.refresh(0, (stun.REQUESTED_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0])))
        client.send(four.getsockname(), b"four")
        assert four.recvfrom(100)[1] == client.relayed
    relay.becomes("allocations", 1, family="ipv4")
    relay.becomes("allocations", 0, family="ipv6")
    with host.udp(client.relayed_v6[0], client.relayed_v6[1]):
        pass  # the port is free again


def test_retransmissions_get_the_same_response(start, host, connect):
    """RFC 8489 §6.3.1, RFC 8656 §7.2: a retransmitted Allocate creates no second allocation; the response has the same
    address and token.
    """
    relay = start(host)
    client = connect()
    client.challenge()
    transport = (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))
    raw, transaction = client.prepare(stun.ALLOCATE, transport, (stun.EVEN_PORT, b"\x80"))
    responses = []
    for _ in range(5):
        # Two at once: while the first is being processed, the retransmission is absorbed.
        client.socket.sendto(raw, client.server)
        client.socket.sendto(raw, client.server)
        client.socket.settimeout(5)
        responses.append(stun.parse(client.socket.recv(500)))
    same = {
        (a.transaction, a.address(stun.XOR_RELAYED_ADDRESS), a.get(stun.RESERVATION_TOKEN)) for a in responses
    }
    assert len(same) == 1 and responses[0].transaction == transaction and responses[0].code == 0
    relay.becomes("allocations", 1)
    assert error_code(client.allocate) == 437


def test_expiry(start, host, connect, peers):
    """RFC 8656 §8, §9, §12: permissions, channels and allocations that are not refreshed expire, and ports are freed.
    """
    limits = {
        "allocation_lifetime": 4,
        "max_allocation_lifetime": 4,
        "permission_lifetime": 1,
        "channel_lifetime": 2,
    }
    relay = start(host, limits=limits)
    client = connect()
    address, port = client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        client.send_channel(channel, b"bound")
        assert peer.recvfrom(100)[0] == b"bound"

        def silent():
            """data from the peer is dropped for lack of a permission"""
            peer.sendto(b"anyone?", (address, port))
            return relay.metric("dropped_packets_total", reason="no_permission")

        eventually(silent)
        relay.becomes("channels", 0)
        client.send_channel(channel, b"unbound")
        relay.becomes("dropped_packets_total", 1, reason="no_channel")
    relay.becomes("allocations", 0)
    closed = relay.line("allocation closed")
    assert closed["reason"] == "expired" and closed["to_peer_packets"] == 1
    assert error_code(client.refresh) == 437
    host.udp(address, port).close()


def test_requested_lifetimes(start, host, connect):
    """RFC 8656 §7.2, §8.2: a requested lifetime is raised to the default and limited to the maximum."""
    start(host)
    for asked, granted in ((1, 600), (601, 601), (3600, 3600), (2**32 - 1, 3600)):
        client = connect()
        client.allocate(lifetime=asked)
        assert client.refresh(asked) == granted


def test_channels_are_bound_to_one_peer(start, host, connect):
    """RFC 8656 §12, §12.2: channel numbers are 0x4000 to 0x4FFF, with one peer per number and one number per peer."""
    start(host)
    client = connect()
    client.allocate()
    bind = {
        (0x4000, 1000): 0,
        (0x4FFF, 1001): 0,
        (0x4000, 1001): 400,
        (0x4001, 1000): 400,
        (0x3FFF, 1002): 400,
        (0x5000, 1002): 400,
    }
    for (channel, port), expected in bind.items():
        code = error_code(client.bind, ("8.8.8.8", port), channel)
        assert code == expected, (hex(channel), port)


def test_a_relay_address_that_vanishes_and_returns(start, host, clients, peers, connect):
    """A failed send costs that packet: once the relay address is back, its calls continue."""
    host.add_address("203.0.113.200/24")
    relay = start(host, relay={"addresses": ["203.0.113.200"]})
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        host.run("ip", "address", "del", "203.0.113.200/24", "dev", "eth0")
        for _ in range(20):
            client.send_channel(channel, b"lost")
        eventually(lambda: relay.metric("unsent_packets_total") >= 1)
        assert client.refresh() == 600
        host.add_address("203.0.113.200/24")

        def is_relayed():
            client.send_channel(channel, b"again")
            peer.settimeout(0.2)
            try:
                return peer.recvfrom(100)[0] == b"again"
            except TimeoutError:
                return False

        eventually(is_relayed)


def test_permissions_are_per_allocation(start, host, connect, peers):
    """A permission applies to one allocation; the same peer cannot reach another user's relayed transport address."""
    relay = start(host, auth={"user": [{"name": n, "password": n + n} for n in ("ann", "ben")]})
    ann, ben = connect(User("ann", "annann")), connect(User("ben", "benben"))
    ann.allocate(), ben.allocate()
    ann.permit(peers.v4)
    with peers.udp() as peer:
        peer.sendto(b"to ben", ben.relayed)
        relay.becomes("dropped_packets_total", 1, reason="no_permission")
        peer.sendto(b"to ann", ann.relayed)
        assert ann.receive()[:2] == (peer.getsockname(), b"to ann")


def test_bandwidth_is_limited(start, host, connect, peers):
    """RFC 8656 §5: data beyond an allocation's bandwidth is dropped and counted in whole datagrams; requests are not
    affected.
    """
    relay = start(host, limits={"bandwidth": 10000})
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        for _ in range(100):
            client.send_channel(channel, bytes(1000))

        def is_counted():
            """each packet counts as relayed or as dropped"""
            relayed = relay.metric("relayed_packets_total", direction="to_peer")
            return relayed + relay.metric("dropped_packets_total", reason="bandwidth") == 100

        eventually(is_counted)
        assert 50 < relay.metric("dropped_packets_total", reason="bandwidth") <= 90
        assert len(peer.recvfrom(2000)[0]) == 1000
    client.refresh()
