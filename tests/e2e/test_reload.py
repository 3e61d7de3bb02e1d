"""SIGHUP reads the configuration again and applies what has changed. Running calls continue, and a mistake changes nothing."""

import signal
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import coturn
import relay as daemon
import stun
from calls import Calls
from hosts import eventually
from relay import PASSWORD, SECRET, USER
from streams import StreamClient
from streams import connect as stream
from turn import User, error_code, time_limited

ALICE = User(USER, PASSWORD)
NEW_SECRET = "the shared secret that replaces it"


def reload(relay, /, **changes):
    """Writes a new configuration, sends SIGHUP, waits for the result, and returns its log message."""
    (relay.folder / "hairpin.toml").write_text(daemon.toml(daemon.configuration(relay.host, **changes)))
    told = len(sighups(relay))
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(sighups(relay)) > told)
    return sighups(relay)[-1]["message"]


def sighups(relay):
    """The log lines about the results of SIGHUP so far."""
    return [line for line in relay.lines() if line["message"].startswith("SIGHUP: ")]


def reloaded(relay):
    """The settings that reloads have changed so far, with what is said about each."""
    lines = [line["message"].split(": ", 2) for line in relay.lines()]
    return [(line[1], line[2]) for line in lines if line[0] == "reloaded"]


@pytest.mark.parametrize("user", ["static", "time-limited"])
def test_removing_a_credential_does_not_end_running_calls(user, workers, start, host, connect, peers):
    """RFC 8656 §6: an allocation keeps the key it was created with. A new Allocate is refused by every worker."""
    relay = start(host, workers=workers)
    user = User(USER, PASSWORD) if user == "static" else time_limited(SECRET, "bob")
    calls = [connect(user) for _ in range(8)]
    for call in calls:
        call.allocate()
    said = reload(relay, workers=workers, auth={"secrets": [NEW_SECRET], "user": []})
    assert "is reloaded" in said, said
    with peers.udp() as peer:
        for call in calls:
            assert call.refresh() == 600
            channel = call.bind(peer.getsockname())
            call.send_channel(channel, b"on it goes")
            assert peer.recvfrom(100)[0] == b"on it goes"
    for _ in range(16):
        assert error_code(connect(user).allocate) == 401
        connect(time_limited(NEW_SECRET, "bob")).allocate()
    for call in calls:
        call.refresh(0)
        assert error_code(call.allocate) == 401


def test_a_secret_removed_while_uclient_calls(start, host, clients, peers):
    """coturn's client completes its call although the secret that opened it has been removed."""
    relay = start(host, workers=4, auth={"user": []})
    with coturn.echo_peer(peers), ThreadPoolExecutor(1) as other:
        run = other.submit(
            coturn.uclient, clients, host.v4, "-W", SECRET, "-e", peers.v4, "-n", 300, user="bob"
        )
        relay.reaches("relayed_packets_total", 30, direction="to_client")
        assert "is reloaded" in reload(relay, workers=4, auth={"secrets": [NEW_SECRET], "user": []})
        before = relay.metric("relayed_packets_total", direction="to_client")
        assert before < 500, "the call is still running"
        run = run.result()
    assert run.status == 0 and run.sent == run.received >= 600, run.output
    again = coturn.uclient(clients, host.v4, "-W", SECRET, "-e", peers.v4, user="bob", limit=20)
    assert again.status != 0 and again.sent == 0


def test_a_mistake_changes_nothing(start, host, connect):
    """Mistakes in the new file are reported, and nothing changes."""
    relay = start(host)
    call = connect()
    call.allocate()
    said = reload(relay, auth={"secrets": ["short"]}, limits={"channel_lifetime": 0})
    assert "nothing has changed" in said, said
    told = [line["message"] for line in relay.lines() if line["level"] == "ERROR"]
    assert any("limits.channel_lifetime" in line for line in told) and any("auth.secrets" in line for line in told), (
        told
    )
    assert call.refresh() == 600
    connect().allocate()
    connect(time_limited(SECRET, "bob")).allocate()


