"""`relay.external_ip`: the relay behind a one-to-one NAT without hairpinning, as in clouds."""

import pytest

import stun
from hosts import eventually
from meetings import all_pairs_meet, meet_over_channels, one_client_per_worker
from nat import INSIDE, OUTSIDE, hairpin_drops, host_behind, make_router
from streams import StreamClient
from turn import error_code

@pytest.fixture
def router(switch, tmp_path):
    """The NAT."""
    return make_router(switch, tmp_path)


@pytest.fixture
def host(router):
    """The relay's host behind the NAT, with private addresses only."""
    host = host_behind(router)
    yield host
    host.close()


@pytest.fixture
def relay(start, host, tls):
    """A relay with four workers that knows its external addresses."""
    return start(host, workers=4, relay={"addresses": INSIDE, "external_ip": OUTSIDE}, tls=tls)


@pytest.fixture
def reach(connect):
    """Creates clients that use the relay's external addresses."""
    return lambda family=stun.IPV4: connect(server=(OUTSIDE[family == stun.IPV6], 3478))


@pytest.mark.parametrize("family", [stun.IPV4, stun.IPV6])
def test_a_peer_outside(family, relay, reach, clients, peers):
    """RFC 8656 §7.2, §11, §12: the relayed transport address has the external IP address; a peer can send to it and
    receives the client's data from it.
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
    """RFC 8656 §7.2: each relayed transport address of a dual allocation has the external IP address of its family."""
    client = reach()
    client.allocate((stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0])))
    assert [client.relayed[0], client.relayed_v6[0]] == OUTSIDE


@pytest.mark.parametrize("family", [stun.IPV4, stun.IPV6])
def test_two_clients_meet(family, router, host, relay, reach):
    """RFC 8656 §9, §12: clients of one relay reach each other at their external addresses, between all pairs of
    workers, although the NAT would drop such packets.
    """
    all_pairs_meet(one_client_per_worker(relay, lambda: reach(family), family))
    assert hairpin_drops(router) == 0
    local, external = (pair[family == stun.IPV6] for pair in (INSIDE, OUTSIDE))
    with host.udp(local) as witness:
        witness.sendto(b"in vain", (external, 9))
    assert hairpin_drops(router) == 1, "the NAT drops such packets"


def test_a_stream_client_meets_one_over_udp(relay, reach, clients):
    """RFC 8656 §2.1: a TCP client and a UDP client reach each other in the same way."""
    one, other = reach(), StreamClient(clients, (OUTSIDE[0], 3478), reach().user)
    for client in (one, other):
        assert client.allocate()[0] == OUTSIDE[0]
    meet_over_channels(one, other)
    other.socket.close()


def test_the_address_behind_the_nat_is_open_at_live_ports(relay, host, reach):
    """RFC 8656 §9, §21: clients may use the external address as a peer, and the private address behind it: of both, only
    ports that hold an allocation are reached, and no service of the relay's machine.
    """
    one, other = reach(), reach()
    one.allocate()
    port = other.allocate()[1]
    other.permit(OUTSIDE[0])
    one.permit(OUTSIDE[0])
    one.permit(INSIDE[0])
    with host.udp(INSIDE[0], 7882) as service:
        one.send((INSIDE[0], 7882), b"to a service")
        assert error_code(one.bind, (INSIDE[0], 7882)) == 403
        one.send((INSIDE[0], port), b"to an allocation")
        assert other.receive()[1] == b"to an allocation"
        service.settimeout(0.2)
        with pytest.raises(TimeoutError):
            service.recvfrom(100)


@pytest.mark.parametrize("named", ["outside", "inside"])
def test_a_server_beside_the_relay(named, router, start, host, reach):
    """RFC 8656 §9: a server on the relay's machine, allowed by its inside address, is reached by both names of the
    machine without passing the NAT. What it sends comes from the address that the client used.
    """
    allow = ["10.0.0.5:7000-7999", "[fd00::5]:7000-7999"]
    start(host, relay={"addresses": INSIDE, "external_ip": OUTSIDE, "ports": "50000-50099"}, peers={"allow": allow})
    for family, pair in ((stun.IPV4, (OUTSIDE[0], INSIDE[0])), (stun.IPV6, (OUTSIDE[1], INSIDE[1]))):
        name, inside = pair[named == "inside"], pair[1]
        client = reach(family)
        client.allocate(family=family)
        with host.udp(inside, 7882) as sfu:
            client.permit(name)
            client.send((name, 7882), b"by indication")
            payload, source = sfu.recvfrom(100)
            assert payload == b"by indication" and source[0] == inside
            sfu.sendto(b"back", source)
            assert client.receive()[:2] == ((name, 7882), b"back")
            channel = client.bind((name, 7882))
            client.send_channel(channel, b"by channel")
            assert sfu.recvfrom(100)[0] == b"by channel"
            sfu.sendto(b"back again", source)
            assert client.receive()[:2] == (channel, b"back again")
            assert error_code(client.bind, (name, 6999)) == 403
    assert hairpin_drops(router) == 0


def test_another_machine_behind_the_same_address(router, start, host, reach):
    """An external address that is allowed exactly is another machine behind the same NAT, not a server here. Without
    that, the packet is dropped, and the log names the entries for both.
    """
    where = {"addresses": INSIDE, "external_ip": OUTSIDE}
    relay = start(host, relay=where, peers={"allow": [OUTSIDE[0]]})
    client = reach()
    client.allocate()
    with host.udp(INSIDE[0], 7882) as service:
        client.permit(OUTSIDE[0])
        client.send((OUTSIDE[0], 7882), b"elsewhere")
        # This NAT hairpins nothing, but the packet went there
        eventually(lambda: hairpin_drops(router) == 1)
        service.settimeout(0.3)
        with pytest.raises(TimeoutError):
            service.recvfrom(100)
        service.sendto(b"not from elsewhere", (INSIDE[0], client.relayed[1]))
        relay.becomes("dropped_packets_total", 1, reason="forbidden_port")
    assert relay.stop() == 0

    relay = start(host, relay=where)
    client = reach()
    client.allocate()
    client.permit(OUTSIDE[0])
    client.send((OUTSIDE[0], 7882), b"nowhere")
    line = eventually(lambda: [line for line in relay.lines(level="WARN") if "dropped" in line["message"]])[0]
    assert 'add "10.0.0.5:7882" to peers.allow' in line["message"]
    assert 'add "203.0.113.100:7882"' in line["message"]
