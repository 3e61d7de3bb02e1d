"""One port 443 for everything: calls of Chromium and Firefox, a website of nginx under another name, and WebSockets under the
relay's own name, for clients whose network lets out nothing but that port.
"""

import hashlib
import http.client
import json
import re
import socket
import ssl
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import coturn
from authority import Authority
from browser import Browser
from conftest import NAME
from firefox import Firefox
from hosts import Switch, eventually
from livekit import SIGNAL, Sidecar, join_token
from relay import PASSWORD, PROGRAM, USER
from streams import StreamClient
from turn import User
from web import HTTP, HTTPS, ROUTES, SITE, website

HERE = Path(__file__).parent
PAGE = f"https://{SITE}"

TLS = f"turns:{NAME}:443?transport=tcp"
UDP = f"turn:{NAME}:443?transport=udp"

ALICE = User(USER, PASSWORD)


# Hosts, servers and browsers live as long as this file's tests.


@pytest.fixture(scope="module")
def switch():
    """The switch of all tests in this file."""
    switch = Switch()
    yield switch
    switch.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The certificate authority that the browsers trust."""
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


@pytest.fixture(scope="module")
def host(switch):
    """The host of the relay and of the web servers."""
    return switch.host("relay")


@pytest.fixture(scope="module")
def peers(switch):
    """The host of the peers."""
    return switch.host("peers")


@pytest.fixture(scope="module")
def clients(switch, host):
    """The host of clients that are no browsers."""
    clients = switch.host("clients")
    only_443(switch, clients, host)
    return clients


@pytest.fixture(scope="module")
def tls(authority, host):
    """The relay's certificate, which names its addresses, too."""
    cert, key = authority.issue(NAME, host.v4, host.v6)
    return {"cert": str(cert), "key": str(key)}


@pytest.fixture(scope="module")
def web(host, authority, tmp_path_factory):
    """The website, and the WebSockets behind it."""
    with website(host, tmp_path_factory.mktemp("web") / "nginx", authority) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def browsers(switch, host, authority):
    """Chromium and Firefox on hosts of their own, and these hosts, by name."""
    names = {NAME: host.v4, SITE: host.v4}
    opened = {}
    try:
        for kind in (Browser, Firefox):
            at = switch.host(kind.__name__, default_route=True)
            opened[kind] = kind(at, authority.certificate, names), at
        for page, _ in opened.values():
            page.open("0")
        yield {"chromium": opened[Browser], "firefox": opened[Firefox]}
    finally:
        for page, _ in opened.values():
            page.close()


@pytest.fixture
def serve(start, host, tls, web):
    """Starts the relay with port 443 alone, the website behind it; `changes` are keys of the listeners."""

    def serve(transports=("tcp", "tls"), limits=None, **changes):
        entry = {"transports": list(transports), "routes": ROUTES, **changes}
        listeners = [{"address": f"{address}:443", **entry} for address in ("0.0.0.0", "[::]")]
        return start(host, listen={"udp": []}, listener=listeners, tls=tls, limits=limits or {})

    return serve


@pytest.fixture(params=["chromium", "firefox"])
def browser(request, browsers):
    """A browser, and its host."""
    return browsers[request.param]


def only_443(switch, client, host, protocol="tcp"):
    """Lets a client's packets out to port 443 of the relay alone, over this protocol."""
    switch.lets_out(client, *((address, protocol, 443) for address in (host.v4, host.v6)))


def configuration(*urls, user=ALICE):
    """The configuration of an RTCPeerConnection with these URLs."""
    return {"iceServers": [{"urls": list(urls), "username": user.name, "credential": user.password}]}


def call(page, configured):
    """Starts a call in a page and waits until both ends are connected."""
    page.run(f"globalThis.call = new Call({json.dumps(configured)}); call.negotiate()")
    page.run("call.connected(true)")


def flows(page, host, *protocols):
    """Data is echoed unchanged and video arrives, over relayed candidates at a host, of one of these protocols."""
    assert page.run("call.echo(100, 1000)")
    page.run("call.watch(10)")
    for end in page.run("call.selected()"):
        assert end["local"]["candidateType"] == "relay" and end["local"]["relayProtocol"] in protocols, end
        # Firefox may hear from the other end before it is told that end's candidate.
        assert end["remote"]["candidateType"] in ("relay", "prflx") and end["remote"]["address"] == host.v4, end


def secured(client, authority, host, name=NAME, protocols=(), before=b""):
    """TLS to port 443, offering these protocols (ALPN); `before` is sent first."""
    opened = client.tcp(host.v4, 443)
    opened.sendall(before)
    context = ssl.create_default_context(cafile=authority.certificate)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(opened, server_hostname=name)


# Browsers


