"""Clients that may only use an HTTP proxy: nothing else leaves their network, neither UDP nor a question to the DNS. What they
need is `turns:` on port 443, and traffic often enough that the proxy does not take their tunnel for idle.
"""

import time

import pytest

from browser import Browser
from conftest import NAME
from firefox import Firefox
from hosts import eventually
from proxies import Squid, Tinyproxy, only_by, secured
from relay import SECRET
from streams import StreamClient
from test_browser import CALL, call, flows
from turn import time_limited

URL = f"turns:{NAME}:443?transport=tcp"
IDLE = 30

WATCH = """
call.states = [];
for (const end of call.ends) end.addEventListener("connectionstatechange", () => call.states.push(end.connectionState));
call.caller.getSenders().forEach((sender) => sender.replaceTrack(null));
"""


@pytest.fixture
def office(switch):
    """The host of the browsers."""
    return switch.host("office", ["203.0.113.50/24"], default_route=True)


@pytest.fixture
def proxies(switch, host, office):
    """squid and tinyproxy, the only ways out of the office."""
    at = switch.host("proxies", ["203.0.113.40/24"])
    started = []
    try:
        for kind in (Squid, Tinyproxy):
            started.append(kind(at, {NAME: host.v4}, idle=IDLE))
        only_by(office, *started)
        yield started
    finally:
        for proxy in started:
            proxy.close()


@pytest.fixture
def relay(start, host, tls):
    """A relay with TCP and TLS on port 443, which has a name."""
    return start(host, listen={"tcp": ["0.0.0.0:443"], "tls": ["0.0.0.0:443"]}, tls=tls)


@pytest.fixture
def browsers(office, proxies, authority):
    """Opens Chromium and Firefox, each with a proxy of its own: `browsers(*proxies)`."""
    opened = []

    def browsers(chromium, firefox):
        address, port = chromium.address
        options = [f"--proxy-server=http://{address}:{port}"]
        opened.append(Browser(office, authority.certificate, {}, *options))
        address, port = firefox.address
        preferences = {"network.proxy.type": 1}  # by hand
        for scheme in ("http", "ssl"):
            preferences |= {f"network.proxy.{scheme}": address, f"network.proxy.{scheme}_port": port}
        opened.append(Firefox(office, authority.certificate, {}, preferences))
        return [page.open(CALL) for page in opened]

    try:
        yield browsers
    finally:
        for page in opened:
            page.close()


def calls(page, name, url=URL, protocol="tls"):
    """A call of this user over one URL of the relay alone."""
    user = time_limited(SECRET, name)
    call(page, {"iceServers": [{"urls": [url], "username": user.name, "credential": user.password}]})
    flows(page, protocol)


def tunnelled(client, proxy, host, authority, *protocols, user=None):
    """A client of the relay through a proxy."""
    connection = secured(proxy.tunnel(client, NAME), authority.certificate, NAME, protocols)
    return StreamClient(client, (host.v4, 443), user, connection=connection)


def test_a_call_outlives_the_idle_timeout(relay, proxies, browsers, office, host, authority):
    """The rule: a proxy that closes idle tunnels does not end a call, not even one in which nobody says anything, because the
    checks of ICE are traffic (RFC 7675 §5.1). A tunnel with an allocation that nobody uses is closed meanwhile, by both proxies.
    """
    pages = browsers(*proxies)
    for page, name in zip(pages, ("chromium", "firefox")):
        calls(page, name)
    allocated = [line["user"] for line in relay.lines("allocation opened")]
    assert set(allocated) == {"chromium", "firefox"}
    for page in pages:
        page.run(WATCH)
    silent = [tunnelled(office, proxy, host, authority, user=time_limited(SECRET, "silent")) for proxy in proxies]
    for client in silent:
        client.allocate()
    start = time.monotonic()
    for client in silent:
        connection = client.socket.connection
        connection.settimeout(3 * IDLE)
        assert connection.recv(1) == b"", "the proxy closes the tunnel"
        assert time.monotonic() - start > IDLE * 0.8, "and not before it was idle for long"
        client.socket.close()
    eventually(lambda: len(relay.lines("allocation closed", user="silent", reason="the client's connection ended")) == 2)
    for page in pages:
        assert page.run("call.states") == [], "the call was never interrupted"
        assert page.run("call.echo(20, 1000)")
    opened = [line for line in relay.lines("allocation opened") if line["user"] != "silent"]
    assert [line["user"] for line in opened] == allocated, "nor was it made again"
    assert {line["client"].partition(":")[0] for line in opened} == {proxies[0].host.v4}, "everything came by a proxy"


def test_every_browser_through_every_proxy(relay, proxies, browsers):
    """The same browsers with their proxies exchanged, also without TLS, which these proxies do not look for. They ask the proxy for
    the relay by its name: their own DNS is not needed.
    """
    for page, name in zip(browsers(*reversed(proxies)), ("chromium", "firefox")):
        calls(page, name)
        calls(page, name, f"turn:{NAME}:443?transport=tcp", "tcp")
    for proxy in proxies:
        assert f"CONNECT {NAME}:443" in proxy.log


def test_whatever_alpn_says(relay, proxies, office, host, authority):
    """RFC 7443 §2: who offers `stun.turn` gets it; who offers `http/1.1` alone, as Firefox does for TURN behind a proxy, is served
    TURN, too, and so is who offers what the relay does not know, or nothing.
    """
    for proxy in proxies:
        for protocols in ((), ("http/1.1",), ("h2", "http/1.1"), ("stun.turn",), ("unknown",)):
            with tunnelled(office, proxy, host, authority, *protocols, user=time_limited(SECRET, "alice")) as client:
                client.allocate()
                assert client.binding()[0] == proxy.host.v4, "the relay sees the proxy's address"
                answered = client.socket.connection.selected_alpn_protocol()
                assert answered == ("stun.turn" if "stun.turn" in protocols else None)


def test_no_other_port(proxies, office, host):
    """Why 443: as companies configure them, proxies open tunnels to no other port."""
    for proxy in proxies:
        with pytest.raises(ConnectionRefusedError, match="HTTP/1.. 403"):
            proxy.tunnel(office, NAME, 5349)
