"""ICMP errors about relayed datagrams (RFC 8656 §11.5, §18.13). They come from behind a router, long after the send
call has returned, and are reported to the client that sent the datagram.
"""

import time

import pytest

import stun
import streams
from hosts import Host, eventually
from relay import PASSWORD, USER
from turn import User

FAR_V4, FAR_V6 = "192.0.2.9", "2001:db8:2::9"
FAR_NETWORKS = ["203.0.113.0/24", "2001:db8:1::/64", "192.0.2.0/24", "2001:db8:2::/64"]
NARROW = 1280
LONG = bytes(range(256)) * 5 + b"x" * 100

# Type and code of "port unreachable".
CLOSED = {"v4": (3, 3), "v6": (1, 4)}


@pytest.fixture
def router(switch):
    """A router to the network of the host `far`."""
    router = switch.host("router", ["203.0.113.200/24", "2001:db8:1::200/64"])
    router.run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    # The relay is under test, not the kernel's own rate limit for ICMP errors.
    router.run("sysctl", "-q", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    return router


@pytest.fixture
def far(router):
    """A peer's host behind the router, over a link with a small MTU."""
    far = Host("far")
    router.run("ip", "link", "add", "narrow", "type", "veth", "peer", "name", "eth0", "netns", far.path)
    router.run("ip", "link", "set", "narrow", "up", "mtu", NARROW)
    far.run("ip", "link", "set", "eth0", "up", "mtu", NARROW)
    router.add_address("192.0.2.1/24", interface="narrow")
    router.add_address("2001:db8:2::1/64", interface="narrow")
    far.v4, far.v6 = FAR_V4, FAR_V6
    for address, length, gateway in ((far.v4, 24, "192.0.2.1"), (far.v6, 64, "2001:db8:2::1")):
        far.add_address(f"{address}/{length}")
        far.run("ip", "route", "add", "default", "via", gateway)
    far.run("sysctl", "-q", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    yield far
    far.close()


def wait_for_path(start, end):
    """Waits until datagrams pass: IPv6 addresses and neighbour discovery need some time on a new link."""
    for near, far in ((start.v4, end.v4), (start.v6, end.v6)):
        with start.udp(near) as sender, end.udp(far) as receiver:
            receiver.settimeout(0.1)

            def passes():
                """a datagram passes"""
                sender.sendto(b"?", receiver.getsockname())
                try:
                    return receiver.recvfrom(100)[0]
                except TimeoutError:
                    return None

            eventually(passes)


@pytest.fixture
def relay(workers, start, host, far, peers):
    """A relay with a route to the network behind the router."""
    host.run("ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.200")
    host.run("ip", "route", "add", "2001:db8:2::/64", "via", "2001:db8:1::200")
    for end in (far, peers):
        wait_for_path(host, end)
    return start(host, workers=workers, peers={"allow": FAR_NETWORKS})


@pytest.fixture(params=["v4", "v6"])
def family(request):
    """The address family of the peers."""
    return request.param


@pytest.fixture
def client(relay, connect, family):
    """A client with an allocation of this family."""
    client = connect()
    client.allocate(family=stun.IPV4 if family == "v4" else stun.IPV6)
    return client


@pytest.mark.parametrize("how", ["channel", "indication"])
def test_a_closed_port(how, family, client, far):
    """RFC 8656 §11.5: port unreachable (3/3, ICMPv6 1/4) is reported with the peer's address and port and without DATA,
    for indications and for channels.
    """
    peer = (getattr(far, family), 9)
    if how == "channel":
        client.send_channel(client.bind(peer), b"anyone there?")
    else:
        client.permit(peer[0])
        client.send(peer, b"anyone there?")
    told = client.receive()
    assert (told.peer, told.payload, told.icmp) == (peer, None, (*CLOSED[family], 0))


@pytest.mark.parametrize("family", ["v4"], indirect=True)
def test_fragmentation_needed(family, client, far):
    """RFC 8656 §11.5, §18.13: "fragmentation needed" (3/4) is reported for every packet with DF, with the MTU of the
    link behind the router, and the packet does not arrive. Without DONT-FRAGMENT the same payload arrives in fragments,
    before and after.
    """
    assert NARROW < len(LONG) + 28 < 1500
    with far.udp() as peer:
        where = peer.getsockname()
        client.permit(where[0])
        for _ in range(3):
            client.send(where, LONG)
            assert peer.recvfrom(2000) == (LONG, client.relayed)
            client.send(where, LONG, (stun.DONT_FRAGMENT, b""))
            told = client.receive()
            assert (told.peer[0], told.payload, told.icmp) == (where[0], None, (3, 4, NARROW))
        client.send(where, b"short", (stun.DONT_FRAGMENT, b""))
        assert peer.recvfrom(2000)[0] == b"short"


@pytest.mark.parametrize("server", ["v4", "v6"])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_dont_fragment_from_streams(server, family, start, host, far, peers, clients):
    """RFC 8656 §13, §15: DONT-FRAGMENT from a TCP client is heeded whatever the families of the client and the peer: the
    datagram does not arrive, and the client is told the MTU. Without it the same payload arrives in fragments.
    """
    host.run("ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.200")
    host.run("ip", "route", "add", "2001:db8:2::/64", "via", "2001:db8:1::200")
    wait_for_path(host, far)
    listen = {"tcp": ["0.0.0.0:3478", "[::]:3478"]}
    start(host, listen=listen, peers={"allow": FAR_NETWORKS})
    client = streams.StreamClient(clients, (getattr(host, server), 3478), User(USER, PASSWORD))
    client.allocate(family=stun.IPV4 if family == "v4" else stun.IPV6)
    too_long = (3, 4, NARROW) if family == "v4" else (2, 0, NARROW)
    with client, far.udp(getattr(far, family)) as peer:
        where = peer.getsockname()[:2]
        client.permit(where[0])
        for _ in range(3):
            client.send(where, LONG, (stun.DONT_FRAGMENT, b""))
            told = client.receive()
            assert (told.peer[0], told.payload, told.icmp) == (where[0], None, too_long)
            client.send(where, LONG)
            assert peer.recvfrom(2000)[0] == LONG
        client.send(where, b"short", (stun.DONT_FRAGMENT, b""))
        assert peer.recvfrom(2000)[0] == b"short"


@pytest.mark.parametrize("family", ["v4"], indirect=True)
def test_reports_carry_the_peers_port(family, client, far):
    """RFC 8656 §11.5: the report carries the peer's port both when the router sends the ICMP error and when the relay's
    own kernel already knows the MTU and refuses to send.
    """
    with far.udp() as peer:
        where = peer.getsockname()
        client.permit(where[0])
        for _ in range(3):
            client.send(where, LONG, (stun.DONT_FRAGMENT, b""))
            assert client.receive().peer == where


@pytest.mark.parametrize("family", ["v6"], indirect=True)
def test_packet_too_big(family, client, far):
    """RFC 8656 §11.5, §18.13: "packet too big" (ICMPv6 2/0) is reported with the MTU of the link behind the router.
    From then on the relay's kernel knows the MTU and fragments.
    """
    with far.udp(far.v6) as peer:
        where = peer.getsockname()[:2]
        client.permit(where[0])
        client.send(where, LONG)
        told = client.receive()
        assert (told.peer, told.payload, told.icmp) == (where, None, (2, 0, NARROW))

        def arrives():
            """the payload arrives"""
            client.send(where, LONG)
            peer.settimeout(0.5)
            try:
                return peer.recvfrom(2000)[0] == LONG
            except TimeoutError:
                return False

        eventually(arrives)


def test_no_report_without_a_permission(relay, client, far, family):
    """RFC 8656 §11.5: a datagram dropped for lack of a permission causes no report."""
    before = relay.metric("dropped_packets_total")
    client.send((getattr(far, family), 9), b"without permission")
    eventually(lambda: relay.metric("dropped_packets_total") == before + 1)
    with pytest.raises(TimeoutError):
        client.receive(0.5)


def test_reports_are_rate_limited(relay, client, far, family):
    """RFC 8656 §11.5: reports are rate limited, and many errors do not harm the allocation."""
    peer = (getattr(far, family), 9)
    client.permit(peer[0])
    for _ in range(300):
        client.send(peer, b"?")
        time.sleep(0.001)
    time.sleep(0.5)
    heard = 0
    with pytest.raises(TimeoutError):
        while True:
            assert client.receive(0.3).icmp == (*CLOSED[family], 0)
            heard += 1
    assert 16 <= heard < 200
    assert client.refresh() == 600


def test_an_unreachable_peer_beside_a_busy_one(relay, client, far, peers, family):
    """RFC 8656 §11.5: errors about one peer cost no packet of another peer, in either direction."""
    gone = client.bind((getattr(far, family), 9))
    with peers.udp(getattr(peers, family)) as peer:
        busy = client.bind(peer.getsockname()[:2])
        for burst in range(100):
            wanted = [b"%d" % n for n in range(burst * 10, burst * 10 + 10)]
            for payload in wanted:
                client.send_channel(gone, b"anyone there?")
                client.send_channel(busy, payload)
                peer.sendto(payload, client.relayed)
            assert [peer.recvfrom(100)[0] for _ in wanted] == wanted
            came = []
            while len(came) < len(wanted):
                told = client.receive()
                if told.icmp is None:
                    assert told.peer == busy
                    came.append(told.payload)
            assert came == wanted
    relay.becomes("relayed_packets_total", 1000, direction="to_client")
    assert relay.metric("unsent_packets_total") == 0
