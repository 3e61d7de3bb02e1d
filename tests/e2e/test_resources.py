"""What a relay takes from its machine, and gives back: files, ports, privileges; and that a flood of requests is not the
calls' burden.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bursts
import stun
from hosts import eventually
from turn import Refused

NO_PRIVILEGES = ["--bounding-set", "-all", "--inh-caps", "-all"]


def open_files(relay):
    """How many descriptors the relay holds."""
    return len(os.listdir(f"/proc/{relay.process.pid}/fd"))


def cpu_ticks(relay):
    """The CPU time that the relay has used."""
    fields = Path(f"/proc/{relay.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_allocations_leave_nothing_behind(workers, start, host, connect, peers):
    """After many allocations with channels, reservations and both families every file and port is free again."""
    relay = start(host, workers=workers, relay={"ports": "50000-50063"})
    warm = connect()
    warm.allocate()
    warm.refresh(0)
    relay.becomes("allocations", 0)
    # A scrape's connection may still be among them.
    before = open_files(relay)
    six = (stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0]))
    clients = [connect() for _ in range(16)]
    for n in range(20):
        for client in clients:
            client.allocate(*([six] if n % 2 else []))
            client.bind((peers.v4, 9))
        for client in clients:
            client.refresh(0)
    relay.becomes("allocations", 0)
    eventually(lambda: open_files(relay) <= before)
    for port in range(50000, 50064):
        host.udp(host.v4, port).close()
        host.udp(host.v6, port).close()


def test_out_of_files(start, host, connect, peers):
    """508 when no more files can be opened; calls go on, nothing spins, and it recovers."""
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
    ticks, since = cpu_ticks(relay), time.monotonic()
    time.sleep(2)
    used = (cpu_ticks(relay) - ticks) / os.sysconf("SC_CLK_TCK")
    assert used / (time.monotonic() - since) < 0.5, "it spins"
    for client in clients[:5]:
        client.refresh(0)
    for _ in range(5):
        eventually(lambda: connect().ask(stun.BINDING).code == 0)
        connect().allocate()


def test_without_privileges(start, host, connect, clients, peers):
    """It needs none: batches and steering work for it as for root."""
    relay = start(host, workers=4, process={"privileges": NO_PRIVILEGES})
    assert [line["message"] for line in relay.lines() if "steering" in line["message"]] == []
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        wanted = [os.urandom(1000) for _ in range(30)]
        bursts.send(client.socket, [stun.channel_data(channel, payload) for payload in wanted], client.server)
        assert bursts.receive(peer, len(wanted))[0] == wanted


def test_no_permission_for_a_port(start, host):
    """A port below 1024 without the privilege for it: a sentence with the fix, and status 1."""
    process = {"privileges": NO_PRIVILEGES}
    relay = start(host, listen={"udp": ["0.0.0.0:443"]}, process=process, wait=False)
    assert relay.process.wait(30) == 1
    sentence = relay.lines()[-1]["message"]
    assert "0.0.0.0:443" in sentence and "no permission" in sentence and "1024" in sentence


FLOOD = """
import sys
sys.path.insert(0, sys.argv[1])
import bursts, socket, stun
to = (sys.argv[2], 3478)
requests = [stun.Message(stun.REQUEST, stun.BINDING).encode() for _ in range(64)]
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(16)]
for n in range(int(sys.argv[3])):
    bursts.send(sockets[n % 16], requests, to)
"""


def test_a_flood_of_requests(workers, start, host, connect, switch, peers):
    """Steering keeps requests in a queue of their own: while they overflow it a call loses nothing."""
    relay = start(host, workers=workers)
    flooder = switch.host("flooder")
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        arguments = [sys.executable, "-c", FLOOD, Path(__file__).parent, host.v4, 20_000]
        flood = flooder.start(*arguments, stderr=subprocess.PIPE)
        passed = 0
        while flood.poll() is None and passed < 5000:
            client.send_channel(channel, b"%d" % passed)
            assert peer.recvfrom(100)[0] == b"%d" % passed
            peer.sendto(b"%d" % passed, client.relayed)
            assert client.receive()[:2] == (channel, b"%d" % passed)
            passed += 1
        assert flood.wait(60) == 0, flood.stderr.read()
        flood.stderr.close()
    assert passed >= 10
    relay.reaches("dropped_packets_total", 1000, reason="answer_withheld")
    assert connect().binding()
