"""Streams of a real MediaMTX server whose media takes the relay only: everything else between browsers and server is cut, but
for WHIP and WHEP.
"""

import pytest

from conftest import NAME
from mediamtx import MEDIA, WEB, MediaMTX, ice_servers
from relay import SECRET

# Fixtures
from rooms import authority, browsers, host, pages, programs, sfu, switch  # noqa: F401

URLS = {
    "udp": f"turn:{NAME}:3478?transport=udp",
    "tcp": f"turn:{NAME}:3478?transport=tcp",
    "tls": f"turns:{NAME}:5349?transport=tcp",
}

PORTS = {"udp": (3478, "udp"), "tcp": (3478, "tcp"), "tls": (5349, "tcp")}


@pytest.fixture
def relay(start, host, sfu, tls):
    """A relay that reaches the media port of the server, and nothing else."""
    return start(host, tls=tls, peers={"allow": [f"{sfu.v4}:{MEDIA}"]})


@pytest.fixture
def start_mediamtx(programs, sfu, tmp_path):
    """Starts MediaMTX servers, of which the last one runs."""

    def start_mediamtx(folder="mediamtx", **changes):
        for program in programs:
            program.kill()
        programs.append(MediaMTX(sfu, tmp_path / folder, **changes))
        return programs[-1].start()

    return start_mediamtx


def flows(pages, server, relay, *protocols):
    """One browser publishes a stream and the other reads it, through the relay, over each of these protocols."""
    publisher, reader = pages
    for protocol in protocols:
        port, transport = PORTS[protocol]
        for page in pages:
            page.reaches_only((server.host.v4, [WEB]), (relay.host.v4, [port], transport))
        publisher.stream("publish", server.url)
        reader.stream("read", server.url)
        print(f"video after {reader.watch():.1f} s over {protocol}")
        for page in pages:
            page.relayed(protocol, at=relay.host.v4)
        for page in pages:
            page.leave()


def test_its_configuration(relay, start_mediamtx, pages):
    """`webrtcICEServers2` with `AUTH_SECRET`: MediaMTX makes credentials from the shared secret."""
    server = start_mediamtx(webrtcICEServers2=ice_servers(*URLS.values(), secret=SECRET))
    flows(pages, server, relay, *URLS)
