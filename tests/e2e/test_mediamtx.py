"""Streams of a real MediaMTX server whose media takes the relay only: everything else between the browsers and the server is
cut, but for WHIP and WHEP.
"""

import pytest

from conftest import NAME
from livekit import RELAY_PORTS, Participant
from mediamtx import MEDIA, WEB, MediaMTX, ice_servers
from relay import SECRET
from rooms import programs  # noqa: F401 a fixture

URLS = {
    "udp": f"turn:{NAME}:3478?transport=udp",
    "tcp": f"turn:{NAME}:3478?transport=tcp",
    "tls": f"turns:{NAME}:5349?transport=tcp",
}


@pytest.fixture
def media(switch):
    """The host of the MediaMTX server."""
    return switch.host("media")


@pytest.fixture
def pages(switch, host, media, authority):
    """Two browsers on hosts of their own, which reach the relay, and WHIP and WHEP."""
    opened = []
    try:
        for name in ("first", "second"):
            opened.append(Participant(switch.host(name, default_route=True), authority, {NAME: host.v4}))
            opened[-1].reaches_only((media.v4, [WEB]), (host.v4, RELAY_PORTS))
        yield opened
    finally:
        for page in opened:
            page.close()


def flows(pages, url, protocol):
    """One browser publishes a stream and the other reads it, both through the relay."""
    publisher, reader = pages
    publisher.stream("publish", url)
    reader.stream("read", url)
    print(f"video after {reader.watch():.1f} s over {protocol}")
    for page in pages:
        page.relayed(protocol)
    for page in pages:
        page.leave()


def test_its_configuration(start, host, media, pages, tls, programs, tmp_path):
    """`webrtcICEServers2` with `AUTH_SECRET`: MediaMTX makes credentials from the shared secret."""
    start(host, tls=tls, peers={"allow": [f"{media.v4}:{MEDIA}"]})
    for protocol, url in URLS.items():
        programs.append(MediaMTX(media, tmp_path / protocol, webrtcICEServers2=ice_servers(url, secret=SECRET)))
        flows(pages, programs[-1].start().url, protocol)
        programs[-1].kill()
