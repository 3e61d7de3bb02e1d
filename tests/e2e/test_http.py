"""Metrics and health over HTTP."""

import re
import signal
import time

import pytest

import stun
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
