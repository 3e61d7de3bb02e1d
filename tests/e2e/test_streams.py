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
    unfinished = knock()
    unfinished.sendall(b"\x16\x03\x01")
    assert ends(unfinished)
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


def test_connections_per_source(workers, serve, host, clients, dial, knock):
    """Connections without an allocation are limited per source, over both transports together. An allocation makes
    room. Refused connections are counted and logged with their source, the limit and what to do.
    """
    relay = serve(workers=workers, limits={"connections_per_source": 4})
    waiting = [dial(over) for over in ("tcp", "tls")] + [knock(), knock("tls")]
    relay.becomes("connections", 4)
    for n, over in enumerate(PORTS, 1):
        assert ends(knock(over))
        relay.becomes("connections_refused_total", n, transport="tcp", reason="connections_per_source")
        server = f"{host.v4}:{PORTS[over]}"
        line = relay.line("connection refused", server=server, source=clients.v4, limit=4, level="INFO")
        assert all(key in line["fix"] for key in ("limits.connections_per_source", "limits.exempt_sources"))
    assert dial("tcp", family="v6").binding()
    for client in waiting[:2]:
        client.allocate()
    held = [dial(over) for over in PORTS]
    assert all(client.binding() for client in held)
    assert ends(knock())
    assert relay.metric("connections_refused_total") == 3


def test_exempt_sources(workers, serve, clients, dial):
    """A source that is exempt, such as a proxy, has limits a hundred times as large."""
    limits = {"connections_per_source": 1, "exempt_sources": [f"{clients.v4}/32"]}
    relay = serve(workers=workers, limits=limits)
    assert all(dial(over).binding() for over in PORTS for _ in range(30))
    assert dial("tcp", family="v6").binding() and ends(dial("tcp", family="v6").socket.connection)
    relay.becomes("connections_refused_total", 1)


def test_an_office_reconnects(over, workers, serve, dial):
    """1,000 clients behind one address connect at once, before any of them has authenticated."""
    relay = serve(workers=workers, limits={"handshake_timeout": 120, "first_message_timeout": 120})
    office = [dial(over) for _ in range(1000)]
    assert all(client.binding() for client in office)
    assert relay.metric("connections_refused_total") == relay.metric("connections_closed_total") == 0


def test_a_full_table(workers, serve, switch, dial, knock):
    """When all connections are in use, the oldest one without an allocation of the busiest source makes room. Those
    with allocations stay; when there are no others, new ones are refused.
    """
    relay = serve(workers=workers, limits={"connections": 8})
    hosts = [switch.host(f"intruder-{n}") for n in range(4)]
    intruders = [dial("tcp", at=host) for host in hosts for _ in range(2)]
    for intruder in intruders[::2]:
        assert intruder.binding()
    relay.becomes("connections", 8)
    clients = []
    for over in 4 * list(PORTS):
        clients.append(dial(over))
        clients[-1].allocate()
    assert all(ends(intruder.socket.connection) for intruder in intruders)
    relay.becomes("connections_closed_total", 8, transport="tcp", reason="displaced")
    assert "limits.connections" in relay.lines(reason="displaced", level="WARN")[0]["fix"]
    assert ends(knock())
    relay.becomes("connections_refused_total", 1, transport="tcp", reason="connections")
    relay.line("connection refused", limit=8, reason="connections")
    assert all(client.refresh() == 600 for client in clients)


TURN = stun.Message(stun.REQUEST, stun.ALLOCATE).encode()

PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)

