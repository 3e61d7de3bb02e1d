"""`hairpin serve` without a configuration, on different kinds of machines: what it prints, logs and how it fails."""

import json
import os
import pty
import socket
import stat

import pytest

import stun
from hosts import eventually
from turn import Client, User, time_limited


def printed(relay):
    """The printed ICE server: its URLs, and its credentials as a user."""
    eventually(lambda: relay.output.endswith("\n"))
    [line] = relay.output.splitlines()
    [server] = json.loads(line)["iceServers"]
    return server["urls"], User(server["username"], server["credential"])


def ways(*hosts):
    """The URLs of hosts at the default ports."""
    over = [("turn", 3478, "udp"), ("turn", 3478, "tcp"), ("turns", 5349, "tcp")]
    return [f"{scheme}:{host}:{port}?transport={transport}" for scheme, port, transport in over for host in hosts]


def serve(start, host, *arguments, **options):
    """Starts a relay that must serve."""
    return start(host, "--print-ice-servers", *arguments, configured=False, **options)


def fail(start, host, *arguments, **options):
    """Starts a relay that must exit with status 1; returns its last log line."""
    relay = start(host, *arguments, configured=False, wait=False, **options)
    assert relay.process.wait(30) == 1, relay.log
    assert relay.output == ""
    return relay.log.splitlines()[-1]


def waits(relay):
    """Waits until a relay runs that has no address to relay with; returns the line that says so."""
    warning = "there is no address to relay with"
    return eventually(lambda: [line for line in relay.log.splitlines() if warning in line and "metrics" in relay.log])[0]


def test_public_addresses(start, switch, clients):
    """Both families are advertised and can relay at once with the printed credentials."""
    host = switch.host("relay", default_route=True)
    relay = serve(start, host)
    urls, user = printed(relay)
    assert urls == ways(host.v4, f"[{host.v6}]")
    for address in (host.v4, host.v6):
        with Client(clients, (address, 3478), user) as client:
            relayed = client.allocate()
            assert relayed[0] == host.v4 and 49152 <= relayed[1] <= 65535
            assert client.realm == "hairpin"
            client.refresh(0)
    log = relay.log
    for told in (host.v4, host.v6, "default route", "0.0.0.0:3478", "[::]:3478", "tls 0.0.0.0:5349", "127.0.0.1:9641", "denied"):
        assert told in log, f"{told} is not in\n{log}"
    assert "is private" not in log
    [refused] = [line for line in log.splitlines() if "browsers refuse" in line]
    assert all(flag in refused for flag in ("--domain", "--cert", "--key")), refused


@pytest.mark.parametrize("where", ["terminal", "file"])
def test_credentials_are_printed_to_a_terminal(where, start, switch):
    """Whatever collects the output of a program would collect the credentials. They are printed to a terminal only;
    otherwise a line says how to get them.
    """
    host = switch.host("relay", default_route=True)
    if where == "file":
        relay = start(host, configured=False)
        [line] = eventually(lambda: [line for line in relay.log.splitlines() if "hairpin credentials --user" in line])
        assert "--print-ice-servers" in line and relay.output == "", line
        return
    reading, writing = pty.openpty()
    relay = start(host, configured=False, process={"stdout": writing})
    os.close(writing)
    with open(reading) as terminal:
        [server] = json.loads(terminal.readline())["iceServers"]
    assert server["username"].endswith(":hairpin") and "hairpin credentials" not in relay.log


def test_secret_and_certificate_persist(start, switch, tmp_path, clients):
    """The secret and the certificate are created once, survive restarts, and are readable by their owner only."""
    host = switch.host("relay", default_route=True)
    state = tmp_path / "state"
    first = serve(start, host, "--state-dir", state)
    _, user = printed(first)
    assert first.stop() == 0
    secret = state / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and stat.S_IMODE(state.stat().st_mode) == 0o700
    pem = state / "self-signed.pem"
    certificate = pem.read_text()
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600 and "PRIVATE KEY" in certificate
    second = serve(start, host, "--state-dir", state)
    assert pem.read_text() == certificate
    with Client(clients, (host.v4, 3478), user) as client:
        client.allocate()
    made = time_limited(secret.read_text().strip(), "someone")
    with Client(clients, (host.v4, 3478), made) as client:
        client.allocate()
    for relay in (first, second):
        assert secret.read_text().strip() not in relay.log + relay.output


def test_domain(start, switch):
    """--domain sets the host of the URLs and the realm."""
    host = switch.host("relay", default_route=True)
    relay = serve(start, host, "--domain", "turn.example.org")
    urls, _ = printed(relay)
    assert urls == ways("turn.example.org")
    with Client(host, ("127.0.0.1", 3478), User("nobody", ""), source="127.0.0.1") as client:
        client.challenge()
        assert client.realm == "turn.example.org"
    assert relay.ask("status")["domain"] == "turn.example.org"


def test_private_addresses_only(start, switch):
    """With private addresses only, the relay serves its own network and says that others need a public address."""
    host = switch.host("relay", ["10.11.12.13/24", "fd00:11::13/64"], default_route=True)
    relay = serve(start, host)
    urls, user = printed(relay)
    assert urls == ways("10.11.12.13", "[fd00:11::13]")
    assert "is private" in relay.log and "relay.external_ip" in relay.log, relay.log
    other = switch.host("clients", ["10.11.12.14/24"])
    with Client(other, (host.v4, 3478), user) as client:
        assert client.allocate()[0] == host.v4


