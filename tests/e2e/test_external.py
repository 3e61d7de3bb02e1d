"""`relay.external_ip` that is asked for: metadata services of clouds, a STUN server and DNS names. The relay's host has a private
address; nobody translates addresses here, so clients and peers are in the same private network.
"""

import pytest

from clouds import METADATA, Cloud, stun_server
from hosts import eventually
from turn import error_code

INSIDE = "10.0.0.5"
FIRST, SECOND = "203.0.113.5", "203.0.113.6"


@pytest.fixture
def host(switch):
    """The relay's host. It reaches the metadata service by a route of its own."""
    host = switch.host("relay", [f"{INSIDE}/24"])
    host.run("ip", "route", "add", f"{METADATA}/32", "dev", "eth0")
    return host


@pytest.fixture
def provider(switch):
    """The cloud's host, which has the metadata service and a STUN server."""
    return switch.host("cloud", ["10.0.0.254/24", f"{METADATA}/32"])


@pytest.fixture
def clients(switch):
    return switch.host("clients", ["10.0.0.20/24"])


@pytest.fixture
def peers(switch):
    return switch.host("peers", ["10.0.0.30/24"])


@pytest.fixture
def cloud(provider):
    """Starts a metadata service: `cloud("aws", "203.0.113.5")`."""
    started = []

    def cloud(kind, external):
        started.append(Cloud(provider, kind, INSIDE, external))
        return started[-1]

    yield cloud
    for one in started:
        one.close()


@pytest.fixture
def begin(start, host):
    """Starts a relay that asks for its external address every second."""

    def begin(wait=True, external="auto", process=None, **settings):
        relay = {"addresses": [INSIDE], "external_ip": external, "external_ip_interval": 1, **settings}
        return start(host, wait=wait, process=process, relay=relay, peers={"allow": ["10.0.0.0/24"]})

    return begin


def is_ready(relay):
    try:
        return relay.get("/readyz")[0] == 200
    except OSError:
        return False


def reason(relay):
    """Why the relay is not ready."""

    def serves():
        try:
            return relay.get("/readyz")
        except OSError:
            return None

    status, _, body = eventually(serves)
    return status, body


@pytest.mark.parametrize("kind", ["aws", "google", "azure", "hetzner"])
def test_clients_are_told_the_address_that_the_metadata_has(begin, cloud, connect, kind):
    """RFC 8656 §7.2: XOR-RELAYED-ADDRESS is the address that peers reach, as the metadata of each cloud has it."""
    service = cloud(kind, FIRST)
    relay = begin()
    assert connect().allocate()[0] == FIRST
    told = next(line["message"] for line in relay.lines() if f"external address of {INSIDE} is" in line["message"])
    assert FIRST in told
    if kind == "aws":
        assert ("PUT", "/latest/api/token") in service.asked


def test_a_change_holds_for_new_allocations(begin, cloud, connect, peers):
    """A change is logged and counted. Running allocations continue, also between two clients of the relay that know each other
    by the former address; new ones are told the new address."""
    service = cloud("aws", FIRST)
    relay = begin()
    one, two = connect(), connect()
    assert {one.allocate()[0], two.allocate()[0]} == {FIRST}
    one.permit(two.relayed)
    channel = two.bind(one.relayed)
    with peers.udp() as peer:
        outside = one.bind(peer.getsockname())
        service.external = SECOND
        relay.becomes("external_address_changes_total", 1)
        eventually(lambda: any("has changed" in line["message"] for line in relay.lines()))
        [line] = [line["message"] for line in relay.lines() if "relay.external_ip has changed" in line["message"]]
        assert FIRST in line and SECOND in line
        eventually(lambda: fresh(connect) == SECOND)

        one.send_channel(outside, b"still here")
        payload, source = peer.recvfrom(100)
        assert payload == b"still here"
        peer.sendto(b"answer", source)
        assert one.receive().payload == b"answer"
    two.send_channel(channel, b"to the former name")
    heard = one.receive()
    assert (heard.peer, heard.payload) == (two.relayed, b"to the former name")
    one.send(two.relayed, b"and back")
    assert two.receive().payload == b"and back"
    assert one.refresh() == 600
    three = connect()
    three.allocate()
    assert three.relayed[0] == SECOND
    one.permit(three.relayed)
    three.permit(two.relayed, one.relayed)
    one.send(three.relayed, b"old to new")
    # Who has the former name keeps it for those who know it.
    heard = three.receive()
    assert (heard.peer, heard.payload) == (one.relayed, b"old to new")
    three.send(heard.peer, b"new to old")
    assert one.receive().payload == b"new to old"


def fresh(connect):
    """The relayed address of a new allocation, which ends at once."""
    client = connect()
    address = client.allocate()[0]
    client.refresh(0)
    return address


def test_nothing_is_guessed(begin, cloud, connect):
    """Until the external address is known, the relay is not ready, says why, and answers 508. What was known stays when nobody
    answers any more."""
    service = cloud("silent", None)
    relay = begin(wait=False)
    eventually(lambda: any("is not known" in line["message"] for line in relay.lines() if line["level"] == "WARN"))
    eventually(lambda: "its external address is not known" in (body := reason(relay)[1]) and "stun_server" in body)
    assert reason(relay)[0] == 503
    assert relay.get("/livez")[0] == 200
    assert error_code(connect().allocate) == 508
    assert relay.metric("external_address_queries_total", outcome="failed") >= 1

    # Not a public address
    service.kind, service.external = "google", "192.168.7.7"
    eventually(lambda: "192.168.7.7, which is not a public address" in relay.get("/readyz")[2])
    service.external = FIRST
    eventually(lambda: is_ready(relay))
    assert fresh(connect) == FIRST

    service.kind = "silent"
    eventually(lambda: any(f"{FIRST} stays in use" in line["message"] for line in relay.lines()))
    assert is_ready(relay) and fresh(connect) == FIRST


def test_a_stun_server_tells_the_address(begin, provider, connect):
    """RFC 8489 §3: without metadata, a STUN server says how it sees the relayed address."""
    seen = FIRST
    with stun_server(provider, lambda: seen):
        relay = begin(stun_server=provider.v4)
        assert fresh(connect) == FIRST
        seen = SECOND
        eventually(lambda: fresh(connect) == SECOND)
    assert relay.metric("external_address_changes_total") == 1


def test_a_name_has_the_address(begin, connect, tmp_path):
    """The address may be that of a DNS name."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{FIRST} turn.example.org\n")
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    relay = begin(external="turn.example.org", process={"wrapper": ["unshare", "-m", "sh", "-c", script, "sh"]})
    assert fresh(connect) == FIRST
    hosts.write_text(f"{SECOND} turn.example.org\n")
    eventually(lambda: fresh(connect) == SECOND)
    assert relay.metric("external_address_changes_total") == 1
