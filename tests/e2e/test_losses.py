"""What the kernel drops because a worker's queue is full: every packet of it is in the metrics, and the log says what to
do. A relay that is stopped (SIGSTOP) reads nothing, so its queues fill; the kernel's own counters are the truth.
"""

import contextlib
import signal
import socket
from pathlib import Path

import pytest

import stun
from hosts import eventually

NO_PRIVILEGES = {"privileges": ["--bounding-set", "-all", "--inh-caps", "-all"]}

# The room that a listener asks for, and a privileged program gets.
ROOM = 8 << 20

# So many overflow a listener's queue of that room, so many a relay socket's.
LISTENER, RELAY = 20_000, 3000


@contextlib.contextmanager
def stopped(relay):
    """Meanwhile the relay does nothing."""
    relay.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        relay.process.send_signal(signal.SIGCONT)


def kernel(host, table, group, name):
    """A counter of the host's kernel, from a table of two lines for each group: names and values."""
    lines = [line.split() for line in host.run("cat", f"/proc/net/{table}").splitlines()]
    names, values = [line for line in lines if line[0] == group + ":"]
    return int(values[names.index(name)])


def without_room(host):
    """UDP packets that found no room in a queue on this host, as the kernel counts them."""
    names = dict(line.split() for line in host.run("cat", "/proc/net/snmp6").splitlines())
    return kernel(host, "snmp", "Udp", "RcvbufErrors") + int(names["Udp6RcvbufErrors"])


def system_limit(name):
    """What the system grants at most without privileges, in bytes."""
    return int(Path(f"/proc/sys/net/core/{name}").read_text())


def warnings(relay, **fields):
    """What the sockets' side warns of, with these fields."""
    lines = relay.lines(level="WARN", **fields)
    return [line for line in lines if line["target"].startswith("hairpin::datapath")]


def flood(opened, payload, count, to):
    """Sends so many datagrams, as fast as can be."""
    for _ in range(count):
        opened.sendto(payload, to)


def drain(opened):
    """Throws away what comes, until nothing does."""
    opened.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            opened.recvfrom(2000)
    opened.settimeout(5)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("queue", ["control", "data", "relay"])
def test_a_full_queue(queue, version, start, host, connect, clients, peers):
    """Each queue by itself: the metric is what the kernel says, the log tells it, and the relay goes on."""
    relay = start(host, workers=1)
    server = (host.v4 if version == 4 else host.v6, 3478)
    client = connect(server=server)
    client.allocate(family=stun.IPV4 if version == 4 else stun.IPV6)
    with peers.udp(peers.v4 if version == 4 else peers.v6) as peer:
        channel = client.bind(peer.getsockname()[:2])
        with stopped(relay):
            if queue == "control":
                flood(client.socket, bytes(1200), LISTENER, server)
            elif queue == "data":
                flood(client.socket, stun.channel_data(channel, bytes(1200)), LISTENER, server)
            else:
                flood(peer, bytes(1200), RELAY, client.relayed)
        lost = without_room(host)
        assert lost > 0
        relay.becomes("socket_drops_total", lost, queue=queue)
        assert relay.metric("socket_drops_total") == lost, "no other queue lost anything"
        [line] = eventually(lambda: warnings(relay, queue=queue))
        assert line["lost"] == lost and "full queue" in line["message"] and "`workers`" in line["message"]
        drain(peer)
        client.send_channel(channel, b"it goes on")
        assert peer.recvfrom(2000)[0] == b"it goes on"
    client.refresh(0)
    relay.becomes("allocations", 0)
    assert relay.metric("socket_drops_total", queue=queue) == lost, "no counter goes backwards"


def test_a_queue_that_is_too_small(start, host, connect, clients):
    """Without privileges the system's limit bounds a queue. The log says so at the start, once, and when it costs packets;
    both times with the command that mends it.
    """
    relay = start(host, workers=1, process=NO_PRIVILEGES)
    command = f"sysctl -w net.core.rmem_max={ROOM}"
    if min(system_limit("rmem_max"), system_limit("wmem_max")) < ROOM:
        [line] = warnings(relay)
        assert f"{command} net.core.wmem_max={ROOM}" in line["message"]
    else:
        assert not warnings(relay)
    with stopped(relay):
        flood(connect().socket, bytes(1200), LISTENER, (host.v4, 3478))
    [line] = eventually(lambda: warnings(relay, queue="control"))
    assert line["lost"] == without_room(host)
    assert line["room"] == min(system_limit("rmem_max"), ROOM)
    assert (command in line["message"]) == (system_limit("rmem_max") < ROOM)


