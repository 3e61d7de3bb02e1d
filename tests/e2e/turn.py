"""A TURN client that can do all that RFC 8656 lets a client do, for what other clients cannot: every attribute of
Allocate, both generations of credentials, many clients at once, and a close look at each answer.
"""

import base64
import hashlib
import hmac
import itertools
import struct
import time
from collections import deque
from typing import NamedTuple

import stun
from stun import Message

FIRST_CHANNEL = 0x4000


class Received(NamedTuple):
    """Application data from a peer, and the address that it came from; or else an ICMP message about the peer."""

    peer: tuple | int
    payload: bytes | None
    source: tuple
    icmp: tuple | None = None


class Refused(Exception):
    """An error answer."""

    def __init__(self, answer):
        super().__init__(f"{answer.code} {answer.get(stun.ERROR_CODE)[4:].decode()}")
        self.answer = answer
        self.code = answer.code


class User(NamedTuple):
    """Who a client is. `algorithm` is that of RFC 8489 §9.2.3, or None for a client that knows RFC 5389 only."""

    name: str
    password: str
    algorithm: int | None = None
    hashed: bool = False


def time_limited(secret, name, ttl=3600):
    """A user whose name begins with the end of the credential's time, as REST APIs make them."""
    return named(secret, f"{int(time.time()) + ttl}:{name}")


def named(secret, name):
    """A user with this whole name: the password is base64(HMAC-SHA1(secret, name))."""
    mac = hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()
    return User(name, base64.b64encode(mac).decode())


