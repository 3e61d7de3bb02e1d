"""Responses come from the server address that the client used; relayed addresses are the configured ones."""

import signal
import socket
import sys
import time

import pytest

import stun
from conftest import ALICE
from hosts import eventually
from relay import PASSWORD, USER
from turn import Client, Refused, User, error_code

ADDRESSES = ["203.0.113.50", "203.0.113.51", "2001:db8:1::50", "2001:db8:1::51"]

# Runs a program that may not open netlink sockets: a seccomp filter fails socket(AF_NETLINK) with EAFNOSUPPORT, as systemd's
# RestrictAddressFamilies does.
NO_NETLINK = """
import ctypes, errno, os, platform, struct, sys
number, arch = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}[platform.machine()]
code = [(0x20, 0, 0, 4), (0x15, 0, 5, arch), (0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, 16),
        (0x06, 0, 0, 0x00050000 | errno.EAFNOSUPPORT), (0x06, 0, 0, 0x7FFF0000)]
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filter)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


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


def test_the_relayed_address_is_the_one_the_client_came_in_by(workers, start, multihomed, connect):
    """With several relayed addresses of a family, a client gets the one that it sent its request to; the other family's
    address may be any.
    """
    start(multihomed, workers=workers, relay={"addresses": ADDRESSES}, listen={"udp": ["0.0.0.0", "[::]"], "tcp": ["0.0.0.0"]})
    six = (stun.ADDITIONAL_ADDRESS_FAMILY, bytes([stun.IPV6, 0, 0, 0]))
    for address in ADDRESSES:
        family = stun.IPV6 if ":" in address else stun.IPV4
        for _ in range(6):
            assert connect(server=(address, 3478)).allocate(family=family)[0] == address
    assert {connect(server=(ADDRESSES[0], 3478)).allocate(six)[0] for _ in range(6)} == {ADDRESSES[0]}
    # A client that came in by the other family.
    got = {connect(server=(ADDRESSES[2], 3478)).allocate(family=stun.IPV4)[0] for _ in range(20)}
    assert got == set(ADDRESSES[:2])


@pytest.mark.parametrize("late", ["203.0.113.60/24", "2001:db8:1::60/64"])
def test_a_configured_address_that_is_late(late, start, host, connect):
    """A service starts before the network: the relay serves Binding requests, is not ready, and relays once the address is
    there. Clients are refused with 508, not 440, until then.
    """
    address = late.split("/")[0]
    family = stun.IPV6 if ":" in address else stun.IPV4
    relay = start(host, relay={"addresses": [address]}, wait=False)
    eventually(lambda: relay.lines("workers run"))
    assert connect().binding()
    assert error_code(connect().allocate, family=family) == 508
    status, _, reason = relay.get("/readyz")
    assert status == 503 and f"{address}: this machine does not have it" in reason
    assert [line for line in relay.lines(level="WARN") if "the relay waits" in line["message"]]
    host.add_address(late)
    relay.wait_until_healthy()
    assert connect().allocate(family=family)[0] == address
    assert relay.line(f"relayed address added: {address} (configured)")
    assert relay.metric("relay_addresses") == 1


def test_a_tentative_address(start, host, connect, peers):
    """An IPv6 address under duplicate address detection is waited for; one that another host has is named."""
    late, taken = "2001:db8:1::61", "2001:db8:1::62"
    peers.add_address(f"{taken}/64")
    for address in (late, taken):
        host.run("ip", "address", "add", f"{address}/64", "dev", "eth0")
    relay = start(host, relay={"addresses": [late, taken]}, wait=False)
    relay.wait_until_healthy()
    assert connect().allocate(family=stun.IPV6)[0] == late
    relay.line(
        f"relay.addresses: waiting for {taken}: duplicate address detection has failed: another host on its link has it; "
        "it relays as soon as it can be used (`ip addr` lists those that can)"
    )


def test_a_configured_address_comes_and_goes(start, host, connect, peers):
    """A relayed address that is removed is not used any more, and health says so if it was the last. It is used again when
    it returns, and allocations that survived relay again.
    """
    address = "203.0.113.63"
    host.add_address(f"{address}/24")
    relay = start(host, relay={"addresses": [address]})
    client = connect()
    client.allocate()
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        host.run("ip", "address", "del", f"{address}/24", "dev", "eth0")
        eventually(lambda: relay.get("/healthz")[0] == 503)
        assert relay.get("/livez")[0] == 200
        assert error_code(connect().allocate) == 508
        relay.line(f"relayed address removed: {address} is not an address of this machine any more; "
            "new allocations do not use it; running ones cannot relay any more")
        host.add_address(f"{address}/24")
        relay.wait_until_healthy()
        assert connect().allocate()[0] == address
        client.send_channel(channel, b"again")
        assert peer.recvfrom(100)[0] == b"again"


def test_a_discovered_address_that_is_replaced(start, switch, clients):
    """The default route's source address changes: new allocations use the new one, and health stays good. Clients that relay to
    each other at the former one go on while the machine has it; what else is there stays closed.
    """
    host = switch.host("relay", ["203.0.113.70/24"])
    # The second address outlives the first.
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
    host.run("ip", "route", "add", "default", "dev", "eth0", "src", "203.0.113.70")
    relay = start(host, relay={"addresses": []})
    server = ("203.0.113.70", 3478)
    with Client(clients, server, ALICE) as before, Client(clients, server, ALICE) as other:
        assert before.allocate()[0] == other.allocate()[0] == "203.0.113.70"
        there, back = before.bind(other.relayed), other.bind(before.relayed)
        host.add_address("203.0.113.71/24")
        host.run("ip", "route", "replace", "default", "dev", "eth0", "src", "203.0.113.71")
        relay.line("relayed address added: 203.0.113.71 (source address of the default route)")
        relay.line(
            "relayed address removed: 203.0.113.70 is not the address to relay with any more; new allocations do not use it; "
            "running ones continue until their clients end them"
        )
        assert before.refresh() == 600
        before.send_channel(there, b"there")
        assert other.receive()[:2] == (back, b"there")
        other.send_channel(back, b"back")
        assert before.receive()[:2] == (there, b"back")
        assert error_code(before.bind, ("203.0.113.70", 7882)) == 403
        host.run("ip", "address", "del", "203.0.113.70/24", "dev", "eth0")
    with Client(clients, ("203.0.113.71", 3478), ALICE) as after:
        eventually(lambda: after.allocate()[0] == "203.0.113.71")
    assert relay.get("/healthz")[0] == 200
    # IPv6 that is late is picked up.
    host.add_address("2001:db8:1::70/64")
    host.run("ip", "-6", "route", "add", "default", "dev", "eth0")
    relay.line("relayed address added: 2001:db8:1::70 (source address of the default route)")
    with Client(clients, ("2001:db8:1::70", 3478), ALICE) as client:
        assert client.allocate(family=stun.IPV6)[0] == "2001:db8:1::70"


def test_a_listener_whose_address_is_late(start, host, clients, connect):
    """Listeners at an address that this machine does not have yet serve clients once it has, over UDP, TCP and HTTP."""
    address = "203.0.113.80"
    listen = {"udp": [f"{host.v4}:3478", f"{address}:3479"], "tcp": [f"{address}:3479"]}
    relay = start(host, listen=listen, http={"listen": ["127.0.0.1:9641", f"{address}:9641"]})
    for what, port in (("udp", 3479), ("tcp", 3479), ("http", 9641)):
        waits = f"{what} {address}:{port}: this machine does not have the address yet; it is served once it has"
        relay.line(waits)
    again = start(host, listen=listen, wait=False)
    assert again.process.wait(30) == 1 and "already in use (another hairpin?)" in again.log
    host.add_address(f"{address}/24")
    relay.line(f"udp {address}:3479: this machine has the address now; it is served")
    assert connect(server=(address, 3479)).allocate()
    clients.tcp(address, 3479).close()
    assert relay.get("/healthz", (address, 9641))[0] == 200


@pytest.mark.parametrize("netlink", [True, False], ids=["netlink", "polled"])
def test_addresses_are_followed(netlink, start, host, connect):
    """Without netlink, as under RestrictAddressFamilies, addresses are read at intervals instead."""
    wrapper = [] if netlink else [sys.executable, "-c", NO_NETLINK]
    relay = start(host, relay={"addresses": [host.v4, "203.0.113.90"]}, process={"wrapper": wrapper})
    if not netlink:
        relay.line("addresses cannot be followed by netlink; they are read every 3 s instead")
    host.add_address("203.0.113.90/32")
    relay.line("relayed address added: 203.0.113.90 (configured)")
    assert connect(server=("203.0.113.90", 3478)).allocate()[0] == "203.0.113.90"
    assert relay.metric("relay_address_changes_total") == 1
    host.run("ip", "address", "del", "203.0.113.90/32", "dev", "eth0")
    relay.becomes("relay_addresses", 1)
    assert relay.metric("relay_address_changes_total") == 2


def test_many_addresses_in_a_life(start, host, connect):
    """A machine whose address rotates does not run out of relay addresses."""
    relay = start(host, relay={"addresses": ["203.0.113.91"]}, wait=False)
    for n in range(5):
        host.add_address("203.0.113.91/24")
        relay.wait_until_healthy()
        assert connect().allocate()[0] == "203.0.113.91"
        host.run("ip", "address", "del", "203.0.113.91/24", "dev", "eth0")
        eventually(lambda: relay.get("/readyz")[0] == 503)


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


@pytest.mark.parametrize("netlink", [True, False], ids=["netlink", "polled"])
@pytest.mark.parametrize("kind", ["address", "ipv6", "local-route", "loopback"])
def test_own_addresses_are_closed_when_they_appear(kind, netlink, start, host, connect):
    """An address that becomes this machine's own while the relay runs is closed to peers, also to those that have a
    permission; one that `peers.allow` names exactly is open but for the relay's listeners.
    """
    add, closed, named = {
        "address": (["address", "add", "{}/32", "dev", "eth0"], "203.0.113.44", "203.0.113.45"),
        "ipv6": (["address", "add", "{}/128", "dev", "eth0", "nodad"], "2001:db8:1::44", "2001:db8:1::45"),
        "local-route": (["route", "add", "local", "{}/32", "dev", "lo"], "198.51.100.44", "198.51.100.45"),
        "loopback": (["address", "add", "{}/32", "dev", "lo"], "198.51.100.46", "198.51.100.47"),
    }[kind]
    allow = ["203.0.113.0/24", "2001:db8:1::/64", "198.51.100.0/24", named]
    wrapper = [] if netlink else [sys.executable, "-c", NO_NETLINK]
    family = stun.IPV6 if kind == "ipv6" else stun.IPV4
    relay = start(host, peers={"allow": allow}, process={"wrapper": wrapper})
    client = connect()
    client.allocate(family=family)
    client.permit(closed, named)
    for address in (closed, named):
        host.run("ip", *[word.format(address) for word in add])
    with host.udp(closed) as service, host.udp(named) as open_one:

        def is_closed():
            """the address is closed"""
            client.send(service.getsockname(), b"knock")
            service.settimeout(0.3)
            try:
                return not service.recvfrom(100)
            except TimeoutError:
                return True

        eventually(is_closed)
        for _ in range(3):
            assert is_closed(), "it stays closed"
        client.permit(named)
        client.send(open_one.getsockname(), b"hello")
        assert open_one.recvfrom(100)[0] == b"hello"
    client.drain()
    binding, _ = client.prepare(stun.BINDING, sign=False)
    client.send((named, 3478), binding)
    with pytest.raises(TimeoutError):
        client.receive(0.5)
    assert relay.reaches("dropped_packets_total", 1, reason="forbidden_port")


def test_a_local_range(start, host, connect):
    """A range that is this machine's own (AnyIP) is closed as a whole, unless a rule lies within it; a default route of type
    local, as a transparent proxy has it, closes nothing.
    """
    host.run("ip", "route", "add", "local", "10.9.8.0/24", "dev", "lo")
    host.run("ip", "route", "add", "local", "default", "dev", "lo", "table", "100")
    start(host, peers={"allow": ["10.9.0.0/16", "10.9.8.128/25", "203.0.113.0/24"]})
    client = connect()
    client.allocate()
    judged = {"10.9.8.7": False, "10.9.8.200": True, "10.9.7.7": True, "203.0.113.99": True}
    for address, expected in judged.items():
        assert (error_code(client.bind, (address, 5000)) == 0) == expected, address
    with host.udp("10.9.8.200") as service:
        client.bind(service.getsockname())
        client.send(service.getsockname(), b"named")
        assert service.recvfrom(100)[0] == b"named"


def test_an_address_that_is_not_here_is_not_used_though_it_can_be_bound(start, host, connect):
    """With ip_nonlocal_bind, as keepalived wants it, every address can be bound; only the machine's own relay."""
    host.run("sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1")
    relay = start(host, relay={"addresses": [host.v4, "203.0.113.95"]})
    assert {connect().allocate()[0] for _ in range(6)} == {host.v4}
    assert relay.metric("relay_addresses", family="ipv4") == 1
    host.add_address("203.0.113.95/32")
    relay.becomes("relay_addresses", 2, family="ipv4")


