"""The configurations in docs/integrations.md are used as they are, but for paths: the relay at 203.0.113.7 is
turn.example.org, the media server is at 203.0.113.20, and only the relay can be reached with media.
"""

import re

import pytest

from conftest import NAME
from documents import configurations
from livekit import RELAY_PORTS, SIGNAL, LiveKit, Participant
from mediamtx import WEB, MediaMTX
from rooms import programs  # noqa: F401 a fixture

SECRET = "the same text as in /etc/hairpin/secret"


@pytest.fixture
def host(switch):
    """The host of the relay."""
    return switch.host("relay", ["203.0.113.7/24"], default_route=True)


@pytest.fixture
def media(switch):
    """The host of the media server."""
    return switch.host("media", ["203.0.113.20/24"])


@pytest.fixture
def pages(switch, host, authority):
    """Two browsers on hosts of their own."""
    opened = []
    try:
        for n in (1, 2):
            at = switch.host(f"browser {n}", [f"203.0.113.{30 + n}/24"], default_route=True)
            opened.append(Participant(at, authority, {NAME: host.v4}))
        yield opened
    finally:
        for page in opened:
            page.close()


@pytest.fixture
def documented_relay(start, host, tls, tmp_path):
    """Starts a relay with a documented configuration, whose files are elsewhere; peers in documentation are not global."""

    def documented_relay(text, peers):
        secret = tmp_path / "secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        places = {"fullchain.pem": tls["cert"], "privkey.pem": tls["key"], "secret": secret}
        file = tmp_path / "hairpin.toml"
        file.write_text(re.sub(r'"/etc/hairpin/([\w.]+)"', lambda path: f'"{places[path[1]]}"', text))
        file.chmod(0o600)
        return start(host, "--config", file, "--set", f'peers.allow=["{peers}"]', configured=False)

    return documented_relay


@pytest.mark.parametrize("protocol", ["udp", "tls"])
def test_bedrud(protocol, documented_relay, host, media, pages, programs, tmp_path):
    """LiveKit beside Bedrud; the TLS URL is the only one that Bedrud's client keeps when a relay is forced."""
    files = configurations("integrations.md", "## Bedrud")
    documented_relay(files["hairpin.toml"], f"{media.v4}:50000-60000")
    folder = tmp_path / "livekit"
    folder.mkdir()
    (folder / "livekit.yaml").write_text(files["livekit.yaml"])
    programs.append(LiveKit(media, folder))
    room = programs[-1].start()
    [(key, secret)] = re.findall(r"apiKey: (\S+)\n +apiSecret: (\S+)", files["config.yaml"])
    port, transport = {"udp": (3478, "udp"), "tls": (5349, "tcp")}[protocol]
    publisher, viewer = pages
    for page in pages:
        page.reaches_only((media.v4, [SIGNAL]), (host.v4, [port], transport))
    publisher.join(room, "publisher", publish=True, pair={"key": key, "secret": secret})
    viewer.join(room, "viewer", pair={"key": key, "secret": secret})
    viewer.watch()
    for page in pages:
        page.relayed(protocol, at=host.v4)


def test_mediamtx(documented_relay, host, media, pages, programs, tmp_path):
    """MediaMTX with its relay."""
    files = configurations("integrations.md", "## MediaMTX")
    [allowed] = re.findall(r'allow = \["(.*)"\]', files["hairpin.toml"])
    documented_relay(files["hairpin.toml"], allowed)
    folder = tmp_path / "mediamtx"
    folder.mkdir()
    (folder / "mediamtx.yml").write_text(files["mediamtx.yml"] + "api: true\npaths:\n  all_others:\n")
    programs.append(MediaMTX(media, folder))
    url = programs[-1].start().url
    publisher, reader = pages
    for page in pages:
        page.reaches_only((media.v4, [WEB]), (host.v4, RELAY_PORTS))
    publisher.stream("publish", url)
    reader.stream("read", url)
    reader.watch()
    for page in pages:
        page.relayed("udp", "tcp", "tls", at=host.v4)
