"""TCP and TLS clients that stay idle, do not read, exceed limits or disappear, and failures of the machine: each
affects at most its own connection and is visible to the operator.
"""

import contextlib
import socket
import struct
import time

import pytest

import streams
import stun
from conftest import NAME
from hosts import eventually
from relay import PASSWORD, USER
from streams import StreamClient
from turn import FIRST_CHANNEL, Client, User

ALICE = User(USER, PASSWORD)

PORTS = {"tcp": 3478, "tls": 5349}


@pytest.fixture(params=PORTS)
def over(request):
    """The transport."""
    return request.param


@pytest.fixture
def serve(start, host, tls):
    """Starts a relay for both transports."""
    return lambda **changes: start(host, tls=tls, **changes)


@pytest.fixture
def dial(host, clients, authority):
    """Creates clients: each `dial("tls")` returns a new connection. They are closed after the test."""
    opened = []

    def dial(over, at=clients, family="v4", user=ALICE, receive_buffer=None):
        trusted = {"trust": authority.certificate, "name": NAME} if over == "tls" else {}
        server = (getattr(host, family), PORTS[over])
        client = StreamClient(at, server, user, receive_buffer=receive_buffer, **trusted)
        opened.append(client)
        return client

    yield dial
    for client in opened:
        client.socket.close()


@pytest.fixture
def knock(host, clients):
    """Opens bare TCP connections to the port of a transport. They are closed after the test."""
    opened = []

    def knock(over="tcp", family="v4"):
        opened.append(streams.connect(clients, (getattr(host, family), PORTS[over])))
        return opened[-1]

    yield knock
    for connection in opened:
        connection.close()


def ends(connection, timeout=10):
    """Whether the server closes a connection in time, after sending any remaining data."""
    connection.settimeout(timeout)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def is_served(client, peer):
    """Relays data over the client's channel in both directions."""
    channel = client.bind(peer.getsockname()[:2], FIRST_CHANNEL)
    for n in range(20):
        client.send_channel(channel, b"out %d" % n)
        assert peer.recvfrom(100)[0] == b"out %d" % n
        peer.sendto(b"back %d" % n, client.relayed)
        assert client.receive()[:2] == (channel, b"back %d" % n)


def test_idle_connections(workers, serve, host, dial, knock, connect, peers):
    """300 idle connections do not affect clients that are served over each transport."""
    relay = serve(workers=workers, limits={"first_message_timeout": 60})
    for _ in range(100):
        assert dial("tcp").binding() and dial("tls").binding()
    for _ in range(50):
        knock()
        dial("tls")
    relay.becomes("connections", 150, transport="tcp")
    relay.becomes("connections", 150, transport="tls")
    with peers.udp() as peer:
        for client in (dial("tcp"), dial("tls"), connect()):
            client.allocate()
            is_served(client, peer)
    assert relay.metric("connections_refused_total") == relay.metric("connections_closed_total") == 0
    relay.becomes("connections", 302)


def test_a_slow_reader(over, workers, serve, dial, peers):
    """RFC 8656 §12.7: data that a client does not read is dropped in whole messages and counted. Responses are not
    dropped, and what the client reads later is complete and in order.
    """
    relay = serve(workers=workers, limits={"client_queue": 16384})
    slow, beside = dial(over, receive_buffer=4096), dial(over)
    for client in (slow, beside):
        client.allocate()
    with peers.udp() as peer:
        channel = slow.bind(peer.getsockname())
        is_served(beside, peer)
        sent = 0

        def fills():
            """messages are dropped"""
            nonlocal sent
            for _ in range(50):
                peer.sendto(struct.pack("!I", sent) + bytes(sent % 1200), slow.relayed)
                sent += 1
            return relay.metric("connections_dropped_messages_total", transport=over)

        eventually(fills, timeout=60)
        raw, transaction = slow.prepare(stun.REFRESH, (stun.LIFETIME, stun.number(600)))
        slow.socket.sendto(raw, slow.server)
        for _ in range(3):
            fills()
        is_served(beside, peer)
        assert slow.response(transaction, 10).code == 0
        numbers = []
        with contextlib.suppress(TimeoutError):
            while received := slow.receive(1):
                assert received.peer == channel
                [number] = struct.unpack_from("!I", received.payload)
                assert received.payload[4:] == bytes(number % 1200)
                numbers.append(number)
        assert numbers == sorted(set(numbers)) and 0 < len(numbers) < sent
        is_served(slow, peer)
        relay.becomes("connections_dropped_messages_total", sent - len(numbers), transport=over)


def test_deadlines(workers, serve, dial, knock):
    """Each deadline has its own metric: handshake, first message, incomplete message, and idle without an allocation.
    With an allocation a client may stay silent.
    """
    limits = {"handshake_timeout": 1, "first_message_timeout": 1, "unfinished_message_timeout": 1, "idle_timeout": 3}
    relay = serve(workers=workers, limits=limits)
    assert ends(knock("tls"))
    relay.becomes("tls_handshakes_failed_total", 1, reason="too_slow")
    silent = {over: dial(over) for over in PORTS}
    for client in silent.values():
        client.allocate()
    for over in PORTS:
        assert ends(dial(over).socket.connection)
        relay.becomes("connections_closed_total", 1, transport=over, reason="no_message")
        unfinished, idle = dial(over), dial(over)
        for client in (unfinished, idle):
            assert client.binding()
        start = struct.pack("!HHI", stun.BINDING, 1000, stun.COOKIE) + bytes(996)
        unfinished.socket.connection.sendall(start)
        assert ends(unfinished.socket.connection)
        relay.becomes("connections_closed_total", 1, transport=over, reason="unfinished_message")
        assert ends(idle.socket.connection)
        relay.becomes("connections_closed_total", 1, transport=over, reason="idle")
    for client in silent.values():
        assert client.refresh() == 600
    relay.becomes("connections", 2)


