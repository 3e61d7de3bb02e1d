"""Responses come from the server address that the client used; relayed addresses are the configured ones."""

import socket

import pytest

import stun
from hosts import eventually
from turn import Refused, error_code

ADDRESSES = ["203.0.113.50", "203.0.113.51", "2001:db8:1::50", "2001:db8:1::51"]


@pytest.fixture
def multihomed(switch):
    """A host with two addresses per family."""
    return switch.host("relay", [f"{address}/{64 if ':' in address else 24}" for address in ADDRESSES])


@pytest.mark.parametrize("address", ADDRESSES)
def test_responses_come_from_the_address_used(address, workers, multihomed, start, connect, peers):
    """RFC 8656 §7.2, §11.3, §12.7: with a wildcard listener, everything a client receives comes from the server address
    it sends to.
    """
    start(multihomed, workers=workers)
    client = connect(server=(address, 3478))
    # `ask` returns the whole response, including its source address.
    for method, attributes, code in (
        (stun.BINDING, [], 0),
        (stun.BINDING, [(0x0003, bytes(4))], 420),
        (stun.ALLOCATE, [], 401),
        (stun.REFRESH, [], 401),
    ):
        response = client.ask(method, *attributes, sign=False)
        assert (response.code, response.source[:2]) == (code, (address, 3478))
    client.allocate()
    with pytest.raises(Refused) as refused:
        client.permit("127.0.0.1")
    assert (refused.value.code, refused.value.response.source[:2]) == (403, (address, 3478))
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


def test_allocations_are_per_server_address(start, multihomed, connect):
    """RFC 8656 §2.2, §5: a 5-tuple includes the server's address, so one client socket can have an allocation per
    server address.
    """
    relay = start(multihomed)
    client = connect(server=(ADDRESSES[0], 3478))
    client.allocate()
    client.server = (ADDRESSES[1], 3478)
    assert error_code(client.refresh) == 437
    client.allocate()
    relay.becomes("allocations", 2)


def test_relayed_addresses_are_those_configured(start, multihomed, connect):
    """All configured addresses of a family are used, each with its own port range."""
    start(multihomed, relay={"addresses": ADDRESSES, "ports": "50000-50003"})
    for family in (stun.IPV4, stun.IPV6):
        wanted = {
            (a, port)
            for a in ADDRESSES
            for port in range(50000, 50004)
            if (":" in a) == (family == stun.IPV6)
        }
        clients = [connect(server=(ADDRESSES[0], 3478)) for _ in wanted]
        assert {client.allocate(family=family) for client in clients} == wanted
        client = connect(server=(ADDRESSES[0], 3478))
        assert error_code(client.allocate, family=family) == 508


def test_a_port_that_another_program_holds_is_skipped(start, multihomed, connect):
    """Ports of the range that another program holds are skipped; no Allocate fails because of them."""
    start(multihomed, relay={"addresses": ADDRESSES[:1], "ports": "50000-50003"})
    with multihomed.udp(ADDRESSES[0], 50001), multihomed.udp("0.0.0.0", 50002, socket.AF_INET):
        clients = [connect(server=(ADDRESSES[0], 3478)) for _ in range(2)]
        assert {client.allocate()[1] for client in clients} == {50000, 50003}


def test_listeners_on_several_ports(start, multihomed, connect):
    """Every listener serves clients, and only at its own address."""
    listen = [f"{ADDRESSES[0]}:3478", f"{ADDRESSES[1]}:4000", f"[{ADDRESSES[2]}]:5000"]
    relay = start(multihomed, listen={"udp": listen})
    for server in ((ADDRESSES[0], 3478), (ADDRESSES[1], 4000), (ADDRESSES[2], 5000)):
        assert connect(server=server).binding()
    with pytest.raises(OSError):
        relay.host.udp(ADDRESSES[1], 4000)
    relay.host.udp(ADDRESSES[1], 3478).close()


def link_local(host):
    """A host's link-local address, once duplicate address detection has finished."""
    show = ["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link", "-tentative"]
    return eventually(lambda: host.run(*show)).split()[3].split("/")[0]


def test_link_local_clients(start, host, clients, connect):
    """A client that uses the relay's link-local address is answered from that address and can relay."""
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