def test_calls_beside_a_website_and_a_web_socket(browser, switch, serve, host, web):
    """A page from nginx under another name calls through `turns:` and talks to a WebSocket under the relay's name, all on the
    only port that its network lets out. nginx knows the browser's address.
    """
    page, at = browser
    only_443(switch, at, host)
    relay = serve()
    page.load(PAGE)
    assert page.run("document.querySelector('h1').textContent") == "A real page"
    call(page, configuration(TLS))
    page.run(f"globalThis.echo = new Echo('wss://{NAME}/echo')")
    assert page.run("Promise.all([call.echo(50, 1000), echo.echo(50, 1000), call.watch(10)])")[:2] == [True, True]
    assert page.run("echo.echo(20, 100000)")
    # The page's connection, and that of the WebSocket
    for port in (HTTPS, HTTP):
        relay.reaches("spliced_connections", 1, backend=f"127.0.0.1:{port}")
    # A large file is read while the call goes on.
    assert page.run("fetch('/large', { cache: 'reload' }).then((response) => response.arrayBuffer()).then((all) => all.byteLength)") == len(web.large)
    flows(page, host, "tls")
    assert web.request(host=SITE, path="/call.js", client=at.v4)
    page.run("echo.socket.close()")
    assert web.request(host=NAME, path="/echo", status=101, client=at.v4)
    relay.becomes("spliced_connections", 0, backend=f"127.0.0.1:{HTTP}")
    page.run("call.ends.forEach((end) => end.close())")
    relay.becomes("allocations", 0)


def test_a_call_from_chromium_to_firefox(browsers, switch, serve, host):
    """The two ends are in different browsers, which reach each other through the relay alone."""
    pages = [page for page, _ in browsers.values()]
    for page, at in browsers.values():
        only_443(switch, at, host)
    serve()
    for page in pages:
        page.load(PAGE)
        page.run(f"globalThis.end = new End({json.dumps(configuration(TLS))}); 0")
    caller, callee = pages
    offer = caller.run("end.offer()")
    answer = callee.run(f"end.answer({json.dumps(offer)})")
    caller.run(f"end.accept({json.dumps(answer)})")
    for one, other in (pages, pages[::-1]):
        one.run("end.send(100)")
        assert other.run("end.receives(100)")
        one.run("end.watch(10)")
        local = one.run("end.selected()")
        assert (local["candidateType"], local["relayProtocol"]) == ("relay", "tls"), local


def printed(relay, host):
    """The ICE servers that `hairpin credentials` prints."""
    file = relay.folder / "hairpin.toml"
    return json.loads(host.run(PROGRAM, "credentials", "--config", file, "--domain", NAME, "--user", "bob"))


def told(sidecar):
    """The ICE URLs that the sidecar has for a participant."""

    def urls():
        """the sidecar knows the relay's URLs"""
        status, _, body = sidecar.get("/v1/ice-servers", {"Authorization": f"Bearer {join_token('somebody')}"})
        return status == 200 and [url for server in json.loads(body)["iceServers"] for url in server["urls"]]

    return eventually(urls)


def test_udp_443_comes_before_tcp_443(serve, host, authority, tmp_path, request):
    """Clients try the URLs in this order, and UDP is what a call wants: `hairpin credentials`, `hairpin ctl status` and the
    sidecar agree.
    """
    relay = serve(transports=("udp", "tcp", "tls"))
    livekit = SimpleNamespace(url=f"ws://127.0.0.1:{SIGNAL}", address=host.v4)
    sidecar = Sidecar(relay, livekit, tmp_path / "sidecar", authority)
    # The relay tells the URLs.
    sidecar.file.write_text(re.sub(r"^urls = .*\n", "", sidecar.file.read_text(), flags=re.M))
    request.node.programs = [sidecar]
    try:
        from_sidecar = told(sidecar.start())
    finally:
        sidecar.kill()
    from_cli = [url for server in printed(relay, host)["iceServers"] for url in server["urls"]]
    for urls in (from_cli, from_sidecar, relay.ask("status")["ice_urls"]):
        over = ["udp" if url.endswith("=udp") else "tcp" for url in urls]
        assert set(over) == {"udp", "tcp"} and over == sorted(over, reverse=True), urls
        assert all(":443?" in url for url in urls), urls


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_printed_ice_servers_work_on_port_443_alone(protocol, browser, switch, serve, host):
    """The same ICE servers serve a network that lets out UDP 443 only and one with TCP 443 only. UDP is listed first."""
    page, at = browser
    relay = serve(transports=("udp", "tcp", "tls"))
    configured = printed(relay, host)
    urls = [url for server in configured["iceServers"] for url in server["urls"]]
    assert urls[0] == UDP and TLS in urls, urls
    only_443(switch, at, host)
    page.load(PAGE)
    only_443(switch, at, host, protocol)
    call(page, configured)
    flows(page, host, *{"udp": ["udp"], "tcp": ["tcp", "tls"]}[protocol])
    assert switch.dropped(at)


