"""Overload and abuse: more packets than one core can relay, floods of strangers beside running calls, storms of
handshakes and allocations, and clients and peers that exceed their limits. Running calls continue, memory stays
bounded, metrics count what was dropped, and the relay recovers.

Only survival and ratios are asserted. Speed is measured by the benchmarks.
"""

import itertools
import os
import struct

import pytest

import floods
import storms
import stun
from calls import Calls
from conftest import NAME
from hosts import Switch, eventually
from relay import PASSWORD, USER
from turn import Refused

# Tests that run in parallel get a core each, if there are enough.
CPUS = sorted(os.sched_getaffinity(0))
CPU = CPUS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % len(CPUS)]
ON_ONE_CORE = {"wrapper": ["taskset", "-c", str(CPU)]}

RATE = 1000
MEGABYTE = 1024  # in KiB


@pytest.fixture
def calls(connect, peers):
    """Creates running calls once a relay runs."""
    opened = []

    def calls(count=10):
        callers = [connect() for _ in range(count)]
        for caller in callers:
            caller.allocate()
        opened.append(Calls(callers, peers))
        # A new host needs some time until its neighbours are resolved.
        eventually(lambda: opened[-1].run(0.2, RATE).loss == 0)
        return opened[-1]

    yield calls
    for each in opened:
        each.close()


@pytest.fixture
def flooder(switch, host):
    """A host with the addresses of thousands of strangers."""
    flooder = switch.host("flooder")
    floods.give_sources(flooder, host)
    return flooder


def test_more_packets_than_one_core_can_relay(start, host, clients, peers, calls):
    """Under overload no call starves in either direction, requests are answered and memory stays bounded. Afterwards
    nothing is lost.
    """
    relay = start(host, workers=1, process={"wrapper": ["nice", "-n", "5", *ON_ONE_CORE["wrapper"]]})
    running = calls(8)
    assert running.run(1, RATE).loss == 0
    resident, relayed = relay.resident(), relay.metric("relayed_packets_total")
    assert relay.metric("socket_drops_total") == 0
    size = 200
    out = [
        (caller.socket, caller.server, struct.pack("!HH", channel, size))
        for caller, channel in zip(running.clients, running.channels)
    ]
    back = [(peer, caller.relayed, b"") for caller, peer in zip(running.clients, running.peers)]
    # The flooding processes share the relay's core at a higher priority, so they send more than it can relay on any
    # machine.
    with (
        floods.from_sockets(clients, out, size + 4, cpu=CPU) as outward,
        floods.from_sockets(peers, back, size, cpu=CPU) as homeward,
    ):
        requests = [
            (stun.REFRESH, (stun.LIFETIME, stun.number(600))),
            (stun.CREATE_PERMISSION, (stun.XOR_PEER_ADDRESS, (peers.v4, 0))),
        ]
        arrived = running.count_arrivals(4, requests)
        sent = [outward.stop(), homeward.stop()]
    running.clear()
    relayed = relay.reaches("relayed_packets_total", relayed + sum(arrived)) - relayed
    total = sum(map(sum, sent))
    assert relayed < 0.8 * total, "the relay was not overloaded"
    # Packets that were not relayed overflowed the queues for data and are counted there.
    dropped = sum(relay.metric("socket_drops_total", queue=queue) for queue in ("data", "relay"))
    assert relayed + dropped > 0.95 * total
    for way in (0, 1):
        shares = [came / left for came, left in zip(arrived[way::2], sent[way])]
        assert min(shares) > sum(shares) / len(shares) / 4, f"some calls starve: {shares}"
    assert relay.resident() < resident + 16 * MEGABYTE
    assert running.run(1, RATE).loss == 0
    assert relay.metric("allocations") == 8


# The metric that counts each kind of stranger's datagrams.
COUNTERS = {
    "binding": ("responses_total", {"method": "Binding", "outcome": "success"}),
    "requests": ("responses_total", {"method": "Allocate", "outcome": "401"}),
    "passwords": ("auth_failures_total", {"reason": "wrong_password"}),
    "garbage": ("dropped_packets_total", {"reason": "not_turn"}),
    "data": ("dropped_packets_total", {"reason": "no_allocation"}),
}


@pytest.mark.parametrize("kind", COUNTERS)
def test_floods_from_strangers(kind, start, host, calls, flooder):
    """20,000 datagrams per second from strangers cause hardly any loss in running calls, and memory does not grow with
    the number of their addresses.
    """
    relay = start(host, workers=1, process=ON_ONE_CORE)
    running = calls()
    assert running.run(1, RATE).loss == 0
    name, labels = COUNTERS[kind]
    resident = []
    for sources in (64, 4096):
        before = relay.metric(name, **labels)
        with floods.of_strangers(flooder, kind, (host.v4, 3478), sources, 20_000) as flood:
            relay.reaches(name, before + 1000, **labels)
            beside = running.run(2, RATE)
            assert flood.runs()
        assert beside.loss < 0.01
        resident.append(relay.resident())
    assert resident[1] < resident[0] + 2 * MEGABYTE
    assert running.run(1, RATE).loss == 0


