"""Clients that are slow, silent or hostile in every stage of a connection to port 443, hundreds at once: they hold their sockets
until their deadlines, and little else, while calls and a website go on.
"""

import http.client
import os
import socket
import ssl
import struct
import time

import pytest

import stun
from conftest import NAME
from hosts import eventually
from relay import PASSWORD, USER
from streams import StreamClient, connect
from turn import FIRST_CHANNEL, User
from web import ROUTES, SITE, website

ALICE = User(USER, PASSWORD)

# Clients of each kind
COUNT = 30

# Memory that a client may cost: the buffers of its TLS connection, or a ClientHello up to its bound
KIB_PER_CLIENT = 32

PROXY = b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 443\r\n"
LONG_PROXY = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"


@pytest.fixture
def web(host, authority, tmp_path):
    """A website, and WebSockets."""
    with website(host, tmp_path / "nginx", authority) as nginx:
        yield nginx


class Pest:
    """A client that says `first` at once and then `rest`, a byte at a time, over TLS with `name` if it has one."""

    def __init__(self, host, server, first=b"", rest=b"", context=None, name=NAME):
        self._rest = memoryview(rest)
        with host.inside():
            opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # What it does not read stays at the server.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.settimeout(60)
        opened.connect(server)
        self.socket, self.ended = opened, False
        try:
            if context:
                self.socket = context.wrap_socket(opened, server_hostname=name)
            self.socket.sendall(first)
        except OSError:
            self.ended = True
        self.socket.setblocking(False)

    def goes_deaf(self):
        """It reads nothing any more, so that it cannot see the end of the connection behind all that waits for it."""
        self.ended = True
        return self

    def goes_on(self):
        """Sends one more byte; notices if the server has closed the connection."""
        if self.ended:
            return
        try:
            if self._rest:
                self.socket.send(self._rest[:1])
                self._rest = self._rest[1:]
            while self.socket.recv(65536):
                pass
            self.ended = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.ended = True


def client_hello(context, name):
    """The first flight of a TLS client."""
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def endless_hello():
    """A ClientHello of 16 MiB, or as much of it as a server reads, in records of 16 KiB."""
    record = struct.pack("!BHH", 22, 0x0301, 16384)
    return record + b"\x01\xff\xff\xff\x03\x03" + bytes(16378) + 15 * (record + bytes(16384))


