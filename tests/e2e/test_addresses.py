"""Addresses: answers leave from the one that was asked, relayed ones are those configured."""

import socket

import pytest

import stun
from hosts import eventually
from turn import Refused

ADDRESSES = ["203.0.113.50", "203.0.113.51", "2001:db8:1::50", "2001:db8:1::51"]


@pytest.fixture
def asked(switch):
    """A host with two addresses of each family."""
    return switch.host("relay", [f"{address}/{64 if ':' in address else 24}" for address in ADDRESSES])


@pytest.mark.parametrize("address", ADDRESSES)
def test_answers_leave_from_the_address_that_was_asked(address, workers, asked, start, connect, peers):
    """RFC 8656 §7.2, §11.3, §12.7: on a wildcard listener what a client gets comes from where its packets went."""
    start(asked, workers=workers)
    client = connect(server=(address, 3478))
    # `ask` gives the answer whole: see where it came from.
    for method, attributes, code in (
        (stun.BINDING, [], 0),
        (stun.BINDING, [(0x0003, bytes(4))], 420),
        (stun.ALLOCATE, [], 401),
        (stun.REFRESH, [], 401),
    ):
        answer = client.ask(method, *attributes, sign=False)
        assert (answer.code, answer.source[:2]) == (code, (address, 3478))
    client.allocate()
    with pytest.raises(Refused) as refused:
        client.permit("127.0.0.1")
    assert (refused.value.code, refused.value.answer.source[:2]) == (403, (address, 3478))
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        peer.sendto(b"by channel", client.relayed)
        received = client.receive()
        assert received[:2] == (channel, b"by channel") and received.source[:2] == (address, 3478)
        with peers.udp() as other:
            other.sendto(b"by indication", client.relayed)
            received = client.receive()
            assert received[:2] == (other.getsockname(), b"by indication")
            assert received.source[:2] == (address, 3478)


def test_a_5_tuple_has_a_server_address(start, asked, connect):
    """RFC 8656 §2.2, §5: one client socket that asks two addresses of the server has two allocations."""
    relay = start(asked)
    client = connect(server=(ADDRESSES[0], 3478))
    client.allocate()
    client.server = (ADDRESSES[1], 3478)
    with pytest.raises(Refused) as refused:
        client.refresh()
    assert refused.value.code == 437
    client.allocate()
    relay.becomes("allocations", 2)


def test_relayed_addresses_are_those_configured(start, asked, connect):
    """Several a family are all used; each port is one address's own."""
    start(asked, relay={"addresses": ADDRESSES, "ports": "50000-50003"})
    for family in (stun.IPV4, stun.IPV6):
        wanted = {
            (a, port)
            for a in ADDRESSES
            for port in range(50000, 50004)
            if (":" in a) == (family == stun.IPV6)
        }
        clients = [connect(server=(ADDRESSES[0], 3478)) for _ in wanted]
        assert {client.allocate(family=family) for client in clients} == wanted
        with pytest.raises(Refused) as refused:
            connect(server=(ADDRESSES[0], 3478)).allocate(family=family)
        assert refused.value.code == 508


def test_a_port_that_another_program_holds_is_skipped(start, asked, connect):
    """Ports of the range that are taken cost nobody an allocation."""
    start(asked, relay={"addresses": ADDRESSES[:1], "ports": "50000-50003"})
    with asked.udp(ADDRESSES[0], 50001), asked.udp("0.0.0.0", 50002, socket.AF_INET):
        clients = [connect(server=(ADDRESSES[0], 3478)) for _ in range(2)]
        assert {client.allocate()[1] for client in clients} == {50000, 50003}


def test_listeners_on_several_ports(start, asked, connect):
    """Each listener serves, and only where it listens."""
    listen = [f"{ADDRESSES[0]}:3478", f"{ADDRESSES[1]}:4000", f"[{ADDRESSES[2]}]:5000"]
    relay = start(asked, listen={"udp": listen})
    for server in ((ADDRESSES[0], 3478), (ADDRESSES[1], 4000), (ADDRESSES[2], 5000)):
        assert connect(server=server).binding()
    with pytest.raises(OSError):
        relay.host.udp(ADDRESSES[1], 4000)
    relay.host.udp(ADDRESSES[1], 3478).close()


def link_local(host):
    """A host's link-local address, once it may be used."""
    show = ["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link", "-tentative"]
    return eventually(lambda: host.run(*show)).split()[3].split("/")[0]


def test_link_local_clients(start, host, clients, connect):
    """A client that knows the relay by its link-local address is answered from that, and relays."""
    start(host)
    address, _ = link_local(host), link_local(clients)
    with clients.inside():
        scope = socket.if_nametoindex("eth0")
    client = connect(server=(address, 3478, 0, scope), source="::")
    assert client.binding()[0].startswith("fe80:")
    assert client.allocate(family=stun.IPV4)[0] == host.v4
    with clients.udp() as peer:
        client.permit(clients.v4)
        client.send(peer.getsockname(), b"out")
        assert peer.recvfrom(100) == (b"out", client.relayed)
        peer.sendto(b"back", client.relayed)
        received = client.receive()
        assert received.payload == b"back" and received.source[0].split("%")[0] == address
