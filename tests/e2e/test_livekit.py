"""Rooms of a real LiveKit server whose media takes the relay only: everything else between the browsers and the server is
cut, but for signalling.

Here the relay is registered by hand; tests/e2e/test_livekit_sidecar.py has the sidecar do it.
"""

import pytest

from authority import Authority
from conftest import NAME
from hosts import Switch
from livekit import MEDIA, RELAY_PORTS, ROOM, SIGNAL, LiveKit, Load, Participant, turn_servers
from nat import INSIDE, OUTSIDE, host_behind, make_router
from relay import SECRET

# A relay behind a NAT, and one beside the LiveKit server
NAT_NAME, ONE_NAME = "nat.example.org", "one.example.org"

# On one machine, the relay and the LiveKit server have ranges of their own.
RELAY_RANGE = "40000-40999"


@pytest.fixture(scope="module")
def switch():
    """The switch of all tests in this file."""
    switch = Switch()
    yield switch
    switch.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The certificate authority that the browsers trust."""
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


@pytest.fixture(scope="module")
def host(switch):
    """The host of the relay."""
    return switch.host("relay")


@pytest.fixture(scope="module")
def sfu(switch):
    """The host of the LiveKit server."""
    return switch.host("sfu")


@pytest.fixture(scope="module")
def cloud(switch, tmp_path_factory):
    """A host behind a one-to-one NAT."""
    cloud = host_behind(make_router(switch, tmp_path_factory.mktemp("nat")))
    yield cloud
    cloud.close()


@pytest.fixture(scope="module")
def pages(switch, host, sfu, authority):
    """Two browsers on hosts of their own."""
    names = {NAME: host.v4, ONE_NAME: sfu.v4, NAT_NAME: OUTSIDE[0]}
    opened = []
    try:
        for name in ("first", "second"):
            opened.append(Participant(switch.host(name, default_route=True), authority, names))
        yield opened
    finally:
        for page in opened:
            page.close()


@pytest.fixture
def livekit(tmp_path):
    """Starts LiveKit servers, which are killed afterwards."""
    servers = []

    def livekit(host, **options):
        servers.append(LiveKit(host, tmp_path / f"livekit-{len(servers)}", **options))
        return servers[-1].start()

    yield livekit
    for server in servers:
        server.kill()


def peers(at):
    """The relay's peers: the media ports of a LiveKit server, and nothing else."""
    return {"allow": [f"{at}:{MEDIA[0]}-{MEDIA[1]}"]}


def meet(pages, livekit, *protocols, at=None):
    """Two browsers meet in a room: one receives the video that the other publishes, and both use the relay."""
    publisher, viewer = pages
    publisher.join(livekit, "publisher", publish=True)
    viewer.join(livekit, "viewer")
    print(f"video after {viewer.watch():.1f} s over {'/'.join(protocols)}")
    for page in pages:
        page.relayed(*protocols, at=at)
    for page in pages:
        page.leave()


def certificate(authority, name):
    """The `[tls]` section of a relay with this name."""
    cert, key = authority.issue(name)
    return {"cert": str(cert), "key": str(key)}


every_protocol = pytest.mark.parametrize("protocol", ["udp", "tcp", "tls"])


@every_protocol
def test_turn_servers(protocol, start, livekit, host, sfu, pages, tls):
    """`rtc.turn_servers` with the shared secret."""
    start(host, tls=tls, peers=peers(sfu.v4))
    room = livekit(sfu, rtc={"turn_servers": turn_servers(host.v4, protocol, secret=SECRET, name=NAME)})
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL]), (host.v4, RELAY_PORTS))
    meet(pages, room, protocol, at=host.v4)


@every_protocol
def test_one_address(protocol, start, livekit, sfu, pages, authority):
    """The relay and the LiveKit server share their only address."""
    start(sfu, relay={"addresses": [sfu.v4], "ports": RELAY_RANGE}, tls=certificate(authority, ONE_NAME), peers=peers(sfu.v4))
    room = livekit(sfu, rtc={"turn_servers": turn_servers(sfu.v4, protocol, secret=SECRET, name=ONE_NAME)})
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL, *RELAY_PORTS]))
    meet(pages, room, protocol, at=sfu.v4)


@every_protocol
def test_one_address_behind_a_nat(protocol, start, livekit, cloud, pages, authority):
    """The relay and the LiveKit server are on one machine of a cloud: its address is private, and clients know another."""
    [inside, _], [outside, _] = INSIDE, OUTSIDE
    where = {"addresses": [inside], "external_ip": [outside], "ports": RELAY_RANGE}
    start(cloud, relay=where, tls=certificate(authority, NAT_NAME), peers=peers(inside))
    servers = turn_servers(outside, protocol, secret=SECRET, name=NAT_NAME)
    room = livekit(cloud, address=outside, rtc={"turn_servers": servers})
    for page in pages:
        page.reaches_only((outside, [SIGNAL, *RELAY_PORTS]))
    meet(pages, room, protocol)


def test_a_relay_behind_a_nat(start, livekit, cloud, sfu, pages):
    """The relay is behind a NAT, the LiveKit server elsewhere."""
    start(cloud, relay={"addresses": INSIDE[:1], "external_ip": OUTSIDE[:1]}, peers=peers(sfu.v4))
    room = livekit(sfu, rtc={"turn_servers": turn_servers(OUTSIDE[0], "udp", secret=SECRET)})
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL]), (OUTSIDE[0], RELAY_PORTS))
    meet(pages, room, "udp", at=OUTSIDE[0])


def test_200_participants_at_once(start, livekit, switch, host, sfu):
    """200 participants that join at the same time are all relayed."""
    start(host, peers=peers(sfu.v4))
    room = livekit(sfu, rtc={"turn_servers": turn_servers(host.v4, "udp", secret=SECRET)})
    with Load(switch.host("load", default_route=True), room, 200) as load:
        took, retries = max(load.result["seconds"]), load.result["retries"]
        print(f"the last one had joined after {took:.1f} s; {retries} attempts were made again")
        assert load.result["connected"] == 200, load.result
        assert load.result["pairs"] == {"relay/udp/udp": 200}
        assert len(room.participants(ROOM)) == 200
