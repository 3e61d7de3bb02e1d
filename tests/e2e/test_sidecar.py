"""The sidecar with a real LiveKit server and real browsers, whose media takes the relay only.

The relay's own configuration knows nothing of LiveKit: which peers it reaches is the sidecar's business.
"""

import re
import signal
import time

import pytest

from conftest import NAME
from hosts import eventually
from livekit import (
    API_SECRET,
    KEY,
    RELAY_PORTS,
    SIGNAL,
    Load,
    Redis,
    Sidecar,
    sidecar_command,
    turn_servers,
    write_private,
)
from relay import SECRET
from rooms import ONE_NAME, RELAY_RANGE, certificate, meet

# Fixtures
from rooms import authority, browsers, host, pages, programs, sfu, start_livekit, switch  # noqa: F401

API = "http://{}:9643"

# What a browser may choose that gets all URLs
EVERY = ("udp", "tcp", "tls")


@pytest.fixture
def start_relay(start, host, tls):
    """Starts a relay whose own configuration allows no peers, perhaps with the state and the control socket of another."""

    def start_relay(folder=None):
        process = {"environment": {"HOME": str(folder), "RUNTIME_DIRECTORY": str(folder)}} if folder else {}
        return start(host, tls=tls, peers={"allow": []}, process=process)

    return start_relay


@pytest.fixture
def relay(start_relay):
    """A relay whose own configuration allows no peers."""
    return start_relay()


@pytest.fixture
def start_room(start_livekit, sfu, host):
    """Starts a LiveKit server that knows the relay (way 1) and tells the sidecar what happens in rooms."""

    def start_room(protocols=("udp",), webhooks=True, **options):
        rtc = {"turn_servers": turn_servers(host.v4, *protocols, secret=SECRET, name=NAME)} if protocols else {}
        if webhooks:
            options["webhook"] = {"api_key": KEY, "urls": [API.format(host.v4) + "/v1/webhook"]}
        return start_livekit(sfu, rtc=rtc, **options)

    return start_room


@pytest.fixture
def start_sidecar(programs, relay, authority, tmp_path):
    """Starts a sidecar beside the relay and waits until all is well."""

    def start_sidecar(room, **changes):
        programs.append(Sidecar(relay, room, tmp_path / "sidecar", authority, **changes))
        return programs[-1].start().ready()

    return start_sidecar


def users(relay):
    """The users of the relay's allocations."""
    return {allocation["user"] for allocation in relay.ask("list", "--no-rates", "--all")["allocations"]}


def gone(relay, user, seconds=5):
    """Waits until a user has no allocation left, which takes less than these seconds; returns how many it took."""
    began = time.monotonic()
    eventually(lambda: user not in users(relay), timeout=seconds)
    return time.monotonic() - began


@pytest.mark.parametrize("protocol, port", [("udp", 3478), ("tcp", 3478), ("tls", 5349)])
def test_ice_servers_from_the_sidecar(protocol, port, relay, start_room, start_sidecar, host, sfu, pages):
    """A page asks the sidecar with its participant's token, and passes the answer to the SDK as `rtcConfig`."""
    room = start_room(protocols=())
    start_sidecar(room)
    transport = "udp" if protocol == "udp" else "tcp"
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL]), (host.v4, [port], transport), (host.v4, [9643], "tcp"))
    for page, identity in zip(pages, ("publisher", "viewer")):
        page.join(room, identity, publish=identity == "publisher", ask=API.format(host.v4))
    print(f"video after {pages[1].watch():.1f} s over {protocol}")
    for page in pages:
        page.relayed(protocol, at=host.v4)
    assert not users(relay) & {"publisher", "viewer"}, "identities travel in clear"


def removed_in_time(relay, room, pages, seconds=5):
    """The viewer is cut off and removed from its room: its allocation ends in time, and the publisher is not hurt."""
    publisher, viewer = pages
    left, stays = viewer.sid, publisher.sid
    assert {left, stays} <= users(relay)
    # A browser that is told of its removal deletes its allocation itself.
    viewer.reaches_only()
    room.remove("viewer")
    print(f"the allocation of a removed participant has ended after {gone(relay, left, seconds):.1f} s")
    assert stays in users(relay)
    assert left in {revoked["user"] for revoked in relay.ask("revocations", "--all")["revocations"]}
    return left


@pytest.fixture
def reach(host, sfu, pages):
    """Lets the browsers reach what they may: signalling, and the relay with its sidecar."""

    def reach():
        for page in pages:
            page.reaches_only((sfu.v4, [SIGNAL]), (host.v4, [*RELAY_PORTS, 9643]))

    reach()
    return reach


