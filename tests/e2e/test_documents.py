"""The configurations in docs/integrations.md and docs/livekit.md are used as they are, but for paths: the relay at 203.0.113.7
is turn.example.org, the media server is there or at 203.0.113.20, and only the relay can be reached with media.
"""

import re

import pytest

from conftest import NAME
from documents import configurations
from hosts import eventually
from livekit import RELAY_PORTS, SIGNAL, LiveKit, Participant, Sidecar, sidecar_command, write_private
from mediamtx import WEB, MediaMTX
from rooms import programs  # noqa: F401 a fixture

SECRET = "the same text as in /etc/hairpin/secret"
SIGNALLING = "livekit.example.org"


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
            opened.append(Participant(at, authority, {NAME: host.v4, SIGNALLING: host.v4}))
        yield opened
    finally:
        for page in opened:
            page.close()


@pytest.fixture
def tls(authority):
    """A certificate for the relay's name and for LiveKit's."""
    cert, key = authority.issue(NAME, names=[SIGNALLING])
    return {"cert": str(cert), "key": str(key)}


@pytest.fixture
def documented_relay(start, host, tls, tmp_path):
    """Starts a relay with a documented configuration, whose files are elsewhere; peers in documentation are not global."""

    def documented_relay(text, peers=None):
        secret = tmp_path / "secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        places = {"fullchain.pem": tls["cert"], "privkey.pem": tls["key"], "secret": secret}
        file = tmp_path / "hairpin.toml"
        file.write_text(re.sub(r'"/etc/hairpin/([\w.]+)"', lambda path: f'"{places[path[1]]}"', text))
        file.chmod(0o600)
        allowed = ["--set", f'peers.allow=["{peers}"]'] if peers else []
        return start(host, "--config", file, *allowed, configured=False)

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


def moved(text, folder, config_file=""):
    """A configuration whose files are in a folder."""
    text = re.sub(r"/etc/hairpin/(?=[\w-])", f"{folder}/", text)
    return text.replace("/etc/livekit/livekit.yaml", str(config_file))


@pytest.fixture
def one_machine(documented_relay, host, programs, authority, tmp_path):
    """Starts relay, LiveKit and sidecar on one machine as a section has them; returns the relay, LiveKit, and its API key."""

    def one_machine(*sections, **livekit):
        files = {}
        for section in sections:
            files |= configurations("livekit.md", section)
        relay = documented_relay(files["hairpin.toml"])
        write_private(tmp_path / "livekit-keys", files["livekit-keys"])
        folders = [tmp_path / name for name in ("livekit", "sidecar")]
        for folder in folders:
            folder.mkdir()
        config_file = folders[0] / "livekit.yaml"
        write_private(config_file, moved(files["livekit.yaml"], tmp_path))
        programs.append(LiveKit(host, folders[0], **livekit))
        room = programs[-1].start()
        file = folders[1] / "hairpin-livekit.toml"
        write_private(file, moved(files["hairpin-livekit.toml"], tmp_path, config_file))
        environment = {
            "HAIRPIN_ADMIN_SOCKET": str(relay.socket),
            "STATE_DIRECTORY": str(folders[1]),
            "SSL_CERT_FILE": str(authority.certificate),
        }
        programs.append(Sidecar(relay, room, folders[1], environment=environment))
        programs[-1].start().ready()
        [(key, secret)] = re.findall(r"^(API\w+): (\S+)$", files["livekit-keys"], flags=re.M)
        return relay, room, {"key": key, "secret": secret}

    return one_machine


def test_one_name_and_port(one_machine, host, pages):
    """Signalling and TURN by one name and one port, to clients that can reach nothing else."""
    _, room, pair = one_machine("### One VPS", "### One name and one port", url=f"wss://{SIGNALLING}")
    publisher, viewer = pages
    publisher.reaches_only((host.v4, [443], "tcp"), (host.v4, [443], "udp"))
    viewer.reaches_only((host.v4, [443], "tcp"))
    publisher.join(room, "publisher", publish=True, pair=pair)
    viewer.join(room, "viewer", pair=pair)
    viewer.watch()
    publisher.relayed("udp", at=host.v4)
    viewer.relayed("tls", at=host.v4)


def test_one_vps(one_machine, host, pages):
    """Relay, sidecar and LiveKit on one machine. Whoever is removed loses the relay."""
    relay, room, pair = one_machine("### One VPS")
    publisher, viewer = pages
    publisher.reaches_only((host.v4, [SIGNAL]), (host.v4, [3478], "udp"))
    viewer.reaches_only((host.v4, [SIGNAL]), (host.v4, [5349], "tcp"))
    publisher.join(room, "publisher", publish=True, pair=pair)
    viewer.join(room, "viewer", pair=pair)
    viewer.watch()
    publisher.relayed("udp", at=host.v4)
    viewer.relayed("tls", at=host.v4)
    stays, left = publisher.sid, viewer.sid

    def users():
        return {allocation["user"] for allocation in relay.ask("list", "--no-rates", "--all")["allocations"]}

    assert users() == {stays, left}
    viewer.run("member.leave()")
    eventually(lambda: users() == {stays}, timeout=5)
    assert left in {revoked["user"] for revoked in relay.ask("revocations", "--all")["revocations"]}


def test_the_sidecar_of_a_cluster(host, tls, tmp_path):
    """What the documentation has for a cluster is a configuration without a mistake: the exit status would be 2."""
    files = configurations("livekit.md", "### A cluster")
    for name in ("secret", "turn-2-token", "livekit-keys"):
        write_private(tmp_path / name, {"livekit-keys": "APIexample: " + 32 * "s"}.get(name, 32 * "t") + "\n")
    for name, place in (("fullchain.pem", tls["cert"]), ("privkey.pem", tls["key"])):
        (tmp_path / name).symlink_to(place)
    file = tmp_path / "hairpin-livekit.toml"
    write_private(file, moved(files["hairpin-livekit.toml"], tmp_path))
    found = sidecar_command(host, "check", "--config", file, status=1)
    assert re.findall(r"^FAILED relay (\S+):", found, flags=re.M) == ["turn-1", "turn-2"], found