def test_with_privileges_there_is_room(start, host):
    """Then the system's limit is none, and there is nothing to say."""
    assert not warnings(start(host))


def test_relay_sockets_have_turns(start, host, connect, peers):
    """Many are not asked at once, but all of them soon, though nothing more happens; those that close at once."""
    relay = start(host, workers=1)
    callers = [connect() for _ in range(150)]
    for client in callers:
        client.allocate()
    relay.becomes("allocations", len(callers))
    with peers.udp() as peer:
        with stopped(relay):
            for client in (callers[0], callers[75], callers[-1]):
                flood(peer, bytes(1200), RELAY, client.relayed)
        lost = without_room(host)
        relay.becomes("socket_drops_total", lost, queue="relay")
        # Requests come first, so this one ends before anyone has read what it lost.
        last = callers[-1]
        raw, transaction = last.prepare(stun.REFRESH, (stun.LIFETIME, stun.number(0)))
        with stopped(relay):
            flood(peer, bytes(1200), RELAY, last.relayed)
            last.socket.sendto(raw, last.server)
        assert last.answer(transaction, 5).code == 0
        assert without_room(host) > lost
        relay.becomes("socket_drops_total", without_room(host), queue="relay")


def test_losses_do_not_flood_the_log(start, host, connect):
    """They are told at once, and from then on summed up."""
    relay = start(host, workers=1)
    client = connect()
    for n in range(3):
        with stopped(relay):
            flood(client.socket, bytes(1200), LISTENER, (host.v4, 3478))
        relay.becomes("socket_drops_total", without_room(host), queue="control")
    total = without_room(host)
    eventually(lambda: sum(line["lost"] for line in warnings(relay, queue="control")) == total)
    assert len(warnings(relay, queue="control")) == 2


def test_connections_that_nobody_accepts(start, host, clients):
    """The same for those who wait to be accepted."""
    host.run("sysctl", "-qw", "net.core.somaxconn=4")
    relay = start(host, workers=1, listen={"tcp": [f"{host.v4}:3478"]})
    with clients.inside():
        callers = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(20)]
    with stopped(relay):
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex((host.v4, 3478))
        lost = eventually(lambda: kernel(host, "netstat", "TcpExt", "ListenDrops"))
        for caller in callers:
            caller.close()
    assert lost >= 10
    relay.becomes("socket_drops_total", kernel(host, "netstat", "TcpExt", "ListenDrops"), queue="accept")
    [line] = eventually(lambda: warnings(relay, queue="accept"))
    assert "net.core.somaxconn" in line["message"]
    clients.tcp(host.v4, 3478).close()
    relay.reaches("connections_accepted_total", 6, transport="tcp")


def test_a_full_device(start, host, connect, peers):
    """What a slow link has no room for: towards peers it is counted as not sent, towards clients by the kernel alone."""
    relay = start(host, workers=1)
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1mbit", "burst", "5000", "limit", "9000")
        flood(client.socket, stun.channel_data(channel, bytes(1000)), 200, client.server)
        relay.reaches("relayed_packets_total", 200, direction="to_peer", transport="udp")
        full = relay.reaches("unsent_packets_total", 100, reason="full")
        before = kernel(host, "snmp", "Udp", "SndbufErrors")
        flood(peer, bytes(1000), 200, client.relayed)
        relay.reaches("relayed_packets_total", 200, direction="to_client", transport="udp")
        # Datagrams that leave joined are lost joined: the kernel counts them as one.
        lost = kernel(host, "snmp", "Udp", "SndbufErrors")
        assert lost > before
        assert relay.metric("host_udp_errors_total", family="ipv4", error="send_buffer") == lost
        assert relay.metric("unsent_packets_total", reason="full") == full
