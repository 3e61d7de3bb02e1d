"""The PROXY protocol (HAProxy's proxy-protocol.txt): headers by script, and a real HAProxy and nginx in front of the relay. The
address in the header is the client's for XOR-MAPPED-ADDRESS, limits, logs and operators; from anybody else a header is not
believed.
"""

import contextlib
import itertools
import re
import socket
import ssl
import struct
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import coturn
import stun
from conftest import ALICE, NAME
from hosts import eventually
from livekit import Program
from relay import PASSWORD, USER
from streams import StreamClient

PLAIN, TLS = 3478, 443
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT = ("198.51.100.7", 56324)
CLIENT_V6 = ("2001:db8:ffff::7", 56324)


def v1(client, server=None):
    """A header of version 1."""
    server = server or (client[0], 443)
    family = 6 if ":" in client[0] else 4
    return f"PROXY TCP{family} {client[0]} {server[0]} {client[1]} {server[1]}\r\n".encode()


def v2(client=None, command=0x21, family=None, tlvs=b"", server=None):
    """A header of version 2; without a client it has no addresses."""
    block = b""
    if client:
        v6 = ":" in client[0]
        kind = socket.AF_INET6 if v6 else socket.AF_INET
        server = server or (client[0], 443)
        block = socket.inet_pton(kind, client[0]) + socket.inet_pton(kind, server[0])
        block += struct.pack("!HH", client[1], server[1])
        family = family or (0x21 if v6 else 0x11)
    return SIGNATURE + struct.pack("!BBH", command, family or 0, len(block + tlvs)) + block + tlvs


HEADERS = {"v1": v1, "v2": v2}


@pytest.fixture
def proxy(switch):
    """The host of the proxy that the relay trusts."""
    return switch.host("proxy")


@pytest.fixture
def serve(start, host, tls, proxy):
    """Starts a relay that trusts `proxy`: plain TURN on 3478, both on 443, over both families."""

    def serve(mode="required", limits=None, **changes):
        trust = {"proxy_from": [f"{proxy.v4}/32", f"{proxy.v6}/128"], "proxy": mode}
        listeners = [
            {"address": f"{address}:{port}", "transports": transports, **trust}
            for address in ("0.0.0.0", "[::]")
            for port, transports in ((PLAIN, ["tcp"]), (TLS, ["tcp", "tls"]))
        ]
        udp = {"udp": ["0.0.0.0:3478"], "tcp": [], "tls": []}
        return start(host, listen=udp, listener=listeners, tls=tls, limits=limits or {}, **changes)

    return serve


@pytest.fixture
def dial(host, proxy, authority):
    """Opens connections that begin with these bytes: `dial(v1(CLIENT))`. They are closed after the test."""
    opened = []

    def dial(header=b"", at=None, port=PLAIN, tls=False, family="v4", pieces=False, together=False):
        connection = (at or proxy).tcp(getattr(host, family), port)
        opened.append(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The header leaves with what follows it.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, together)
        for piece in [header[n : n + 1] for n in range(len(header))] if pieces else [header]:
            connection.sendall(piece)
        if tls:
            context = ssl.create_default_context(cafile=authority.certificate)
            opened[-1] = connection = context.wrap_socket(connection, server_hostname=NAME)
        return connection

    yield dial
    for connection in opened:
        connection.close()


@pytest.fixture
def client(host, proxy, dial):
    """A TURN client over such a connection."""

    def client(header=b"", at=None, **how):
        connection = dial(header, at, **how)
        return StreamClient(at or proxy, connection.getpeername()[:2], ALICE, connection=connection)

    return client


def is_closed_in_silence(connection, timeout=10):
    """Whether the relay closes a connection in time without a byte."""
    connection.settimeout(timeout)
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def closed(relay, reason, count=1):
    """Waits until this many connections were closed for a reason; returns the line in the log."""
    assert relay.reaches("connections_closed_total", count, reason=reason) == count
    return relay.line("connection closed", reason=reason)


