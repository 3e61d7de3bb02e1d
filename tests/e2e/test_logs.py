"""What the log tells an operator, what it must not contain, and that a blocked log does not affect calls."""

import fcntl
import json
import os

import pytest

import stun
from hosts import eventually
from relay import PASSWORD, REALM, SECRET, USER
from turn import Refused, User, named

F_SETPIPE_SZ = 1031


def test_allocations_are_logged(start, host, connect, peers):
    """One line when an allocation is opened, and one with totals and the reason when it is closed."""
    relay = start(host)
    client = connect()
    relayed = "{}:{}".format(*client.allocate())
    where = {
        "client": "{}:{}".format(*client.socket.getsockname()),
        "server": f"{host.v4}:3478",
        "transport": "udp",
    }
    opened = relay.line("allocation opened", relayed_v4=relayed, lifetime=600, level="INFO", **where)
    assert opened["user"] == USER
    with peers.udp() as peer:
        client.permit(peers.v4)
        for _ in range(3):
            client.send(peer.getsockname(), b"out")
            peer.recvfrom(100)
        for _ in range(2):
            peer.sendto(b"back again", client.relayed)
            client.receive()
    client.refresh(0)
    relay.line(
        "allocation closed",
        reason="deleted by the client",
        to_peer_packets=3,
        to_peer_bytes=9,
        to_client_packets=2,
        to_client_bytes=20,
        **where,
    )
    assert len(relay.lines("allocation opened")) == len(relay.lines("allocation closed")) == 1