def test_an_address_instead_of_a_name(browsers, switch, serve, host, clients, authority):
    """RFC 6066 §3: a URL with an address comes without SNI, and gets the default certificate and TURN. Firefox refuses such
    URLs itself.
    """
    page, at = browsers["chromium"]
    only_443(switch, at, host)
    serve()
    page.load(PAGE)
    call(page, configuration(f"turns:{host.v4}:443?transport=tcp"))
    flows(page, host, "tls")


def test_tcp_and_tls_are_told_apart_on_the_usual_ports(browser, switch, start, host, tls, web):
    """`turns:` at the port for plain TURN and `turn:` at that for TLS are served, because others publish such URLs."""
    page, at = browser
    urls = {f"turns:{NAME}:3478": "tls", f"turn:{NAME}:5349?transport=tcp": "tcp"}
    relay = start(host, tls=tls)
    switch.lets_out(at, (host.v4, "tcp", 3478), (host.v4, "tcp", 5349))
    page.load("about:blank")
    page.open((HERE / "call.js").read_text())
    for url, protocol in urls.items():
        call(page, configuration(url))
        flows(page, host, protocol)
    assert not relay.lines("TLS handshake failed")


# Other clients


def curl(client, host, authority, *arguments):
    """What curl prints of requests to port 443; `-w` says what it has seen itself."""
    names = [word for name in (NAME, SITE) for word in ("--resolve", f"{name}:443:{host.v4},[{host.v6}]")]
    return client.run("curl", "-sS", "--fail", "--max-time", 60, "--cacert", authority.certificate, *names, *arguments)


def test_web_clients_beside_turn_clients(serve, host, clients, peers, authority, web):
    """curl with HTTP/1.1 and HTTP/2, `openssl s_client` and coturn's client, over TLS and without it, at the same time."""
    relay = serve()
    large = hashlib.sha256(web.large).hexdigest()

    def fetched(version, name):
        """A large file arrives unchanged, over this version of HTTP."""
        file = web.folder / f"fetched-{version}-{name}"
        used = curl(clients, host, authority, f"--{version}", "-o", file, "-w", "%{http_version}", f"https://{name}/large?{version}")
        assert used == {"http1.1": "1.1", "http2": "2"}[version]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == large
        line = web.request(host=name, path=f"/large?{version}", protocol="HTTP/1.1" if used == "1.1" else "HTTP/2.0")
        assert line["client"] == clients.v4 == line["told"], line

    def relayed(*options):
        """coturn's client gets back what it sends to a peer."""
        who = {"user": USER, "password": PASSWORD}
        run = coturn.uclient(clients, host.v4, "-t", "-p", 443, *options, "-n", 20, "-m", 4, "-e", peers.v4, **who)
        assert run.status == 0 and run.sent == run.received >= 40, run.output

    def said(expected, *options):
        """`openssl s_client` verifies the certificate and reports this."""
        trusted = ["-CAfile", authority.certificate, "-verify_return_error"]
        command = clients.command("openssl", "s_client", "-connect", f"{host.v4}:443", *trusted, *options)
        # A server of HTTP/2 speaks first, in bytes.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0 and all(words in output for words in expected), (options, output)

    own, site = f"subject=CN = {NAME}", f"subject=CN = {SITE}"
    named, of_site = ("-servername", NAME), ("-servername", SITE)
    asked = [
        ((own, "No ALPN negotiated", "TLSv1.3"), *named, "-tls1_3"),
        ((own, "No ALPN negotiated", "TLSv1.2"), *named, "-tls1_2"),
        ((own, "No ALPN negotiated"), "-noservername"),
        ((own, "ALPN protocol: stun.turn"), *named, "-alpn", "stun.turn,http/1.1"),
        ((own, "ALPN protocol: stun.nat-discovery"), *named, "-alpn", "stun.nat-discovery"),
        ((own, "ALPN protocol: h2"), *named, "-alpn", "h2,http/1.1"),
        ((own, "ALPN protocol: http/1.1"), *named, "-alpn", "http/1.1"),
        ((own, "No ALPN negotiated"), *named, "-alpn", "webrtc,c-webrtc"),
        ((site, "ALPN protocol: h2"), *of_site, "-alpn", "h2,http/1.1"),
        ((site, "ALPN protocol: http/1.1", "TLSv1.2"), *of_site, "-alpn", "http/1.1", "-tls1_2"),
    ]
    with coturn.echo_peer(peers), ThreadPoolExecutor(20) as pool:
        running = [pool.submit(fetched, version, name) for version in ("http1.1", "http2") for name in (NAME, SITE)]
        running += [pool.submit(relayed, *options) for options in ([], ["-s"], ["-S"], ["-S", "-s"])]
        running += [pool.submit(said, *words) for words in asked]
        for each in running:
            each.result()
    for transport in ("tcp", "tls"):
        relay.reaches("relayed_packets_total", 80, direction="to_client", transport=transport)
    relay.becomes("spliced_connections", 0)
    relay.becomes("connections", 0)
    # To nginx as to hairpin, clients come by IPv6, too.
    assert curl(clients, host, authority, "-6", f"{PAGE}/?v6") == (web.folder / "site" / "index.html").read_text()
    assert web.request(path="/?v6")["client"] == clients.v6


