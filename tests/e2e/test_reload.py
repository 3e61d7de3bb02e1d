"""SIGHUP reads users and secrets again: those that were removed open no call any more, and end none that runs."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import coturn
import relay as daemon
from hosts import eventually
from relay import PASSWORD, SECRET, USER
from turn import Refused, User, time_limited

NEW_SECRET = "the shared secret that replaces it"


def reload(relay, **changes):
    """Writes the configuration anew and tells the relay; returns once it has judged it."""
    (relay.folder / "hairpin.toml").write_text(daemon.toml(daemon.configuration(relay.host, **changes)))
    told = len(sighups(relay))
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(sighups(relay)) > told)
    return sighups(relay)[-1]["message"]


def sighups(relay):
    """What it said of SIGHUP so far."""
    return [line for line in relay.lines() if line["message"].startswith("SIGHUP: ")]


def refused(request):
    """The error code that a request ends with."""
    with pytest.raises(Refused) as refused:
        request()
    return refused.value.code


@pytest.mark.parametrize("user", ["static", "time-limited"])
def test_a_removed_credential_ends_no_running_call(user, workers, start, host, connect, peers):
    """RFC 8656 §6: an allocation keeps the key that made it. A new Allocate is refused, on every worker."""
    relay = start(host, workers=workers)
    user = User(USER, PASSWORD) if user == "static" else time_limited(SECRET, "bob")
    calls = [connect(user) for _ in range(8)]
    for call in calls:
        call.allocate()
    said = reload(relay, workers=workers, auth={"secrets": [NEW_SECRET], "user": []})
    assert "renewed" in said, said
    with peers.udp() as peer:
        for call in calls:
            assert call.refresh() == 600
            channel = call.bind(peer.getsockname())
            call.send_channel(channel, b"on it goes")
            assert peer.recvfrom(100)[0] == b"on it goes"
    for _ in range(16):
        assert refused(connect(user).allocate) == 401
        connect(time_limited(NEW_SECRET, "bob")).allocate()
    for call in calls:
        call.refresh(0)
        assert refused(call.allocate) == 401


def test_a_secret_removed_while_uclient_calls(start, host, clients, peers):
    """coturn's client sends on to the end of its call, though the secret that opened it is gone."""
    relay = start(host, workers=4, auth={"user": []})
    with coturn.echo_peer(peers), ThreadPoolExecutor(1) as other:
        run = other.submit(
            coturn.uclient, clients, host.v4, "-W", SECRET, "-e", peers.v4, "-n", 300, user="bob"
        )
        relay.reaches("relayed_packets_total", 30, direction="to_client")
        assert "renewed" in reload(relay, workers=4, auth={"secrets": [NEW_SECRET], "user": []})
        before = relay.metric("relayed_packets_total", direction="to_client")
        assert before < 500, "the call is still running"
        run = run.result()
    assert run.status == 0 and run.sent == run.received >= 600, run.output
    again = coturn.uclient(clients, host.v4, "-W", SECRET, "-e", peers.v4, user="bob", limit=20)
    assert again.status != 0 and again.sent == 0


def test_a_mistake_changes_nothing(start, host, connect):
    """A file with mistakes is told of, and everything stays as it was."""
    relay = start(host)
    call = connect()
    call.allocate()
    said = reload(relay, auth={"secrets": ["short"]}, limits={"channels": 0})
    assert "nothing is changed" in said, said
    told = [line["message"] for line in relay.lines() if line["level"] == "ERROR"]
    assert any("limits.channels" in line for line in told) and any("auth.secrets" in line for line in told), (
        told
    )
    assert call.refresh() == 600
    connect().allocate()
    connect(time_limited(SECRET, "bob")).allocate()


def test_other_settings_wait_for_a_restart(start, host, connect):
    """Credentials alone are renewed; that something else has changed too is said."""
    relay = start(host)
    reload(relay, limits={"channels": 1}, auth={"secrets": [NEW_SECRET]})
    assert any("restart" in line["message"] for line in relay.lines() if line["level"] == "WARN")
    client = connect(time_limited(NEW_SECRET, "bob"))
    client.allocate()
    assert client.bind(("8.8.8.8", 1)) and client.bind(("8.8.8.8", 2))


def test_nonces_stay_good(start, host, connect):
    """RFC 8489 §9.2.4: clients need no new nonce after it."""
    relay = start(host)
    client = connect()
    client.challenge()
    nonce = client.nonce
    reload(relay, auth={"secrets": [NEW_SECRET]})
    client.allocate()
    assert client.nonce == nonce