def test_a_removed_participant(relay, start_room, start_sidecar, reach, pages):
    """A participant that is removed loses its allocation within 5 s, also after a restart of the sidecar; a resume is not
    hurt, and the same identity may come again.
    """
    room = start_room()
    sidecar = start_sidecar(room)
    publisher, viewer = pages
    meet(pages, room, "udp")

    sid = publisher.sid
    publisher.run("member.room.simulateScenario('signal-reconnect')")
    eventually(lambda: publisher.run("member.events").count("Reconnected") == 1)
    assert publisher.sid == sid and sid in users(relay)

    first = removed_in_time(relay, room, pages)
    reach()
    viewer.join(room, "viewer")
    viewer.watch()
    assert viewer.sid != first

    assert sidecar.stop() == 0
    sidecar.start().ready()
    removed_in_time(relay, room, pages)
    publisher.relayed("udp")

    reach()
    viewer.join(room, "viewer")
    viewer.watch()
    sidecar.kill()
    viewer.reaches_only()
    left = viewer.sid
    room.remove("viewer")
    sidecar.start().ready()
    print(f"removed while the sidecar was down: ended {gone(relay, left, 10):.1f} s after its start")
    assert sid in users(relay)


def test_lost_webhooks(relay, start_room, start_sidecar, reach, pages):
    """No webhook arrives: the comparison with LiveKit's lists finds who has left."""
    room = start_room(webhooks=False)
    start_sidecar(room, lifecycle={"reconcile": 2})
    meet(pages, room, "udp")
    # Who comes and goes between two comparisons is never known.
    time.sleep(4)
    removed_in_time(relay, room, pages, seconds=10)


def test_a_tag_is_revoked(relay, start_room, start_sidecar, reach, host, pages):
    """With ICE servers from the sidecar, the tag of a participant that has left is revoked, and a page that comes again at
    once gets a credential that works.
    """
    room = start_room(protocols=())
    start_sidecar(room)
    publisher, viewer = pages
    publisher.join(room, "publisher", publish=True, ask=API.format(host.v4))
    viewer.join(room, "viewer", ask=API.format(host.v4))
    viewer.watch()
    before = users(relay)
    viewer.reaches_only()
    room.remove("viewer")
    eventually(lambda: len(users(relay)) == 1, timeout=5)
    [stays] = users(relay)
    [left] = before - {stays}
    reach()
    viewer.join(room, "viewer", ask=API.format(host.v4))
    viewer.watch()
    viewer.relayed(*EVERY)
    assert users(relay) == {stays, left}, "the tag of the same identity in the same room is the same"


def test_livekit_is_restarted(relay, start_room, start_sidecar, reach, host, pages):
    """A crash of LiveKit ends all sessions at once; calls come back, of both ways, and nobody is revoked wrongly."""
    room = start_room()
    start_sidecar(room)
    publisher, viewer = pages
    publisher.join(room, "publisher", publish=True)
    viewer.join(room, "viewer", ask=API.format(host.v4))
    viewer.watch()
    viewer.longest_pause()
    room.kill()
    time.sleep(3)
    room.start()
    viewer.watch()
    print(f"LiveKit restarted in a call: video was away for {viewer.longest_pause():.1f} s")
    for page in pages:
        page.relayed(*EVERY)
    # Longer than the sidecar takes to compare
    time.sleep(8)
    viewer.watch()
    for page in pages:
        page.relayed(*EVERY)
        assert page.state == "connected"
    assert publisher.sid in users(relay)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_the_relay_is_restarted(how, start_relay, relay, start_room, start_sidecar, reach, pages):
    """A restart of the relay in a call: the SDK brings the call back, a new relay knows the peers and who is revoked."""
    room = start_room()
    start_sidecar(room)
    meet(pages, room, "udp")
    viewer = pages[1]
    viewer.longest_pause()
    relay.stop(how)
    relay = start_relay(relay.folder)
    viewer.watch()
    print(f"the relay restarted in a call: video was away for {viewer.longest_pause():.1f} s")
    for page in pages:
        page.relayed("udp")
    removed_in_time(relay, room, pages)


def test_200_participants_at_once(relay, start_room, start_sidecar, switch, host):
    """200 participants join at the same time and leave at the same time: each is relayed, then revoked, and the sidecar is
    thin.
    """
    room = start_room()
    sidecar = start_sidecar(room)
    with Load(switch.host("load", default_route=True), room, 200) as load:
        took, retries = max(load.result["seconds"]), load.result["retries"]
        print(f"the last one had joined after {took:.1f} s; {retries} attempts were made again")
        assert load.result["connected"] == 200, load.result
        sids = set(room.participants().values())
        assert len(sids) == 200
        # LiveKit drops events when too many come at once; the sidecar learns those from its next list.
        eventually(lambda: sidecar.metric("hairpin_livekit_participants") == 200, timeout=60)
        loaded = sidecar.resident()
        # Nobody leaves; all are gone at once.
        load.process.send_signal(signal.SIGSTOP)
        room.delete()
        eventually(lambda: not users(relay) & sids, timeout=20)
    revoked = {revocation["user"] for revocation in relay.ask("revocations", "--all")["revocations"]}
    assert sids <= revoked
    print(f"the sidecar has {loaded / 1024:.1f} MB resident with 200 participants, {sidecar.resident() / 1024:.1f} MB after")
    assert max(loaded, sidecar.resident()) < 30 * 1024


