"""coturn's own client relays through the relay: channels, Send indications, both families, dual allocations,
reservations, wrong credentials and time-limited credentials. This covers RFC 8656 §7, §9, §11, §12 with an independent
implementation.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import coturn
import relay as daemon
from hosts import eventually

# uclient's options, and the address families of the server and of the peer.
WAYS = {
    "channels": ([], "v4", "v4"),
    "indications": (["-s"], "v4", "v4"),
    "without-rtcp": (["-c", "-D"], "v4", "v4"),
    "ipv4-wanted": (["-X"], "v4", "v4"),
    "dont-fragment-and-extra-requests": (["-g", "-G"], "v4", "v4"),
    "ipv6": (["-x"], "v6", "v6"),
    "ipv6-indications": (["-x", "-s"], "v6", "v6"),
    "ipv4-client-of-ipv6-peer": (["-x"], "v4", "v6"),
    "ipv6-client-of-ipv4-peer": (["-X"], "v6", "v4"),
    "dual": (["-Z"], "v4", "v4"),
    "dual-from-ipv6": (["-Z", "-s"], "v6", "v6"),
    "negative": (["-N", "-s"], "v4", "v4"),
    "client-to-client": (["-y"], "v4", None),
    "client-to-client-ipv6": (["-y", "-x", "-s"], "v6", None),
}


@pytest.mark.parametrize("way", WAYS)
def test_relays(way, workers, start, host, clients, peers):
    """RFC 8656 §7.2, §9, §11, §12: everything uclient sends to a peer is echoed, with one worker and with four."""
    options, server, peer = WAYS[way]
    relay = start(host, workers=workers)
    to_peer = ["-e", getattr(peers, peer)] if peer else []
    with coturn.echo_peer(peers):
        run = coturn.uclient(
            clients,
            getattr(host, server),
            *options,
            *["-n", 20, "-m", 4, *to_peer],
            user=daemon.USER,
            password=daemon.PASSWORD,
        )
    assert run.status == 0 and run.sent == run.received >= 40, run.output
    for direction in ("to_peer", "to_client"):
        relay.reaches("relayed_packets_total", run.sent, direction=direction)
    assert relay.metric("worker_panics_total") == 0


# uclient's options for stream transports, by the transport label of the metrics.
STREAMS = {"tcp": ["-t"], "tls": ["-t", "-S"]}


def test_relays_for_streams(workers, tls, authority, start, host, clients, peers):
    """RFC 8656 §2.1, §11, §12.5: TCP and TLS, channels and indications, and both families, all at the same time. Over
    TLS uclient verifies the certificate.
    """
    relay = start(host, workers=workers, tls=tls)
    verified = {"tcp": [], "tls": ["-E", authority.certificate]}
    ways = [
        [*stream, *verified[name], *how, *wanted, *["-n", 20, "-m", 4, "-e", getattr(peers, family)], getattr(host, family)]
        for name, stream in STREAMS.items()
        for how in ([], ["-s"])
        for wanted, family in (([], "v4"), (["-x"], "v6"))
    ]

    def run(way):
        *options, server = way
        return coturn.uclient(clients, server, *options, user=daemon.USER, password=daemon.PASSWORD)

    with coturn.echo_peer(peers), ThreadPoolExecutor(len(ways)) as pool:
        runs = list(pool.map(run, ways))
    for way, ended in zip(ways, runs):
        assert ended.status == 0 and ended.sent == ended.received >= 40, (way, ended.output)
    for transport in STREAMS:
        for direction in ("to_peer", "to_client"):
            relay.reaches("relayed_packets_total", 4 * 40, direction=direction, transport=transport)
        relay.reaches("connections_accepted_total", 16, transport=transport)
        assert relay.metric("connections_dropped_messages_total", transport=transport) == 0
    if workers > 1:
        assert all(relay.by_worker("worker_requests_total"))
    assert relay.metric("worker_panics_total") == 0


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_channel_numbers_of_rfc5766(over, workers, start, host, clients, peers):
    """RFC 5766 §11: with `listen.rfc5766_channels`, uclient works as Debian ships it; without it, the log says so."""
    options = [*(["-t"] if over == "tcp" else []), "-n", 10, "-m", 16, "-e", peers.v4]
    who = {"user": daemon.USER, "password": daemon.PASSWORD, "rfc5766": True}
    tcp = {"tcp": ["0.0.0.0:3478"]}
    relay = start(host, workers=workers, listen=tcp | {"rfc5766_channels": True})
    with coturn.echo_peer(peers):
        run = coturn.uclient(clients, host.v4, *options, **who)
        assert run.status == 0 and run.sent == run.received >= 160, run.output
        assert not relay.lines("refused", code=400)
        relay.stop()
        relay = start(host, workers=workers, listen=tcp)
        run = coturn.uclient(clients, host.v4, *options, **who, limit=20)
        assert run.status != 0, run.output
    refused = relay.line("refused", code=400)
    assert 0x5000 <= int(refused["channel"], 16) <= 0x7FFF
    assert "0x4000-0x4FFF" in refused["reason"] and "listen.rfc5766_channels" in refused["fix"]


def test_load_is_spread_over_all_workers(start, host, clients, peers):
    """Many clients are spread over all workers, and tokens are redeemed across them."""
    relay = start(host, workers=4)
    with coturn.echo_peer(peers):
        run = coturn.uclient(
            clients, host.v4, "-m", 32, "-n", 10, "-e", peers.v4, user=daemon.USER, password=daemon.PASSWORD
        )
    assert run.status == 0 and run.sent == run.received == 320, run.output
    eventually(lambda: all(relay.by_worker("worker_requests_total")))


def test_rest_secret(workers, start, host, clients, peers):
    """uclient makes time-limited credentials from a shared secret that is the second of two."""
    other = "another secret, as while one is replaced"
    relay = start(host, workers=workers, auth={"secrets": [other, daemon.SECRET], "user": []})
    with coturn.echo_peer(peers):
        run = coturn.uclient(clients, host.v4, "-W", daemon.SECRET, "-e", peers.v4, user="bob")
    assert run.status == 0 and run.sent == run.received > 0, run.output
    assert relay.line("allocation opened")["user"] == "bob", "logs show the user part of the name"


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"user": "mallory"}])
def test_wrong_credentials(wrong, start, host, clients, peers):
    """RFC 8489 §9.2.4: a wrong password and an unknown user are refused."""
    relay = start(host)
    who = {"user": daemon.USER, "password": daemon.PASSWORD, **wrong}
    run = coturn.uclient(clients, host.v4, "-e", peers.v4, **who, limit=20)
    assert run.status != 0 and run.sent == 0, run.output
    assert relay.metric("allocations_opened_total") == 0


def test_malformed_requests(start, host, clients, peers):
    """uclient's protocol fuzzing (-R) may fail, but the relay keeps serving others."""
    relay = start(host)
    with coturn.echo_peer(peers):
        who = {"user": daemon.USER, "password": daemon.PASSWORD}
        coturn.uclient(clients, host.v4, "-R", "-s", "-m", 4, "-e", peers.v4, **who, limit=20)
        run = coturn.uclient(clients, host.v4, "-e", peers.v4, **who)
    assert run.status == 0 and run.sent == run.received > 0, run.output
    assert relay.metric("worker_panics_total") == 0


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_stunclient_learns_its_address(family, start, host, clients):
    """RFC 8489 §12: a Binding request without credentials returns the client's address."""
    start(host)
    output = coturn.stunclient(clients, getattr(host, family))
    assert re.search(rf"UDP reflexive addr: \[?{re.escape(getattr(clients, family))}\]?:\d+", output), output
