"""Metrics and health over HTTP."""

import contextlib
import re
import signal
import ssl
import time

import pytest

import stun
from conftest import NAME
from hosts import eventually
from relay import HTTP
from turn import error_code


def test_pages(start, host):
    """/healthz and /metrics, in Prometheus' text format, on loopback only."""
    relay = start(host)
    for page in ("/livez", "/readyz", "/healthz"):
        assert relay.get(page)[0::2] == (200, "ok\n")
    status, headers, page = relay.get("/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r"(hairpin|process)_\w+(\{\w+=\"[^\"]*\"(,\w+=\"[^\"]*\")*\})? [0-9.e+]+")
    named = set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            named.add(line.split()[2])
        elif not line.startswith("#"):
            name = re.sub("_(bucket|sum|count)$", "", re.match(r"\w+", line)[0])
            assert sample.fullmatch(line) and name in named, line
    assert relay.get("/")[0] == 404
    with pytest.raises(OSError):
        host.tcp(host.v4, HTTP[1]).close()


def test_metrics_of_a_call(start, host, connect, peers):
    """A call is visible in the metrics: allocations by family, requests by method and outcome, packets and bytes by
    direction, failures by reason.
    """
    relay = start(host)
    client = connect()
    client.allocate((stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0])))
    with peers.udp() as peer:
        client.bind(peer.getsockname())
        channel = client.bind((peers.v4, 9))
        client.send(peer.getsockname(), b"12345")
        peer.recvfrom(100)
    relay.becomes("allocations", 1, transport="udp", family="ipv4")
    relay.becomes("allocations", 1, transport="udp", family="ipv6")
    relay.becomes("permissions", 1)
    relay.becomes("channels", 2)
    relay.becomes("responses_total", 1, method="Allocate", outcome="success")
    relay.becomes("responses_total", 1, method="Allocate", outcome="401")
    relay.becomes("responses_total", 2, method="ChannelBind", outcome="success")
    relay.becomes("auth_failures_total", 1, reason="no_credentials")
    relay.becomes("relayed_packets_total", 1, direction="to_peer", transport="udp")
    relay.becomes("relayed_bytes_total", 5, direction="to_peer", transport="udp")
    assert channel
    client.refresh(0)
    for gauge in ("allocations", "permissions", "channels"):
        relay.becomes(gauge, 0)
    relay.becomes("allocations_opened_total", 1)


def test_http_can_be_off(start, host, connect):
    """With an empty list no HTTP port is opened, and clients are served."""
    relay = start(host, http={"listen": []}, wait=False)
    eventually(lambda: relay.lines("workers run"))
    assert connect().allocate()
    listening = [line.split()[3] for line in host.run("ss", "-Hltn").splitlines()]
    assert {address.rsplit(":", 1)[1] for address in listening} == {"3478"}


def test_idle_http_connections(start, host, connect):
    """Idle HTTP connections are closed after a timeout and do not affect calls."""
    start(host)
    client = connect()
    client.allocate()
    hanging = [host.tcp(*HTTP) for _ in range(100)]
    assert client.refresh() == 600
    for connection in hanging[:10]:
        connection.settimeout(60)
        while connection.recv(1000):
            pass
    for connection in hanging:
        connection.close()


def test_idle_connections_do_not_hold_up_a_scrape(start, host):
    """64 silent connections, and more, take no place from a scrape: the oldest of them is closed."""
    relay = start(host)
    hanging = [host.tcp(*HTTP) for _ in range(80)]
    for _ in range(10):
        since = time.monotonic()
        assert relay.get("/metrics")[0] == 200 and relay.get("/healthz")[0] == 200
        assert time.monotonic() - since < 2
    hanging[0].settimeout(5)
    assert hanging[0].recv(100) == b""
    for connection in hanging:
        connection.close()


@pytest.mark.parametrize("lowered", [False, True], ids=["low-limit", "lowered-limit"])
def test_pages_without_descriptors(lowered, start, host, connect):
    """Metrics and health are served when there is no file descriptor left, also while silent connections wait."""
    limit = {} if lowered else {"wrapper": ["prlimit", "--nofile=150:150"]}
    relay = start(host, workers=2, listen={"tcp": ["0.0.0.0:3478"]}, process=limit)
    if lowered:
        used = relay.open_files()
        host.run("prlimit", f"--pid={relay.process.pid}", f"--nofile={used}:{used}")
    idle = [host.tcp(host.v4, 3478) for _ in range(200)]
    hanging = [host.tcp(*HTTP) for _ in range(20)]
    for _ in range(150):
        client = connect()
        if client.ask(stun.BINDING).code == 0 and error_code(client.allocate) == 508:
            break
    else:
        pytest.fail("there is no limit")
    for _ in range(20):
        assert relay.get("/healthz")[0::2] == (200, "ok\n")
        assert relay.metric("allocations") >= 0
    for connection in idle + hanging:
        connection.close()
    eventually(lambda: relay.get("/healthz")[0] == 200)


def test_a_low_limit_is_logged(start, host):
    """The log of a start says which number of connections holds if it is lower than configured."""
    relay = start(host, limits={"connections": 5000}, process={"wrapper": ["prlimit", "--nofile=1024:1024"]})
    [line] = [line["message"] for line in relay.lines() if "limits.connections" in line["message"]]
    assert "may open 1024 files" in line and "instead of the 5000" in line and "LimitNOFILE" in line, line
    holds = int(re.search(r"at most (\d+) connections are served", line)[1])
    assert 100 < holds < 1024 and relay.metrics()["hairpin_limit"][frozenset({("name", "connections")})] == holds


