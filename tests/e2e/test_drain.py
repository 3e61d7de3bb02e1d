"""A relay that drains: running calls live on, new clients go to its sibling by 300 (RFC 8489 §10), and then it ends. And a
relay that is stopped ends in time, whatever a thread does.
"""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

import coturn
import relay as daemon
import stun
from browser import Browser
from conftest import ALICE, NAME
from hosts import eventually
from streams import StreamClient
from stuck import stuck
from test_browser import CALL, TCP, TLS, UDP, call, flows, ice_server
from turn import error_code, time_limited

LISTEN = {"tcp": ["0.0.0.0:3478", "[::]:3478"]}


@pytest.fixture
def other(switch):
    """The host of the sibling."""
    return switch.host("other")


@pytest.fixture
def both(start, host, other, authority, tls):
    """Starts a relay, and the sibling that its clients go to when it drains."""

    def both(names_address=False):
        cert, key = map(str, authority.issue("turn-2.example.org", *([other.v4] if names_address else [])))
        sibling = {"v4": other.v4, "v6": other.v6, "udp": 3478, "tcp": 3478, "tls": 5349}
        sibling |= {"domain": "turn-2.example.org", "certificate_names_address": names_address}
        serve = {"listen": LISTEN, "workers": 2}
        return start(host, sibling=[sibling], tls=tls, **serve), start(other, tls={"cert": cert, "key": key}, **serve)

    return both


def drain(relay):
    """Drains a relay and waits until it does."""
    relay.process.send_signal(signal.SIGUSR1)
    eventually(lambda: any("the relay drains from now on" in line["message"] for line in relay.lines()))


def ended(relay, seconds=20):
    """The exit status of a relay that ends by itself."""
    return relay.process.wait(seconds)


def test_new_clients_go_to_the_sibling(both, host, other, clients, peers, connect, authority):
    """RFC 8489 §10, RFC 8656 §7.2: during a drain, clients over UDP and TCP and uclient allocate at the sibling, running
    calls go on, and the relay ends with success when the last of them has.
    """
    relay, sibling = both()
    assert relay.metric("draining") == 0
    calls = [connect(), connect(server=(host.v6, 3478)), StreamClient(clients, (host.v4, 3478), ALICE)]
    with peers.udp() as peer, peers.udp(peers.v6) as peer6:
        for one in calls:
            one.allocate(family=stun.IPV6 if ":" in one.server[0] else stun.IPV4)
            one.peer = peer6 if ":" in one.server[0] else peer
            one.channel = one.bind(one.peer.getsockname()[:2])
        drain(relay)
        for page in ("/readyz", "/healthz"):
            status, _, reason = relay.get(page)
            assert (status, reason) == (503, "the relay drains; 3 allocations are left\n"), page
        assert relay.get("/livez")[0] == 200 and relay.metric("draining") == 1

        moved = [connect(), connect(server=(host.v6, 3478)), StreamClient(clients, (host.v4, 3478), ALICE)]
        for one in moved:
            assert one.allocate()[0] == other.v4 and one.server in [(other.v4, 3478), (other.v6, 3478)]
            one.refresh()
        # Over TLS a browser would expect the address in the certificate, and it is not there.
        over_tls = StreamClient(clients, (host.v4, 5349), ALICE, trust=authority.certificate, name=NAME)
        assert error_code(over_tls.allocate) == 508
        alone = connect()
        alone.follows = False
        assert error_code(alone.allocate) == 300
        opened = sibling.metric("allocations_opened_total")
        with coturn.echo_peer(peers):
            who = {"user": daemon.USER, "password": daemon.PASSWORD}
            run = partial(coturn.uclient, clients, host.v4, "-c", "-n", 10, "-m", 2, "-e", peers.v4, **who)
            with ThreadPoolExecutor() as pool:
                runs = [pool.submit(run, *over) for over in ([], ["-t"])]
            for done in (run.result() for run in runs):
                assert done.status == 0 and done.sent == done.received >= 20, done.output
        sibling.reaches("allocations_opened_total", opened + 4)
        assert relay.metric("allocations_opened_total") == 3
        [redirected] = relay.lines("refused", code=300)[:1]
        assert redirected["alternate"] == f"{other.v4}:3478", redirected

        relay.process.send_signal(signal.SIGUSR1)
        eventually(lambda: any("the relay drains already" in line["message"] for line in relay.lines()))
        for one in calls:
            one.send_channel(one.channel, b"on it goes")
            payload, back = one.peer.recvfrom(100)
            assert payload == b"on it goes"
            one.peer.sendto(b"and back", back)
            assert one.receive().payload == b"and back" and one.refresh() == 600
            one.permit(one.peer.getsockname()[0])
        for one in calls:
            assert relay.process.poll() is None
            one.refresh(0)
        assert ended(relay) == 0
    assert any("the last allocation has ended" in line["message"] for line in relay.lines())
    assert sibling.get("/readyz")[0] == 200


