"""Long-running calls that measure loss and delay while the relay is under some other load.

The load is an open loop: packets leave on schedule whatever happened to earlier ones, in turn from the clients and
peers of all calls. Each packet carries the number of its direction, a sequence number and the time at which it was
sent.
"""

import itertools
import select
import struct
import time
from typing import NamedTuple

import stun

STAMP = struct.Struct("!IIQ")


class Outcome(NamedTuple):
    """How many packets were sent, and the delays of those that arrived, one list per direction of each call."""

    sent: int
    delays: list

    @property
    def loss(self):
        """The fraction of packets that did not arrive."""
        return 1 - sum(map(len, self.delays)) / self.sent

    @property
    def losses(self):
        """The loss of each direction of each call. All directions send the same number of packets."""
        return [1 - len(delays) * len(self.delays) / self.sent for delays in self.delays]

    def delay(self, part):
        """A quantile of the one-way delay, in seconds."""
        delays = sorted(itertools.chain(*self.delays))
        return delays[int(part * (len(delays) - 1))]


class Calls:
    """Calls between clients, which have allocations, and a peer per client, over one channel each."""

    def __init__(self, clients, peers):
        self.clients = clients
        self.peers = [peers.udp() for _ in clients]
        self.channels = [client.bind(peer.getsockname()) for client, peer in zip(clients, self.peers)]
        self._sequence = itertools.count()
        self._poll = select.epoll()
        self._ends = {}
        for n, (client, peer) in enumerate(zip(clients, self.peers)):
            for way, opened in ((2 * n, peer), (2 * n + 1, client.socket)):
                self._poll.register(opened.fileno(), select.EPOLLIN)
                self._ends[opened.fileno()] = (way, opened)

    def close(self):
        """Closes what this object opened."""
        self._poll.close()
        for peer in self.peers:
            peer.close()

    def run(self, seconds, rate, size=200):
        """Sends `rate` packets per second in total, both directions together, and waits for the last of them."""
        self.clear()
        first, start = next(self._sequence), time.monotonic()
        delays, sent, arrived = [[] for _ in self._ends], 0, 0
        while (elapsed := time.monotonic() - start) < seconds or sent % len(delays):
            while sent < elapsed * rate:
                self._send(sent % len(delays), size)
                sent += 1
            arrived += self._receive(0.001, first, delays)
        end = time.monotonic() + 1
        while arrived < sent and time.monotonic() < end:
            if came := self._receive(0.1, first, delays):
                arrived += came
                end = time.monotonic() + 1
        return Outcome(sent, delays)

    def count_arrivals(self, seconds, requests):
        """Counts the packets that arrive per direction for `seconds`, and until all requests are answered. Meanwhile
        each client sends the requests (method, attribute ..) and retransmits them as RFC 8489 §6.2.1 specifies.
        """
        arrived, waiting, start = [0] * len(self._ends), {}, time.monotonic()
        for client in self.clients:
            for method, *attributes in requests:
                raw, transaction = client.prepare(method, *attributes)
                waiting[transaction] = Waiting(client, raw, start)
        while time.monotonic() < start + seconds or waiting:
            for request in waiting.values():
                request.repeat()
            for descriptor, _ in self._poll.poll(0.01):
                way, opened = self._ends[descriptor]
                for raw in _drain(opened):
                    if way % 2 == 0 or stun.is_channel_data(raw):
                        arrived[way] += 1
                    else:
                        response = stun.parse(raw)
                        # A second response belongs to a retransmission.
                        if request := waiting.pop(response.transaction, None):
                            assert not response.code and response.is_signed(request.client.key)
        return arrived

    def clear(self):
        """Discards received packets until no more arrive."""
        while ready := self._poll.poll(0.2):
            for descriptor, _ in ready:
                for _ in _drain(self._ends[descriptor][1]):
                    pass

    def _send(self, way, size):
        n, from_peer = divmod(way, 2)
        payload = STAMP.pack(way, next(self._sequence), time.monotonic_ns()).ljust(size, b".")
        client = self.clients[n]
        if from_peer:
            self.peers[n].sendto(payload, client.relayed)
        else:
            client.socket.sendto(stun.channel_data(self.channels[n], payload), client.server)

    def _receive(self, timeout, first, delays):
        came = 0
        for descriptor, _ in self._poll.poll(timeout):
            way, opened = self._ends[descriptor]
            raw = opened.recv(2048)
            found, sequence, left = STAMP.unpack_from(raw, 4 * (way % 2))
            assert found == way, "a packet of another call"
            if sequence > first:
                delays[way].append((time.monotonic_ns() - left) / 1e9)
                came += 1
        return came


class Waiting:
    """A request that has not been answered yet."""

    def __init__(self, client, raw, start):
        self.client = client
        self._raw = raw
        self._due, self._wait, self._left = start, 0.5, 7

    def repeat(self):
        """Sends the request if its timer has expired."""
        if time.monotonic() < self._due:
            return
        assert self._left, "a request was not answered"
        self.client.socket.sendto(self._raw, self.client.server)
        self._left -= 1
        # Rm = 16: the client waits 16 times the initial RTO after the last transmission.
        self._due += self._wait if self._left else 8
        self._wait *= 2


def _drain(opened):
    """Yields up to 64 datagrams that a socket has received."""
    opened.setblocking(False)
    try:
        for _ in range(64):
            yield opened.recv(2048)
    except BlockingIOError:
        pass
    finally:
        opened.settimeout(5)
