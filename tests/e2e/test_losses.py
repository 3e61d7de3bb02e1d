"""Packets that the kernel drops because a queue of the relay is full are all counted in the metrics, and the log says
what to do. The tests stop the relay with SIGSTOP so that its queues fill, and compare with the kernel's own counters.
"""

import contextlib
import signal
import socket
from pathlib import Path

import pytest

import stun
from hosts import eventually

NO_PRIVILEGES = {"privileges": ["--bounding-set", "-all", "--inh-caps", "-all"]}

# The receive buffer that a listener asks for, and that a privileged process gets.
BUFFER = 8 << 20

# How many datagrams overflow a listener's queue of that size, and a relay socket's.
LISTENER, RELAY = 20_000, 3000


@contextlib.contextmanager
def stopped(relay):
    """Stops the relay's process in this context."""
    relay.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        relay.process.send_signal(signal.SIGCONT)


def kernel_counter(host, table, group, name):
    """A counter of the host's kernel from a table with two lines per group: names and values."""
    lines = [line.split() for line in host.run("cat", f"/proc/net/{table}").splitlines()]
    names, values = [line for line in lines if line[0] == group + ":"]
    return int(values[names.index(name)])


def receive_drops(host):
    """UDP packets dropped on this host because a receive buffer was full, as counted by the kernel."""
    names = dict(line.split() for line in host.run("cat", "/proc/net/snmp6").splitlines())
    return kernel_counter(host, "snmp", "Udp", "RcvbufErrors") + int(names["Udp6RcvbufErrors"])


def system_limit(name):
    """The system's limit for unprivileged processes, in bytes."""
    return int(Path(f"/proc/sys/net/core/{name}").read_text())


def warnings(relay, **fields):
    """The warnings about sockets that have these fields."""
    lines = relay.lines(level="WARN", **fields)
    return [line for line in lines if line["target"].startswith("hairpin::datapath")]


def flood(opened, payload, count, to):
    """Sends `count` datagrams as fast as possible."""
    for _ in range(count):
        opened.sendto(payload, to)


def drain(opened):
    """Discards received datagrams until no more arrive."""
    opened.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            opened.recvfrom(2000)
    opened.settimeout(5)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("queue", ["control", "data", "relay"])
def test_a_full_queue(queue, version, start, host, connect, clients, peers):
    """For each queue alone: the metric equals the kernel's counter, the log reports the loss, and the relay keeps
    working.
    """
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
        lost = receive_drops(host)
        assert lost > 0
        relay.becomes("socket_drops_total", lost, queue=queue)
        assert relay.metric("socket_drops_total") == lost, "no other queue has losses"
        [line] = eventually(lambda: warnings(relay, queue=queue))
        assert line["lost"] == lost and "full queue" in line["message"] and "`workers`" in line["message"]
        drain(peer)
        client.send_channel(channel, b"it goes on")
        assert peer.recvfrom(2000)[0] == b"it goes on"
    client.refresh(0)
    relay.becomes("allocations", 0)
    assert relay.metric("socket_drops_total", queue=queue) == lost, "counters never decrease"


def test_a_queue_that_is_too_small(start, host, connect, clients):
    """Without privileges the system's limit bounds the receive buffer. The log says so once at the start and with each
    loss, with the command that raises the limit.
    """
    relay = start(host, workers=1, process=NO_PRIVILEGES)
    command = f"sysctl -w net.core.rmem_max={BUFFER}"
    if min(system_limit("rmem_max"), system_limit("wmem_max")) < BUFFER:
        [line] = eventually(lambda: warnings(relay))
        assert f"{command} net.core.wmem_max={BUFFER}" in line["message"]
    else:
        assert not warnings(relay)
    with stopped(relay):
        flood(connect().socket, bytes(1200), LISTENER, (host.v4, 3478))
    [line] = eventually(lambda: warnings(relay, queue="control"))
    assert line["lost"] == receive_drops(host)
    assert line["size"] == min(system_limit("rmem_max"), BUFFER)
    assert (command in line["message"]) == (system_limit("rmem_max") < BUFFER)


