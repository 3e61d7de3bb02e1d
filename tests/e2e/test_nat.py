"""`relay.external_ip`: the relay behind a NAT that maps its addresses one to one, as clouds do, and that turns no packet
around: what goes from inside to an external address is dropped there.
"""

import itertools

import pytest

import stun
from hosts import Host, eventually
from streams import StreamClient
from turn import Refused

INSIDE = ["10.0.0.5", "fd00::5"]
OUTSIDE = ["203.0.113.100", "2001:db8:1::100"]

# One to one, both ways; nothing that comes from inside is let back in.
RULES = """
table ip nat {
    chain in { type nat hook prerouting priority -100; iifname "eth0" ip daddr 203.0.113.100 dnat to 10.0.0.5; }
    chain out { type nat hook postrouting priority 100; oifname "eth0" ip saddr 10.0.0.5 snat to 203.0.113.100; }
}
table ip6 nat {
    chain in { type nat hook prerouting priority -100; iifname "eth0" ip6 daddr 2001:db8:1::100 dnat to fd00::5; }
    chain out { type nat hook postrouting priority 100; oifname "eth0" ip6 saddr fd00::5 snat to 2001:db8:1::100; }
}
table inet filter {
    counter turned { }
    chain stop {
        type filter hook prerouting priority -200;
        iifname "inside" ip daddr 203.0.113.100 counter name turned drop
        iifname "inside" ip6 daddr 2001:db8:1::100 counter name turned drop
    }
}
"""


@pytest.fixture
def router(switch, tmp_path):
    """The NAT."""
    router = switch.host("router", ["203.0.113.200/24", "2001:db8:1::200/64"])
    for address in OUTSIDE:
        router.add_address(address + ("/64" if ":" in address else "/24"))
    router.run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    rules = tmp_path / "nat"
    rules.write_text(RULES)
    router.run("nft", "-f", rules)
    return router


@pytest.fixture
def host(router):
    """The relay's host, which has private addresses only, behind the NAT."""
    host = Host("private")
    router.run("ip", "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", host.path)
    router.run("ip", "link", "set", "inside", "up")
    router.add_address("10.0.0.1/24", interface="inside")
    router.add_address("fd00::1/64", interface="inside")
    host.run("ip", "link", "set", "eth0", "up")
    host.v4, host.v6 = INSIDE
    for address, length, gateway in ((host.v4, 24, "10.0.0.1"), (host.v6, 64, "fd00::1")):
        host.add_address(f"{address}/{length}")
        host.run("ip", "route", "add", "default", "via", gateway)
    yield host
    host.close()


@pytest.fixture
def relay(start, host, tls):
    """A relay that knows its external addresses, with four workers."""
    return start(host, workers=4, relay={"addresses": INSIDE, "external_ip": OUTSIDE}, tls=tls)


@pytest.fixture
def reach(connect):
    """Makes clients, which know the relay by its external addresses."""
    return lambda family=stun.IPV4: connect(server=(OUTSIDE[family == stun.IPV6], 3478))


def turned_around(router):
    """How many packets the NAT refused to turn around."""
    words = router.run("nft", "list", "counter", "inet", "filter", "turned").split()
    return int(words[words.index("packets") + 1])


@pytest.mark.parametrize("family", [stun.IPV4, stun.IPV6])
def test_a_peer_outside(family, relay, reach, clients, peers):
    """RFC 8656 §7.2, §11, §12: the relayed address is the external one; a peer sees it, reaches the client by it, and
    hears the client from it.
    """
    client = reach(family)
    assert client.binding() == client.socket.getsockname()[:2]
    address, _ = client.allocate(family=family)
    assert address == OUTSIDE[family == stun.IPV6]
    with peers.udp(peers.v6 if family == stun.IPV6 else peers.v4) as peer:
        where = peer.getsockname()[:2]
        client.permit(where[0])
        client.send(where, b"by indication")
        payload, source = peer.recvfrom(100)
        assert (payload, source[:2]) == (b"by indication", client.relayed)
        peer.sendto(b"back", client.relayed)
        assert client.receive()[:2] == (where, b"back")
        channel = client.bind(where)
        client.send_channel(channel, b"by channel")
        payload, source = peer.recvfrom(100)
        assert (payload, source[:2]) == (b"by channel", client.relayed)
        peer.sendto(b"back again", client.relayed)
        assert client.receive()[:2] == (channel, b"back again")


def test_both_families_of_one_allocation(relay, reach):
    """RFC 8656 §7.2: each relayed address of a dual allocation is the external one of its family."""
    client = reach()
    client.allocate((stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0])))
    assert [client.relayed[0], client.relayed_v6[0]] == OUTSIDE


@pytest.mark.parametrize("family", [stun.IPV4, stun.IPV6])
def test_two_clients_meet(family, router, host, relay, reach):
    """RFC 8656 §9, §12: clients of one relay reach each other at their external addresses, from each worker to each
    other one, although the NAT would drop what goes there.
    """
    found = {}
    for _ in range(200):  # by far enough for one on each worker
        before = relay.by_worker("worker_allocations")
        client = reach(family)
        client.allocate(family=family)
        eventually(lambda: sum(relay.by_worker("worker_allocations")) == sum(before) + 1)
        now = relay.by_worker("worker_allocations")
        [worker] = [n for n in range(4) if now[n] > before[n]]
        found.setdefault(worker, client)
        if len(found) == 4:
            break
    assert len(found) == 4
    for one, other in itertools.permutations(found.values(), 2):
        one.permit(other.relayed)
        other.permit(one.relayed)
        one.send(other.relayed, b"by indication")
        assert other.receive()[:2] == (one.relayed, b"by indication")
    for one, other in itertools.combinations(found.values(), 2):
        channel, back = one.bind(other.relayed), other.bind(one.relayed)
        one.send_channel(channel, b"by channel")
        assert other.receive()[:2] == (back, b"by channel")
        other.send_channel(back, b"and back")
        assert one.receive()[:2] == (channel, b"and back")
    assert turned_around(router) == 0
    local, external = (pair[family == stun.IPV6] for pair in (INSIDE, OUTSIDE))
    with host.udp(local) as witness:
        witness.sendto(b"in vain", (external, 9))
    assert turned_around(router) == 1, "the NAT does drop such packets"


def test_a_stream_client_meets_one_over_udp(relay, reach, clients):
    """RFC 8656 §2.1: the same for a client over TCP."""
    one, other = reach(), StreamClient(clients, (OUTSIDE[0], 3478), reach().user)
    for client in (one, other):
        assert client.allocate()[0] == OUTSIDE[0]
    channel, back = one.bind(other.relayed), other.bind(one.relayed)
    one.send_channel(channel, b"there")
    assert other.receive()[:2] == (back, b"there")
    other.send_channel(back, b"and back")
    assert one.receive()[:2] == (channel, b"and back")
    other.socket.close()


def test_the_local_address_is_private_like_any_other(relay, reach):
    """RFC 8656 §9.2, 403: clients may name the external address, not the one behind it."""
    client = reach()
    client.allocate()
    client.permit(OUTSIDE[0])
    with pytest.raises(Refused) as refused:
        client.permit(INSIDE[0])
    assert refused.value.code == 403
