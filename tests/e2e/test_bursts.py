"""Bursts through the relay, over links that aggregate and segment datagrams (GRO and GSO). Every payload arrives
unchanged and in order, with all offloads and with each of them turned off.
"""

import random

import pytest

import bursts
import stun

SWITCHES = {
    "as-it-is": {},
    "without-gro": {"gro": False},
    "without-gso": {"gso": False},
    "without-steering": {"steering": False},
    "plain": {"gro": False, "gso": False, "steering": False},
}

# The payload sizes of the bursts.
SHAPES = {
    "equal": [1100] * 40,
    "equal-odd": [1101] * 17,
    "last-shorter": [1200] * 9 + [333],
    "small": [1, 1, 1, 1, 1, 1, 1, 1],
    "growing": list(range(1, 1300, 65)),
    "shrinking": list(range(1300, 1, -65)),
    "mixed": [1000, 1000, 1000, 40, 1000, 40, 40, 40, 1300, 7, 7, 0, 7],
    "two": [500, 500],
    "empty": [0, 0, 100, 100, 0],
}


@pytest.fixture(params=SWITCHES, ids=list(SWITCHES))
def switches(request):
    """The offload settings."""
    return request.param


@pytest.fixture(params=["v4", "v6"])
def family(request):
    """The address family on both sides."""
    return request.param


@pytest.fixture
def call(start, host, clients, peers, connect, switches, family, workers):
    """A client with two peers; every link has GRO and GSO on."""
    for end in (host, clients, peers):
        end.run("ethtool", "-K", "eth0", "gro", "on", "gso", "on")
    relay = start(host, workers=workers, listen=SWITCHES[switches])
    client = connect(server=(getattr(host, family), 3478))
    client.allocate(family=stun.IPV6 if family == "v6" else stun.IPV4)
    with peers.udp(getattr(peers, family)) as one, peers.udp(getattr(peers, family)) as other:
        yield relay, client, one, other


def payloads(sizes, seed):
    """Random payloads of these sizes."""
    source = random.Random(seed)
    return [source.randbytes(size) for size in sizes]


def test_bursts_both_ways(call, switches, workers):
    """RFC 8656 §11, §12: bursts of every shape arrive, over channels and in indications, to the peer and back."""
    relay, client, peer, _ = call
    address = peer.getsockname()[:2]
    channel = client.bind(address)
    bursts.accept(peer)
    bursts.accept(client.socket)
    pieces = {}
    for n, (shape, sizes) in enumerate(SHAPES.items()):
        wanted = payloads(sizes, n)
        bursts.send(client.socket, [stun.channel_data(channel, p) for p in wanted], client.server)
        received, pieces[shape] = bursts.receive(peer, len(wanted))
        assert received == wanted, shape
        bursts.send(peer, wanted, client.relayed)
        received, _ = bursts.receive(client.socket, len(wanted))
        assert received == [stun.channel_data(channel, p) for p in wanted], shape
        bursts.send(client.socket, [stun.send_indication(address, p) for p in wanted], client.server)
        assert bursts.receive(peer, len(wanted))[0] == wanted, shape
    total = sum(map(len, SHAPES.values()))
    relay.becomes("relayed_packets_total", 2 * total, direction="to_peer")
    relay.becomes("relayed_packets_total", total, direction="to_client")
    assert relay.metric("truncated_batches_total") == relay.metric("gso_refused_total") == 0
    assert relay.metric("dropped_packets_total") == 0
    if switches == "as-it-is":
        assert pieces["equal"] < len(SHAPES["equal"]), "bursts are sent as GSO segments"


def test_mixed_burst(call, workers):
    """One burst that mixes channels of two peers, indications and requests of equal length is dispatched correctly."""
    relay, client, one, other = call
    first, second = client.bind(one.getsockname()[:2]), client.bind(other.getsockname()[:2])
    length = len(client.prepare(stun.REFRESH, (stun.LIFETIME, stun.number(600)))[0])
    overhead = len(stun.send_indication(one.getsockname()[:2], b""))
    refreshes = [client.prepare(stun.REFRESH, (stun.LIFETIME, stun.number(600))) for _ in range(8)]
    burst, to_one, to_other = [], [], []
    for n in range(8):
        for channel, place in ((first, to_one), (second, to_other), (second, to_other)):
            [payload] = payloads([length - 4], n * 10 + len(place))
            burst.append(stun.channel_data(channel, payload))
            place.append(payload)
        burst.append(refreshes[n][0])
        [payload] = payloads([length - overhead & ~3], n)
        to_one.append(payload)
        burst.append(stun.send_indication(one.getsockname()[:2], payload))
    assert len({len(datagram) for datagram in burst}) == 1
    bursts.send(client.socket, burst, client.server)
    assert bursts.receive(one, len(to_one))[0] == to_one
    assert bursts.receive(other, len(to_other))[0] == to_other
    for _, transaction in refreshes:
        assert client.response(transaction, 5).code == 0
    assert relay.metric("dropped_packets_total") == 0


def test_peers_that_burst_at_once(call, workers):
    """Simultaneous bursts from two peers, one with a channel and one without, arrive complete and in order."""
    _, client, one, other = call
    channel = client.bind(one.getsockname()[:2])
    client.permit(other.getsockname()[0])
    first, second = payloads([1000] * 30 + [10], 1), payloads([1000] * 30 + [20], 2)
    bursts.send(one, first, client.relayed)
    bursts.send(other, second, client.relayed)
    received = [client.receive() for _ in range(len(first) + len(second))]
    assert [data.payload for data in received if data.peer == channel] == first
    assert [data.payload for data in received if data.peer == other.getsockname()[:2]] == second