def pests(server, context, intruder, balancer):
    """By what they do: functions that open a connection of a client that does it."""
    hello = client_hello(context, NAME)
    unfinished = struct.pack("!HHI", stun.BINDING, 1000, stun.COOKIE) + bytes(980)
    get = b"GET /large HTTP/1.1\r\nHost: site\r\n"

    def plain(first=b"", rest=b"", at=intruder):
        return lambda: Pest(at, server, first, rest)

    def tls(first=b"", rest=b"", name=NAME):
        return lambda: Pest(intruder, server, first, rest, context, name)

    return {
        "nothing": plain(),
        "ClientHello": plain(hello[:1], hello[1:]),
        "half a ClientHello": plain(hello[: len(hello) // 2]),
        "ClientHello for a backend": plain(rest=client_hello(context, SITE)),
        "a ClientHello alone": plain(hello),
        "too large a ClientHello": plain(endless_hello()),
        "garbage": lambda: Pest(intruder, server, b"\xff" + os.urandom(999)),
        "no message": tls(),
        "garbage in TLS": lambda: Pest(intruder, server, b"\xff" + os.urandom(999), context=context),
        "STUN": plain(unfinished[:1], unfinished[1:]),
        "STUN in TLS": tls(unfinished[:1], unfinished[1:]),
        "a method": tls(rest=b"GE"),
        "a request": tls(get, b"X: " + 1000 * b"a"),
        "a request to a backend": tls(get, b"X: " + 1000 * b"a", SITE),
        "no reading": lambda: Pest(intruder, server, get + b"\r\n", context=context).goes_deaf(),
        "no reading from a backend": lambda: Pest(intruder, server, get + b"\r\n", context=context, name=SITE).goes_deaf(),
        "PROXY header": plain(PROXY[:1], PROXY[1:], at=balancer),
        "a long PROXY header": plain(LONG_PROXY, bytes(1000), at=balancer),
    }


def test_slow_and_hostile_clients(start, switch, host, clients, peers, authority, tls, web):
    """Nobody holds a connection by sending a byte from time to time, in no stage: calls over TLS and without it, and a website,
    do not notice hundreds of such clients, memory stays within a bound per client, and nothing of them is left.
    """
    intruder, balancer = switch.host("intruder"), switch.host("balancer")
    deadlines = {"handshake_timeout": 5, "first_message_timeout": 5, "unfinished_message_timeout": 5}
    relay = start(
        host,
        listen={"udp": []},
        listener=[{"address": "0.0.0.0:443", "transports": ["tcp", "tls"], "routes": ROUTES, "proxy_from": [f"{balancer.v4}/32"]}],
        tls=tls,
        # While all of them are here, no limit ends them.
        limits={**deadlines, "spliced_idle_timeout": 8, "connections_per_source": 4096},
    )
    files = relay.open_files()
    server = (host.v4, 443)
    context = ssl.create_default_context(cafile=authority.certificate)
    with peers.udp() as peer:
        calls, channels = [], []
        for trusted in ({}, {"trust": authority.certificate, "name": NAME}):
            calls.append(StreamClient(clients, server, ALICE, **trusted))
            calls[-1].allocate()
            channels.append(calls[-1].bind(peer.getsockname(), FIRST_CHANNEL))
        site = http.client.HTTPSConnection(SITE)
        site.sock = connect(clients, server, trust=authority.certificate, name=SITE)

        def goes_on():
            """Calls go on in both directions, and so does the website."""
            for client, channel in zip(calls, channels):
                client.send_channel(channel, b"out")
                assert peer.recvfrom(100)[0] == b"out"
                peer.sendto(b"back", client.relayed)
                assert client.receive()[:2] == (channel, b"back")
            site.request("GET", "/")
            assert site.getresponse().read()

        goes_on()
        kinds = pests(server, context, intruder, balancer)
        # What is allocated once is no cost of a client.
        opened = {kind: [open_one()] for kind, open_one in kinds.items()}
        goes_on()
        before = relay.resident()
        for _ in range(1, COUNT):
            for kind, open_one in kinds.items():
                opened[kind].append(open_one())
            goes_on()
        everybody = [pest for some in opened.values() for pest in some]
        peak = relay.resident()

        def have_ended():
            """all of them were disconnected"""
            nonlocal peak
            for pest in everybody:
                pest.goes_on()
            goes_on()
            peak = max(peak, relay.resident())
            left = {kind: sum(not pest.ended for pest in some) for kind, some in opened.items()}
            have_ended.__doc__ = f"all were disconnected; left {left}"
            time.sleep(0.5)
            return not any(left.values())

        eventually(have_ended, 60)
        print(f"{len(everybody)} clients, {before} KiB before, {peak} KiB at most")
        assert peak - before < KIB_PER_CLIENT * len(everybody)
        goes_on()
        site.close()
    relay.becomes("connections_closed_total", COUNT, reason="client_hello_too_large")
    relay.becomes("spliced_connections", 0)
    relay.becomes("connections", len(calls))
    for client in calls:
        client.socket.close()
    relay.becomes("connections", 0)
    eventually(lambda: relay.open_files() <= files)


def test_clients_that_vanish(start, switch, host, authority, tls):
    """Clients whose network is gone from one moment to the next send no FIN. In the middle of a ClientHello they are closed at its
    deadline, and behind a backend that goes on sending when both directions have been silent for the idle time. Until then
    neither kind holds more than its buffers.
    """
    office = switch.host("office")
    with host.inside():
        server = socket.create_server(("127.0.0.1", 8443), backlog=COUNT)
    server.settimeout(10)
    relay = start(
        host,
        listener=[{"address": "0.0.0.0:443", "transports": ["tls"], "routes": {SITE: "127.0.0.1:8443"}}],
        tls=tls,
        limits={"handshake_timeout": 5, "spliced_idle_timeout": 5},
    )
    files, before = relay.open_files(), relay.resident()
    hello = client_hello(ssl.create_default_context(cafile=authority.certificate), SITE)
    clients, backends = [], []
    try:
        for _ in range(COUNT):
            clients.append(Pest(office, (host.v4, 443), hello))
            backends.append(server.accept()[0])
        relay.becomes("spliced_connections", COUNT, backend="127.0.0.1:8443")
        clients += [Pest(office, (host.v4, 443), hello[:100]) for _ in range(COUNT)]
        relay.becomes("connections_accepted_total", len(clients), transport="tls")
        switch.lets_out(office)
        peak = relay.resident()
        for connection in backends:
            connection.setblocking(False)

        def are_gone():
            """the relay has no connection left"""
            nonlocal peak
            for connection in backends:
                try:
                    while connection.send(bytes(65536)):
                        pass
                except OSError:
                    pass
            peak = max(peak, relay.resident())
            closed = relay.metric("tls_handshakes_failed_total", reason="too_slow")
            return closed == COUNT and relay.metric("spliced_connections", backend="127.0.0.1:8443") == 0

        eventually(are_gone, 60)
        assert switch.dropped(office) > 0
        print(f"{len(clients)} clients, {before} KiB before, {peak} KiB at most")
        assert peak - before < KIB_PER_CLIENT * len(clients)
        relay.becomes("spliced_connections_closed_total", COUNT, backend="127.0.0.1:8443", reason="idle")
        eventually(lambda: relay.open_files() <= files)
    finally:
        for one in [server, *backends, *(client.socket for client in clients)]:
            one.close()