def test_health_while_stopped(start, host):
    """A process that was stopped and goes on is healthy again at once; the pages say why if not."""
    relay = start(host)
    relay.process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    relay.process.send_signal(signal.SIGCONT)
    eventually(lambda: relay.get("/livez")[0] == 200, timeout=3)
    eventually(lambda: relay.get("/readyz")[0] == 200, timeout=3)


TOKEN = "0123456789abcdef" * 3


@pytest.fixture
def scrape(host, clients, authority):
    """Asks for a page over TLS as a Prometheus on another host does, with a token or none; returns status, headers and body,
    and the certificate in `scrape.certificate`.
    """
    trust = ssl.create_default_context(cafile=authority.certificate)

    def scrape(page, token=None):
        head = f"Authorization: Bearer {token}\r\n" if token else ""
        with clients.tcp(host.v4, 9641) as raw, trust.wrap_socket(raw, server_hostname=NAME) as tls:
            scrape.certificate = tls.getpeercert(True)
            tls.sendall(f"GET {page} HTTP/1.1\r\nHost: {NAME}\r\n{head}\r\n".encode())
            response = b"".join(iter(lambda: tls.recv(65536), b"")).decode()
        head, _, body = response.partition("\r\n\r\n")
        return int(head.split(" ")[1]), head.lower(), body

    return scrape


@pytest.fixture
def secured(start, host, tls, tmp_path):
    """Starts a relay whose pages are for other hosts, over TLS and with tokens; `secured.settings` is its `[http]`."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"prometheus:read:{TOKEN}\n")
    tokens.chmod(0o600)

    def secured(**http):
        secured.tokens = tokens
        secured.settings = {"listen": [f"{host.v4}:9641"], "tls": True, "tokens_file": str(tokens), **http}
        relay = start(host, wait=False, tls=tls, http=secured.settings)
        eventually(lambda: relay.socket.exists() and relay.ask("status"))
        return relay

    return secured


def test_metrics_of_another_host_over_tls_with_a_token(secured, scrape, host, clients):
    """`/metrics` needs a token of the file, and health checks none. A token, right or wrong, is in no log line."""
    relay = secured()
    status, _, page = scrape("/metrics", TOKEN)
    assert status == 200 and "\nhairpin_allocations" in page
    status, head, body = scrape("/metrics")
    assert status == 401 and "www-authenticate: bearer" in head and "http.tokens_file" in body, (head, body)
    wrong = "f" * 48
    for _ in range(30):
        assert scrape("/metrics", wrong)[0] == 401
    for page in ("/livez", "/readyz", "/healthz"):
        assert scrape(page)[0::2] == (200, "ok\n")
    told = [line for line in relay.lines() if "not one of http.tokens_file" in line["message"]]
    assert 1 <= len(told) <= 10 and TOKEN not in relay.log and wrong not in relay.log
    assert not [line for line in relay.lines() if "not a loopback address" in line["message"]]
    with clients.tcp(host.v4, 9641) as plain, contextlib.suppress(OSError):
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"hairpin_" not in plain.recv(1000), "nothing is served without TLS"


def test_reasons_are_for_whoever_has_a_token(secured, scrape, connect):
    """A relay that drains is not ready: everybody is told that, and whoever has a token also why."""
    relay = secured()
    connect().allocate()
    relay.ctl("drain", "--deadline", "1h")
    told = scrape("/readyz"), scrape("/readyz", TOKEN)
    assert told[0][0::2] == (503, "not ready\n") and told[1][0] == 503 and "drain" in told[1][2], told


def test_tokens_tls_and_listeners_of_http_are_reloaded(secured, scrape, host, clients):
    """Each of `http.tokens_file`, `http.tls` and `http.listen` holds at once after a reload."""
    relay = secured()
    new = "f" * 48
    secured.tokens.write_text(f"prometheus:read:{new}\n")
    assert "http.tokens_file" in relay.ctl("reload")
    assert (scrape("/metrics", TOKEN)[0], scrape("/metrics", new)[0]) == (401, 200)
    file = relay.folder / "hairpin.toml"
    text = file.read_text()
    file.write_text(text.replace("tls = true", "tls = false"))
    assert "http.tls" in relay.ctl("reload")
    with pytest.raises(OSError):
        scrape("/livez")
    relay.host = clients
    assert relay.get("/livez", (host.v4, 9641))[0] == 200
    relay.host = host
    file.write_text(text.replace(":9641", ":9640"))
    relay.ctl("reload")
    with pytest.raises(OSError):
        clients.tcp(host.v4, 9641)
    file.write_text(text)
    relay.ctl("reload")
    assert scrape("/metrics", new)[0] == 200


def test_a_renewed_certificate_of_http(secured, scrape, authority):
    """New connections get a renewed certificate without a reload, as those of clients do."""
    secured()
    scrape("/livez")
    before = scrape.certificate
    authority.issue(NAME)
    eventually(lambda: scrape("/livez")[0] == 200 and scrape.certificate != before)


def test_silent_handshakes_hold_up_no_page(secured, scrape, host, clients):
    """Connections that never begin a handshake, or their request, have a bound, and make room for others."""
    secured()
    with contextlib.ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(clients.tcp(host.v4, 9641))
        since = time.monotonic()
        assert scrape("/metrics", TOKEN)[0] == 200
        assert time.monotonic() - since < 4, "nothing waits for their deadline"


def test_a_page_that_others_can_read_is_warned_about(start, host):
    """Metrics on an address that is not loopback, without TLS or without tokens: one line says what can be read."""
    relay = start(host, http={"listen": [f"{host.v4}:9641", "127.0.0.1:9641"]})
    told = [line for line in relay.lines() if f"{host.v4}:9641 is not a loopback address" in line["message"]]
    assert len(told) == 1 and told[0]["level"] == "WARN", told
    assert "can read the metrics" in told[0]["message"] and "http.tokens_file" in told[0]["message"]
