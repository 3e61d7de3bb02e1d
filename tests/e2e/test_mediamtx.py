"""Streams of a real MediaMTX server whose media takes the relay only: everything else between browsers and server is cut, but
for WHIP and WHEP.
"""

import pytest

from conftest import NAME
from livekit import RELAY_PORTS, sidecar_command
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


@pytest.fixture
def render(relay, sfu, tmp_path):
    """Runs `hairpin-livekit render --mode mediamtx` on the machine of the server."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)

    def render(*arguments, status=0):
        words = ["render", "--mode", "mediamtx", "--secret-file", secret, "--domain", NAME, *arguments]
        return sidecar_command(sfu, *words, environment={"HAIRPIN_ADMIN_SOCKET": str(relay.socket)}, status=status)

    return render


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


def test_rendered_into_its_configuration(relay, render, start_mediamtx, pages):
    """The sidecar writes the relay into the file of a server, which then says nothing else than before."""
    server = start_mediamtx()
    before = server.settings
    render("--check", "--into", server.file, status=1)
    render("--into", server.file)
    render("--check", "--into", server.file)
    server = start_mediamtx()
    assert {**server.settings, "webrtcICEServers2": []} == before
    flows(pages, server, relay, "udp")


def test_registered_at_run_time(relay, render, start_mediamtx, pages):
    """The sidecar registers the relay with a running server, by its API."""
    server = start_mediamtx()
    render("--api", "http://127.0.0.1:9997")
    assert {entry["url"] for entry in server.settings["webrtcICEServers2"]} == set(URLS.values())
    flows(pages, server, relay, "tls", "udp")