def relays(client, peer):
    """Data goes through an allocation in both directions."""
    client.allocate()
    channel = client.bind(peer.getsockname()[:2])
    client.send_channel(channel, b"out")
    assert peer.recvfrom(100)[0] == b"out"
    peer.sendto(b"back", client.relayed)
    assert client.receive()[:2] == (channel, b"back")


@pytest.mark.parametrize("version", HEADERS)
def test_the_header_names_the_client(version, workers, serve, client, proxy, peers):
    """Both versions, both families, with TLS after the header and without: the client's address is the header's in responses, logs
    and for operators, and `server` is the relay's own.
    """
    relay = serve(workers=workers)
    header = HEADERS[version]
    ports, sessions = itertools.count(40_000), {}
    with peers.udp() as peer:
        for tls, family, ip in itertools.product((False, True), ("v4", "v6"), (CLIENT[0], CLIENT_V6[0])):
            said = (ip, next(ports))
            shown = f"[{ip}]:{said[1]}" if ":" in ip else f"{ip}:{said[1]}"
            one = client(header(said), port=TLS if tls else PLAIN, tls=tls, family=family)
            assert one.binding() == said
            relays(one, peer)
            line = relay.line("allocation opened", client=shown)
            assert line["transport"] == ("tls" if tls else "tcp") and line["proxy"].startswith(
                f"{proxy.v4}:" if family == "v4" else f"[{proxy.v6}]:"
            )
            sessions[shown] = line["session"]
        assert {row["client"]: row["id"] for row in relay.ask("list")["allocations"]} == sessions
    # HAProxy and nginx write the clients of a dual-stack socket as IPv4-mapped
    for mapped in (v1(("::ffff:192.0.2.1", 5), ("::ffff:192.0.2.2", 6)), v2(("::ffff:192.0.2.1", 5))):
        assert client(mapped).binding() == ("192.0.2.1", 5)


def test_segments(serve, client, proxy):
    """A header in segments of one byte, and one that comes with what follows it, lose nothing; TLVs are skipped."""
    serve()
    tlvs = b"\x02\0\x0bexample.org\xea\x04\x00" + bytes(1024)
    for header in (v1(CLIENT), v2(CLIENT), v2(CLIENT, tlvs=tlvs), v2(CLIENT_V6, tlvs=tlvs)):
        said = CLIENT_V6 if header[13] == 0x21 and header[:1] == b"\r" else CLIENT
        for tls, pieces in itertools.product((False, True), (False, True)):
            how = {"pieces": pieces, "together": not pieces}
            assert client(header, port=TLS if tls else PLAIN, tls=tls, **how).binding() == said


def test_the_same_header_twice(workers, serve, client, peers):
    """RFC 8656 §5: streams are keyed by connection: two with the same header have an allocation each, and the end of one leaves the
    other alone. An operator ends one of them.
    """
    relay = serve(workers=workers)
    with peers.udp() as peer:
        twins = [client(v2(CLIENT)) for _ in range(4)]
        for one in twins:
            relays(one, peer)
        relay.becomes("allocations", 4, transport="tcp")
        assert len({one.relayed for one in twins}) == 4
        twins[0].socket.close()
        relay.becomes("allocations", 3, transport="tcp")
        rows = relay.ask("list", "--client", f"{CLIENT[0]}:{CLIENT[1]}")["allocations"]
        ended = next(row for row in rows if int(row["relayed"][0]["address"].rsplit(":", 1)[1]) == twins[1].relayed[1])
        relay.ctl("end", ended["id"])
        relay.becomes("allocations", 2, transport="tcp")
        for one in twins[2:]:
            one.send_channel(0x4000, b"still")
            assert peer.recvfrom(100)[0] == b"still"
            peer.sendto(b"here", one.relayed)
            assert one.receive()[:2] == (0x4000, b"here")


