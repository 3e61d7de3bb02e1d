"""Rooms of a real LiveKit server whose media takes the relay only: everything else between the browsers and the server is
cut, but for signalling.

Here the relay is registered by hand; test_sidecar.py has the sidecar do it.
"""

import pytest

from conftest import NAME
from hosts import eventually
from livekit import API_SECRET, KEY, RELAY_PORTS, SIGNAL, turn_servers
from nat import INSIDE, OUTSIDE
from relay import SECRET
from rooms import NAT_NAME, ONE_NAME, RELAY_RANGE, certificate, meet, peers

# Fixtures
from rooms import authority, browsers, cloud, host, pages, programs, sfu, start_livekit, switch  # noqa: F401

every_protocol = pytest.mark.parametrize("protocol", ["udp", "tcp", "tls"])


@every_protocol
def test_turn_servers(protocol, start, start_livekit, host, sfu, pages, tls):
    """`rtc.turn_servers` with the shared secret."""
    start(host, tls=tls, peers=peers(sfu.v4))
    room = start_livekit(sfu, rtc={"turn_servers": turn_servers(host.v4, protocol, secret=SECRET, name=NAME)})
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL]), (host.v4, RELAY_PORTS))
    meet(pages, room, protocol, at=host.v4)


@every_protocol
def test_one_address(protocol, start, start_livekit, sfu, pages, authority):
    """The relay and the LiveKit server share their only address."""
    start(sfu, relay={"addresses": [sfu.v4], "ports": RELAY_RANGE}, tls=certificate(authority, ONE_NAME), peers=peers(sfu.v4))
    room = start_livekit(sfu, rtc={"turn_servers": turn_servers(sfu.v4, protocol, secret=SECRET, name=ONE_NAME)})
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL, *RELAY_PORTS]))
    meet(pages, room, protocol, at=sfu.v4)


@every_protocol
def test_one_address_behind_a_nat(protocol, start, start_livekit, cloud, pages, authority):
    """The relay and the LiveKit server are on one machine of a cloud: its address is private, and clients know another."""
    [inside, _], [outside, _] = INSIDE, OUTSIDE
    where = {"addresses": [inside], "external_ip": [outside], "ports": RELAY_RANGE}
    start(cloud, relay=where, tls=certificate(authority, NAT_NAME), peers=peers(inside))
    servers = turn_servers(outside, protocol, secret=SECRET, name=NAT_NAME)
    room = start_livekit(cloud, address=outside, rtc={"turn_servers": servers})
    for page in pages:
        page.reaches_only((outside, [SIGNAL, *RELAY_PORTS]))
    meet(pages, room, protocol)


def test_a_relay_behind_a_nat(start, start_livekit, cloud, sfu, pages):
    """The relay is behind a NAT, the LiveKit server elsewhere."""
    start(cloud, relay={"addresses": INSIDE[:1], "external_ip": OUTSIDE[:1]}, peers=peers(sfu.v4))
    room = start_livekit(sfu, rtc={"turn_servers": turn_servers(OUTSIDE[0], "udp", secret=SECRET)})
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL]), (OUTSIDE[0], RELAY_PORTS))
    meet(pages, room, "udp", at=OUTSIDE[0])


def test_one_name_and_one_port(start, start_livekit, sfu, pages, authority):
    """`wss://` signalling and `turns:` share a name and port 443, the only one that the browsers' networks let out."""
    route = {ONE_NAME: {"http": f"127.0.0.1:{SIGNAL}"}}
    start(
        sfu,
        listen={"udp": []},
        listener=[{"address": "0.0.0.0:443", "transports": ["tls"], "routes": route}],
        relay={"addresses": [sfu.v4], "ports": RELAY_RANGE},
        tls=certificate(authority, ONE_NAME),
        peers=peers(sfu.v4),
    )
    servers = [{"host": ONE_NAME, "port": 443, "protocol": "tls", "secret": SECRET, "ttl": 600}]
    room = start_livekit(sfu, url=f"wss://{ONE_NAME}", rtc={"turn_servers": servers})
    for page in pages:
        page.reaches_only((sfu.v4, [443], "tcp"))
    meet(pages, room, "tls", at=sfu.v4)
    for page in pages:
        assert page.state == "connected" and page.urls == [f"turns:{ONE_NAME}:443?transport=tcp"]


# LiveKit's own TURN server is on its loopback interface. Clients are told node_ip and the domain, whose ports the relay has.
EMBEDDED = {"enabled": True, "domain": ONE_NAME, "udp_port": 3478, "tls_port": 5349, "external_tls": True}
EMBEDDED |= {"bind_addresses": ["127.0.0.1"]}

TAKEN_OVER = ["turn:{}:3478?transport=udp", f"turns:{ONE_NAME}:443?transport=tcp"]


@pytest.fixture
def takeover(start, start_livekit, sfu, authority, tmp_path):
    """A relay in the place of LiveKit's embedded TURN server, which verifies what LiveKit issues for that; a server, and
    the relay.
    """
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}: {API_SECRET}\nAPIanother: {API_SECRET}, another\n")
    keys.chmod(0o600)
    relay = start(
        sfu,
        listen={"udp": [f"{sfu.v4}:3478"], "tcp": [], "tls": [f"{sfu.v4}:443"]},
        relay={"addresses": [sfu.v4], "ports": RELAY_RANGE},
        tls=certificate(authority, ONE_NAME),
        auth={"secrets": [], "user": [], "livekit_keys_file": str(keys)},
        peers=peers(sfu.v4),
    )
    all_keys = {KEY: API_SECRET, "APIanother": f"{API_SECRET}, another"}
    return start_livekit(sfu, turn=EMBEDDED, keys=all_keys), relay


@pytest.mark.parametrize("protocol, port", [("udp", 3478), ("tls", 443)])
def test_takeover_of_the_embedded_server(protocol, port, takeover, sfu, pages):
    """LiveKit's own credentials, which expire after 5 minutes, at node_ip and at the domain."""
    room, _ = takeover
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL, port]))
    meet(pages, room, protocol, at=sfu.v4)
    for page in pages:
        assert set(page.urls) == {url.format(sfu.v4) for url in TAKEN_OVER}


def test_forced_tls(takeover, sfu, pages):
    """With "force TLS", a client gets the TLS URL alone of the relay, and the call goes on through it."""
    room, relay = takeover
    for page in pages:
        page.reaches_only((sfu.v4, [SIGNAL, *RELAY_PORTS]))
    # While both ways are open, a browser takes the one that answers first.
    meet(pages, room, "udp", "tls", at=sfu.v4)
    pages[1].run("member.room.simulateScenario('force-tls')")

    def moved():
        """the viewer uses TLS"""
        protocols = {pair["local"].get("relayProtocol") for pair in pages[1].run("member.selected()")}
        urls = [url for url in pages[1].urls if url.startswith("turn")]
        return protocols == {"tls"} and urls == [f"turns:{ONE_NAME}:443?transport=tcp"]

    eventually(moved)
    pages[1].watch()
    pages[1].relayed("tls", at=sfu.v4)
    assert pages[1].run("member.events").count("Disconnected") == 0
    relay.line("allocation opened", transport="tls", user=pages[1].sid)
