"""Headless Chromium calls through the relay, and may use nothing else: both ends of a call are in one page."""

import json
from pathlib import Path

import pytest

from browser import Browser
from relay import SECRET, USER
from turn import User, time_limited

CALL = Path(__file__).with_name("call.js").read_text()

# How a client may come in: the URL, and the relayProtocol that Chromium tells of it.
UDP = "turn:{host.v4}:3478?transport=udp", "udp"
UDP_IPV6 = "turn:[{host.v6}]:3478?transport=udp", "udp"


def over(*ways):
    """Runs a test for each of these ways in."""
    names = {UDP: "udp", UDP_IPV6: "udp-IPv6"}
    return pytest.mark.parametrize("way", ways, ids=[names[way] for way in ways])


@pytest.fixture
def page(switch):
    """A page in a browser on a host of its own."""
    at = switch.host("browser", default_route=True)
    browser = Browser(at)
    try:
        yield browser.open(CALL)
    finally:
        browser.close()


def ice_server(way, host, user):
    """The configuration of an RTCPeerConnection for one way in."""
    url = way[0].format(host=host)
    return {"iceServers": [{"urls": [url], "username": user.name, "credential": user.password}]}


def call(page, configuration):
    """Calls, and waits until both ends are connected."""
    page.run(f"globalThis.call = new Call({json.dumps(configuration)}); call.negotiate()")
    page.run("call.connected(true)")


def flows(page, *protocols):
    """Data comes back unchanged, large messages too, and video arrives, between relayed candidates of such protocols."""
    assert page.run("call.echo(100, 1000)")
    assert page.run("call.echo(5, 60000)")
    page.run("call.watch(20)")
    for end in page.run("call.selected()"):
        assert end["local"]["candidateType"] == end["remote"]["candidateType"] == "relay", end
        assert end["local"]["relayProtocol"] in protocols, end


def test_printed_ice_servers(start, host, page):
    """What a start without a configuration prints, pasted as it is."""
    host.run("ip", "route", "add", "default", "dev", "eth0")
    relay = start(host, configured=False)
    call(page, json.loads(relay.output))
    flows(page, "udp")
    assert relay.metric("dropped_packets_total", reason="forbidden_port") == 0


@over(UDP, UDP_IPV6)
def test_time_limited_credentials(way, start, host, page):
    """Credentials that an application made from the shared secret."""
    start(host)
    call(page, ice_server(way, host, time_limited(SECRET, "bob")))
    flows(page, way[1])


@over(UDP)
def test_wrong_password(way, start, host, page):
    """Both ends are refused with 401, and get no candidate; the log tells why."""
    relay = start(host)
    refused = json.dumps(ice_server(way, host, User(USER, "wrong")))
    page.run(f"globalThis.call = new Call({refused}); call.negotiate()")
    page.run("call.gathered()")
    assert page.run("call.candidates") == 0
    codes = [error["errorCode"] for error in page.run("call.errors")]
    assert len(codes) >= 2 and set(codes) == {401}, codes
    relay.line("refused", code=401, reason="wrong_password")


@over(UDP)
def test_the_relay_is_restarted(way, start, host, page):
    """The call is cut off, and the page has it back by restarting ICE: data and video go on in the same channel."""
    first = start(host)
    call(page, ice_server(way, host, time_limited(SECRET, "bob")))
    flows(page, way[1])
    assert first.stop() == 0
    page.run("call.connected(false)")
    start(host)
    page.run("call.negotiate()")
    page.run("call.connected(true)")
    flows(page, way[1])