def test_a_forged_header_is_not_believed(serve, dial, client, clients, peers):
    """From an untrusted source a header is not believed: closed without an answer, counted, logged with the fix. The clients' own
    connections, without one, are served.
    """
    relay = serve()
    forged = [v1(CLIENT), v2(CLIENT), v2(command=0x20), b"PROXY UNKNOWN\r\n"]
    for count, header in enumerate(forged, start=1):
        connection = dial(header + b"\0\1\0\0" + bytes(16), at=clients)
        assert is_closed_in_silence(connection)
        line = closed(relay, "untrusted_proxy_header", count)
        assert "proxy_from" in line["fix"] and line["client"].startswith(clients.v4)
    assert CLIENT[0] not in relay.log
    with peers.udp() as peer:
        honest = client(at=clients)
        assert honest.binding() == honest.socket.getsockname()
        relays(honest, peer)


def test_a_trusted_source_without_a_valid_header(serve, dial, host):
    """A header that is required and missing, and a broken one: closed without an answer, counted apart, logged with the fix."""
    relay = serve(limits={"handshake_timeout": 2})
    binding = stun.Message(stun.REQUEST, stun.BINDING).encode()
    missing = [binding, b"\x16\x03\x01\x02\0\x01", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
    for count, start in enumerate(missing, start=1):
        assert is_closed_in_silence(dial(start))
        line = closed(relay, "missing_proxy_header", count)
        assert 'proxy = "optional"' in line["fix"]
    broken = [
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 " + b"1" * 200,
        v2(CLIENT, command=0x11),
        v2(CLIENT, command=0x23),
        v2(CLIENT, family=0x41),
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x21\x11\0\4" + bytes(4),
    ]
    for count, header in enumerate(broken, start=1):
        assert is_closed_in_silence(dial(header + binding))
        line = closed(relay, "invalid_proxy_header", count)
    assert line["fix"] and line["detail"]
    # One byte a second gets as far as the deadline, and no further.
    slow = dial()
    begun = time.monotonic()
    try:
        for byte in v1(CLIENT):
            slow.sendall(bytes([byte]))
            time.sleep(1)
    except OSError:
        pass
    assert time.monotonic() - begun < len(v1(CLIENT)) - 5
    line = closed(relay, "invalid_proxy_header", len(broken) + 1)


def test_headers_without_a_client(serve, client, peers):
    """LOCAL, UNKNOWN, UNSPEC and UNIX: the connection's own addresses count, and it is served."""
    relay = serve()
    headers = [
        v2(command=0x20),
        v2(CLIENT, command=0x20),
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n",
        v2(family=0),
        v2(family=0x31, tlvs=bytes(216)),
    ]
    with peers.udp() as peer:
        for header in headers:
            one = client(header)
            assert one.binding() == one.socket.getsockname()
            relays(one, peer)
    assert CLIENT[0] not in relay.log


def test_health_checks_are_no_errors(serve, dial, clients):
    """A connection that is closed, or reset, without a byte of its own: counted as no_bytes, and not a line in the log, with a header
    before it or without.
    """
    relay = serve()
    count = 0
    for header, resets in itertools.product((b"", v2(command=0x20), b"PROXY UNKNOWN\r\n", v1(CLIENT)), (False, True)):
        connection = dial(header)
        time.sleep(0.1)
        if resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        count += 1
    dial(at=clients).close()
    assert relay.reaches("connections_closed_total", count + 1, reason="no_bytes") == count + 1
    assert relay.metric("connections_closed_total") == count + 1
    assert not [line for line in relay.lines() if "client" in line or "connection" in line]


def test_loopback_and_unspecified_clients(serve, client, peers):
    """A header that names a loopback or unspecified client: 400 to every request before authentication, and a line with the fix,
    because a proxy in front of the proxy hides its clients.
    """
    relay = serve()
    for said in (("127.0.0.1", 5000), ("0.0.0.0", 5000), ("::1", 5000), ("::", 5000), ("::ffff:127.0.0.1", 5000)):
        for header in (v1, v2):
            one = client(header(said))
            for method in (stun.BINDING, stun.ALLOCATE, stun.REFRESH, stun.CREATE_PERMISSION, stun.CHANNEL_BIND):
                assert one.ask(method, sign=False).code == 400
    line = relay.line("refused", client="127.0.0.1:5000", code=400)
    assert "127.0.0.1" in line["fix"] and "must pass the client's address on" in line["fix"]
    assert line["proxy"] in line["fix"]
    assert client(v1(CLIENT)).binding() == CLIENT
    assert relay.metric("allocations") == 0


def test_a_loopback_client_without_a_proxy(serve, host, client, dial):
    """An allocation of a client at a loopback address deserves a warning, once per listener: a proxy on this machine may hide it."""
    relay = serve(mode="optional")
    for _ in range(3):
        connection = host.tcp("127.0.0.1", PLAIN)
        with StreamClient(host, ("127.0.0.1", PLAIN), ALICE, connection=connection) as one:
            one.allocate()
    line = relay.line("a client at a loopback address has an allocation: browsers do not use it, and Firefox abandons it without an error")
    assert "proxy_from" in line["fix"] and line["client"].startswith("127.0.0.1:")
    relay.becomes("allocations", 0)
    assert len(relay.lines(line["message"])) == 1


def test_optional_headers(serve, client, dial):
    """`proxy = "optional"`: trusted sources are served with a header and without. A broken one is not served."""
    relay = serve(mode="optional")
    for tls in (False, True):
        how = {"tls": tls, "port": TLS if tls else PLAIN}
        assert client(v1(CLIENT), **how).binding() == CLIENT
        assert client(v2(CLIENT), **how).binding() == CLIENT
        own = client(**how)
        assert own.binding() == own.socket.getsockname()
    assert is_closed_in_silence(dial(b"PROXY TCP4 1.2.3.4\r\n"))
    closed(relay, "invalid_proxy_header")
    # Only the first header counts.
    assert is_closed_in_silence(dial(v1(CLIENT) + v1(CLIENT)))
    assert is_closed_in_silence(dial(v2(command=0x20) + v1(CLIENT)))
    closed(relay, "not_served", 2)


def test_limits_are_the_clients(serve, dial, client, proxy):
    """Limits per source are those of the client in the header: one client beyond them is refused, another one through the same proxy
    is served, and the proxy itself may have many more.
    """
    relay = serve(limits={"connections_per_source": 5})
    many = [client(v1((f"198.51.100.{n}", 5000))) for n in range(1, 21)]
    for n, one in enumerate(many, start=1):
        assert one.binding() == (f"198.51.100.{n}", 5000)
    busy = [client(v1(("192.0.2.1", 5000 + n))) for n in range(5)]
    for one in busy:
        assert one.binding()
    assert is_closed_in_silence(dial(v1(("192.0.2.1", 6000))))
    assert relay.reaches("connections_refused_total", 1, reason="connections_per_source") == 1
    line = relay.line("connection refused")
    assert line["source"] == "192.0.2.1" and line["client"] == "192.0.2.1:6000"
    busy.pop().socket.close()
    relay.becomes("connections", 24)
    assert client(v1(("192.0.2.1", 6001))).binding() == ("192.0.2.1", 6001)


@pytest.fixture
def behind(proxy, request, tmp_path):
    """Starts a proxy with a configuration, which is stopped after the test: `behind("nginx", text, "nginx", "-c")`."""
    request.node.programs = []

    def behind(name, text, *argv):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "conf").write_text(textwrap.dedent(text))
        program = Program(proxy, folder, *argv, folder / "conf").start()
        request.node.programs.append(program)

        def listening():
            """it listens"""
            assert program.process.poll() is None, f"it exited with status {program.process.returncode}:\n{program.log}"
            return re.search(rf"pid={program.process.pid},", proxy.run("ss", "-Hltnp"))

        eventually(listening)
        return program

    yield behind
    for program in request.node.programs:
        program.process.kill()
        program.process.wait()


