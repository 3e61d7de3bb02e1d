"""Which peers the relay can be used to reach: an address of each range that is denied by default, tested through the
running relay.

No packet is sent to these addresses, because the hosts here have no route to them.
"""

import pytest

import stun
from hosts import eventually
from turn import error_code

# One address per range that is not globally reachable, and every form of an IPv4 address embedded in an IPv6 address.
REFUSED = {
    "this network": "0.0.0.0",
    "this network, another": "0.1.2.3",
    "private 10/8": "10.1.2.3",
    "carrier-grade NAT": "100.64.0.1",
    "loopback": "127.0.0.1",
    "loopback, another": "127.8.8.8",
    "link-local": "169.254.1.1",
    "cloud metadata": "169.254.169.254",
    "private 172.16/12": "172.31.255.254",
    "protocol assignments": "192.0.0.8",
    "documentation 1": "192.0.2.1",
    "6to4 relays": "192.88.99.1",
    "private 192.168/16": "192.168.1.1",
    "benchmarking": "198.19.255.254",
    "documentation 2": "198.51.100.1",
    "multicast": "224.0.0.251",
    "multicast, last": "239.255.255.250",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "unspecified": "::",
    "loopback 6": "::1",
    "local NAT64": "64:ff9b:1::1",
    "discard": "100::1",
    "benchmarking 6": "2001:2::1",
    "ORCHID": "2001:10::1",
    "ORCHID 2": "2001:1f::1",
    "documentation 6": "2001:db8:ffff::1",
    "documentation 6, new": "3fff::1",
    "segment routing": "5f00::1",
    "unique local": "fd00::1",
    "link-local 6": "fe80::1",
    "site-local": "fec0::1",
    "multicast 6": "ff02::1",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped global": "::ffff:8.8.8.8",
    "compatible": "::127.0.0.1",
    "6to4": "2002:7f00:1::1",
    "Teredo": "2001:0:1::1",
    "NAT64 of loopback": "64:ff9b::127.0.0.1",
    "NAT64 of metadata": "64:ff9b::169.254.169.254",
    "IPv4-translated": "::ffff:0:8.8.8.8",
    "reserved 6, low": "64:ff9a::1",
    "reserved 6, 200::/7": "200::1",
    "reserved 6, 1000::/4": "1fff::1",
    "reserved 6, 4000::/3": "4000::1",
    "reserved 6, 6000::/3": "7fff::1",
    "reserved 6, 8000::/1": "8000::1",
    "reserved 6, fe00::/9": "fe00::1",
    "protocol assignments 6": "2001:100::1",
}


def v4_and_v6(connect):
    """A client with a dual allocation, which accepts peers of both families."""
    client = connect()
    client.allocate((stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0])))
    assert client.relayed_v6
    return client


def test_every_range_is_refused(start, host, connect):
    """RFC 8656 §9, §10.2, §12.2, §21.4: CreatePermission and ChannelBind refuse each of these addresses with 403."""
    relay = start(host, peers={"allow": []})
    client = v4_and_v6(connect)
    for name, address in REFUSED.items():
        assert error_code(client.permit, address) == 403, name
        assert error_code(client.permit, (address, 9)) == 403, name
        assert error_code(client.bind, (address, 9)) == 403, name
    relay.becomes("responses_total", 2 * len(REFUSED), method="CreatePermission", outcome="403")
    relay.becomes("responses_total", len(REFUSED), method="ChannelBind", outcome="403")
    assert relay.metric("permissions") == relay.metric("channels") == 0
    assert error_code(client.permit, "8.8.8.8") == error_code(client.permit, "2600::1") == 0, (
        "global addresses are allowed"
    )


def test_send_needs_a_permission(start, host, connect, peers):
    """RFC 8656 §11.2: a Send indication to a peer without permission is dropped, one to a permitted peer is relayed."""
    relay = start(host)
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        client.send(peer.getsockname(), b"too early")
        relay.becomes("dropped_packets_total", 1, reason="no_permission")
        client.permit(peers.v4)
        client.send(peer.getsockname(), b"now")
        assert peer.recvfrom(100)[0] == b"now"


def test_one_denied_address_rejects_the_request(start, host, connect, peers):
    """RFC 8656 §10.2: if one address in a CreatePermission request is refused, no permission is installed."""
    relay = start(host)
    client = connect()
    client.allocate()
    for addresses in ((peers.v4, "127.0.0.1"), ("127.0.0.1", peers.v4), (peers.v4, "10.0.0.1", peers.v4)):
        assert error_code(client.permit, *addresses) == 403
    with peers.udp() as peer:
        peer.sendto(b"not permitted", client.relayed)
        relay.becomes("dropped_packets_total", 1, reason="no_permission")
    assert relay.metric("permissions") == 0
    client.permit(peers.v4, "8.8.8.8", "8.8.4.4")
    relay.becomes("permissions", 3)