# What a stranger sends, the reason of the end, and what the log says.
STRANGERS = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "not_served", "HTTP"),
    "HTTP OPTIONS": (b"OPTIONS / HTTP/1.1\r\n\r\n", "not_served", "HTTP"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_served", "HTTP"),
    "PROXY": (b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 3478\r\n", "untrusted_proxy_header", "PROXY header"),
    "PROXY 2": (PROXY_2, "untrusted_proxy_header", "PROXY header"),
    "ChannelData": (stun.channel_data(0x4000, b"data"), "channel_data_without_allocation", "ChannelData"),
    "cookie": (TURN[:4] + b"\0" + TURN[5:], "unframed", "cookie"),
    "length": (TURN[:3] + b"\1" + TURN[4:], "unframed", "length"),
    "SSH": (b"SSH-2.0-OpenSSH_9\r\n", "not_served", "neither STUN or ChannelData nor TLS nor HTTP"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_other_protocols(what, over, serve, knock):
    """A connection that speaks nothing that its listener serves is closed with its first bytes and without an answer, counted, and
    logged with its source, what it speaks and what to do.
    """
    relay = serve()
    raw, reason, words = STRANGERS[what]
    connection = knock(over)
    connection.sendall(raw)
    connection.settimeout(3)
    assert connection.recv(100) == b"", "closed, not reset, and without an answer"
    [line] = eventually(lambda: relay.lines(reason=reason, level="INFO"))
    assert line["client"] == "{}:{}".format(*connection.getsockname())
    assert words in line["detail"] and line["fix"], line
    relay.becomes("connections_closed_total", 1, transport="tcp", reason=reason)


def test_tls_without_a_certificate(start, host, knock):
    """A relay without a certificate closes TLS clients at once, and the log says what to set."""
    relay = start(host)
    connection = knock()
    connection.sendall(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")
    assert ends(connection, timeout=3)
    line = relay.line("connection closed", reason="not_served", level="INFO")
    assert "TLS" in line["detail"] and "tls.cert" in line["fix"], line
    relay.becomes("connections_closed_total", 1, transport="tcp", reason="not_served")


def test_either_port_tells_turn_and_tls_apart(serve, host, clients, authority, peers):
    """`turns:host:3478` and `turn:host:5349?transport=tcp` are served as the other two are, and the transport is what was established."""
    relay = serve()
    trusted = {"trust": authority.certificate, "name": NAME}
    dialled = [StreamClient(clients, (host.v4, port), ALICE, **trust) for port in PORTS.values() for trust in ({}, trusted)]
    with peers.udp() as peer:
        for client in dialled:
            client.allocate()
            is_served(client, peer)
    for over in PORTS:
        relay.becomes("allocations", 2, transport=over)
        relay.becomes("connections", 2, transport=over)
        relay.becomes("connections_accepted_total", 2, transport=over)
    for client in dialled:
        client.socket.close()
    for over in PORTS:
        relay.becomes("connections_closed_total", 2, transport=over, reason="client")


def test_health_checks_are_not_logged(serve, dial, knock):
    """A client that only connects, with or without a TLS handshake, and closes or resets, is counted and not logged at
    the default level.
    """
    relay = serve()
    # The last line of the start; the log is written beside what it tells.
    eventually(lambda: "to get ICE servers" in relay.log)
    before = len(relay.lines())
    for reset in (False, True):
        for connection in (knock("tcp"), knock("tls"), dial("tls").socket.connection):
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    relay.becomes("connections_closed_total", 4, transport="tcp", reason="no_bytes")
    relay.becomes("connections", 0)
    assert len(relay.lines()) == before


def test_relayed_counts(over, workers, serve, dial, peers):
    """Packets count as relayed when they have left, in the metrics and in the line about the closed allocation."""
    relay = serve(workers=workers, limits={"client_queue": 65536})
    client = dial(over, receive_buffer=4096)
    client.allocate()
    with peers.udp() as peer:
        client.bind(peer.getsockname())
        for _ in range(4000):
            peer.sendto(bytes(1000), client.relayed)
            time.sleep(0.0002)
        assert relay.reaches("connections_dropped_messages_total", 1000, transport=over)
        assert relay.metric("relayed_packets_total", direction="to_client", transport=over) < 1000
        received = 0
        with contextlib.suppress(TimeoutError):
            while client.receive(2):
                received += 1
        relay.becomes("relayed_packets_total", received, direction="to_client", transport=over)
        relay.becomes("relayed_bytes_total", 1000 * received, direction="to_client", transport=over)
        client.refresh(0)
    relay.line("allocation closed", to_client_packets=received, to_client_bytes=1000 * received)


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
    """With a low limit on open files connections have a share of it: those beyond are refused or displaced, the relay does
    not run out of file descriptors, and does not spin. Calls continue, UDP clients get allocations, and connections are served once others have closed.
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
        # Until the relay has noticed, they count against the source of the next one.
        relay.becomes("connections", 1)
        later = dial(over)
        later.allocate()
        is_served(later, peer)
        is_served(client, peer)
    ended = lambda: relay.metric("connections_refused_total") + relay.metric("connections_closed_total", reason="displaced")
    eventually(lambda: ended() >= 100)
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