@pytest.mark.parametrize("address", ["203.0.113.96/32", "2001:db8:1::96/128"])
def test_an_interface_comes_and_goes(address, start, host, connect):
    """The addresses of an interface that is removed are not used any more, and are used again with the next one."""
    add = ["ip", "link", "add", "spare", "type", "veth", "peer", "name", "other"]
    family = stun.IPV6 if ":" in address else stun.IPV4
    ip = address.split("/")[0]
    relay = start(host, relay={"addresses": [ip]}, wait=False)
    for _ in range(2):
        host.run(*add)
        host.run("ip", "link", "set", "other", "up")
        host.run("ip", "link", "set", "spare", "up")
        host.add_address(address, interface="spare")
        relay.wait_until_healthy()
        assert connect().allocate(family=family)[0] == ip
        host.run("ip", "link", "del", "spare")
        eventually(lambda: relay.get("/readyz")[0] == 503)


def test_an_external_address_whose_inside_is_late(start, host, connect, peers):
    """Clients are told the external address as soon as the one behind it relays."""
    relay = start(host, relay={"addresses": ["203.0.113.97"], "external_ip": ["198.51.100.97/203.0.113.97"]}, wait=False)
    eventually(lambda: relay.lines("workers run"))
    host.add_address("203.0.113.97/32")
    relay.wait_until_healthy()
    assert connect().allocate()[0] == "198.51.100.97"
    relay.line("relayed address added: 203.0.113.97 (configured), advertised as 198.51.100.97 (relay.external_ip)")
    [one, other] = [connect() for _ in range(2)]
    one.allocate(), other.allocate()
    one.permit(other.relayed[0]), other.permit(one.relayed[0])
    one.send(other.relayed, b"hello")
    assert other.receive()[:2] == (one.relayed, b"hello")


