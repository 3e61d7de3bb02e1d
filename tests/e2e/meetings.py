"""Clients of one relay that reach each other, from each worker to each other worker."""

import itertools

from hosts import eventually


def one_client_per_worker(relay, connect, family, workers=4):
    """Creates clients with an allocation until there is one on each worker."""
    found = {}
    for _ in range(200):  # far more than needed to hit every worker
        before = relay.by_worker("worker_allocations")
        client = connect()
        client.allocate(family=family)
        eventually(lambda: sum(relay.by_worker("worker_allocations")) == sum(before) + 1)
        now = relay.by_worker("worker_allocations")
        [worker] = [n for n in range(workers) if now[n] > before[n]]
        found.setdefault(worker, client)
        if len(found) == workers:
            return list(found.values())
    raise AssertionError(f"clients on workers {sorted(found)} only")


def all_pairs_meet(clients):
    """Sends data between the relayed transport addresses of all pairs, in indications and over channels."""
    for one, other in itertools.permutations(clients, 2):
        one.permit(other.relayed)
        other.permit(one.relayed)
        one.send(other.relayed, b"by indication")
        assert other.receive()[:2] == (one.relayed, b"by indication")
    for one, other in itertools.combinations(clients, 2):
        meet_over_channels(one, other)


def meet_over_channels(one, other):
    """Sends data over channels between the relayed transport addresses of two clients, in both directions."""
    channel, back = one.bind(other.relayed), other.bind(one.relayed)
    one.send_channel(channel, b"there")
    assert other.receive()[:2] == (back, b"there")
    other.send_channel(back, b"and back")
    assert one.receive()[:2] == (channel, b"and back")