def test_changes_are_named_and_hold(start, host, peers, connect):
    """Each changed setting is named with both values, and holds as the table of settings says; secrets are not shown."""
    relay = start(host)
    call = connect()
    call.allocate()
    for n in range(2):
        call.bind((peers.v4, 5000 + n))
    changes = {"limits": {"channels": 1}, "software": "other", "workers": 3}
    said = reload(relay, auth={"secrets": [NEW_SECRET], "realm": "example.com"}, **changes)
    assert reloaded(relay) == [
        ("software", '"" -> "other"; it holds at once'),
        ("auth.realm", '"example.org" -> "example.com"; it holds for new allocations'),
        ("auth.secrets", "changed; it holds for new allocations"),
        ("limits.channels", "1024 -> 1; it holds at once"),
    ]
    [line] = [line for line in relay.lines() if line["message"].startswith("not reloaded")]
    assert (line["level"], line["message"]) == ("WARN", "not reloaded: workers: 0 -> 3; it needs a restart")
    assert said.endswith("4 settings have changed; 1 more needs a restart: workers; running calls continue"), said
    assert NEW_SECRET not in relay.log and SECRET not in relay.log
    assert error_code(call.bind, (peers.v4, 5002)) == 508
    client = connect(time_limited(NEW_SECRET, "bob"))
    client.allocate()
    assert client.ask(stun.BINDING).get(stun.SOFTWARE) == b"other"
    # What needs a restart is told again, against what the relay runs with; what was applied is not.
    before = len(reloaded(relay))
    said = reload(relay, auth={"secrets": [NEW_SECRET], "realm": "example.com"}, **changes)
    assert said.endswith("no setting has changed; 1 more needs a restart: workers; running calls continue"), said
    reload(relay)
    assert len(reloaded(relay)) == before + 4
    assert "restart" not in sighups(relay)[-1]["message"]


def test_only_what_differs_is_named(start, host, tls, authority):
    """A setting that is written differently, or as its default, has not changed; another certificate is one."""
    relay = start(host, tls=tls)
    reload(relay, tls=tls, limits={"allocations": 100000}, listen={"udp": ["0.0.0.0", "[::]"]})
    assert reloaded(relay) == []
    other = authority.issue("other.example.org")
    reload(relay, tls=dict(zip(("cert", "key"), map(str, other))))
    assert [key for key, _ in reloaded(relay)] == ["tls.cert", "tls.key"]


def test_reloads_are_counted(start, host):
    """The metrics tell whether the last reload succeeded, and how old the configuration is."""
    relay = start(host)
    counts = lambda: [relay.metric("config_reloads_total", result=result) for result in ("ok", "failed")]
    assert (counts(), relay.metric("config_last_reload_successful")) == ([0, 0], 1)
    reload(relay, software="a")
    assert (counts(), relay.metric("config_last_reload_successful")) == ([1, 0], 1)
    read_at = relay.metric("config_last_reload_success_timestamp_seconds")
    reload(relay, software="b", limits={"channels": 0})
    assert (counts(), relay.metric("config_last_reload_successful")) == ([1, 1], 0)
    assert relay.metric("config_last_reload_success_timestamp_seconds") == read_at
    reload(relay, limits={"channels": 77})
    assert counts() == [2, 1]
    assert relay.metrics()["hairpin_limit"][frozenset({("name", "channels")})] == 77


def test_log_level_and_format(start, host, connect):
    """Another level and another format hold from the next line on."""
    relay = start(host, log={"level": "warn"})
    relay_lines = lambda: [line for line in relay.log.splitlines() if "allocation opened" in line]
    connect().allocate()
    (relay.folder / "hairpin.toml").write_text(daemon.toml(daemon.configuration(relay.host, log={"format": "human"})))
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP: " in relay.log)
    assert relay_lines() == []
    connect().allocate()
    [line] = eventually(relay_lines)
    assert not line.startswith("{")


