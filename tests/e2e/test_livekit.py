"""Rooms of a real LiveKit server whose media takes the relay only: everything else between the browsers and the server is
cut, but for signalling.

Here the relay is registered by hand; tests/e2e/test_livekit_sidecar.py has the sidecar do it.
"""

import pytest

from authority import Authority
from conftest import NAME
from hosts import Switch
from livekit import MEDIA, RELAY_PORTS, SIGNAL, LiveKit, Participant, turn_servers
from relay import SECRET


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
def pages(switch, host, authority):
    """Two browsers on hosts of their own."""
    opened = []
    try:
        for name in ("first", "second"):
            opened.append(Participant(switch.host(name, default_route=True), authority, {NAME: host.v4}))
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


def meet(pages, livekit, *protocols, at):
    """Two browsers meet in a room: one receives the video that the other publishes, and both use the relay."""
    publisher, viewer = pages
    publisher.join(livekit, "publisher", publish=True)
    viewer.join(livekit, "viewer")
    print(f"video after {viewer.watch():.1f} s over {'/'.join(protocols)}")
    for page in pages:
        page.relayed(*protocols, at=at)


@pytest.mark.parametrize("protocol", ["udp", "tcp", "tls"])
def test_turn_servers(protocol, start, livekit, host, sfu, pages, tls):
    """`rtc.turn_servers` with the shared secret."""
    relay = start(host, tls=tls, peers=peers(sfu.v4))
    room = livekit(sfu, rtc={"turn_servers": turn_servers(host.v4, protocol, secret=SECRET, name=NAME)})
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL]), (host.v4, RELAY_PORTS))
    meet(pages, room, protocol, at=host.v4)
    assert relay.metric("allocations") >= 2
    for page in pages:
        page.leave()