def test_privileges_override_the_system_limit(start, host):
    """With privileges the system's limit does not apply, and no warning is logged."""
    assert not warnings(start(host))


def test_relay_sockets_are_polled_in_turn(start, host, connect, peers):
    """Relay sockets are polled for losses in turn, all of them within a short time even if nothing else happens; a
    socket that closes is polled at once.
    """
    relay = start(host, workers=1)
    callers = [connect() for _ in range(150)]
    for client in callers:
        client.allocate()
    relay.becomes("allocations", len(callers))
    with peers.udp() as peer:
        with stopped(relay):
            for client in (callers[0], callers[75], callers[-1]):
                flood(peer, bytes(1200), RELAY, client.relayed)
        lost = receive_drops(host)
        relay.becomes("socket_drops_total", lost, queue="relay")
        # Requests are handled first, so this allocation ends before its relay socket is read.
        last = callers[-1]
        raw, transaction = last.prepare(stun.REFRESH, (stun.LIFETIME, stun.number(0)))
        with stopped(relay):
            flood(peer, bytes(1200), RELAY, last.relayed)
            last.socket.sendto(raw, last.server)
        assert last.response(transaction, 5).code == 0
        assert receive_drops(host) > lost
        relay.becomes("socket_drops_total", receive_drops(host), queue="relay")


def test_losses_do_not_flood_the_log(start, host, connect):
    """The first loss is logged immediately, later ones are aggregated."""
    relay = start(host, workers=1)
    client = connect()
    for n in range(3):
        with stopped(relay):
            flood(client.socket, bytes(1200), LISTENER, (host.v4, 3478))
        relay.becomes("socket_drops_total", receive_drops(host), queue="control")
    total = receive_drops(host)
    eventually(lambda: sum(line["lost"] for line in warnings(relay, queue="control")) == total)
    assert len(warnings(relay, queue="control")) == 2


def test_full_accept_queue(start, host, clients):
    """Connections dropped because the accept queue is full are counted and logged as well."""
    host.run("sysctl", "-qw", "net.core.somaxconn=4")
    relay = start(host, workers=1, listen={"tcp": [f"{host.v4}:3478"]})
    with clients.inside():
        callers = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(20)]
    with stopped(relay):
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex((host.v4, 3478))

        def is_full():
            """most of the callers are dropped"""
            return kernel_counter(host, "netstat", "TcpExt", "ListenDrops") >= 10

        eventually(is_full)
        for caller in callers:
            caller.close()
    relay.becomes("socket_drops_total", kernel_counter(host, "netstat", "TcpExt", "ListenDrops"), queue="accept")
    [line] = eventually(lambda: warnings(relay, queue="accept"))
    assert "net.core.somaxconn" in line["message"]
    clients.tcp(host.v4, 3478).close()
    relay.reaches("connections_accepted_total", 6, transport="tcp")


def test_a_full_device(start, host, connect, peers):
    """Packets that a slow network device drops: towards peers they are counted as unsent, towards clients only by the
    kernel.
    """
    relay = start(host, workers=1)
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1mbit", "burst", "5000", "limit", "9000")
        flood(client.socket, stun.channel_data(channel, bytes(1000)), 200, client.server)
        relay.reaches("unsent_packets_total", 100, reason="full")

        def is_counted():
            """each packet counts as relayed or as unsent"""
            relayed = relay.metric("relayed_packets_total", direction="to_peer", transport="udp")
            return relayed + relay.metric("unsent_packets_total") == 200

        eventually(is_counted)
        full = relay.metric("unsent_packets_total", reason="full")
        before = kernel_counter(host, "snmp", "Udp", "SndbufErrors")
        flood(peer, bytes(1000), 200, client.relayed)
        relay.reaches("relayed_packets_total", 200, direction="to_client", transport="udp")
        # A GSO datagram is dropped as a whole, and the kernel counts it as one.
        lost = kernel_counter(host, "snmp", "Udp", "SndbufErrors")
        assert lost > before
        assert relay.metric("host_udp_errors_total", family="ipv4", error="send_buffer") == lost
        assert relay.metric("unsent_packets_total", reason="full") == full
