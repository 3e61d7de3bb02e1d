"""What clients of different workers share: reservations, quotas, and each other. Four workers, many 5-tuples."""

import itertools

import pytest

import stun
from hosts import eventually
from relay import SECRET
from turn import time_limited

PAIR = (stun.EVEN_PORT, b"\x80")
TRANSPORT = (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))


def redeeming(token):
    """The attributes that redeem a reservation."""
    return TRANSPORT, (stun.RESERVATION_TOKEN, token)


def at_once(clients, *attributes):
    """Sends one Allocate from each of the clients, all of them before any answer is read; returns the codes."""
    asked = [client.prepare(stun.ALLOCATE, *attributes) for client in clients]
    for client, (raw, _) in zip(clients, asked):
        client.socket.sendto(raw, client.server)
    codes = []
    for client, (raw, transaction) in zip(clients, asked):
        answer = client.answer(transaction, 1)
        while answer is None:  # lost, then: the same request again gets the same answer
            client.socket.sendto(raw, client.server)
            answer = client.answer(transaction, 1)
        if not answer.code:
            client.relayed = answer.address(stun.XOR_RELAYED_ADDRESS)
        codes.append(answer.code)
    return codes


def ready(connect, count):
    """So many clients that have their nonces."""
    made = [connect() for _ in range(count)]
    for client in made:
        client.challenge()
    return made


@pytest.fixture
def relay(start, host):
    """A relay with four workers, each of which is seen to serve before the test ends."""
    relay = start(host, workers=4)
    yield relay
    eventually(lambda: all(relay.by_worker("worker_requests_total")))


def test_a_token_is_redeemed_from_any_5_tuple(relay, connect, peers):
    """RFC 8656 §7.2: 32 tokens, each redeemed from a 5-tuple of its own: it gets its port, which relays."""
    maker = [connect() for _ in range(32)]
    redeemer = [connect() for _ in range(32)]
    for client, other in zip(maker, redeemer):
        address, port = client.allocate(PAIR)
        assert port % 2 == 0 and len(client.token) == 8
        assert other.allocate((stun.RESERVATION_TOKEN, client.token)) == (address, port + 1)
    relay.becomes("allocations", 64)
    with peers.udp() as peer:
        for other in redeemer:
            other.permit(peers.v4)
            other.send(peer.getsockname(), b"over a redeemed port")
            payload, source = peer.recvfrom(100)
            assert payload == b"over a redeemed port" and source == other.relayed


def test_a_token_is_good_once(relay, connect):
    """RFC 8656 §7.2: of 32 5-tuples that redeem one token at the same time one succeeds, 31 are told 508."""
    maker = connect()
    address, port = maker.allocate(PAIR)
    others = ready(connect, 32)
    codes = at_once(others, *redeeming(maker.token))
    assert sorted(codes) == [0] + [508] * 31
    assert others[codes.index(0)].relayed == (address, port + 1)
    losers = [client for client, code in zip(others, codes) if code]
    assert at_once(losers, *redeeming(maker.token)) == [508] * 31, "it was worth nothing any more"


def test_a_reservation_lapses(start, host, connect):
    """RFC 8656 §7.2: a token that nobody redeems in time is worth nothing, and its port and quota return."""
    relay = start(
        host,
        workers=4,
        relay={"ports": "50000-50001", "addresses": [host.v4]},
        limits={"reservation_lifetime": 1, "user_allocations": 2},
    )
    maker, other = connect(), connect()
    assert maker.allocate(PAIR) == (host.v4, 50000)
    other.challenge()
    assert at_once([other], TRANSPORT) == [486], "the reservation counts on its maker"
    eventually(lambda: at_once([other], TRANSPORT) == [0])
    assert other.relayed == (host.v4, 50001)
    [late] = ready(connect, 1)
    assert at_once([late], *redeeming(maker.token)) in ([486], [508])
    relay.becomes("allocations", 2)