def test_requests_have_a_queue_of_their_own(workers, start, host, calls, flooder):
    """As many requests as a host can send overflow the queue for requests, not the queue for data."""
    relay = start(host, workers=workers, process=ON_ONE_CORE)
    running = calls()
    with floods.of_strangers(flooder, "binding", (host.v4, 3478), 4, rate=0) as flood:
        relay.reaches("responses_total", 1000, method="Binding", outcome="success")
        beside = running.run(3, RATE)
        assert flood.runs()
    assert beside.loss < 0.01
    assert relay.reaches("dropped_packets_total", 1000, reason="unauthenticated_rate")
    assert running.run(1, RATE).loss == 0


STORMS = [
    "allocations",
    "handshakes",
    *(f"messages-{kind}-{over}" for kind, over in itertools.product(storms.MESSAGES, ("tcp", "tls"))),
]


@pytest.mark.parametrize("storm", STORMS)
def test_storms(storm, start, host, calls, flooder, authority, tls):
    """Handshakes, allocations and endless messages over one connection do not delay packets of running calls."""
    limits = {"new_allocations_rate": 0}
    relay = start(host, workers=1, tls=tls, process=ON_ONE_CORE, limits=limits)
    running = calls()
    calm = running.run(1, RATE)
    files, trusted = relay.open_files(), [authority.certificate, NAME]
    of, *kind = storm.split("-")
    if of == "allocations":
        words = [host.v4, 3478, USER, PASSWORD]
    elif storm.endswith("tcp"):
        words = [kind[0], host.v4, 3478]
    else:
        words = [*kind[:1], host.v4, 5349, *trusted]
    with storms.Storm(flooder, of, *words) as raging:
        beside = running.run(3, RATE)
        assert raging.stop() >= 3
    assert beside.loss < 0.01
    # The median, because this process also waits for a CPU occasionally.
    assert beside.delay(0.5) < 20 * max(calm.delay(0.5), 0.005)
    if kind[:1] == ["unframed"]:
        # It is no protocol that is served, so the relay closes the connection at once.
        relay.reaches("connections_closed_total", 3, transport=kind[1], reason="not_served")
    relay.becomes("connections", 0)
    # The storm may have been killed in the middle of an allocation, which lives until it expires.
    left = of == "allocations"
    assert relay.metric("allocations") <= len(running.clients) + left
    eventually(lambda: relay.open_files() <= files + left)
    assert running.run(1, RATE).loss == 0


def test_thousands_of_permissions(start, host, calls):
    """An allocation with the maximum number of permissions relays packets at about the same cost."""
    limits = {"permissions": 4096, "new_peers": 0}
    relay = start(host, workers=1, limits=limits, peers={"allow": [str(floods.SOURCES), *Switch.NETWORKS]})
    running = calls(1)
    [caller] = running.clients

    def cost():
        before = relay.cpu_seconds()
        outcome = running.run(2, 2 * RATE)
        assert outcome.loss == 0
        return (relay.cpu_seconds() - before) / outcome.sent

    few = min(cost() for _ in range(2))
    peers = [str(source) for source in itertools.islice(floods.SOURCES.hosts(), 4095)]
    for n in range(0, len(peers), 100):
        caller.permit(*peers[n : n + 100])
    relay.becomes("permissions", 4096)
    with pytest.raises(Refused, match="508"):
        caller.permit("198.18.31.1")
    assert min(cost() for _ in range(2)) < 3 * few


def test_peers_without_permission(start, host, calls, switch):
    """A flood to a relayed address from a peer without permission harms no other call and is counted."""
    relay = start(host, workers=1, process=ON_ONE_CORE)
    running = calls()
    stranger = switch.host("stranger")
    assert running.run(1, RATE).loss == 0
    victim = running.clients[0]
    with (
        stranger.udp() as opened,
        floods.from_sockets(stranger, [(opened, victim.relayed, b"")], 1000, rate=50_000) as flood,
    ):
        relay.reaches("dropped_packets_total", 1000, reason="no_permission")
        beside = running.run(3, RATE)
        assert flood.runs()
    assert max(beside.losses[2:]) < 0.01, "another call is affected"
    running.clear()
    assert running.run(1, RATE).loss == 0
