"""Credentials for probes of the relay: two allocations that meet on it, whatever users, rules and limits it has, and that are no
load.
"""

import contextlib
import http.client
import json
import socket

from conftest import ALICE
from test_drain import drain, ended
from turn import User, error_code


class Control(http.client.HTTPConnection):
    """The control socket of a relay."""

    def __init__(self, relay):
        super().__init__("localhost", timeout=20)
        self.path = str(relay.socket)

    def connect(self):
        """Opens the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def probe_user(relay):
    """A user that the relay makes for a probe."""
    with contextlib.closing(Control(relay)) as control:
        control.request("POST", "/v1/probe-credentials", "{}", {"Content-Type": "application/json"})
        response = control.getresponse()
        made = json.loads(response.read())
        assert response.status == 200 and set(made) == {"username", "password", "realm", "expires"}, made
    return User(made["username"], made["password"])


def test_probes_meet_and_are_no_load(start, host, connect, peers):
    """RFC 8656 §7.2, §21: at a full relay that denies every peer, two probes exchange data, reach nothing else, and show up in no
    figure; their end is not waited for.
    """
    limits = {"allocations": 1, "user_allocations": 1}
    relay = start(host, limits=limits, peers={"deny": ["0.0.0.0/0", "::/0"]})
    client = connect()
    client.allocate()
    user = probe_user(relay)
    one, other = connect(user), connect(user)
    one.allocate()
    other.allocate()
    assert error_code(connect().allocate) in (486, 508), "a client more"
    channel = one.bind(other.relayed)
    other.permit(one.relayed[0])
    one.send_channel(channel, b"there")
    assert other.receive().payload == b"there"
    other.send(one.relayed, b"and back")
    assert one.receive().payload == b"and back"
    assert error_code(one.permit, peers.v4) == 403
    assert error_code(one.bind, (host.v4, 3478)) == 403
    assert one.refresh(3600) == 30, "a probe is short"

    relay.reaches("probe_allocations_total", 2)
    relay.becomes("allocations_opened_total", 1)
    status = relay.ask("status")
    assert status["counts"]["allocations"] == 1 and status["counts"]["permissions"] == 0, status["counts"]
    assert [row["user"] for row in relay.ask("list", "--no-rates")["allocations"]] == [ALICE.name]
    assert len(relay.ask("list", "--user", "hairpin-probe", "--no-rates")["allocations"]) == 2
    assert relay.metric("channels") == 0
    assert relay.metric("relayed_packets_total", direction="to_peer", transport="udp") == 0

    relay.ctl("revoke", "hairpin-probe", "--for", "1h")
    assert error_code(one.refresh) in (401, 437)
    assert error_code(connect(probe_user(relay)).allocate) == 401
    relay.ctl("unrevoke", "hairpin-probe")
    last = connect(probe_user(relay))
    last.allocate()

    drain(relay)
    assert error_code(connect(probe_user(relay)).allocate) == 508
    assert relay.process.poll() is None
    client.refresh(0)
    assert ended(relay) == 0, "the probe that is left is not waited for"

