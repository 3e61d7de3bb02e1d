"""State shared between workers: reservations, quotas and ports. Four workers, many 5-tuples."""

import re
import time
from pathlib import Path

import pytest

import stun
from hosts import eventually
from meetings import all_pairs_meet, one_client_per_worker
from relay import PASSWORD, SECRET, USER
from turn import named, time_limited

ALICE = {"name": USER, "password": PASSWORD}

PAIR = (stun.EVEN_PORT, b"\x80")
TRANSPORT = (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))


def redeeming(token):
    """The attributes that redeem a reservation."""
    return TRANSPORT, (stun.RESERVATION_TOKEN, token)


def at_once(clients, *attributes):
    """Sends one Allocate from each client before any response is read; returns the codes."""
    asked = [client.prepare(stun.ALLOCATE, *attributes) for client in clients]
    for client, (raw, _) in zip(clients, asked):
        client.socket.sendto(raw, client.server)
    codes = []
    for client, (raw, transaction) in zip(clients, asked):
        response = client.response(transaction, 1)
        while response is None:  # lost: the same request gets the same response
            client.socket.sendto(raw, client.server)
            response = client.response(transaction, 1)
        if not response.code:
            client.relayed = response.address(stun.XOR_RELAYED_ADDRESS)
        codes.append(response.code)
    return codes


def ready(connect, count):
    """Creates `count` clients that already have a nonce."""
    made = [connect() for _ in range(count)]
    for client in made:
        client.challenge()
    return made


@pytest.fixture
def relay(start, host):
    """A relay with four workers, all of which must have handled requests by the end of the test."""
    relay = start(host, workers=4)
    yield relay
    eventually(lambda: all(relay.by_worker("worker_requests_total")))


def test_a_token_is_redeemed_from_any_5_tuple(relay, connect, peers):
    """RFC 8656 §7.2: each of 32 tokens is redeemed from another 5-tuple, which gets the reserved port and can relay."""
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


def test_a_token_can_be_redeemed_once(relay, connect):
    """RFC 8656 §7.2: if 32 5-tuples redeem one token at the same time, one succeeds and 31 get 508."""
    maker = connect()
    address, port = maker.allocate(PAIR)
    others = ready(connect, 32)
    codes = at_once(others, *redeeming(maker.token))
    assert sorted(codes) == [0] + [508] * 31
    assert others[codes.index(0)].relayed == (address, port + 1)
    losers = [client for client, code in zip(others, codes) if code]
    assert at_once(losers, *redeeming(maker.token)) == [508] * 31, "the token has been used"


def test_a_reservation_expires(start, host, connect):
    """RFC 8656 §7.2: a token that is not redeemed in time expires, and its port and quota are freed."""
    relay = start(
        host,
        workers=4,
        relay={"ports": "50000-50001", "addresses": [host.v4]},
        limits={"reservation_lifetime": 1},
        auth={"user": [ALICE | {"allocations": 2}]},
    )
    maker, other = connect(), connect()
    assert maker.allocate(PAIR) == (host.v4, 50000)
    other.challenge()
    assert at_once([other], TRANSPORT) == [486], "the reservation counts towards the quota of its user"
    eventually(lambda: at_once([other], TRANSPORT) == [0])
    assert other.relayed == (host.v4, 50001)
    [late] = ready(connect, 1)
    assert at_once([late], *redeeming(maker.token)) in ([486], [508])
    relay.becomes("allocations", 2)


def test_a_quota_is_exact(start, host, connect):
    """RFC 8656 §7.2: if 64 clients of one user allocate on four workers at the same time, exactly as many as allowed
    succeed; the others get 486.
    """
    relay = start(host, workers=4, auth={"user": [ALICE | {"allocations": 20}]})
    clients = ready(connect, 64)
    codes = at_once(clients, TRANSPORT)
    assert sorted(codes) == [0] * 20 + [486] * 44
    relay.becomes("allocations", 20)
    relay.reaches("responses_total", 44, method="Allocate", outcome="486")
    assert all(relay.by_worker("worker_requests_total"))
    # Quota freed on one worker is available on the others, and refused requests have not used any.
    holders = [client for client, code in zip(clients, codes) if code == 0]
    refused = [client for client, code in zip(clients, codes) if code == 486]
    for client in holders[:7]:
        client.refresh(0)
    assert sorted(at_once(refused, TRANSPORT)) == [0] * 7 + [486] * 37


def test_quotas_are_per_user(start, host, connect):
    """Quotas are independent per user, and time-limited names count by their user part. Static users and names that are
    an expiry and nothing else stand for many clients, so `limits.user_allocations` does not count them.
    """
    relay = start(host, workers=4, limits={"user_allocations": 3})
    bobs = [connect(time_limited(SECRET, "bob", ttl)) for ttl in (3600, 4000, 5000, 6000)]
    # A person with the name of the static user.
    others = [connect(time_limited(SECRET, "alice", ttl)) for ttl in (3600, 4000, 5000, 6000)]
    alices = [connect() for _ in range(8)]
    anyone = [connect(named(SECRET, str(int(time.time()) + 3600))) for _ in range(8)]
    for client in [*bobs, *others, *alices, *anyone]:
        client.challenge()
    assert at_once(alices, TRANSPORT) == at_once(anyone, TRANSPORT) == [0] * 8
    assert sorted(at_once(bobs, TRANSPORT)) == sorted(at_once(others, TRANSPORT)) == [0, 0, 0, 486]
    assert "limits.user_allocations" in relay.line("refused", code=486)["fix"]


