"""IP header fields across the relay (RFC 8656 §13 to §16): DSCP and ECN are copied from UDP to UDP, and DF is set only
on request.
"""

import socket
import struct
from contextlib import contextmanager

import pytest

import bursts
import stun
from relay import PASSWORD, USER
from streams import StreamClient
from turn import User

NOT_ECT, ECT_1, ECT_0, CE = range(4)
BEST_EFFORT, VIDEO, VOICE = 0, 34, 46

TOS_VALUES = [dscp << 2 | ecn for dscp in (BEST_EFFORT, VIDEO, VOICE) for ecn in (NOT_ECT, ECT_1, ECT_0, CE)]

ETH_P_IP = 0x0800


class TosSocket:
    """A UDP socket that sends with a given TOS and reports the TOS of what it receives, in bursts too."""

    def __init__(self, opened):
        self.socket = opened
        self.is_v6 = opened.family == socket.AF_INET6
        if self.is_v6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        bursts.accept(opened)

    def set_tos(self, tos):
        """Sets the TOS of what is sent from now on."""
        if self.is_v6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
        else:
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)

    def send(self, payloads, to):
        """Sends payloads, in one call where possible."""
        bursts.send(self.socket, payloads, to)

    def receive(self, count):
        """Receives `count` datagrams; returns (TOS, payload) pairs."""
        received = []
        self.socket.settimeout(5)
        while len(received) < count:
            piece, control, _, _ = self.socket.recvmsg(65536, 200)
            tos, size = None, len(piece)
            for level, kind, data in control:
                if (level, kind) == (socket.IPPROTO_UDP, bursts.UDP_GRO):
                    [size] = struct.unpack("i", data)
                elif (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS):
                    tos = data[0]
                elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_TCLASS):
                    [tos] = struct.unpack("i", data)
            received += [(tos, piece[n : n + size]) for n in range(0, len(piece), size)]
        return received


@pytest.fixture(params=["v4", "v6", "v4-to-v6", "v6-to-v4"])
def families(request):
    """The address families of the client's side and of the peer's side."""
    near, _, far = request.param.partition("-to-")
    return near, far or near


@pytest.fixture
def call(families, workers, start, host, clients, peers, connect):
    """A client, its socket and a peer's socket with TOS support, and the channel between them."""
    for end in (host, clients, peers):
        end.run("ethtool", "-K", "eth0", "gro", "on", "gso", "on")
    start(host, workers=workers)
    near, far = families
    client = connect(server=(getattr(host, near), 3478))
    client.allocate(family=stun.IPV6 if far == "v6" else stun.IPV4)
    with peers.udp(getattr(peers, far)) as opened:
        channel = client.bind(opened.getsockname()[:2])
        yield client, TosSocket(client.socket), TosSocket(opened), channel


def test_tos_is_copied(call):
    """RFC 8656 §13, §14: DSCP and ECN, including CE, are copied in both directions, over channels and in indications.
    """
    client, near, far, channel = call
    where = far.socket.getsockname()[:2]
    for tos in TOS_VALUES:
        near.set_tos(tos)
        far.set_tos(tos)
        near.send([stun.channel_data(channel, b"by channel")], client.server)
        assert far.receive(1) == [(tos, b"by channel")]
        near.send([stun.send_indication(where, b"by indication")], client.server)
        assert far.receive(1) == [(tos, b"by indication")]
        far.send([b"back"], client.relayed)
        assert near.receive(1) == [(tos, stun.channel_data(channel, b"back"))]


def test_tos_of_bursts(call):
    """RFC 8656 §13, §14: in consecutive bursts with different TOS, every datagram keeps its own."""
    client, near, far, channel = call
    wanted = []
    for n, tos in enumerate(TOS_VALUES):
        burst = [bytes([n, k]) * 400 for k in range(16)]
        near.set_tos(tos)
        near.send([stun.channel_data(channel, payload) for payload in burst], client.server)
        wanted += [(tos, payload) for payload in burst]
    assert far.receive(len(wanted)) == wanted
    for n, tos in enumerate(TOS_VALUES):
        far.set_tos(tos)
        far.send([payload for _, payload in wanted[n * 16 : n * 16 + 16]], client.relayed)
    back = [(tos, stun.channel_data(channel, payload)) for tos, payload in wanted]
    assert near.receive(len(back)) == back


