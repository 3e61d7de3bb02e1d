"""SIGHUP reloads users and secrets. Removed credentials can no longer allocate, but running calls continue."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import coturn
import relay as daemon
from hosts import eventually
from relay import PASSWORD, SECRET, USER
from turn import User, error_code, time_limited

NEW_SECRET = "the shared secret that replaces it"


def reload(relay, **changes):
    """Writes a new configuration, sends SIGHUP, waits for the result, and returns its log message."""
    (relay.folder / "hairpin.toml").write_text(daemon.toml(daemon.configuration(relay.host, **changes)))
    told = len(sighups(relay))
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(sighups(relay)) > told)
    return sighups(relay)[-1]["message"]


def sighups(relay):
    """The log lines about SIGHUP so far."""
    return [line for line in relay.lines() if line["message"].startswith("SIGHUP: ")]


@pytest.mark.parametrize("user", ["static", "time-limited"])
def test_removing_a_credential_does_not_end_running_calls(user, workers, start, host, connect, peers):
    """RFC 8656 §6: an allocation keeps the key it was created with. A new Allocate is refused by every worker."""
    relay = start(host, workers=workers)
    user = User(USER, PASSWORD) if user == "static" else time_limited(SECRET, "bob")
    calls = [connect(user) for _ in range(8)]
    for call in calls:
        call.allocate()
    said = reload(relay, workers=workers, auth={"secrets": [NEW_SECRET], "user": []})
    assert "are reloaded" in said, said
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
        assert "are reloaded" in reload(relay, workers=4, auth={"secrets": [NEW_SECRET], "user": []})
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


def test_other_settings_wait_for_a_restart(start, host, connect):
    """Only credentials are reloaded; the log names the other settings that have changed and need a restart."""
    relay = start(host)
    changes = {"limits": {"channels": 1}, "peers": {"deny": ["198.51.100.0/24"]}, "software": "other"}
    reload(relay, auth={"secrets": [NEW_SECRET], "realm": "example.com"}, **changes)
    [line] = [line["message"] for line in relay.lines() if line["level"] == "WARN" and "restart" in line["message"]]
    assert line.endswith("need a restart: limits.channels, peers.deny, software"), line
    assert NEW_SECRET not in relay.log
    client = connect(time_limited(NEW_SECRET, "bob"))
    client.allocate()
    assert client.bind(("8.8.8.8", 1)) and client.bind(("8.8.8.8", 2))


def test_only_what_differs_is_named(start, host, tls, authority):
    """A setting that is written differently, or as its default, has not changed; a certificate that was renewed has."""
    relay = start(host, tls=tls)
    reload(relay, tls=tls, limits={"allocations": 100000}, listen={"udp": ["0.0.0.0", "[::]"]})
    assert not any("restart" in line["message"] for line in relay.lines() if line["level"] == "WARN")
    authority.issue("turn.example.org")
    reload(relay, tls=tls)
    [line] = [line["message"] for line in relay.lines() if line["level"] == "WARN" and "restart" in line["message"]]
    assert line.endswith("other settings have changed too, and need a restart: tls.cert, tls.key"), line


def test_nonces_survive_a_reload(start, host, connect):
    """RFC 8489 §9.2.4: nonces remain valid across a reload."""
    relay = start(host)
    client = connect()
    client.challenge()
    nonce = client.nonce
    reload(relay, auth={"secrets": [NEW_SECRET]})
    client.allocate()
    assert client.nonce == nonce
