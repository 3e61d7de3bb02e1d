"""Connections that are not for TURN and go to a backend: what an operator sees of them when the backend, its address, the
configuration or the relay itself changes. Routing and TLS are tested elsewhere.
"""

import contextlib
import json
import signal
import socket
import time

import pytest

import relay as daemon
from conftest import ALICE
from hosts import eventually
from streams import StreamClient

PORT = 8080

UNREACHABLE = "a connection is closed, since its backend cannot be reached"


def web(backend="127.0.0.1:8000", **keys):
    """A [[listener]] whose plain HTTP goes to a backend."""
    return {"address": f"0.0.0.0:{PORT}", "transports": ["tcp"], "http": backend} | keys


def serving(host, address="127.0.0.1", port=8000):
    """A server on a host, that nobody serves yet."""
    with host.inside():
        return socket.create_server((address, port))


def accepted(server):
    """The next connection with a request. The relay may have looked before whether the server is back."""
    while True:
        connection, _ = server.accept()
        connection.settimeout(10)
        if request := connection.recv(1000):
            return connection, request
        connection.close()


def browser(clients, relay):
    """A client that has sent a request."""
    client = clients.tcp(relay.host.v4, PORT)
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    return client


def is_reset(connection):
    """Whether the connection ends with a reset, and not in an orderly way."""
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        return True
    return False


def status(relay):
    """What `hairpin ctl status` says to programs."""
    return json.loads(relay.ctl("status", "--json"))


def reload(relay, **changes):
    """Writes another configuration, which is in use when this returns."""
    (relay.folder / "hairpin.toml").write_text(daemon.toml(daemon.configuration(relay.host, **changes)))
    relay.ctl("reload")


def test_a_backend_that_is_down_and_comes_back(start, host, clients):
    """It closes its own connections alone, and everything that an operator looks at names it; the relay stays ready. When it is
    back, the relay notices without a client.
    """
    relay = start(host, listener=[web()])
    backend = {"backend": "127.0.0.1:8000"}
    assert relay.metric("backend_up", **backend) == 1 and relay.get("/readyz")[2] == "ok\n"
    for _ in range(20):
        with browser(clients, relay) as client:
            assert client.recv(100) == b""
    relay.becomes("splices_failed_total", 20, **backend, reason="refused")
    assert relay.metric("backend_up", **backend) == 0
    line = relay.line(UNREACHABLE)
    assert line["level"] == "WARN" and line["reason"] == "refused" and "start the backend" in line["fix"]
    assert "127.0.0.1:8000: Connection refused" in line["error"]
    # As many lines as say something
    assert len(relay.lines(UNREACHABLE)) <= 4
    code, _, text = relay.get("/readyz")
    assert code == 200 and text.startswith("ok\nbackend 127.0.0.1:8000 has not been reached for "), text
    [told] = status(relay)["backends"]
    assert told["backend"] == "127.0.0.1:8000" and told["failing_since"] and "refused" in told["error"]
    assert "127.0.0.1:8000, 0 connections, cannot be reached since 2" in relay.ctl("status")
    with serving(host) as server:
        relay.line("a backend can be reached again")
        relay.becomes("backend_up", 1, **backend)
        assert relay.get("/readyz")[2] == "ok\n"
        with browser(clients, relay) as client:
            connection, request = accepted(server)
            assert request == b"GET / HTTP/1.1\r\n\r\n"
            assert relay.metric("spliced_connections", **backend) == 1
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            assert client.recv(100) == b"HTTP/1.1 200 OK\r\n\r\n"
            connection.close()
            assert client.recv(100) == b""
        relay.becomes("spliced_connections_closed_total", 1, **backend, reason="finished")
    assert relay.metric("spliced_bytes_total", **backend, direction="to_client") == 19


def test_a_name_is_resolved_for_each_connection(start, host, clients, tmp_path):
    """The backend moves to another address without a reload; an address that is gone is no obstacle to the next one."""
    names = tmp_path / "hosts"
    names.write_text("127.0.0.2 web.internal\n")
    mounted = 'mount --bind "$0" /etc/hosts && exec "$@"'
    wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, names)
    relay = start(host, listener=[web("web.internal:8000")], process={"wrapper": wrapper})
    for address in ("127.0.0.2", "127.0.0.3"):
        names.write_text(f"127.0.0.9 web.internal\n{address} web.internal\n")
        with serving(host, address) as server, browser(clients, relay):
            accepted(server)[0].close()
    names.write_text("")
    with browser(clients, relay) as client:
        assert client.recv(100) == b""
    assert relay.line(UNREACHABLE, reason="unresolved")["error"].startswith("web.internal: ")


