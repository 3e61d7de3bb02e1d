"""Listeners with peers of their own, and overlays: peers that a program names while the relay runs.

The SFU of these tests has an address of 100.64.0.0/10, which is refused by default (RFC 8656 §21, RFC 6598).
"""

import signal

import pytest

import relay as daemon
from hosts import eventually
from streams import StreamClient
from turn import User, error_code

ALICE = User(daemon.USER, daemon.PASSWORD)
SFU = ("100.64.0.5", 7882)


@pytest.fixture
def sfu(switch, host):
    """A server at an address that is refused by default; its socket."""
    machine = switch.host("sfu", ["100.64.0.5/10"])
    machine.run("ip", "route", "add", "203.0.113.0/24", "dev", "eth0")
    host.run("ip", "route", "add", "100.64.0.0/10", "dev", "eth0")
    with machine.udp(*SFU) as server:
        yield server


def listener(port, **peers):
    """A [[listener]] section with its `peers`."""
    return {"address": f"0.0.0.0:{port}", "transports": ["udp", "tcp"]} | {
        f"peers.{key}": value for key, value in peers.items()
    }


def reload(relay, **changes):
    """Writes another configuration and waits until it is in use."""
    (relay.folder / "hairpin.toml").write_text(daemon.toml(daemon.configuration(relay.host, **changes)))
    told = len(results(relay))
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(results(relay)) > told)
    assert "is reloaded" in results(relay)[-1], results(relay)


def results(relay):
    """What SIGHUP came to so far."""
    return [line["message"] for line in relay.lines() if line["message"].startswith("SIGHUP: ")]


def talk(client, channel, server):
    """Sends data both ways over a channel."""
    client.send_channel(channel, b"to the server")
    data, relayed = server.recvfrom(100)
    assert data == b"to the server"
    server.sendto(b"to the client", relayed)
    assert client.receive().payload == b"to the client"


def hears(server):
    """Whether anything arrives at a server within a moment."""
    server.settimeout(0.3)
    try:
        return bool(server.recvfrom(100))
    except TimeoutError:
        return False
    finally:
        server.settimeout(5)


def test_each_listener_has_peers_of_its_own(workers, start, host, clients, connect, peers, sfu):
    """RFC 8656 §21: clients of a listener that stands alone reach its peers and no others, over UDP and TCP; clients of the
    others do not reach them. Every client can call every other one.
    """
    alone = listener(3480, mode="alone", allow=[f"{SFU[0]}:{SFU[1]}"])
    relay = start(host, workers=workers, listener=[alone])
    here, other = connect(), connect(server=(host.v4, 3480))
    here.allocate(), other.allocate()
    with peers.udp() as peer, StreamClient(clients, (host.v4, 3480), ALICE) as stream:
        stream.allocate()
        talk(here, here.bind(peer.getsockname()), peer)
        for client in (other, stream):
            talk(client, client.bind(SFU), sfu)
            assert error_code(client.permit, peers.v4) == error_code(client.bind, peer.getsockname()) == 403
            assert error_code(client.bind, (SFU[0], 7883)) == 403
        assert error_code(here.permit, SFU) == 403
        other.send((SFU[0], 7883), b"another port")
        relay.reaches("dropped_packets_total", 1, reason="forbidden_port")
    refused = relay.lines(reason="not among the peers that its listener allows")
    assert f'"{peers.v4}:' in str(refused) or f'"{peers.v4}"' in str(refused), refused
    assert "peers.allow of that [[listener]]" in refused[0]["fix"]
    calling = other.bind(here.relayed)
    here.permit(other.relayed[0])
    other.send_channel(calling, b"hello")
    assert here.receive().payload == b"hello"
    assert any("reach only 100.64.0.5:7882" in line["message"] for line in relay.lines()), relay.log


def test_narrower_peers_of_a_listener_end_what_they_refuse(start, host, connect, peers, sfu):
    """RFC 8656 §21: a reload ends the channels of that listener's clients that its rules refuse now, and no others. A
    removed listener keeps its peers until its last allocation has ended.
    """
    both = listener(3480, allow=[SFU[0]])
    relay = start(host, listener=[both])
    here, other = connect(), connect(server=(host.v4, 3480))
    here.allocate(), other.allocate()
    with peers.udp() as peer:
        here_peer, other_peer = here.bind(peer.getsockname()), other.bind(peer.getsockname())
        other_sfu = other.bind(SFU)
        talk(other, other_peer, peer)
        reload(relay, listener=[listener(3480, mode="alone", allow=[f"{SFU[0]}:{SFU[1]}"])])
        relay.becomes("channels", 2)
        talk(here, here_peer, peer)
        talk(other, other_sfu, sfu)
        other.send_channel(other_peer, b"too late")
        assert not hears(peer)
        reload(relay)
        talk(other, other_sfu, sfu)
        assert other.refresh() == 600
        assert error_code(connect(server=(host.v4, 3480)).allocate) == 508
        talk(here, here_peer, peer)


def test_overlays_hold_over_the_death_of_the_relay(start, host, connect, peers, sfu, tmp_path):
    """An overlay opens what it names to running allocations, survives kill -9 and holds before the first Allocate; `only`
    ends the rest, and `clear` ends what the overlay had opened.
    """
    state = ("--state-dir", tmp_path / "state")
    relay = start(host, *state)
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        assert error_code(client.permit, SFU) == 403
        relay.ctl("peers", "set", "livekit", f"{SFU[0]}:{SFU[1]}")
        talk(client, client.bind(SFU), sfu)
        talk(client, channel, peer)
        relay.ctl("peers", "set", "livekit", "--mode", "only", f"{SFU[0]}:{SFU[1]}")
        relay.becomes("channels", 1)
        client.send_channel(channel, b"too late")
        assert not hears(peer)
        relay.kill()

        relay = start(host, *state)
        client = connect()
        client.allocate()
        assert error_code(client.permit, peers.v4) == 403
        talk(client, client.bind(SFU), sfu)
        assert "livekit" in relay.ctl("peers", "list")
        reload(relay, limits={"channels": 100})
        assert error_code(client.permit, peers.v4) == 403
        relay.ctl("peers", "clear", "livekit")
        relay.becomes("channels", 0)
        assert error_code(client.permit, SFU) == 403
        talk(client, client.bind(peer.getsockname()), peer)


def test_what_an_overlay_never_opens(start, host, connect, peers, sfu):
    """`deny` of the file and the relay's own listeners win; loopback and link-local addresses are refused, and so are ranges
    and this machine's own addresses without ports.
    """
    relay = start(host, peers={"allow": [], "deny": ["100.64.0.0/10"]})
    client = connect()
    client.allocate()
    named = (f"{SFU[0]}:{SFU[1]}", f"{host.v4}:3478", f"{host.v4}:9641", f"{peers.v4}:5000")
    relay.ctl("peers", "set", "one", *named)
    assert error_code(client.bind, SFU) == error_code(client.bind, (host.v4, 3478)) == 403
    assert error_code(client.bind, (host.v4, 9641)) == 403
    client.bind((peers.v4, 5000))
    never = ("127.0.0.1:5000", "[::1]:5000", "169.254.169.254:80", "[fe80::1]:1", "224.0.0.1")
    for refused in (*never, "10.0.0.0/8", host.v4):
        assert refused in relay.ctl("peers", "set", "one", refused, status=1)
    client.permit(peers.v4)
    assert error_code(client.bind, (peers.v4, 5001)) == 403, "what was set before still holds"