class Client:
    """One 5-tuple. Requests wait for their answers; what comes between is kept for `receive`."""

    def __init__(self, host, server, user=None, source=None, opened=None):
        address = source or (host.v6 if ":" in server[0] else host.v4)
        self.socket = opened or host.udp(address)
        self.server = server
        self.user = user
        self.realm = self.nonce = self.key = self.algorithms = None
        self.relayed = None
        self.relayed_v6 = None
        self.token = None
        self._answers = {}
        self._inbox = deque()
        self._channels = itertools.count(FIRST_CHANNEL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    # Requests

    def binding(self, *attributes):
        """Binding; returns the reflexive address."""
        answer = self.ask(stun.BINDING, *attributes, sign=False)
        return answer.address(stun.XOR_MAPPED_ADDRESS)

    def allocate(self, *attributes, family=None, lifetime=None):
        """Allocate; remembers and returns the relayed address."""
        wanted = [(stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0])), *attributes]
        if family is not None:
            wanted.append((stun.REQUESTED_ADDRESS_FAMILY, bytes([family, 0, 0, 0])))
        if lifetime is not None:
            wanted.append((stun.LIFETIME, stun.number(lifetime)))
        answer = self.request(stun.ALLOCATE, *wanted)
        relayed = answer.addresses(stun.XOR_RELAYED_ADDRESS)
        self.relayed = relayed[0]
        self.relayed_v6 = next((address for address in relayed if ":" in address[0]), None)
        self.token = answer.get(stun.RESERVATION_TOKEN)
        return self.relayed

    def refresh(self, lifetime=600, *attributes):
        """Refresh; returns the lifetime granted."""
        answer = self.request(stun.REFRESH, (stun.LIFETIME, stun.number(lifetime)), *attributes)
        return answer.number(stun.LIFETIME)

    def permit(self, *peers):
        """CreatePermission for addresses, with or without a port."""
        self.request(stun.CREATE_PERMISSION, *[(stun.XOR_PEER_ADDRESS, _peer(peer)) for peer in peers])

    def bind(self, peer, channel=None):
        """ChannelBind; returns the channel."""
        channel = channel or next(self._channels)
        number = struct.pack("!HH", channel, 0)
        self.request(stun.CHANNEL_BIND, (stun.CHANNEL_NUMBER, number), (stun.XOR_PEER_ADDRESS, _peer(peer)))
        return channel

    def request(self, method, *attributes):
        """A request with credentials, and again with those that the server asks for; fails unless it succeeds."""
        for _ in range(2):
            answer = self.ask(method, *attributes)
            if answer.code not in (401, 438) or not self._follow(answer):
                break
        if answer.code:
            raise Refused(answer)
        return answer

    def ask(self, method, *attributes, sign=True):
        """One request, sent again until it is answered; returns the answer whatever it is."""
        raw, transaction = self.prepare(method, *attributes, sign=sign)
        for wait in (0.5, 1, 2, 4):
            self.socket.sendto(raw, self.server)
            if answer := self.answer(transaction, wait):
                return answer
        raise TimeoutError(f"no answer to method {method}")

    def prepare(self, method, *attributes, sign=True):
        """The bytes of a request, signed if credentials are known, and its transaction id."""
        message = Message(stun.REQUEST, method, list(attributes))
        message.attributes = [(kind, _fill(value, message)) for kind, value in message.attributes]
        key = self.key if sign else None
        if key:
            message.attributes += self._credentials()
        return message.encode(key, sha256=self._is_sha256()), message.transaction

    def answer(self, transaction, timeout):
        """The answer to a request, None if there is none yet. It must be signed wherever it can be."""
        end = time.monotonic() + timeout
        while transaction not in self._answers:
            if not self._read(end - time.monotonic()):
                return None
        answer = self._answers.pop(transaction)
        if self.key and answer.code not in (400, 401, 438) and answer.method != stun.BINDING:
            assert answer.is_signed(self.key, self._is_sha256()), "an answer is not signed"
        return answer

    def challenge(self):
        """Asks for a nonce, so that the next request can be the first that counts."""
        assert self._follow(self.ask(stun.ALLOCATE, sign=False)), "no challenge"

    # Data

    def send(self, peer, payload, *attributes):
        """A Send indication."""
        message = Message(stun.INDICATION, stun.SEND, [(stun.XOR_PEER_ADDRESS, _peer(peer))])
        message.attributes = [(kind, _fill(value, message)) for kind, value in message.attributes]
        message.attributes += [*attributes, (stun.DATA_ATTRIBUTE, payload)]
        self.socket.sendto(message.encode(), self.server)

    def send_channel(self, channel, payload):
        """ChannelData."""
        self.socket.sendto(stun.channel_data(channel, payload), self.server)

    def receive(self, timeout=5):
        """The next data from a peer: `peer` is its address, or the channel that it came over."""
        end = time.monotonic() + timeout
        while not self._inbox:
            if not self._read(end - time.monotonic()):
                raise TimeoutError("no data from any peer")
        return self._inbox.popleft()

    def drain(self):
        """Throws away whatever is here already; returns how many datagrams that were."""
        count = 0
        while self._read(0.001):
            count += 1
        self._inbox.clear()
        self._answers.clear()
        return count

    # How it works

    def _follow(self, answer):
        """Takes over what a challenge says; False if it leads nowhere new."""
        nonce = answer.get(stun.NONCE)
        if self.user is None or nonce in (None, self.nonce) or (answer.code == 401 and self.key):
            return False
        self.nonce = nonce
        self.realm = answer.get(stun.REALM).decode()
        self.algorithms = answer.get(stun.PASSWORD_ALGORITHMS)
        algorithm = self.user.algorithm or stun.MD5
        self.key = stun.long_term_key(algorithm, self.user.name, self.realm, self.user.password)
        return True

    def _credentials(self):
        if self.user.hashed:
            who = (stun.USERHASH, stun.user_hash(self.user.name, self.realm))
        else:
            who = (stun.USERNAME, self.user.name.encode())
        attributes = [who, (stun.REALM, self.realm.encode()), (stun.NONCE, self.nonce)]
        if self.user.algorithm is not None:
            chosen = struct.pack("!HH", self.user.algorithm, 0)
            attributes += [(stun.PASSWORD_ALGORITHMS, self.algorithms), (stun.PASSWORD_ALGORITHM, chosen)]
        return attributes

    def _is_sha256(self):
        # RFC 8489 §9.2.4: who sends PASSWORD-ALGORITHM, whichever, is answered with MESSAGE-INTEGRITY-SHA256.
        return self.user is not None and self.user.algorithm is not None

    def _read(self, timeout):
        """Reads one datagram; False if none came in time."""
        if timeout <= 0:
            return False
        self.socket.settimeout(timeout)
        try:
            raw, source = self.socket.recvfrom(65536)
        except TimeoutError:
            return False
        self._take(raw, source)
        return True

    def _take(self, raw, source):
        """Keeps what a message brought for who waits for it."""
        if stun.is_channel_data(raw):
            channel, length = struct.unpack_from("!HH", raw)
            assert length == len(raw) - 4, "ChannelData over UDP is not padded (RFC 8656 §12.5)"
            self._inbox.append(Received(channel, raw[4:], source))
            return
        message = stun.parse(raw, source)
        if message.kind == stun.INDICATION:
            assert message.method == stun.DATA
            peer, payload = message.address(stun.XOR_PEER_ADDRESS), message.get(stun.DATA_ATTRIBUTE)
            icmp = message.get(stun.ICMP)
            self._inbox.append(Received(peer, payload, source, icmp and stun.read_icmp(icmp)))
        else:
            self._answers[message.transaction] = message


def _peer(peer):
    """The place for a peer's address, which is filled in once the transaction id is known."""
    return peer if isinstance(peer, tuple) else (peer, 0)


def _fill(value, message):
    return stun.xor_address(value, message.transaction) if isinstance(value, tuple) else value