@pytest.mark.parametrize("name", [NAME, SITE])
def test_kept_connections(name, serve, host, clients, authority, web):
    """Requests share a connection, with pauses that are longer than any deadline of TURN."""
    relay = serve(limits={"first_message_timeout": 1, "unfinished_message_timeout": 1, "idle_timeout": 1})
    connection = http.client.HTTPSConnection(name)
    connection.sock = secured(clients, authority, host, name)
    for n in range(4):
        connection.request("GET", f"/?kept={n}")
        response = connection.getresponse()
        assert response.status == 200 and b"A real page" in response.read()
        time.sleep(1.5 if n < 2 else 0)
    relay.becomes("spliced_connections", 1)
    connection.close()
    relay.becomes("spliced_connections", 0)
    lines = [web.request(host=name, path=f"/?kept={n}") for n in range(4)]
    assert len({(line["connection"], line["client"], line["port"]) for line in lines}) == 1, lines


@pytest.mark.parametrize("name", [NAME, SITE])
def test_no_header_forges_the_clients_address(name, serve, host, clients, authority, web):
    """nginx logs the address that a client has, whatever its headers say; the port is the client's, too."""
    serve()
    forged = "198.51.100.7"
    connection = http.client.HTTPSConnection(name)
    connection.sock = secured(clients, authority, host, name)
    port = connection.sock.getsockname()[1]
    headers = {"X-Forwarded-For": forged, "X-Real-IP": forged, "Forwarded": f"for={forged}", "True-Client-IP": forged}
    connection.request("GET", "/?forged", headers=headers)
    assert connection.getresponse().status == 200
    connection.close()
    line = web.request(host=name, path="/?forged")
    assert (line["client"], line["told"], line["port"]) == (clients.v4, clients.v4, port), line


FORGED = {
    "v1": b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 443\r\n",
    "v2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + socket.inet_aton("198.51.100.7") + socket.inet_aton("203.0.113.1") + struct.pack("!HH", 40000, 443),
}


@pytest.mark.parametrize("version", FORGED)
def test_forged_proxy_headers(version, serve, host, clients, authority, web):
    """A PROXY header from anywhere ends the connection, before TLS as within it, and nginx hears nothing of it."""
    relay = serve()
    with pytest.raises(OSError):
        secured(clients, authority, host, SITE, before=FORGED[version])
    relay.becomes("connections_closed_total", 1, reason="untrusted_proxy_header")
    for name in (NAME, SITE):
        inside = secured(clients, authority, host, name)
        inside.sendall(FORGED[version] + b"GET /?proxy HTTP/1.1\r\nHost: " + name.encode() + b"\r\n\r\n")
        answer = b""
        try:
            while received := inside.recv(65536):
                answer += received
        except OSError:
            pass
        # What comes through unopened is nginx's to refuse.
        assert not answer or (name == SITE and answer.startswith(b"HTTP/1.1 400 ")), answer
    assert not web.requests(path="/?proxy")
    assert not web.requests(client="198.51.100.7")


@pytest.mark.parametrize("offered", [(), ("http/1.1",), ("h2", "http/1.1"), ("stun.turn",)])
def test_the_first_decrypted_bytes_decide(offered, serve, host, clients, peers, authority, web):
    """STUN is TURN whatever ALPN chose, and a request of HTTP/1.1 is for the web server. Who says nothing is closed."""
    relay = serve(limits={"first_message_timeout": 3})
    silent = secured(clients, authority, host, protocols=offered)
    with StreamClient(clients, (host.v4, 443), ALICE, connection=secured(clients, authority, host, protocols=offered)) as client:
        client.allocate()
        with peers.udp() as peer:
            channel = client.bind(peer.getsockname())
            client.send_channel(channel, b"out")
            assert peer.recvfrom(100)[0] == b"out"
            peer.sendto(b"back", client.relayed)
            assert client.receive()[:2] == (channel, b"back")
    web_client = secured(clients, authority, host, protocols=offered)
    request = f"GET /?alpn={','.join(offered)} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
    web_client.sendall(request.encode())
    answer = b"".join(iter(lambda: web_client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert is_closed(silent)
    relay.becomes("connections_closed_total", 1, reason="no_request")


def is_closed(connection):
    """Whether the server closes a connection without having sent anything."""
    connection.settimeout(20)
    try:
        return connection.recv(100) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