def test_credentials_survive_a_change_of_addresses(start, host, connect):
    """A snapshot for new addresses keeps the credentials of the last reload, and nonces and allocations stay valid."""
    relay = start(host, relay={"addresses": [host.v4]}, peers={"allow": []})
    client = connect()
    client.allocate()
    file = relay.folder / "hairpin.toml"
    file.write_text(file.read_text().replace(PASSWORD, "another password"))
    relay.process.send_signal(signal.SIGHUP)
    relay.line("SIGHUP: the configuration is reloaded: 1 setting has changed; running calls continue")
    host.add_address("203.0.113.98/32")
    time.sleep(1)
    assert client.refresh() == 600
    assert connect(User(USER, "another password")).allocate()
    assert error_code(connect().allocate) == 401


@pytest.mark.parametrize("netlink", [True, False], ids=["netlink", "polled"])
def test_ipv6_ranges_and_anycast(netlink, start, host, connect):
    """A local range of IPv6 and the subnet-router anycast address (RFC 4291 §2.6.1) are this machine's own, too."""
    wrapper = [] if netlink else [sys.executable, "-c", NO_NETLINK]
    start(host, process={"wrapper": wrapper})
    client = connect()
    client.allocate(family=stun.IPV6)
    own = ["2001:db8:1::", "2001:db8:1:0:8000::7"]
    for address in own:
        client.bind((address, 5000))
    host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    host.run("ip", "-6", "route", "add", "local", "2001:db8:1:0:8000::/80", "dev", "lo")
    for address in own:
        eventually(lambda: error_code(client.permit, address) == 403 or error_code(client.bind, (address, 6000)) == 403)
    client.permit("2001:db8:1:0:7000::7")