def test_one_family_only(start, switch, clients):
    """Without an IPv6 route the relay serves IPv4 only, and Allocate requests for IPv6 get 440."""
    host = switch.host("relay", ["203.0.113.77/24"])
    host.run("ip", "route", "add", "default", "dev", "eth0")
    relay = serve(start, host)
    urls, user = printed(relay)
    assert urls == ways("203.0.113.77")
    with Client(clients, (host.v4, 3478), user) as client:
        client.challenge()
        transport = (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))
        family = (stun.REQUESTED_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0]))
        assert client.ask(stun.ALLOCATE, transport, family).code == 440
        client.allocate()


def temporary_only(host, neighbour):
    """Leaves a host with only a temporary IPv6 address (RFC 8981). The kernel creates it from a permanent address,
    which then fails duplicate address detection.
    """
    neighbour.add_address("2001:db8:2::7/64")
    host.run("sysctl", "-qw", "net.ipv6.conf.eth0.use_tempaddr=2")
    host.run("ip", "address", "add", "2001:db8:2::7/64", "dev", "eth0", "mngtmpaddr")
    host.run("ip", "-6", "route", "add", "default", "dev", "eth0")
    usable = ["ip", "-6", "address", "show", "dev", "eth0", "scope", "global", "-tentative"]
    eventually(lambda: "temporary" in host.run(*usable) and "::7/" not in host.run(*usable))
    eventually(lambda: "dadfailed" in host.run("ip", "-6", "address", "show", "dev", "eth0"))


def test_temporary_ipv6_only(start, switch, peers):
    """A temporary address would expire during calls, so the relay waits for another one."""
    host = switch.host("relay", [])
    temporary_only(host, peers)
    relay = serve(start, host, wait=False)
    sentence = waits(relay)
    assert "temporary" in sentence and "relay.addresses" in sentence, sentence
    host.add_address("2001:db8:2::8/64")
    assert printed(relay.wait_until_healthy())[0] == ways("[2001:db8:2::8]"), relay.log


def test_permanent_address_is_preferred_to_temporary(start, switch, peers):
    """A permanent address of the same network is advertised instead of the temporary one."""
    host = switch.host("relay", [])
    temporary_only(host, peers)
    host.add_address("2001:db8:2::8/64")
    # The kernel still prefers the temporary address as a source.
    relay = serve(start, host)
    urls, _ = printed(relay)
    assert urls == ways("[2001:db8:2::8]"), relay.log


def test_no_address(start, switch, clients):
    """Without any address but loopback the relay waits, says what is missing and how to fix it, and is not ready. It
    prints its ICE servers once an address is there.
    """
    host = switch.host("relay", [])
    relay = serve(start, host, wait=False)
    sentence = waits(relay)
    assert "no address to relay with" in sentence and "relay.addresses" in sentence, sentence
    assert relay.output == ""
    assert relay.get("/livez")[0::2] == (200, "ok\n")
    for page in ("/readyz", "/healthz"):
        status, _, reason = relay.get(page)
        assert status == 503 and "there is no default route" in reason, reason
    assert relay.metric("relay_addresses") == 0
    # It serves Binding requests, and refuses allocations for the time being.
    with Client(host, ("127.0.0.1", 3478), User("nobody", ""), source="127.0.0.1") as client:
        assert client.binding()
    host.add_address("203.0.113.78/24")
    host.run("ip", "route", "add", "default", "dev", "eth0")
    urls, user = printed(relay.wait_until_healthy())
    assert urls == ways("203.0.113.78")
    assert "relayed address added: 203.0.113.78 (source address of the default route)" in relay.log
    with Client(clients, ("203.0.113.78", 3478), user) as client:
        assert client.allocate()[0] == "203.0.113.78"


@pytest.mark.parametrize("address", ["0.0.0.0", "203.0.113.1", "::"])
def test_port_taken(address, start, switch):
    """Another program holds the port, on all addresses or on one."""
    host = switch.host("relay", default_route=True)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.udp(address, 3478, family):
        sentence = fail(start, host)
    assert "already in use" in sentence and ":3478" in sentence, sentence


@pytest.mark.parametrize("transport,port", [("tcp", 3478), ("tls", 5349)])
def test_stream_port_taken(transport, port, start, switch):
    """Another program holds the port for TCP or for TLS."""
    host = switch.host("relay", default_route=True)
    with host.inside():
        taken = socket.create_server(("0.0.0.0", port))
    with taken:
        sentence = fail(start, host)
    assert f"{transport} 0.0.0.0:{port}: already in use" in sentence, sentence


def test_port_taken_by_another_hairpin(start, switch, clients):
    """A second relay fails with a message; the first keeps running, and its clients are not affected."""
    host = switch.host("relay", default_route=True)
    first = serve(start, host)
    _, user = printed(first)
    with Client(clients, (host.v4, 3478), user) as client:
        client.allocate()
        sentence = fail(start, host)
        assert "another hairpin" in sentence, sentence
        assert client.refresh() == 600


def test_metrics_port_taken(start, switch):
    """If the HTTP port is taken, the message names the address and the setting."""
    host = switch.host("relay", default_route=True)
    with host.inside():
        taken = socket.create_server(("127.0.0.1", 9641))
    with taken:
        sentence = fail(start, host)
    assert "127.0.0.1:9641" in sentence and "http.listen" in sentence, sentence


def test_unwritable_state_directory(start, switch):
    """The message names the directory and the option that changes it."""
    host = switch.host("relay", default_route=True)
    sentence = fail(start, host, "--state-dir", "/proc/hairpin")
    assert "/proc/hairpin" in sentence and "--state-dir" in sentence, sentence