def serves_clients_of(proxy, relay, clients, peers, authority):
    """Clients behind a real proxy have their own addresses, and coturn's client relays over TCP and TLS, all at once."""
    with contextlib.ExitStack() as stack:
        sessions = {}
        for family, port in itertools.product(("v4", "v6"), (PLAIN, TLS)):
            trusted = {"trust": authority.certificate, "name": NAME} if port == TLS else {}
            one = stack.enter_context(StreamClient(clients, (getattr(proxy, family), port), ALICE, **trusted))
            own = one.socket.getsockname()
            assert one.binding() == own
            one.allocate()
            shown = f"[{own[0]}]:{own[1]}" if family == "v6" else f"{own[0]}:{own[1]}"
            line = relay.line("allocation opened", client=shown)
            assert line["proxy"].startswith(f"{proxy.v4}:")
            sessions[shown] = line["session"]
        assert {row["client"]: row["id"] for row in relay.ask("list")["allocations"]} == sessions
    # A client's own header is bytes like any others.
    with clients.tcp(proxy.v4, PLAIN) as forging:
        forging.sendall(v1(CLIENT) + b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12))
        assert is_closed_in_silence(forging)
    assert CLIENT[0] not in relay.log
    ways = [["-t", "-p", PLAIN], ["-t", "-S", "-E", authority.certificate, "-p", TLS]]

    def uclient(way):
        how = [*way, "-n", 10, "-m", 2, "-e", peers.v4]
        return coturn.uclient(clients, proxy.v4, *how, user=USER, password=PASSWORD)

    with coturn.echo_peer(peers), ThreadPoolExecutor(len(ways)) as pool:
        for done in pool.map(uclient, ways):
            assert done.status == 0 and done.sent == done.received >= 20, done.output
    opened = relay.lines("allocation opened")
    assert len(opened) > 8 and all(line["client"].startswith((f"{clients.v4}:", "[" + clients.v6)) for line in opened)
    assert relay.metric("worker_panics_total") == 0