def test_the_relays_own_endpoints(start, host, connect):
    """Listeners and the metrics port are never allowed as peers at any address of the machine, whatever `peers.allow`
    says.
    """
    everything = ["0.0.0.0/0", "127.0.0.0/8", f"{host.v4}/32", "::1/128", f"{host.v6}/128"]
    relay = start(host, peers={"allow": everything}, http={"listen": ["127.0.0.1:9641"]})
    client = v4_and_v6(connect)
    for endpoint in (
        (host.v4, 3478),
        ("127.0.0.1", 3478),
        ("127.0.0.1", 9641),
        (host.v6, 3478),
        ("::1", 3478),
    ):
        assert error_code(client.bind, endpoint) == 403, endpoint
    # A permission covers all ports of an address, so each datagram is checked again.
    client.permit("127.0.0.1", host.v4)
    client.send((host.v4, 3478), b"to itself")
    client.send(("127.0.0.1", 3478), b"to itself")
    relay.becomes("dropped_packets_total", 2, reason="forbidden_port")


def test_own_relayed_address_without_an_allocation(start, host, connect):
    """On the relay's own addresses only ports with a live allocation are reachable; every datagram is checked."""
    relay = start(host, peers={"allow": []})
    one, other = connect(), connect()
    one.allocate(), other.allocate()
    one.permit(host.v4)
    other.permit(host.v4)
    with host.udp(host.v4) as service:  # another service on the relay's machine
        service.settimeout(0.5)
        assert error_code(one.bind, service.getsockname()) == 403
        one.send(service.getsockname(), b"knock")
        relay.becomes("dropped_packets_total", 1, reason="forbidden_port")
        with pytest.raises(TimeoutError):
            service.recvfrom(100)
    one.send(other.relayed, b"hello")
    assert other.receive()[:2] == (one.relayed, b"hello")
    gone = other.relayed
    other.refresh(0)
    one.send(gone, b"still there?")
    relay.becomes("dropped_packets_total", 2, reason="forbidden_port")


def receives_nothing(service):
    """Whether nothing arrives at a socket."""
    service.settimeout(0.3)
    try:
        service.recvfrom(100)
    except TimeoutError:
        return True
    return False


def dropped_packets(relay):
    """The log lines about packets to ports of the relay's machine."""
    return [line for line in relay.lines(level="WARN") if "dropped a packet" in line["message"]]


OWN_CLOSED = "the address is this relay's own and no allocation lives on that port"


def test_other_addresses_of_the_relays_machine(start, host, connect):
    """RFC 8656 §21: a service on another address of the relay's machine is behind its firewall, whatever range is
    allowed; the listeners stay closed there even if the address is allowed.
    """
    second = "203.0.113.77"
    host.add_address(f"{second}/24")
    relay = start(host, peers={"allow": ["203.0.113.0/24", "0.0.0.0/0"]})
    client = connect()
    client.allocate()
    for address in (second, "127.0.0.1", "127.0.0.5"):
        with host.udp(address) as service:
            assert error_code(client.bind, service.getsockname()) == 403
            error_code(client.permit, address)
            client.send(service.getsockname(), b"knock")
            assert receives_nothing(service)
            [line] = relay.lines("refused", peer="{}:{}".format(*service.getsockname()))
            assert 'add "{}:{}" to peers.allow'.format(*service.getsockname()) in line["fix"]
    assert relay.stop() == 0

    relay = start(host, peers={"allow": [second, "127.0.0.0/8"]})
    client = connect()
    client.allocate()
    for address in (second, "127.0.0.1", "127.0.0.5"):
        assert error_code(client.bind, (address, 3478)) == error_code(client.bind, (address, 9641)) == 403
        with host.udp(address) as service:
            channel = client.bind(service.getsockname())
            client.send_channel(channel, b"hello")
            payload, source = service.recvfrom(100)
            assert (payload, source) == (b"hello", client.relayed)
            service.sendto(b"back", source)
            assert client.receive()[:2] == (channel, b"back")