def test_a_quota_is_exact(start, host, connect):
    """RFC 8656 §7.2, 486: 64 clients of one user ask four workers at once; as many as allowed succeed."""
    relay = start(host, workers=4, limits={"user_allocations": 20})
    clients = ready(connect, 64)
    codes = at_once(clients, TRANSPORT)
    assert sorted(codes) == [0] * 20 + [486] * 44
    relay.becomes("allocations", 20)
    relay.reaches("requests_total", 44, method="Allocate", outcome="486")
    assert all(relay.by_worker("worker_requests_total"))
    # What is given back on any worker can be had on any other; a refused Allocate cost nothing.
    holders = [client for client, code in zip(clients, codes) if code == 0]
    refused = [client for client, code in zip(clients, codes) if code == 486]
    for client in holders[:7]:
        client.refresh(0)
    assert sorted(at_once(refused, TRANSPORT)) == [0] * 7 + [486] * 37


def test_users_have_quotas_of_their_own(start, host, connect):
    """One user's full quota is nobody else's business, and it goes by the user's part of a time-limited name."""
    start(host, workers=4, limits={"user_allocations": 3})
    bobs = [connect(time_limited(SECRET, "bob", ttl)) for ttl in (3600, 4000, 5000, 6000)]
    for client in [*bobs, *(alices := [connect() for _ in range(3)])]:
        client.challenge()
    assert sorted(at_once(bobs, TRANSPORT)) == [0, 0, 0, 486]
    assert at_once(alices, TRANSPORT) == [0, 0, 0]


def test_the_total_is_exact(start, host, connect):
    """508: when the whole relay holds as many allocations as it may, nobody gets one more."""
    relay = start(host, workers=4, limits={"allocations": 12})
    clients = ready(connect, 40)
    assert sorted(at_once(clients, TRANSPORT)) == [0] * 12 + [508] * 28
    relay.becomes("allocations", 12)


def test_every_port_is_given_once(start, host, connect):
    """508: with ten ports left ten clients get one each, whatever worker they are on."""
    start(host, workers=4, relay={"ports": "50000-50009", "addresses": [host.v4]})
    clients = ready(connect, 40)
    codes = at_once(clients, TRANSPORT)
    assert sorted(codes) == [0] * 10 + [508] * 30
    given = {client.relayed for client, code in zip(clients, codes) if code == 0}
    assert given == {(host.v4, port) for port in range(50000, 50010)}


@pytest.mark.parametrize("family", [stun.IPV4, stun.IPV6])
def test_relay_to_relay(family, relay, connect):
    """RFC 8656 §9, §12: two clients of one relay, on different workers, meet at its own address."""
    clients = {}
    for _ in range(200):  # by far enough for one on each worker
        client = connect()
        before = relay.by_worker("worker_allocations")
        client.allocate(family=family)
        eventually(lambda: sum(relay.by_worker("worker_allocations")) == sum(before) + 1)
        now = relay.by_worker("worker_allocations")
        [worker] = [n for n in range(4) if now[n] > before[n]]
        clients.setdefault(worker, client)
        if len(clients) == 4:
            break
    assert len(clients) == 4
    for one, other in itertools.permutations(clients.values(), 2):
        one.permit(other.relayed)
        other.permit(one.relayed)
        one.send(other.relayed, b"by indication")
        assert other.receive()[:2] == (one.relayed, b"by indication")
    for one, other in itertools.combinations(clients.values(), 2):
        channel, back = one.bind(other.relayed), other.bind(one.relayed)
        one.send_channel(channel, b"by channel")
        assert other.receive()[:2] == (back, b"by channel")
        other.send_channel(back, b"and back")
        assert one.receive()[:2] == (channel, b"and back")


def test_a_client_stays_on_its_worker(relay, connect, peers):
    """Requests, Send indications and ChannelData of one 5-tuple reach the same worker."""
    with peers.udp() as peer:
        address = peer.getsockname()
        for _ in range(32):
            client = connect()
            client.allocate()
            channel = client.bind(address)
            client.send(address, b"indication")
            assert peer.recvfrom(100)[0] == b"indication"
            client.send_channel(channel, b"channel")
            assert peer.recvfrom(100)[0] == b"channel"
            assert client.refresh() == 600
    assert relay.metric("dropped_packets_total", reason="no_allocation") == 0