def test_a_reload_removes_a_backend(start, host, clients):
    """Its running connections go on, and its metrics last as long as they do."""
    relay = start(host, listener=[web()])
    with serving(host) as server, browser(clients, relay) as client:
        connection, _ = accepted(server)
        reload(relay, listener=[web("127.0.0.1:8001")])
        assert relay.metric("backend_up", backend="127.0.0.1:8001") == 1
        connection.sendall(b"still here")
        assert client.recv(100) == b"still here"
        assert relay.metric("spliced_connections", backend="127.0.0.1:8000") == 1
        with browser(clients, relay) as late:
            assert late.recv(100) == b""
        relay.becomes("splices_failed_total", 1, backend="127.0.0.1:8001", reason="refused")
        connection.close()
        assert client.recv(100) == b""
    gone = frozenset({("backend", "127.0.0.1:8000")})
    eventually(lambda: gone not in relay.metrics()["hairpin_spliced_connections"])


def test_web_and_turn_lock_nobody_out(start, host, clients):
    """Limits per source of both kinds are apart: as many connections to a backend as a source may have leave it all of those to
    TURN, and the other way round. Until it is decided whose a connection is, it counts among TURN's that have no allocation.
    """
    limits = {"connections_per_source": 3, "spliced_connections_per_source": 2}
    relay = start(host, listen={"tcp": ["0.0.0.0:3478"]}, listener=[web()], limits=limits)

    def calls(count):
        """As many TURN clients without an allocation."""
        made = [opened.enter_context(StreamClient(clients, (host.v4, 3478), ALICE)) for _ in range(count)]
        for client in made:
            client.binding()
        return made

    with serving(host) as server, contextlib.ExitStack() as opened:
        sites = []
        for _ in range(2):
            sites.append((opened.enter_context(browser(clients, relay)), opened.enter_context(accepted(server)[0])))
        refused = opened.enter_context(browser(clients, relay))
        assert refused.recv(100) == b""
        line = relay.line("a connection to a backend is refused: there are too many")
        assert line["setting"] == "limits.spliced_connections_per_source" and line["limit"] == 2
        assert relay.metric("splices_failed_total", backend="127.0.0.1:8000", reason="limit") == 1

        waiting = calls(3)
        assert relay.metric("connections", transport="tcp") == 3
        assert status(relay)["counts"]["spliced_connections"] == 2

        # The source has all connections that it may have, and what it has at the backend goes on.
        with clients.tcp(host.v4, PORT) as undecided:
            assert undecided.recv(100) == b""
        relay.becomes("connections_refused_total", 1, transport="tcp", reason="connections_per_source")
        for client, connection in sites:
            connection.sendall(b"still here")
            assert client.recv(100) == b"still here"

        # With an allocation, connections to TURN leave the site alone, however many there are.
        for client in waiting:
            client.allocate()
        for end in sites[0]:
            end.close()
        relay.becomes("spliced_connections", 1, backend="127.0.0.1:8000")
        opened.enter_context(browser(clients, relay))
        opened.enter_context(accepted(server)[0])
        relay.becomes("spliced_connections", 2, backend="127.0.0.1:8000")
        assert relay.metric("connections", transport="tcp") == 3
        calls(3)


@pytest.mark.parametrize("how", ["stop", "drain"])
def test_the_end_of_the_process_resets_connections(start, host, clients, how):
    """Neither a stop nor a drain waits for WebSockets. The log says how many are cut, and none looks complete."""
    relay = start(host, listener=[web()])
    with serving(host) as server, browser(clients, relay) as client:
        connection, _ = accepted(server)
        began = time.monotonic()
        relay.process.send_signal(signal.SIGTERM if how == "stop" else signal.SIGUSR1)
        assert relay.process.wait(20) == 0 and time.monotonic() - began < 10
        assert is_reset(client) and is_reset(connection)
    assert relay.lines("a connection to a backend is cut, since the relay stops", connections=1)