@pytest.mark.parametrize("family", [stun.IPV4, stun.IPV6])
def test_a_server_on_the_relays_own_address(family, start, host, connect):
    """RFC 8656 §9, §21: `peers.allow` opens single ports of the relay's own address, as for an SFU on the same machine;
    other services there stay closed, and clients still meet.
    """
    own = host.v6 if family == stun.IPV6 else host.v4
    named = f"[{own}]" if family == stun.IPV6 else own
    start(host, peers={"allow": [f"{named}:7000-7999"]}, relay={"ports": "50000-50099"})
    client, other = connect(), connect()
    client.allocate(family=family), other.allocate(family=family)
    client.permit(own)
    other.permit(own)
    with host.udp(own, 7882) as sfu, host.udp(own, 6999) as service:
        client.send((own, 7882), b"to the SFU")
        payload, source = sfu.recvfrom(100)
        assert (payload, source[:2]) == (b"to the SFU", client.relayed)
        sfu.sendto(b"back", source)
        assert client.receive()[:2] == ((own, 7882), b"back")
        service.sendto(b"unwanted", source)
        client.send((own, 6999), b"knock")
        assert error_code(client.bind, (own, 6999)) == 403
        assert receives_nothing(service)
        client.send(other.relayed, b"hello")
        assert other.receive()[:2] == (client.relayed, b"hello")
        with pytest.raises(TimeoutError):
            client.receive(0.3)


def test_a_dropped_packet_to_an_own_port_is_logged(start, host, connect):
    """The first packet of an allocation to a closed port of the relay's own address is logged, with the entry that opens
    it; the refusal of a channel says the same. A port that was reached before is not logged.
    """
    relay = start(host, workers=1)
    client, other = connect(), connect()
    client.allocate(), other.allocate()
    client.permit(host.v4)
    client.send(other.relayed, b"hello")
    relay.becomes("relayed_packets_total", 1, direction="to_peer")
    other.refresh(0)
    client.send(other.relayed, b"still there?")
    relay.becomes("dropped_packets_total", 1, reason="forbidden_port")
    assert dropped_packets(relay) == []
    for port in (7882, 7883, 7882):
        client.send((host.v4, port), b"to the SFU")
    relay.becomes("dropped_packets_total", 4, reason="forbidden_port")
    fix = f'to reach a server on this machine, add "{host.v4}:7882" to peers.allow'
    [line] = dropped_packets(relay)
    assert line["message"] == f"dropped a packet to {host.v4}:7882: {OWN_CLOSED}; {fix}"
    assert line["client"] == "{}:{}".format(*client.socket.getsockname())
    assert error_code(client.bind, (host.v4, 7882)) == 403
    line = relay.line("refused", code=403)
    assert (line["reason"], line["fix"]) == (OWN_CLOSED, fix)


def test_the_log_of_dropped_packets_is_bounded(start, host, connect):
    """Many allocations that send to closed ports cause a bounded number of lines, and a summary."""
    relay = start(host, workers=1)
    for _ in range(40):
        client = connect()
        client.allocate()
        client.permit(host.v4)
        client.send((host.v4, 7882), b"to the SFU")
    relay.becomes("dropped_packets_total", 40, reason="forbidden_port")
    lines = dropped_packets(relay)
    assert 1 <= len(lines) <= 20
    summary = "log lines suppressed: dropped packets to closed ports"
    [summary] = eventually(lambda: relay.lines(summary), timeout=30)
    lines = dropped_packets(relay)
    assert summary["count"] + sum(line.get("suppressed", 0) for line in lines) + len(lines) == 40


def test_loopback_can_be_allowed(start, host, connect):
    """`peers.allow = ["::1/128"]` opens the IPv6 loopback address, and `["::1"]` of other addresses nothing."""
    start(host, peers={"allow": ["::1/128"]})
    client = connect()
    client.allocate(family=stun.IPV6)
    assert error_code(client.permit, "::2") == error_code(client.permit, "::") == 403
    with host.udp("::1") as service:
        client.permit("::1")
        client.send(service.getsockname()[:2], b"hello")
        assert service.recvfrom(100)[0] == b"hello"


def test_allocations_are_not_nested(start, host, connect):
    """A request that reaches a listener from a relayed address of the same relay, here through another NAT, is dropped
    and counted.
    """
    relay = start(host)
    forward = "ip daddr 203.0.113.88 udp dport 3478 dnat to 203.0.113.1:3478"
    assert host.v4 == "203.0.113.1"
    host.run(
        "nft", "add table ip forward; add chain ip forward out { type nat hook output priority -100 ; }; "
        f"add rule ip forward out {forward}",
    )
    host.run("ip", "neigh", "add", "203.0.113.88", "lladdr", "02:00:00:00:00:88", "dev", "eth0")
    client = connect()
    client.allocate()
    client.permit("203.0.113.88")
    request, _ = client.prepare(stun.BINDING, sign=False)
    client.send(("203.0.113.88", 3478), request)
    relay.becomes("dropped_packets_total", 1, reason="nested")
    assert relay.line("dropped a request from a relayed address of this relay", reason="nested")["fix"]
    with pytest.raises(TimeoutError):
        client.receive(0.3)