def test_listeners_come_and_go(start, host, clients, peers, connect):
    """An added listener serves. A removed UDP listener refuses new allocations with 508, serves its own, and closes after the
    last of them; if its address returns before, it takes its sockets back. TCP and HTTP listeners close at once.
    """
    first, second = f"{host.v4}:3478", f"{host.v4}:3479"
    http = {"listen": ["127.0.0.1:9641", "127.0.0.1:9642"]}
    relay = start(host, listen={"udp": [first], "tcp": [first, second]}, http=http)
    streaming = [StreamClient(clients, (host.v4, 3479), ALICE) for _ in range(2)]
    streaming[0].allocate()
    relayed = connect()
    relayed.allocate()
    both = {"listen": {"udp": [first, second], "tcp": [first]}, "http": {"listen": ["127.0.0.1:9641"]}}
    reload(relay, **both)
    with pytest.raises(OSError):
        relay.get("/livez", ("127.0.0.1", 9642))
    with pytest.raises(OSError):
        clients.tcp(host.v4, 3479)
    assert streaming[0].refresh() == 600
    assert error_code(streaming[1].allocate) == 508
    late = connect(server=(host.v4, 3479))
    late.allocate()
    calls = Calls([relayed, late], peers)
    assert calls.run(0.5, 200).loss == 0
    reload(relay, listen={"udp": [first], "tcp": [first]})
    other = connect(server=(host.v4, 3479))
    assert error_code(other.allocate) == 508
    line = [line for line in relay.lines() if line.get("code") == 508][-1]
    assert line["reason"] == "its listener is being removed" and "clients must use another one" in line["fix"], line
    assert late.refresh() == 600
    late.permit((peers.v4, 1))
    late.bind((peers.v4, 2))
    assert calls.run(0.5, 200).loss == 0
    # It overlaps a wildcard listener, which would take its packets.
    said = reload(relay, listen={"udp": [first, "0.0.0.0:3479"], "tcp": [first]}, software="x")
    assert "nothing has changed" in said and "overlaps" in said and "drains" in said, said
    assert late.ask(stun.BINDING).get(stun.SOFTWARE) is None
    # It returns with its sockets, so that nothing is lost.
    reload(relay, **both)
    other.allocate()
    assert calls.run(0.5, 200).loss == 0
    reload(relay, listen={"udp": [first], "tcp": [first]})
    for client in (late, other):
        assert client.refresh(0) == 0
    eventually(lambda: any("the removed listener is closed" in line["message"] for line in relay.lines()))
    reload(relay, listen={"udp": [first, "0.0.0.0:3479"], "tcp": [first]})
    connect(server=(host.v4, 3479)).allocate()
    assert relayed.refresh() == 600
    calls.close()


def test_addresses_and_peers(start, host, peers, connect):
    """New allocations use the relayed and external addresses of the new file; running ones keep theirs until they end. Peers
    that the new rules refuse cannot be reached from then on.
    """
    second = host.v4[: host.v4.rindex(".")] + ".201"
    host.add_address(f"{second}/24")
    relay = start(host, relay={"addresses": [host.v4]})
    before, other = connect(), connect()
    for client in (before, other):
        client.allocate()
        assert client.relayed[0] == host.v4
    calls = Calls([before], peers)
    reload(relay, relay={"addresses": [second], "external_ip": ["198.51.100.7"], "ports": "50000-50009"})
    after = connect()
    after.allocate()
    assert after.relayed[0] == "198.51.100.7" and 50000 <= after.relayed[1] <= 50009
    assert calls.run(0.3, 200).loss == 0
    assert before.refresh() == 600
    [(address, _), (external, _), (ports, _)] = reloaded(relay)
    assert (address, external, ports) == ("relay.addresses", "relay.external_ip", "relay.ports")
    # One that does not fit changes nothing.
    said = reload(relay, relay={"addresses": [second], "external_ip": ["198.51.100.7/192.0.2.1"]}, software="x")
    assert "nothing has changed" in said and after.ask(stun.BINDING).get(stun.SOFTWARE) is None, said
    reload(relay, relay={"addresses": [host.v4, second]}, peers={"deny": [peers.v4]})
    assert error_code(other.permit, (peers.v4, 1)) == 403
    assert error_code(before.bind, (peers.v4, 1)) == 403
    assert calls.run(0.3, 200).loss == 1
    fresh = [connect() for _ in range(8)]
    for client in fresh:
        client.allocate()
    assert {client.relayed[0] for client in fresh} == {host.v4}, "the address that clients came in by"
    calls.close()


def test_what_cannot_be_bound_changes_nothing(start, host, connect):
    """Every new socket is bound before anything is applied: if one cannot be, nothing changes, and the error names it."""
    relay = start(host, listen={"udp": [f"{host.v4}:3478"]})
    with host.udp(host.v4, 3481):
        udp = [f"{host.v4}:3478", f"{host.v4}:3480", f"{host.v4}:3481"]
        said = reload(relay, listen={"udp": udp}, auth={"secrets": [NEW_SECRET]})
    assert "nothing has changed" in said and f"udp {host.v4}:3481: already in use" in said, said
    host.udp(host.v4, 3480).close()
    connect(time_limited(SECRET, "bob")).allocate()
    assert error_code(connect(time_limited(NEW_SECRET, "bob")).allocate) == 401
    said = reload(relay, listen={"udp": udp}, auth={"secrets": [NEW_SECRET]})
    assert "is reloaded" in said, said
    connect(time_limited(NEW_SECRET, "bob"), server=(host.v4, 3481)).allocate()


