"""Metrics and health over HTTP."""

import re

import pytest

import stun
from hosts import eventually
from relay import HTTP


def test_pages(start, host):
    """/healthz and /metrics, in Prometheus' text format, on loopback only."""
    relay = start(host)
    assert relay.get("/healthz")[0::2] == (200, "ok\n")
    status, headers, page = relay.get("/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r"hairpin_\w+(\{\w+=\"[^\"]*\"(,\w+=\"[^\"]*\")*\})? [0-9.e+]+")
    named = set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            named.add(line.split()[2])
        elif not line.startswith("#"):
            assert sample.fullmatch(line) and re.match(r"\w+", line)[0] in named, line
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
    relay.becomes("requests_total", 1, method="Allocate", outcome="success")
    relay.becomes("requests_total", 1, method="Allocate", outcome="401")
    relay.becomes("requests_total", 2, method="ChannelBind", outcome="success")
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