REFUSALS = {
    "wrong password": (User(USER, "wrong"), lambda client: client.allocate(), 401, "password"),
    "unknown user": (User("mallory", "m"), lambda client: client.allocate(), 401, "user"),
    "no allocation": (User(USER, PASSWORD), lambda client: client.refresh(), 437, "allocation"),
    "denied peer": (
        User(USER, PASSWORD),
        lambda client: (client.allocate(), client.permit("169.254.169.254")),
        403,
        "metadata",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refusals_are_logged_with_a_reason(what, start, host, connect):
    """A refusal is logged at level info, with the client, the code and a reason that is not sent to the client."""
    user, request, code, reason = REFUSALS[what]
    relay = start(host)
    client = connect(user)
    with pytest.raises(Refused) as refused:
        request(client)
    assert refused.value.code == code
    line = eventually(
        lambda: [line for line in relay.lines("refused", code=code) if reason in line["reason"]]
    )[0]
    assert line["level"] == "INFO" and line["client"] == "{}:{}".format(*client.socket.getsockname())
    assert user.name in line["user"]


def test_refusals_do_not_flood_the_log(start, host, connect):
    """Refusals are rate limited in the log, because clients control how often they occur; the metrics count all of
    them.
    """
    relay = start(host, workers=1, limits={"unauthenticated_rate": 0})
    client = connect()
    client.allocate()
    for _ in range(500):
        with pytest.raises(Refused):
            client.permit("127.0.0.1")
    refused = relay.lines("refused", code=403)
    assert 1 <= len(refused) < 250
    relay.becomes("responses_total", 500, method="CreatePermission", outcome="403")


def test_a_common_refusal_does_not_hide_a_rare_one(start, host, connect):
    """Each reason has a budget of its own; what is not logged is summed up."""
    relay = start(host, workers=1, limits={"unauthenticated_rate": 0, "new_peers": 0})
    client = connect()
    client.allocate()
    for _ in range(200):
        with pytest.raises(Refused):
            client.permit("192.168.1.9")
    with pytest.raises(Refused):
        connect(User(USER, "wrong")).allocate()
    assert relay.line("refused", reason="wrong_password")["fix"]
    logged = relay.lines("refused", reason="private")
    [summary] = eventually(lambda: relay.lines("log lines suppressed: refused requests"), timeout=30)
    assert summary["reason"] == "private"
    assert sum(line.get("suppressed", 0) for line in logged) + len(logged) + summary["count"] == 200


FIXES = {
    "peers.allow": ({}, lambda client, _: client.permit("10.1.2.3")),
    "limits.permissions": ({"permissions": 1}, lambda client, _: client.permit("8.8.8.8", "9.9.9.9")),
    "limits.channels": (
        {"channels": 1},
        lambda client, _: [client.bind(("8.8.8.8", port)) for port in (1, 2)],
    ),
    "limits.new_peers": (
        {"new_peers": 1},
        lambda client, _: client.permit(*[f"8.8.8.{n}" for n in range(1, 20)]),
    ),
    "limits.allocations": ({"allocations": 1}, lambda _, other: other.allocate()),
    "relay.addresses": ({}, lambda _, other: other.allocate(family=2)),
    "auth.user_before_expiry": (
        {},
        lambda _, other: (setattr(other, "user", named(SECRET, "alice:9999999999")), other.allocate()),
    ),
    "[[auth.user]]": ({}, lambda _, other: (setattr(other, "user", User("bob", "b")), other.allocate())),
}


@pytest.mark.parametrize("fix", FIXES)
def test_a_refusal_names_what_to_change(fix, start, host, connect):
    """The line of a refusal names the limit or setting that causes it."""
    limits, request = FIXES[fix]
    relay = start(host, limits=limits, relay={"addresses": [host.v4]})
    client, other = connect(), connect()
    client.allocate()
    with pytest.raises(Refused):
        request(client, other)
    [line] = eventually(lambda: relay.lines("refused"))
    assert fix in line["fix"]


@pytest.mark.parametrize("limit", ["binding", "unauthenticated"])
def test_withheld_responses_are_logged_with_their_source(limit, start, host, connect):
    """A source that gets no responses any more is named, with the limit and the way out."""
    relay = start(host, limits={f"{limit}_burst": 5, f"{limit}_rate": 1})
    client = connect()
    method = stun.BINDING if limit == "binding" else stun.ALLOCATE
    for _ in range(100):
        client.socket.sendto(client.prepare(method, sign=False)[0], client.server)
    line = relay.line("response withheld")
    assert line["client"] == "{}:{}".format(*client.socket.getsockname())
    assert f"limits.{limit}_rate" in line["fix"] and "limits.exempt_sources" in line["fix"]
    assert len(relay.lines("response withheld")) <= 10


def test_a_refusal_names_unknown_attributes(start, host, connect):
    """RFC 8489 §6.3.1: the line of a 420 lists the attributes that are not understood."""
    relay = start(host)
    with pytest.raises(Refused):
        connect().allocate((0x0077, b""), (0x7FFF, b"1234"))
    assert relay.line("refused", code=420)["attributes"] == "0x0077 0x7fff"


def test_names_cannot_forge_log_lines(start, host, connect):
    """Line ends and control characters in a user name cannot start a new log line."""
    relay = start(host, log={"format": "human"})
    client = connect()
    client.challenge()
    name = b"eve\n2026-01-01T00:00:00Z  INFO all is well \x1b[2J"
    attributes = [
        (stun.USERNAME, name),
        (stun.REALM, REALM.encode()),
        (stun.NONCE, client.nonce),
        (stun.MESSAGE_INTEGRITY, bytes(20)),
    ]
    assert client.ask(stun.ALLOCATE, *attributes, sign=False).code == 401
    eventually(lambda: "eve" in relay.log)
    assert "\x1b" not in relay.log
    assert not any(line.startswith("2026-01-01") for line in relay.log.splitlines())


def test_log_levels(start, host, connect):
    """At level warn, allocations are not logged."""
    relay = start(host, log={"level": "warn"})
    client = connect()
    client.allocate()
    client.refresh(0)
    relay.becomes("allocations_opened_total", 1)
    assert relay.stop() == 0
    assert relay.lines("allocation opened") == [] and all(line["level"] != "INFO" for line in relay.lines())


def test_stalled_log_reader(start, host, connect, peers):
    """When the reader of the log stalls and the pipe is full, log lines are dropped and counted. Packets are relayed,
    and the relay still stops gracefully.
    """
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    limits = {"new_allocations_rate": 0}
    relay = start(host, process={"stderr": writing}, log={"level": "trace"}, limits=limits)
    os.close(writing)
    with os.fdopen(reading, "rb"), peers.udp() as peer:
        busy, client = connect(), connect()
        client.allocate()
        channel = client.bind(peer.getsockname())

        def lines_are_lost():
            """log lines are dropped"""
            for _ in range(200):
                busy.allocate()
                busy.refresh(0)
            client.send_channel(channel, b"on it goes")
            assert peer.recvfrom(100)[0] == b"on it goes"
            return relay.metric("log_lines_dropped_total")

        eventually(lines_are_lost, timeout=120)
        assert client.refresh() == 600
        assert relay.stop() == 0


@pytest.mark.parametrize("how", ["closed", "full-disk"])
def test_unwritable_log(how, start, host, connect):
    """Calls continue when standard error is closed or the disk is full."""
    if how == "closed":
        reading, stderr = os.pipe()
        os.close(reading)
    else:
        stderr = os.open("/dev/full", os.O_WRONLY)
    relay = start(host, process={"stderr": stderr})
    os.close(stderr)
    for _ in range(20):
        client = connect()
        client.allocate()
        client.refresh(0)
    assert relay.get("/healthz")[0] == 200
    assert relay.stop() == 0


def test_printed_credentials_stay_out_of_the_log(switch, start):
    """The printed credentials go to standard output only."""
    relay = start(switch.host("relay", default_route=True), "--print-ice-servers", configured=False)
    [server] = json.loads(eventually(lambda: relay.output))["iceServers"]
    assert server["credential"] not in relay.log and "iceServers" not in relay.log


def test_closed_standard_output(switch, start, clients):
    """The relay runs when nobody reads its standard output."""
    reading, writing = os.pipe()
    os.close(reading)
    relay = start(switch.host("relay", default_route=True), "--print-ice-servers", configured=False, process={"stdout": writing})
    os.close(writing)
    assert relay.get("/healthz")[0] == 200
