"""The log lines that docs/operating.md quotes are those that a relay writes in the situations of the page: all are provoked here."""

import re
import shutil
import signal
import socket
import ssl

import pytest

import stun
from conftest import NAME
from documents import DOCS
from hosts import eventually
from relay import SECRET
from test_losses import BUFFER, NO_PRIVILEGES, RELAY, flood, stopped, system_limit
from turn import Client, error_code, time_limited

HUMAN = {"log": {"format": "human"}}
# Words of a quoted line whose value differs from case to case.
VARIES = re.compile(r"(?!code=)(?:.*[\d/].*|user=.*|\(?" + re.escape(NAME) + ".*)")


def quoted():
    """The log lines that the page quotes."""
    return re.findall(r"^ {4,}((?:ERROR|WARN|INFO) .*)$", (DOCS / "operating.md").read_text(), flags=re.M)


def pattern(line):
    """What a line of the log has to match: the quoted one, but for values that differ and what `…` stands for."""
    words = [".*" if "…" in word else r"\S+" if VARIES.fullmatch(word) else re.escape(word) for word in line.split()]
    return re.compile(" +".join(words).replace(" +.*", ".*").replace(".* +", ".*"))


def test_every_quoted_line_is_written(start, switch, host, clients, peers, authority, tmp_path):
    """The rule: an operator who searches the page for a line of the log, or the log for a line of the page, finds it."""
    relays = [
        refusals(start, host, clients, peers),
        limits_and_certificates(start, switch.host("limited"), clients, authority, tmp_path),
        *addresses(start, switch),
    ]
    written = "\n".join(relay.log for relay in relays)
    lines = quoted()
    if min(system_limit("rmem_max"), system_limit("wmem_max")) >= BUFFER:
        lines = [line for line in lines if "bursts may be lost" not in line]
    assert len(lines) > 15
    assert not [line for line in lines if not pattern(line).search(written)], written


def refusals(start, host, clients, peers):
    """A relay that refuses what clients ask for, and whose queue was full."""
    short = {"user_allocations": 1, "allocation_lifetime": 2, "max_allocation_lifetime": 2}
    relay = start(host, limits=short, workers=1, **HUMAN)
    server = (host.v4, 3478)
    with Client(clients, server, time_limited(SECRET, "bob", ttl=-60)) as client:
        assert error_code(client.allocate) == 401
    with Client(clients, server, time_limited(SECRET, "alice")) as client, peers.udp() as peer:
        client.allocate()
        assert error_code(client.allocate) == 437
        assert error_code(client.permit, "192.168.1.5") == 403
        assert error_code(client.bind, peer.getsockname(), 0x6B2A) == 400
        client.permit(host.v4, peers.v4)
        client.send((host.v4, 50013), b"to another service of this machine")
        with Client(clients, server, time_limited(SECRET, "alice")) as second:
            assert error_code(second.allocate) == 486
        with stopped(relay):
            flood(peer, bytes(1200), RELAY, client.relayed)
        eventually(lambda: "full queue" in relay.log)
        client.refresh(0)
        client.allocate()
        eventually(lambda: 'reason="expired" seconds' in relay.log)
    return relay


def limits_and_certificates(start, host, clients, authority, tmp_path):
    """A relay without privileges, with one port and low limits per source, whose certificate is renewed."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue(file, mode):
        for source, to in zip(reversed(authority.issue(NAME, file=file)), (key, cert)):
            shutil.copy(source, to)
            key.chmod(mode)

    issue("first", 0o600)
    relay = start(
        host,
        relay={"ports": "50000-50000"},
        limits={"connections_per_source": 2, "unauthenticated_burst": 4, "unauthenticated_rate": 1},
        tls={"cert": str(cert), "key": str(key)},
        process=NO_PRIVILEGES,
        **HUMAN,
    )
    server = (host.v4, 3478)
    user = time_limited(SECRET, "alice")
    with Client(clients, server, user) as client, Client(clients, server, user) as second:
        client.allocate()
        assert error_code(second.allocate) == 508
    with clients.inside(), socket.create_connection((host.v4, 5349), timeout=10) as trusting:
        # It knows no authority, and says so in its alert.
        with pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(trusting, server_hostname=NAME)
    eventually(lambda: "TLS handshake failed" in relay.log)
    with clients.inside():
        opened = [socket.create_connection(server) for _ in range(3)]
    eventually(lambda: "connection refused" in relay.log)
    for connection in opened:
        connection.close()
    with clients.udp() as strange:
        for _ in range(20):
            strange.sendto(stun.Message(stun.REQUEST, stun.ALLOCATE).encode(), server)
    issue("second", 0o000)
    eventually(lambda: "cannot be used" in relay.log)
    key.chmod(0o600)
    eventually(lambda: "new certificate" in relay.log)
    file = relay.folder / "hairpin.toml"
    file.write_text(file.read_text() + "\n[relays]\n")
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: "nothing has changed" in relay.log)
    return relay


def addresses(start, switch):
    """Relays without a configuration: behind a NAT, before and after they are told its address, and without a network."""
    host = switch.host("private", ["10.0.0.7/24"], default_route=True)
    private = start(host, configured=False)
    assert private.stop() == 0
    told = start(host, "--set", "relay.external_ip=203.0.113.7", configured=False)
    offline = start(switch.host("offline", []), configured=False, wait=False)
    eventually(lambda: "no address to relay with" in offline.log)
    return private, told, offline