def test_a_cluster(relay, start_livekit, start_sidecar, programs, switch, host, sfu, pages, tmp_path):
    """A distributed deployment: the sidecar finds the nodes in Redis, and those that come later, and rooms on each work."""
    redis = Redis(switch.host("redis"), tmp_path / "redis").start()
    programs.append(redis)
    rtc = {"turn_servers": turn_servers(host.v4, "udp", secret=SECRET)}
    shared = {"rtc": rtc, "redis": {"address": redis.address}}
    shared |= {"webhook": {"api_key": KEY, "urls": [API.format(host.v4) + "/v1/webhook"]}}
    first = start_livekit(sfu, **shared)
    allow = ["203.0.113.0/24"]
    start_sidecar(first, peers={"addresses": [], "redis": f"redis://{redis.address}/0", "allow": allow})
    another = switch.host("sfu-2")
    second = start_livekit(another, **shared)

    def known():
        """the sidecar knows both nodes"""
        addresses = [entry for overlay in relay.ask("peers", "list")["overlays"] for entry in overlay["addresses"]]
        return all(any(at in entry for entry in addresses) for at in (sfu.v4, another.v4))

    eventually(known)
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL]), (another.v4, [SIGNAL]), (host.v4, RELAY_PORTS))
    publisher, viewer = pages
    remotes = set()
    for n in range(20):
        room = f"room {n}"
        publisher.join(first, "publisher", room, publish=True)
        viewer.join(second, "viewer", room)
        viewer.watch()
        for page in pages:
            page.relayed("udp", at=host.v4)
        remotes |= {pair["remote"]["address"] for pair in viewer.run("member.selected()")}
        if len(remotes) == 2:
            break
    assert remotes == {sfu.v4, another.v4}, "rooms are on both nodes"


def test_two_commands_from_nothing_to_a_call(start, start_livekit, programs, sfu, pages, authority, tmp_path):
    """One machine with LiveKit and a relay that know nothing of each other: `init`, what it says is pasted, `run`, a call."""
    secret, keys, written = (tmp_path / name for name in ("secret", "keys", "hairpin-livekit.toml"))
    write_private(secret, f"{SECRET}\n")
    write_private(keys, f"{KEY}: {API_SECRET}\n")
    relay = start(
        sfu,
        relay={"addresses": [sfu.v4], "ports": RELAY_RANGE},
        auth={"secrets": [], "user": [], "secret_files": [str(secret)]},
        tls=certificate(authority, ONE_NAME),
        peers={"allow": []},
    )
    room = start_livekit(sfu)
    trust = {"SSL_CERT_FILE": str(authority.certificate)}

    where = ["--livekit-config", room.file, "--socket", relay.socket, "--output", written]
    told = sidecar_command(sfu, "init", "--livekit-url", room.url, "--api-key-file", keys, *where, environment=trust)
    blocks = {block.split()[0]: block for block in re.findall(r"(?:^     .*\n)+", told, flags=re.M)}
    servers, webhook = blocks["rtc:"], blocks["webhook:"]
    section, _, servers = servers.partition("\n")
    before = room.file.read_text()
    assert section.strip() == "rtc:" and before.count("\nrtc:\n") == 1
    dedented = [re.sub("^     ", "", block, flags=re.M) for block in (servers, webhook)]
    room.file.write_text(before.replace("\nrtc:\n", f"\nrtc:\n{dedented[0]}") + dedented[1])
    room.kill()
    room.start()

    sidecar = Sidecar(relay, room, written.parent, environment=trust)
    programs.append(sidecar)
    sidecar.start().ready()
    publisher, viewer = pages
    publisher.reaches_only((sfu.v4, [SIGNAL]), (sfu.v4, [3478], "udp"))
    viewer.reaches_only((sfu.v4, [SIGNAL]), (sfu.v4, [5349], "tcp"))
    publisher.join(room, "publisher", publish=True)
    viewer.join(room, "viewer")
    viewer.watch()
    publisher.relayed("udp", at=sfu.v4)
    viewer.relayed("tls", at=sfu.v4)
    left = viewer.sid
    viewer.reaches_only()
    room.remove("viewer")
    gone(relay, left)
    # There is no DNS here; all else is well.
    found = sidecar_command(sfu, "check", "--config", written, environment=trust, status=1)
    assert re.findall(r"^FAILED (\S+ \S+)", found, flags=re.M) == [f"dns {ONE_NAME}:"], found
