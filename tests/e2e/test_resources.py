"""Resources that the relay takes and gives back: file descriptors, ports, privileges."""

import os
import time

import pytest

import bursts
import stun
from hosts import eventually
from turn import Refused

NO_PRIVILEGES = ["--bounding-set", "-all", "--inh-caps", "-all"]


def test_allocations_leave_nothing_behind(workers, start, host, connect, peers):
    """After many allocations with channels and both families, every file descriptor and port is free again."""
    relay = start(host, workers=workers, relay={"ports": "50000-50063"})
    warm = connect()
    warm.allocate()
    warm.refresh(0)
    relay.becomes("allocations", 0)
    # A scrape's connection may still be included.
    before = relay.open_files()
    six = (stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0]))
    clients = [connect() for _ in range(16)]
    for n in range(20):
        for client in clients:
            client.allocate(*([six] if n % 2 else []))
            client.bind((peers.v4, 9))
        for client in clients:
            client.refresh(0)
    relay.becomes("allocations", 0)
    eventually(lambda: relay.open_files() <= before)
    for port in range(50000, 50064):
        host.udp(host.v4, port).close()
        host.udp(host.v6, port).close()


def test_out_of_files(start, host, connect, peers):
    """Without free file descriptors Allocate gets 508. Calls continue, the relay does not spin, and it recovers."""
    relay = start(host, workers=4, process={"wrapper": ["prlimit", "--nofile=120:120"]})
    clients = []
    with pytest.raises(Refused) as refused:
        for _ in range(120):
            client = connect()
            client.allocate()
            clients.append(client)
    assert refused.value.code == 508 and len(clients) >= 10
    with peers.udp() as peer:
        channel = clients[0].bind(peer.getsockname())
        clients[0].send_channel(channel, b"on it goes")
        assert peer.recvfrom(100)[0] == b"on it goes"
    used, since = relay.cpu_seconds(), time.monotonic()
    time.sleep(2)
    assert (relay.cpu_seconds() - used) / (time.monotonic() - since) < 0.5, "the relay spins"
    for client in clients[:5]:
        client.refresh(0)
    for _ in range(5):
        eventually(lambda: connect().ask(stun.BINDING).code == 0)
        connect().allocate()


def test_without_privileges(start, host, connect, clients, peers):
    """The relay needs no privileges: batching and steering work without root."""
    relay = start(host, workers=4, process={"privileges": NO_PRIVILEGES})
    assert [line["message"] for line in relay.lines() if "steering" in line["message"]] == []
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        wanted = [os.urandom(1000) for _ in range(30)]
        bursts.send(client.socket, [stun.channel_data(channel, payload) for payload in wanted], client.server)
        assert bursts.receive(peer, len(wanted))[0] == wanted


def test_privileged_port_without_permission(start, host):
    """A port below 1024 without CAP_NET_BIND_SERVICE ends the start with status 1 and a message that says how to fix
    it.
    """
    process = {"privileges": NO_PRIVILEGES}
    relay = start(host, listen={"udp": ["0.0.0.0:443"]}, process=process, wait=False)
    assert relay.process.wait(30) == 1
    sentence = relay.lines()[-1]["message"]
    assert "0.0.0.0:443" in sentence and "no permission" in sentence and "1024" in sentence
