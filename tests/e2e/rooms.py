"""Fixtures for rooms of a real LiveKit server: hosts, servers, and two browsers whose media can take a relay only.

Hosts and browsers live as long as a file of tests, because a browser takes seconds to start.
"""

import pytest

from authority import Authority
from conftest import NAME
from hosts import Switch
from livekit import MEDIA, LiveKit, Participant
from nat import OUTSIDE, host_behind, make_router

# A relay behind a NAT, and one beside the LiveKit server
NAT_NAME, ONE_NAME = "nat.example.org", "one.example.org"

# On one machine, the relay and the LiveKit server have ranges of their own.
RELAY_RANGE = "40000-40999"


@pytest.fixture(scope="module")
def switch():
    """The switch of all tests in a file."""
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
def browsers(switch, host, sfu, authority):
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
def pages(browsers):
    """The browsers' pages. Whatever they have joined, they leave after the test."""
    yield browsers
    for page in browsers:
        page.leave()


@pytest.fixture
def programs(request):
    """Programs that are killed after the test; if it fails, their logs are in the report."""
    request.node.programs = programs = []
    yield programs
    for program in programs:
        program.kill()


@pytest.fixture
def start_livekit(programs, tmp_path):
    """Starts LiveKit servers with the arguments of `LiveKit`."""

    def start_livekit(host, **options):
        programs.append(LiveKit(host, tmp_path / f"livekit-{len(programs)}", **options))
        return programs[-1].start()

    return start_livekit


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


def certificate(authority, name):
    """The `[tls]` section of a relay with this name."""
    cert, key = authority.issue(name)
    return {"cert": str(cert), "key": str(key)}