def test_browsers_go_to_the_sibling(both, switch, host, other, authority):
    """Chromium follows 300 over UDP and TCP, and over TLS if the sibling's certificate names its address: a new call is
    relayed by the sibling, while one that runs goes on.
    """
    relay, sibling = both(names_address=True)
    at = switch.host("browser", default_route=True)
    page = Browser(at, authority=authority.certificate, names={NAME: host.v4})
    try:
        page.open(CALL)
        bob = time_limited(daemon.SECRET, "bob")
        call(page, ice_server(UDP, host, bob))
        page.run("globalThis.running = call")
        drain(relay)
        for way in (UDP, TCP, TLS):
            call(page, ice_server(way, host, bob))
            flows(page, way[1])
            for end in page.run("call.selected()"):
                assert {end["local"]["address"], end["remote"]["address"]} == {other.v4}, (way, end)
        page.run("globalThis.call = running")
        flows(page, "udp")
        assert relay.process.poll() is None
    finally:
        page.close()
    assert sibling.metric("allocations_opened_total") >= 6
    assert relay.stop() == 0


def test_without_a_sibling(start, host, connect):
    """New clients are refused with 508, and the log says what helps; at the deadline what is left ends, with success."""
    relay = start(host, drain_deadline=2)
    call_ = connect()
    call_.allocate()
    drain(relay)
    assert error_code(connect().allocate) == 508
    assert "[[sibling]]" in relay.line("refused", code=508)["fix"]
    assert ended(relay) == 0
    relay.line("allocation closed", reason="server stops")
    assert any("deadline of the drain" in line["message"] for line in relay.lines())


def test_a_reload_does_not_end_a_drain(start, host, other, connect):
    """A sibling that is added while the relay drains takes over the next client."""
    relay = start(host)
    connect().allocate()
    drain(relay)
    client = connect()
    client.follows = False
    assert error_code(client.allocate) == 508
    config = daemon.configuration(host, sibling=[{"v4": other.v4, "udp": 3478}])
    (relay.folder / "hairpin.toml").write_text(daemon.toml(config))
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: any("configuration is reloaded" in line["message"] for line in relay.lines()))
    assert error_code(client.allocate) == 300 and relay.get("/readyz")[0] == 503


def test_a_stop_ends_a_drain(start, host, connect):
    """SIGTERM ends a relay that drains as it ends any other."""
    relay = start(host)
    connect().allocate()
    drain(relay)
    assert relay.stop() == 0
    relay.line("allocation closed", reason="server stops")


def test_connections_end_properly(start, host, clients, tls, authority):
    """RFC 8446 §6.1: on a stop, TLS clients get a close_notify; one that never reads does not hold it up."""
    relay = start(host, listen=LISTEN, tls=tls)
    secure = StreamClient(clients, (host.v4, 5349), ALICE, trust=authority.certificate, name=NAME)
    secure.allocate()
    idle = clients.tcp(host.v4, 3478)
    assert relay.stop() == 0
    assert secure.socket.connection.recv(1) == b"", "the end of the stream is a close_notify"
    idle.close()


def test_a_stuck_worker_does_not_hold_up_the_end(start, host):
    """A stop ends within stop_deadline, whatever a worker does: with an error, and a line that names the worker."""
    relay = start(host, workers=2, stop_deadline=2)
    with stuck(relay.process.pid, "worker-1") as is_gone:
        began = time.monotonic()
        relay.process.send_signal(signal.SIGTERM)
        eventually(is_gone)
        took = time.monotonic() - began
    assert relay.process.wait(20) == 1 and took >= 1.9, took
    assert any("worker 1 has not ended within stop_deadline, 2 s" in line["message"] for line in relay.lines())


def test_a_second_signal_does_not_wait(start, host):
    """A second SIGTERM ends a relay at once, though a worker is stuck and the deadline is far."""
    relay = start(host, workers=2, stop_deadline=600)
    with stuck(relay.process.pid, "worker-0") as is_gone:
        relay.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert not is_gone()
        relay.process.send_signal(signal.SIGTERM)
        eventually(is_gone)
    assert relay.process.wait(20) == 1
