"""Headless Chromium calls through the relay only. Both ends of a call are in one page."""

import json
from pathlib import Path

import pytest

from authority import Authority
from browser import Browser
from conftest import NAME
from relay import SECRET, USER
from turn import User, time_limited

CALL = Path(__file__).with_name("call.js").read_text()

# Ways to reach the relay: the URL, and the relayProtocol that Chromium reports for it.
UDP = "turn:{host.v4}:3478?transport=udp", "udp"
UDP_IPV6 = "turn:[{host.v6}]:3478?transport=udp", "udp"
TCP = f"turn:{NAME}:3478?transport=tcp", "tcp"
TLS = f"turns:{NAME}:5349?transport=tcp", "tls"


def over(*ways):
    """Runs a test once for each of these ways."""
    names = {UDP: "udp", UDP_IPV6: "udp-IPv6", TCP: "tcp", TLS: "tls"}
    return pytest.mark.parametrize("way", ways, ids=[names[way] for way in ways])


@pytest.fixture
def serve(start, host, tls):
    """Starts the relay with a certificate that browsers trust."""
    return lambda: start(host, tls=tls)


@pytest.fixture
def page(switch, host, authority):
    """A page in a browser on a host of its own."""
    at = switch.host("browser", default_route=True)
    browser = Browser(at, authority=authority.certificate, names={NAME: host.v4})
    try:
        yield browser.open(CALL)
    finally:
        browser.close()


def ice_server(way, host, user):
    """A configuration with one ICE server, reached in one way."""
    url = way[0].format(host=host)
    return {"iceServers": [{"urls": [url], "username": user.name, "credential": user.password}]}


def begin(page, configuration):
    """Creates both ends with this configuration of an RTCPeerConnection and negotiates between them."""
    page.run(f"globalThis.call = new Call({json.dumps(configuration)}); call.negotiate()")


def call(page, configuration):
    """Calls, and waits until both ends are connected."""
    begin(page, configuration)
    page.run("call.connected(true)")


def refused(page, configuration):
    """Starts a call that must fail: neither end gets a candidate. Returns the error codes that the page saw."""
    begin(page, configuration)
    page.run("call.gathered()")
    assert page.run("call.candidates") == 0
    return [error["errorCode"] for error in page.run("call.errors")]


def flows(page, *protocols):
    """Checks that data is echoed unchanged and video arrives, over relayed candidates of one of these protocols."""
    assert page.run("call.echo(100, 1000)")
    assert page.run("call.echo(5, 60000)")
    page.run("call.watch(20)")
    for end in page.run("call.selected()"):
        assert end["local"]["candidateType"] == end["remote"]["candidateType"] == "relay", end
        assert end["local"]["relayProtocol"] in protocols, end


def test_printed_ice_servers(start, host, page):
    """The ICE servers printed by a relay without a configuration work as they are."""
    host.run("ip", "route", "add", "default", "dev", "eth0")
    relay = start(host, "--print-ice-servers", configured=False)
    call(page, json.loads(relay.output))
    flows(page, "udp", "tcp")
    assert relay.metric("dropped_packets_total", reason="forbidden_port") == 0


@pytest.mark.parametrize("protocol", ["udp", "tcp", "tls"])
def test_printed_ice_servers_of_one_transport(protocol, start, host, tls, page):
    """With a domain and a certificate, each printed URL works on its own."""
    host.run("ip", "route", "add", "default", "dev", "eth0")
    files = ("--cert", tls["cert"], "--key", tls["key"])
    relay = start(host, "--domain", NAME, *files, "--print-ice-servers", configured=False)
    [server] = json.loads(relay.output)["iceServers"]
    urls = {
        "udp": f"turn:{NAME}:3478?transport=udp",
        "tcp": f"turn:{NAME}:3478?transport=tcp",
        "tls": f"turns:{NAME}:5349?transport=tcp",
    }
    assert sorted(server["urls"]) == sorted(urls.values())
    call(page, {"iceServers": [{**server, "urls": [urls[protocol]]}]})
    flows(page, protocol)


@over(UDP, UDP_IPV6, TCP, TLS)
def test_time_limited_credentials(way, serve, host, page):
    """Credentials that an application derives from the shared secret work."""
    serve()
    call(page, ice_server(way, host, time_limited(SECRET, "bob")))
    flows(page, way[1])


@over(UDP, TLS)
def test_wrong_password(way, serve, host, page):
    """Both ends are refused with 401, and the log says why."""
    relay = serve()
    codes = refused(page, ice_server(way, host, User(USER, "wrong")))
    assert len(codes) >= 2 and set(codes) == {401}, codes
    relay.line("refused", code=401, reason="wrong_password")


def test_a_certificate_of_an_unknown_authority(start, host, page, tmp_path):
    """The browser does not report why it gives up; the relay's log does."""
    cert, key = map(str, Authority(tmp_path / "unknown").issue(NAME))
    relay = start(host, tls={"cert": cert, "key": key})
    refused(page, ice_server(TLS, host, time_limited(SECRET, "bob")))
    relay.line("TLS handshake failed", reason="refused_by_client")


@over(UDP, TLS)
def test_relay_restart(way, serve, host, page):
    """A restart of the relay interrupts the call; after an ICE restart data and video continue in the same channel."""
    first = serve()
    call(page, ice_server(way, host, time_limited(SECRET, "bob")))
    flows(page, way[1])
    assert first.stop() == 0
    page.run("call.connected(false)")
    serve()
    page.run("call.negotiate()")
    page.run("call.connected(true)")
    flows(page, way[1])


def test_a_revoked_user_loses_its_call_alone(serve, switch, host, authority, page):
    """Revoking a user ends the call of its browser, and no other's."""
    relay = serve()
    other = Browser(switch.host("other", default_route=True), authority=authority.certificate, names={NAME: host.v4})
    try:
        other.open(CALL)
        call(other, ice_server(UDP, host, time_limited(SECRET, "alice-2")))
        call(page, ice_server(UDP, host, time_limited(SECRET, "bob")))
        assert relay.ask("revoke", "bob")["ended"] >= 2
        page.run("call.connected(false)")
        flows(other, "udp")
        assert set(refused(page, ice_server(UDP, host, time_limited(SECRET, "bob")))) == {401}
    finally:
        other.close()