def test_half_open_connections(workers, serve, dial, knock):
    """Connections without a first message are limited per source and in total. Each limit has its metric, and a first
    message makes room.
    """
    relay = serve(workers=workers, limits={"half_open": 6, "half_open_per_address": 4})
    waiting = [dial("tcp") for _ in range(4)]
    relay.becomes("connections", 4)
    assert ends(knock())
    assert ends(knock("tls"))
    for over in PORTS:
        relay.becomes("connections_refused_total", 1, transport=over, reason="half_open_per_address")
    others = [dial("tcp", family="v6") for _ in range(2)]
    relay.becomes("connections", 6)
    assert ends(knock(family="v6"))
    relay.becomes("connections_refused_total", 1, transport="tcp", reason="half_open")
    for client in waiting + others:
        assert client.binding()
    for over in PORTS:
        assert dial(over).binding()
    assert relay.metric("connections_refused_total") == 3


def test_total_connections(workers, serve, dial, knock):
    """The total number of connections is limited. The limit has its metric, and a closed connection makes room."""
    relay = serve(workers=workers, limits={"connections": 6})
    held = [dial(over) for over in PORTS for _ in range(3)]
    for client in held:
        assert client.binding()
    relay.becomes("connections", 6)
    for over in PORTS:
        assert ends(knock(over))
        relay.becomes("connections_refused_total", 1, transport=over, reason="connections")
    for client in held[2:4]:
        client.socket.close()
    relay.becomes("connections", 4)
    for over in PORTS:
        client = dial(over)
        assert client.allocate() and client.refresh() == 600


@pytest.mark.parametrize("how", ["FIN", "reset"])
def test_closed_connection_deletes_its_allocation(how, over, workers, serve, host, dial, peers):
    """RFC 8656 §5: the end of a connection deletes its allocation immediately and frees its ports."""
    relay = serve(workers=workers)
    clients = [dial(over) for _ in range(8)]
    relayed = {client.allocate() for client in clients}
    for client in clients:
        client.bind((peers.v4, 9))
    relay.becomes("allocations", 8, transport=over)
    for client in clients:
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            client.socket.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.socket.close()
    gauges = ("allocations", "connections", "permissions", "channels")
    for gauge in gauges:
        relay.becomes(gauge, 0)
    for client in clients:
        relay.line("allocation closed", reason="the client's connection ended", transport=over)
    assert len(relay.lines("allocation closed")) == 8
    relay.becomes("connections_closed_total", 8, transport=over, reason="client" if how == "FIN" else "reset")
    for address, port in relayed:
        host.udp(address, port).close()


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_relay_address_removed_and_restored(transport, workers, serve, host, dial, connect, peers):
    """Data sent while the relay's address is missing is lost and counted; the call continues when the address is back.
    """
    relay = serve(workers=workers)
    if transport == "udp":
        client = connect(server=(host.v6, 3478))
    else:
        client = dial(transport, family="v6")
    client.allocate(family=stun.IPV4)
    with peers.udp() as peer:
        is_served(client, peer)
        channel = client.bind(peer.getsockname())
        host.run("ip", "address", "delete", f"{host.v4}/24", "dev", "eth0")
        gone = time.monotonic()
        while time.monotonic() < gone + 2:
            client.send_channel(channel, b"lost")
            client.send(peer.getsockname(), b"lost")
            time.sleep(0.01)
        assert client.refresh() == 600
        assert relay.reaches("unsent_packets_total", 100, reason="unreachable")
        host.add_address(f"{host.v4}/24")
        is_served(client, peer)
    assert relay.lines("allocation closed") == [] and relay.metric("allocations") == 1


def test_out_of_files(over, workers, serve, host, clients, dial, knock, peers):
    """With a low limit on open files connections have a share of it: those beyond are refused and counted, and the relay does
    not spin. Calls continue, UDP clients get allocations, and connections are served once others have closed.
    """
    relay = serve(
        workers=workers,
        limits={"first_message_timeout": 60},
        process={"wrapper": ["prlimit", "--nofile=120:120"]},
    )
    client = dial(over)
    client.allocate()
    idle = [knock() for _ in range(400)]
    with Client(clients, (host.v4, 3478), ALICE) as over_udp:
        assert over_udp.allocate()
    with peers.udp() as peer:
        is_served(client, peer)
        used, since = relay.cpu_seconds(), time.monotonic()
        time.sleep(2)
        assert (relay.cpu_seconds() - used) / (time.monotonic() - since) < 0.5, "the relay spins"
        for connection in idle:
            connection.close()
        later = dial(over)
        later.allocate()
        is_served(later, peer)
        is_served(client, peer)
    relay.reaches("connections_refused_total", 100, reason="connections")
    relay.becomes("accept_pauses_total", 0)
    relay.becomes("connections", 2)


def test_a_graceful_stop(workers, serve, dial, knock):
    """On SIGTERM every connection is closed cleanly, with or without an allocation; the exit status is 0."""
    relay = serve(workers=workers)
    clients = [dial(over) for over in PORTS for _ in range(8)]
    for client in clients[::2]:
        client.allocate()
    for client in clients[1::2]:
        assert client.binding()
    others = [knock(), knock("tls")]
    relay.becomes("allocations", 8)
    assert relay.stop() == 0
    assert len(relay.lines("allocation closed", reason="server stops")) == 8
    for client in clients:
        # Over TLS this fails unless the server has sent a close_notify.
        client.socket.connection.settimeout(5)
        assert client.socket.connection.recv(100) == b""
    assert all(ends(connection) for connection in others)