HAPROXY = """\
    defaults
        mode tcp
        timeout connect 5s
        timeout client 1h
        timeout server 1h

    listen plain
        bind :3478,:::3478 v6only
        server hairpin {address}:3478 {plain}

    listen both
        bind :443,:::443 v6only
        server hairpin {address}:443 {both}
    """

# Options of the servers, with health checks in every way: with a header, without one, and of both versions.
CHECKS = {
    "check": ("send-proxy check inter 200", "send-proxy-v2 check inter 200"),
    "check-send-proxy": (
        f"send-proxy-v2 check inter 200 port {PLAIN} check-send-proxy",
        f"send-proxy-v2-ssl check inter 200 port {TLS}",
    ),
}


@pytest.mark.parametrize("checks", CHECKS)
def test_behind_haproxy(checks, serve, behind, proxy, clients, peers, authority):
    """HAProxy of Debian with send-proxy (version 1) and send-proxy-v2; its health checks are no errors."""
    relay = serve()
    plain, both = CHECKS[checks]
    text = HAPROXY.format(address=relay.host.v4, plain=plain, both=both)
    program = behind("haproxy", text, "haproxy", "-db", "-f")
    relay.reaches("connections_closed_total", 6, reason="no_bytes")
    serves_clients_of(proxy, relay, clients, peers, authority)
    assert "DOWN" not in program.log, program.log
    assert {line["reason"] for line in relay.lines("connection closed")} == {"not_served"}


NGINX = """\
    daemon off; master_process off; user root; pid pid;
    load_module /usr/lib/nginx/modules/ngx_stream_module.so;
    events {{ }}
    stream {{
        server {{
            listen 3478;
            listen [::]:3478;
            proxy_pass {address}:3478;
            proxy_protocol on;
            proxy_timeout 1h;
        }}
        server {{
            listen 443;
            listen [::]:443;
            proxy_pass {address}:443;
            proxy_protocol on;
            proxy_timeout 1h;
        }}
    }}
    """


def test_behind_nginx(serve, behind, proxy, clients, peers, authority, tmp_path):
    """nginx of Debian with its module `stream` and proxy_protocol on (version 1)."""
    relay = serve()
    behind("nginx", NGINX.format(address=relay.host.v4), "nginx", "-p", tmp_path / "nginx", "-e", "stderr", "-c")
    serves_clients_of(proxy, relay, clients, peers, authority)
