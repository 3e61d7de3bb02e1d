"""Clients behind a link with a small MTU, on paths where routers report packets that are too long for it, and on paths
that lose these reports: then such packets vanish in silence.
"""

import socket
import ssl

import pytest

import stun
import streams
from conftest import ALICE, NAME
from hosts import Host, eventually
from test_icmp import wait_for_path
from turn import Client

# The least MTU of IPv6, and so of most tunnels.
NARROW = 1280
# The longest segments that fit, over IPv6.
MSS = NARROW - 60
FAR_NETWORKS = ["192.0.2.0/24", "2001:db8:2::/64"]
LONG = bytes(range(256)) * 5 + b"x" * 120

SILENT = """
table inet silent {
    chain output {
        type filter hook output priority 0
        icmp type destination-unreachable icmp code frag-needed drop
        icmpv6 type packet-too-big drop
    }
}
"""


@pytest.fixture(params=["v4", "v6"])
def family(request):
    """The address family of the clients."""
    return request.param


@pytest.fixture
def far(switch, host, tmp_path):
    """Clients on a network of their own, behind two routers that a link with a small MTU joins. `far.silence()` makes both
    routers keep to themselves which packets are too long for the link.
    """
    near = switch.host("near router", ["203.0.113.200/24", "2001:db8:1::200/64"])
    router, far = Host("far router"), Host("far clients")
    far.v4, far.v6 = "192.0.2.9", "2001:db8:2::9"
    for end in (near, router, far):
        # Nobody else has these addresses.
        end.run("sysctl", "-q", "net.ipv6.conf.default.dad_transmits=0")
    link = ["ip", "link", "add"]
    near.run(*link, "narrow", "mtu", NARROW, "type", "veth", "peer", "name", "narrow", "mtu", NARROW, "netns", router.path)
    router.run(*link, "lan", "type", "veth", "peer", "name", "eth0", "netns", far.path)
    for end, device in ((near, "narrow"), (router, "narrow"), (router, "lan"), (far, "eth0")):
        end.run("ip", "link", "set", device, "up")
    for end, number, other in ((near, 1, 2), (router, 2, 1)):
        end.add_address(f"198.51.100.{number}/24", interface="narrow")
        end.add_address(f"2001:db8:3::{number}/64", interface="narrow")
        # The relay is under test, not the kernel's own rate limit for ICMP errors.
        end.run("sysctl", "-q", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        end.run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    router.add_address("192.0.2.1/24", interface="lan")
    router.add_address("2001:db8:2::1/64", interface="lan")
    far.add_address(f"{far.v4}/24")
    far.add_address(f"{far.v6}/64")
    for start, v4, v6 in (
        (near, "198.51.100.2", "2001:db8:3::2"),
        (router, "198.51.100.1", "2001:db8:3::1"),
        (far, "192.0.2.1", "2001:db8:2::1"),
        (host, "203.0.113.200", "2001:db8:1::200"),
    ):
        start.run("ip", "route", "add", "default", "via", v4)
        start.run("ip", "route", "add", "default", "via", v6)
    rules = tmp_path / "silent.nft"
    rules.write_text(SILENT)

    def silence():
        for end in (near, router):
            end.run("nft", "-f", rules)

    far.silence = silence
    wait_for_path(host, far)
    yield far
    far.close()
    router.close()


@pytest.fixture
def serve(start, host, authority):
    """Starts a relay on port 443 whose certificate is longer than a packet, with this `mss`."""
    cert, key = authority.issue(NAME, *(f"2001:db8::{n}" for n in range(100)))
    tls = {"cert": str(cert), "key": str(key)}
    listen = {"tcp": ["0.0.0.0:3478", "[::]:3478"], "tls": ["0.0.0.0:443", "[::]:443"]}
    return lambda **mss: start(host, listen=listen | mss, tls=tls)


def tls_client(far, address, trust, timeout):
    """A client of the relay on port 443 that gives up a handshake after this time."""
    with far.inside():
        opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    opened.settimeout(timeout)
    opened.connect((address, 443))
    context = ssl.create_default_context(cafile=trust)
    opened = context.wrap_socket(opened, server_hostname=NAME)
    return streams.StreamClient(far, (address, 443), ALICE, connection=opened)


def carries_long_packets(client, peers):
    """Packets that are longer than the link reach the peer and the client."""
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        for n in range(20):
            client.send_channel(channel, LONG + b"%d" % n)
            assert peer.recvfrom(2000)[0] == LONG + b"%d" % n
            peer.sendto(LONG + b"%d" % n, client.relayed)
            assert client.receive().payload == LONG + b"%d" % n


def test_tls_where_long_packets_vanish(family, serve, host, far, peers, authority):
    """With an MSS that fits the path, a TLS handshake with a long certificate and packets in both directions get through
    where longer packets vanish in silence: the setting bounds the segments of both sides.
    """
    serve(mss=MSS)
    far.silence()
    with tls_client(far, getattr(host, family), authority.certificate, 10) as client:
        carries_long_packets(client, peers)


def test_tls_where_long_packets_vanish_without_mss(family, serve, host, far, authority):
    """Without a setting the kernel chooses the MSS by its own link, and the handshake stalls on such a path: its
    certificate never arrives. Where routers report what is too long, both sides learn it and need no setting.
    """
    serve(mss=0)
    with tls_client(far, getattr(host, family), authority.certificate, 10) as client:
        assert client.allocate()
    # A relay that has learned the MTU knows it for ten minutes.
    host.run("ip", "route", "flush", "cache")
    host.run("ip", "-6", "route", "flush", "cache")
    far.silence()
    with pytest.raises(TimeoutError):
        tls_client(far, getattr(host, family), authority.certificate, 2)


def test_mss_of_every_listener(start, host, clients, tls):
    """`listen.mss` bounds the segments of both sides, on listeners for TCP and for TLS, over IPv4 and IPv6, and `mss` of a
    `[[listener]]` those of that listener. The kernel puts timestamps, 12 bytes, into the same segment.
    """
    listen = {"udp": [], "tcp": ["0.0.0.0:3478", "[::]:3478"], "tls": ["0.0.0.0:5349", "[::]:5349"], "mss": 1000}
    own = [
        {"address": f"{host.v4}:443", "transports": ["tcp", "tls"], "mss": 900},
        {"address": f"{host.v4}:444", "transports": ["tcp"]},
    ]
    start(host, listen=listen, listener=own, tls=tls)
    for address, port, mss in (
        *((address, port, 1000) for address in (host.v4, host.v6) for port in (3478, 5349)),
        (host.v4, 443, 900),
        (host.v4, 444, 1360),
    ):
        with clients.tcp(address, port) as connection:
            # A client sends no longer segments than the relay has asked for.
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == mss - 12
            listing = host.run("ss", "-tin", "state", "established", f"sport = :{port}")
            assert f" mss:{mss - 12} " in listing, listing


def test_a_reload_changes_mss(start, host, clients):
    """A changed value holds for new connections, without opening the listener again."""
    relay = start(host, listen={"tcp": ["0.0.0.0:3478"], "mss": 1000})
    with clients.tcp(host.v4, 3478) as connection:
        file = relay.folder / "hairpin.toml"
        file.write_text(file.read_text().replace("mss = 1000", "mss = 900"))
        relay.ctl("reload")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1000 - 12
        with clients.tcp(host.v4, 3478) as later:
            assert later.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 900 - 12


def test_the_kernel_finds_the_mtu_itself(serve, host, far, authority):
    """The alternative to a setting: with net.ipv4.tcp_mtu_probing=1 the kernel sends shorter segments after a connection
    has stalled for some seconds.
    """
    host.run("sysctl", "-q", "net.ipv4.tcp_mtu_probing=1")
    serve(mss=0)
    far.silence()
    with tls_client(far, host.v4, authority.certificate, 20) as client:
        assert client.allocate()


@pytest.mark.parametrize("silent", [False, True], ids=["reported", "silent"])
def test_long_datagrams_to_the_client(silent, family, start, host, far, peers):
    """RFC 8656 §13, §14: a relayed packet that is longer than the path to the client arrives in fragments, since DF stays clear.

    Over IPv4 the router makes them, whether or not it could report anything. Over IPv6 only the sender may: the first packet
    is lost, and the kernel fragments once "packet too big" has arrived. A path that loses that report loses every such packet,
    and shorter ones still arrive.
    """
    start(host)
    if silent:
        far.silence()
    arrives_never = silent and family == "v6"
    with Client(far, (getattr(host, family), 3478), ALICE) as client, peers.udp() as peer:
        client.allocate(family=stun.IPV4)
        client.bind(peer.getsockname())

        def arrives(payload):
            peer.sendto(payload, client.relayed)
            try:
                return client.receive(0.5).payload == payload
            except TimeoutError:
                return False

        assert arrives(b"short")
        if family == "v4":
            assert all(arrives(LONG) for _ in range(3))
        elif not silent:
            eventually(lambda: arrives(LONG))
            # A burst that the kernel would segment, too.
            for n in range(20):
                peer.sendto(LONG + b"%2d" % n, client.relayed)
            assert [client.receive().payload for _ in range(20)] == [LONG + b"%2d" % n for n in range(20)]
        if arrives_never:
            assert not any(arrives(LONG) for _ in range(3))
        assert arrives(b"short")
