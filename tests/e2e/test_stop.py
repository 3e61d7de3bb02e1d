"""Stopping and starting again."""

import signal
import socket

import pytest


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_graceful_stop(how, workers, start, host, connect):
    """On SIGTERM and SIGINT every allocation is logged as closed, ports are freed and the exit status is 0."""
    relay = start(host, workers=workers)
    clients = [connect() for _ in range(20)]
    relayed = {client.allocate() for client in clients}
    assert relay.stop(how) == 0
    closed = relay.lines("allocation closed", reason="server stops")
    assert len(closed) == len(relayed) == 20
    assert "has stopped" in relay.lines()[-1]["message"]
    for address, port in relayed | {("0.0.0.0", 3478)}:
        host.udp(address, port).close()


def test_immediate_restart(start, host, connect):
    """A new relay finds every port free, and clients can allocate again."""
    first = start(host)
    client = connect()
    client.allocate()
    assert first.stop() == 0
    start(host)
    client.nonce = client.key = None
    client.allocate()


def test_a_second_signal_ends_immediately(start, host, connect):
    """A second signal ends the relay immediately, and nothing is left listening."""
    relay = start(host)
    connect().allocate()
    relay.process.send_signal(signal.SIGTERM)
    relay.process.send_signal(signal.SIGINT)
    assert relay.process.wait(30) in (0, 1)
    with host.udp("0.0.0.0", 3478, socket.AF_INET):
        pass