def test_a_thousand_reloads_lose_no_packet(start, host, clients, peers, connect):
    """Calls run on, without losing a packet, while the configuration changes a thousand times."""
    relay = start(host, workers=2, listen={"udp": [f"{host.v4}:3478"]})
    running = [connect() for _ in range(4)]
    for client in running:
        client.allocate()
    calls = Calls(running, peers)

    def change():
        log = (relay.folder / "stderr").open()
        log.seek(0, 2)
        for n in range(1000):
            changes = {
                "limits": {"channels": 100 + n % 7, "unauthenticated_rate": 100 + n % 11},
                "auth": {"secrets": [SECRET, f"the shared secret with the number {n}"]},
                "peers": {"deny": [f"198.51.100.{n % 250}"]},
                "software": f"hairpin {n}",
                "listen": {"udp": [f"{host.v4}:3478"] + [f"{host.v4}:{3479 + n % 5}"] * (n % 2)},
            }
            (relay.folder / "new.toml").write_text(daemon.toml(daemon.configuration(host, **changes)))
            (relay.folder / "new.toml").rename(relay.folder / "hairpin.toml")
            relay.process.send_signal(signal.SIGHUP)
            told = ""
            while "SIGHUP: the configuration is reloaded" not in (told := told + log.read()):
                time.sleep(0.001)

    with ThreadPoolExecutor(1) as other:
        changing = other.submit(change)
        lost = 0
        while not changing.done():
            outcome = calls.run(2, 400)
            lost += outcome.sent - sum(map(len, outcome.delays))
        changing.result()
    assert lost == 0
    assert relay.metric("config_reloads_total", result="ok") == 1000
    assert relay.metric("config_reloads_total", result="failed") == 0
    calls.close()


def test_nonces_survive_a_reload(start, host, connect):
    """RFC 8489 §9.2.4: nonces remain valid across a reload."""
    relay = start(host)
    client = connect()
    client.challenge()
    nonce = client.nonce
    reload(relay, auth={"secrets": [NEW_SECRET]})
    client.allocate()
    assert client.nonce == nonce


class Backend:
    """A server on a host that answers whatever it is sent with its own port."""

    def __init__(self, host):
        with host.inside():
            self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                if client.recv(4096):
                    client.sendall(str(self.port).encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A thread in accept() holds the socket open otherwise.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def client_hello(name):
    """The bytes with which a TLS client asks for a name."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def answers(clients, server, name):
    """What the backend of a name answers to a ClientHello."""
    with stream(clients, server) as connection:
        connection.sendall(client_hello(name))
        return connection.recv(100).decode()


def test_a_shared_port_changes_under_live_calls(start, host, clients, peers, connect, authority, tls):
    """A reload that adds a route, changes its backend, or takes TCP or TLS away and brings it back keeps the socket of the
    port: calls over UDP, TCP and TLS on it go on, and so does a connection that has said nothing yet. New connections are
    served by the new file.
    """
    server, address = (host.v4, 443), f"{host.v4}:443"
    trust = {"trust": authority.certificate, "name": "turn.example.org"}

    def shared(*transports, **routes):
        section = {"address": address, "transports": ["udp", *transports], "routes": routes}
        return {"tls": tls, "listener": [section]}

    with Backend(host) as first, Backend(host) as second:
        relay = start(host, **shared("tcp", "tls"))
        over = [StreamClient(clients, server, ALICE, **how) for how in ({}, trust)]
        live = [connect(server=server), *over]
        silent = StreamClient(clients, server, ALICE)
        with peers.udp() as peer:
            for client in live:
                client.allocate()
            channels = [client.bind(peer.getsockname()) for client in live]
            for said, transports, backend in (
                (f"route www.example.org -> {first.address} added", ("tcp", "tls"), first),
                (f"{second.address} (was {first.address})", ("tcp", "tls"), second),
                (f"tls {address} removed", ("tcp",), second),
                (f"tls {address} added", ("tls",), second),
                (f"route www.example.org -> {second.address} removed", ("tls", "tcp"), None),
            ):
                routes = {"www.example.org": backend.address} if backend else {}
                outcome = reload(relay, **shared(*transports, **routes))
                assert "is reloaded" in outcome, outcome
                assert any(said in what for _, what in reloaded(relay)), (said, reloaded(relay))
                for client, channel in zip(live, channels):
                    assert client.refresh() == 600
                    client.send_channel(channel, b"on it goes")
                    assert peer.recvfrom(100)[0] == b"on it goes"
                for how in ({}, trust):
                    StreamClient(clients, server, ALICE, **how).allocate()
                if backend:
                    assert answers(clients, server, "www.example.org") == str(backend.port)
            silent.allocate()