def test_zero_is_no_quota(start, host, connect):
    """`0` is no limit on the allocations of a user, for persons and for static users."""
    start(host, workers=4, limits={"user_allocations": 0}, auth={"user": [ALICE | {"allocations": 0}]})
    bobs = [connect(time_limited(SECRET, "bob")) for _ in range(40)]
    for client in [*bobs, *(alices := [connect() for _ in range(40)])]:
        client.challenge()
    assert at_once(bobs, TRANSPORT) == at_once(alices, TRANSPORT) == [0] * 40


def test_new_allocations_are_rated(start, host, connect, switch):
    """RFC 8656 §7.2: one user's churn is bounded across workers, else 486; a client with an allocation is not affected.
    A shared name is rated per address.
    """
    relay = start(host, workers=4, limits={"new_allocations_burst": 20, "new_allocations_rate": 1})
    bobs = [connect(time_limited(SECRET, "bob")) for _ in range(60)]
    for client in bobs:
        client.challenge()
    codes = at_once(bobs, TRANSPORT)
    assert 20 <= codes.count(0) <= 22 and codes.count(486) == 60 - codes.count(0)
    assert "limits.new_allocations_rate" in relay.line("refused", code=486)["fix"]
    for client in [client for client, code in zip(bobs, codes) if code == 0]:
        assert client.refresh() == 600
    alices = ready(connect, 40)
    assert 20 <= at_once(alices, TRANSPORT).count(0) <= 22
    elsewhere = switch.host("another client")
    others = [connect(at=elsewhere) for _ in range(10)]
    for client in others:
        client.challenge()
    assert at_once(others, TRANSPORT) == [0] * 10


def test_churn_does_not_flood_the_log(start, host, connect):
    """The lines of opened and closed allocations have a bound, and what is left out is summed up."""
    relay = start(host, workers=1, limits={"new_allocations_rate": 0})
    [client] = ready(connect, 1)
    count = 700
    begun = time.monotonic()
    for _ in range(count):
        client.request(stun.ALLOCATE, TRANSPORT)
        client.refresh(0)
    took = time.monotonic() - begun
    relay.becomes("allocations", 0)

    def told(what):
        lines = relay.lines(f"allocation {what}")
        left_out = sum(line.get("suppressed", 0) for line in lines)
        left_out += sum(line["count"] for line in relay.lines(f"log lines suppressed: {what} allocations"))
        return len(lines), len(lines) + left_out

    for what in ("opened", "closed"):
        eventually(lambda: told(what)[1] == count, timeout=30)
        assert told(what)[0] <= 300 * (took + 2)


def test_total_limit_is_exact(start, host, connect):
    """When the relay has its maximum number of allocations, every further Allocate gets 508."""
    relay = start(host, workers=4, limits={"allocations": 12})
    clients = ready(connect, 40)
    assert sorted(at_once(clients, TRANSPORT)) == [0] * 12 + [508] * 28
    relay.becomes("allocations", 12)


def test_every_port_is_used_once(start, host, connect):
    """With ten ports ten clients get one each, on whichever worker they are; the others get 508."""
    start(host, workers=4, relay={"ports": "50000-50009", "addresses": [host.v4]})
    clients = ready(connect, 40)
    codes = at_once(clients, TRANSPORT)
    assert sorted(codes) == [0] * 10 + [508] * 30
    given = {client.relayed for client, code in zip(clients, codes) if code == 0}
    assert given == {(host.v4, port) for port in range(50000, 50010)}


@pytest.mark.parametrize("family", [stun.IPV4, stun.IPV6])
def test_relay_to_relay(family, relay, connect):
    """RFC 8656 §9, §12: two clients of one relay on different workers reach each other at the relay's own address."""
    all_pairs_meet(one_client_per_worker(relay, connect, family))


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


def test_other_threads_yield_to_workers(start, host):
    """Scrapes, lists, reloads and TLS handshakes have a smaller scheduling weight than packets, on whatever thread they run."""
    relay = start(host)
    tasks = Path(f"/proc/{relay.process.pid}/task").iterdir()
    # proc(5): the name is in parentheses; nice is the 19th field, the 17th after it.
    stats = [re.fullmatch(r"\d+ \((.*)\) (.*)", (task / "stat").read_text().strip()).groups() for task in tasks]
    nice = {name: int(fields.split()[16]) for name, fields in stats}
    workers = {name: value for name, value in nice.items() if re.fullmatch(r"worker-\d+", name)}
    assert workers == {"worker-0": 0, "worker-1": 0}, nice
    beside = [value for name, value in nice.items() if name.startswith("worker-") and name not in workers]
    assert (nice["hairpin"], beside) == (10, [10, 10]), nice