@pytest.mark.parametrize("families", [("v4", "v4")], ids=["v4"])
def test_ce_within_a_burst(families, call):
    """RFC 8656 §13: when the network marks some datagrams of a burst with CE, only those arrive with CE."""
    client, near, far, channel = call
    wanted = []
    for n in range(60):
        tos = VOICE << 2 | (CE if n % 7 == 3 else ECT_0)
        near.set_tos(tos)
        near.send([stun.channel_data(channel, b"%04d" % n * 100)], client.server)
        wanted.append((tos, b"%04d" % n * 100))
    assert far.receive(len(wanted)) == wanted


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_data_from_streams_is_not_ect(family, start, host, clients, peers):
    """RFC 8656 §15: data from a TCP client is sent as Not-ECT, although the TCP connection itself uses ECN."""
    for end in (host, clients):
        end.run("sysctl", "-q", "net.ipv4.tcp_ecn=1")
    start(host)
    client = StreamClient(clients, (getattr(host, family), 3478), User(USER, PASSWORD))
    client.allocate(family=stun.IPV4 if family == "v4" else stun.IPV6)
    with peers.udp(getattr(peers, family)) as opened:
        far, where = TosSocket(opened), opened.getsockname()[:2]
        channel = client.bind(where)
        for n in range(20):
            client.send_channel(channel, b"%d" % n)
            client.send(where, b"%d" % n)
            assert [(tos & 3, payload) for tos, payload in far.receive(2)] == [(NOT_ECT, b"%d" % n)] * 2
        far.set_tos(VOICE << 2 | CE)
        far.send([b"back"], client.relayed)
        assert client.receive()[:2] == (channel, b"back")
    client.socket.close()


def test_dscp_of_a_stream(start, host, clients, peers):
    """RFC 8656 §15: data from a TCP client is sent with the connection's DSCP. With tcp_reflect_tos that is the
    client's own DSCP.
    """
    host.run("sysctl", "-q", "net.ipv4.tcp_reflect_tos=1")
    start(host)
    with clients.inside():
        connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, VOICE << 2)
    connection.settimeout(10)
    connection.connect((host.v4, 3478))
    client = StreamClient(clients, (host.v4, 3478), User(USER, PASSWORD), connection=connection)
    client.allocate()
    with peers.udp() as opened:
        far = TosSocket(opened)
        client.send_channel(client.bind(opened.getsockname()), b"marked")
        assert far.receive(1) == [(VOICE << 2 | NOT_ECT, b"marked")]
    client.socket.close()


@contextmanager
def capture(host):
    """Captures what arrives at a host: `packets(count)` waits for `count` IPv4 UDP packets; returns DF, TTL and payload
    of each.
    """
    with host.inside():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    raw.bind(("eth0", ETH_P_IP))
    raw.settimeout(5)

    def packets(count):
        found = []
        while len(found) < count:
            packet, (_, _, direction, *_) = raw.recvfrom(65536)
            if direction == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_UDP:
                continue
            head = (packet[0] & 15) * 4
            flags, ttl = struct.unpack_from("!H", packet, 6)[0], packet[8]
            length = struct.unpack_from("!H", packet, 2)[0]
            found.append((bool(flags & 0x4000), ttl, packet[head + 8 : length]))
        return found

    with raw:
        yield packets


@pytest.mark.parametrize("near", ["v4", "v6"])
def test_df_is_set_only_on_request(near, workers, start, host, connect, peers, clients):
    """RFC 8656 §11.2, §13, §14: DF is set only for a Send indication with DONT-FRAGMENT from IPv4 to IPv4. It is clear
    on the next datagram of any kind, on channels and towards the client. The TTL is the relay's own.
    """
    # Without this offload the kernel segments bursts before they leave, so that each datagram is captured separately.
    host.run("ethtool", "-K", "eth0", "tx-udp-segmentation", "off")
    start(host, workers=workers)
    client = connect(server=(getattr(host, near), 3478))
    client.allocate(family=stun.IPV4)
    with peers.udp() as peer:
        where = peer.getsockname()
        channel = client.bind(where)
        asks = (stun.DONT_FRAGMENT, b"")
        with capture(peers) as packets:
            wanted = []
            for n in range(10):
                for kind in ("asks", "asks not", "channel", "asks", "channel"):
                    payload = f"{kind} {n}".encode()
                    if kind == "channel":
                        client.send_channel(channel, payload)
                    else:
                        client.send(where, payload, *([asks] if kind == "asks" else []))
                    wanted.append((kind == "asks" and near == "v4", 64, payload))
            assert packets(len(wanted)) == wanted
        with capture(peers) as packets:
            same = [(n % 2 == 0, b"%02d" % n * 100) for n in range(20)]
            burst = [stun.send_indication(where, payload, *([asks] if df else [])) for df, payload in same]
            bursts.send(client.socket, burst, client.server)
            assert packets(len(same)) == [(df and near == "v4", 64, payload) for df, payload in same]
        if near == "v4":
            with capture(clients) as packets:
                peer.sendto(b"back", client.relayed)
                assert packets(1) == [(False, 64, stun.channel_data(channel, b"back"))]