@pytest.mark.parametrize("prefix", ["2002:cb00:7101", "2001:0:cb00"])
def test_tunnelled_clients(prefix, start, host, clients, connect):
    """RFC 8656 §21.4: Allocate and ChannelBind requests from 6to4 and Teredo addresses are refused."""
    host.add_address(f"{prefix}::1/64")
    clients.add_address(f"{prefix}::2/64")
    relay = start(host)
    client = connect(server=(f"{prefix}::1", 3478), source=f"{prefix}::2")
    assert error_code(client.allocate) == error_code(client.bind, ("8.8.8.8", 9)) == 403
    assert "RFC 8656 section 21.4" in relay.line("refused", code=403)["fix"]


def test_ports_in_allow_and_deny(start, host, connect):
    """A rule with ports beats the same prefix without; otherwise the longest prefix decides, and deny wins a tie."""
    allow = ["10.20.0.0/16:5000-6000", "10.30.0.0/16", "10.30.0.5:80", "10.40.0.5:80"]
    deny = ["10.20.30.0/24:5500", "10.30.0.5", "8.8.8.8:53", "9.9.9.0/24", "10.40.0.5:80"]
    start(host, peers={"allow": allow, "deny": deny})
    client = connect()
    client.allocate()
    judged = {
        ("10.20.1.1", 5000): 0,
        ("10.20.1.1", 6000): 0,
        ("10.20.1.1", 4999): 403,
        ("10.20.30.1", 5500): 403,
        ("10.20.30.1", 5501): 0,
        ("10.30.0.4", 1): 0,
        ("10.30.0.5", 80): 0,
        ("10.30.0.5", 81): 403,
        ("10.40.0.5", 80): 403,
        ("8.8.8.8", 53): 403,
        ("8.8.8.8", 54): 0,
        ("9.9.9.9", 53): 403,
    }
    for peer, expected in judged.items():
        assert error_code(client.bind, peer) == expected, peer


def test_allow_and_deny(start, switch, host, connect, peers):
    """The longest matching prefix decides, and configured rules override the defaults."""
    allow = ["10.20.0.0/16", f"{peers.v4}/32"]
    deny = ["10.20.30.0/24", "8.8.8.0/24", "203.0.113.0/24"]
    start(host, peers={"allow": allow, "deny": deny})
    client = connect()
    client.allocate()
    judged = {"10.20.1.1": 0, "10.20.30.1": 403, "10.21.0.1": 403, "8.8.8.8": 403, "8.8.4.4": 0}
    judged |= {peers.v4: 0, "203.0.113.200": 403}
    for address, expected in judged.items():
        assert error_code(client.permit, address) == expected, address


def test_nat64_prefix(start, host, connect):
    """RFC 8656 §21.4: within a configured NAT64 prefix the embedded IPv4 address is checked."""
    start(host, peers={"nat64": ["2a00:64::/96"]})
    client = connect()
    client.allocate(family=stun.IPV6)
    for address, expected in {"2a00:64::8.8.8.8": 0, "2a00:64::10.0.0.1": 403, "64:ff9b::8.8.8.8": 0}.items():
        assert error_code(client.permit, address) == expected, address


def test_family_mismatch(start, host, connect):
    """RFC 8656 §10.2, §12.2: 443 for a peer whose address family the allocation does not have."""
    start(host)
    client = connect()
    client.allocate()
    assert error_code(client.permit, "2600::1") == error_code(client.bind, ("2600::1", 9)) == 443


def test_limits_of_an_allocation(start, host, connect):
    """Permissions and channels per allocation are limited (508); existing ones can still be refreshed."""
    relay = start(host, limits={"permissions": 5, "channels": 3})
    client = connect()
    client.allocate()
    addresses = [f"8.8.8.{n}" for n in range(1, 7)]
    assert [error_code(client.permit, address) for address in addresses] == [0] * 5 + [508]
    assert error_code(client.permit, *addresses[:5]) == 0
    ports = [(addresses[0], port) for port in range(1000, 1004)]
    assert [error_code(client.bind, peer) for peer in ports] == [0] * 3 + [508]
    eventually(lambda: (relay.metric("permissions"), relay.metric("channels")) == (5, 3))
    relay.reaches("responses_total", 1, method="ChannelBind", outcome="508")
    relay.reaches("responses_total", 1, method="CreatePermission", outcome="508")
    client.refresh(0)
    eventually(lambda: (relay.metric("permissions"), relay.metric("channels")) == (0, 0))


def test_port_scans_are_limited(start, host, connect, peers):
    """The number of new peers per second is limited: of many ports of one permitted peer only a few are reached."""
    relay = start(host, limits={"new_peers": 5})
    client = connect()
    client.allocate()
    client.permit(peers.v4)
    for port in range(2000, 2200):
        client.send((peers.v4, port), b"knock")
    relay.reaches("dropped_packets_total", 100, reason="new_peers")
    relay.reaches("relayed_packets_total", 10, direction="to_peer")
