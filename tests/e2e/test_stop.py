"""Stopping and starting again."""

import signal
import socket

import pytest

from hosts import eventually


STOPPING = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]

# These report faults, cannot be handled, or are systemd's watchdog.
LEFT_ALONE = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP}
LEFT_ALONE |= {signal.SIGSYS, signal.SIGTRAP}


@pytest.mark.parametrize("how", STOPPING, ids=lambda how: how.name)
def test_a_graceful_stop(how, workers, start, host, connect):
    """On SIGTERM, SIGINT and SIGQUIT every allocation is logged as closed, ports are freed and the exit status is 0."""
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


def test_other_signals_end_no_call(workers, start, host, connect, peers):
    """Only SIGTERM, SIGINT and SIGQUIT end the relay, and SIGUSR1 drains it. Every other signal that an operator or a
    renewal hook may send leaves it, and its calls, running.
    """
    relay = start(host, workers=workers)
    with peers.udp() as peer:
        calls = []
        for _ in range(4):
            calls.append(connect())
            calls[-1].allocate()
            calls[-1].channel = calls[-1].bind(peer.getsockname())
        for how in sorted(signal.valid_signals() - set(STOPPING) - LEFT_ALONE - {signal.SIGUSR1}):
            relay.process.send_signal(how)
            for call in calls:
                call.send_channel(call.channel, b"on it goes")
                assert peer.recvfrom(100)[0] == b"on it goes", how
        for call in [*calls, connect()]:
            call.allocate() if call not in calls else call.refresh()
    assert relay.process.poll() is None
    [line] = eventually(lambda: [line["message"] for line in relay.lines() if line["message"].startswith("SIGUSR2")])
    assert "SIGHUP" in line and "certificate" in line, line


def test_a_second_signal_ends_immediately(start, host, connect):
    """A second signal ends the relay immediately, and nothing is left listening."""
    relay = start(host)
    connect().allocate()
    relay.process.send_signal(signal.SIGTERM)
    relay.process.send_signal(signal.SIGINT)
    assert relay.process.wait(30) in (0, 1)
    with host.udp("0.0.0.0", 3478, socket.AF_INET):
        pass
