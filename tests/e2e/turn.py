"""A TURN client that supports everything RFC 8656 allows a client to do and that other clients lack: every attribute of
Allocate, both generations of credentials, many clients in one process, and strict checks of each response.
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
    """Application data from a peer, with the address it came from; or an ICMP error about the peer."""

    peer: tuple | int
    payload: bytes | None
    source: tuple
    icmp: tuple | None = None


class Refused(Exception):
    """An error response."""

    def __init__(self, response):
        super().__init__(f"{response.code} {response.get(stun.ERROR_CODE)[4:].decode()}")
        self.response = response
        self.code = response.code


def error_code(request, *arguments, **options):
    """The error code that a request of a client is refused with, 0 for success: `error_code(client.permit, peer)`."""
    try:
        request(*arguments, **options)
    except Refused as refused:
        return refused.code
    return 0


class User(NamedTuple):
    """A client's credentials. `algorithm` is a password algorithm of RFC 8489 §9.2.3, or None for an RFC 5389 client.
    """

    name: str
    password: str
    algorithm: int | None = None
    hashed: bool = False


def time_limited(secret, name, ttl=3600):
    """A user with time-limited credentials, whose name begins with the expiry time."""
    return named(secret, f"{int(time.time()) + ttl}:{name}")


def named(secret, name):
    """A user with this exact name, whose password is base64(HMAC-SHA1(secret, name))."""
    mac = hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()
    return User(name, base64.b64encode(mac).decode())


class Client:
    """A client on one 5-tuple. Requests wait for their responses; data received meanwhile is kept for `receive`."""

    def __init__(self, host, server, user=None, source=None, opened=None):
        address = source or (host.v6 if ":" in server[0] else host.v4)
        self.socket = opened or host.udp(address)
        self.server = server
        self.user = user
        self.realm = self.nonce = self.key = self.algorithms = None
        self.relayed = None
        self.relayed_v6 = None
        self.token = None
        self.follows = True
        self._asked = {server}
        self._responses = {}
        self._inbox = deque()
        self._channels = itertools.count(FIRST_CHANNEL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    # Requests

    def binding(self, *attributes):
        """Sends a Binding request; returns the reflexive address."""
        response = self.ask(stun.BINDING, *attributes, sign=False)
        return response.address(stun.XOR_MAPPED_ADDRESS)

    def allocate(self, *attributes, family=None, lifetime=None):
        """Sends an Allocate request; stores and returns the relayed transport address."""
        wanted = [(stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0])), *attributes]
        if family is not None:
            wanted.append((stun.REQUESTED_ADDRESS_FAMILY, bytes([family, 0, 0, 0])))
        if lifetime is not None:
            wanted.append((stun.LIFETIME, stun.number(lifetime)))
        response = self.request(stun.ALLOCATE, *wanted)
        relayed = response.addresses(stun.XOR_RELAYED_ADDRESS)
        self.relayed = relayed[0]
        self.relayed_v6 = next((address for address in relayed if ":" in address[0]), None)
        self.token = response.get(stun.RESERVATION_TOKEN)
        return self.relayed

    def refresh(self, lifetime=600, *attributes):
        """Sends a Refresh request; returns the granted lifetime."""
        response = self.request(stun.REFRESH, (stun.LIFETIME, stun.number(lifetime)), *attributes)
        return response.number(stun.LIFETIME)

    def permit(self, *peers):
        """Sends a CreatePermission request for addresses, with or without ports."""
        self.request(stun.CREATE_PERMISSION, *[(stun.XOR_PEER_ADDRESS, _peer(peer)) for peer in peers])

    def bind(self, peer, channel=None):
        """Sends a ChannelBind request; returns the channel number."""
        channel = channel or next(self._channels)
        number = struct.pack("!HH", channel, 0)
        self.request(stun.CHANNEL_BIND, (stun.CHANNEL_NUMBER, number), (stun.XOR_PEER_ADDRESS, _peer(peer)))
        return channel

    def request(self, method, *attributes):
        """Sends a request, again after a challenge, and to the alternate server after a redirection (RFC 8489 §10). Raises
        `Refused` for an error response.
        """
        for _ in range(6):
            response = self.ask(method, *attributes)
            challenged = response.code in (401, 438) and self._follow(response)
            if not challenged and not (response.code == 300 and self.follows and self._redirect(response)):
                break
        if response.code:
            raise Refused(response)
        return response

    def ask(self, method, *attributes, sign=True):
        """Sends a request and retransmits it until there is a response, which is returned whatever its code."""
        raw, transaction = self.prepare(method, *attributes, sign=sign)
        for wait in (0.5, 1, 2, 4):
            self.socket.sendto(raw, self.server)
            if response := self.response(transaction, wait):
                return response
        raise TimeoutError(f"no response to method {method}")

    def prepare(self, method, *attributes, sign=True):
        """Encodes a request, signed if credentials are known; returns its bytes and its transaction ID."""
        message = Message(stun.REQUEST, method, list(attributes))
        message.attributes = [(kind, _fill(value, message)) for kind, value in message.attributes]
        key = self.key if sign else None
        if key:
            message.attributes += self._credentials()
        return message.encode(key, sha256=self._is_sha256()), message.transaction

    def response(self, transaction, timeout):
        """The response to a request, or None if it has not arrived in time. It must be signed whenever it can be."""
        end = time.monotonic() + timeout
        while transaction not in self._responses:
            if not self._read(end - time.monotonic()):
                return None
        response = self._responses.pop(transaction)
        if self.key and response.code not in (400, 401, 438) and response.method != stun.BINDING:
            assert response.is_signed(self.key, self._is_sha256()), "the response is not signed"
        return response

    def challenge(self):
        """Fetches a nonce, so that the next request is authenticated at once."""
        assert self._follow(self.ask(stun.ALLOCATE, sign=False)), "no challenge"

    # Data

    def send(self, peer, payload, *attributes):
        """Sends a Send indication."""
        self.socket.sendto(stun.send_indication(_peer(peer), payload, *attributes), self.server)

    def send_channel(self, channel, payload):
        """Sends a ChannelData message."""
        self.socket.sendto(stun.channel_data(channel, payload), self.server)

    def receive(self, timeout=5):
        """The next data from a peer. `peer` is its address, or the channel that the data arrived on."""
        end = time.monotonic() + timeout
        while not self._inbox:
            if not self._read(end - time.monotonic()):
                raise TimeoutError("no data from any peer")
        return self._inbox.popleft()

    def drain(self):
        """Discards everything received so far; returns how many datagrams that were."""
        count = 0
        while self._read(0.001):
            count += 1
        self._inbox.clear()
        self._responses.clear()
        return count

    # Internals

    def _follow(self, response):
        """Adopts the nonce and realm of a challenge. Returns False if a retry would be pointless."""
        nonce = response.get(stun.NONCE)
        if self.user is None or nonce in (None, self.nonce) or (response.code == 401 and self.key):
            return False
        self.nonce = nonce
        self.realm = response.get(stun.REALM).decode()
        self.algorithms = response.get(stun.PASSWORD_ALGORITHMS)
        algorithm = self.user.algorithm or stun.MD5
        self.key = stun.long_term_key(algorithm, self.user.name, self.realm, self.user.password)
        return True

    def _redirect(self, response):
        """Goes to the alternate server. Returns False if it was asked before, as in a loop."""
        assert response.is_signed(self.key, self._is_sha256()), "whoever can forge a response could redirect this client"
        server = stun.read_plain_address(response.get(stun.ALTERNATE_SERVER))
        assert (":" in server[0]) == (":" in self.server[0]), "an address of the client's own family comes first"
        if server in self._asked:
            return False
        self._asked.add(server)
        self.server = server
        self.nonce = self.key = None
        self._reconnect()
        return True

    def _reconnect(self):
        """A datagram socket serves for another server, too."""

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
        # RFC 8489 §9.2.4: a request with PASSWORD-ALGORITHM gets a response with MESSAGE-INTEGRITY-SHA256.
        return self.user is not None and self.user.algorithm is not None

    def _read(self, timeout):
        """Reads one datagram; returns False if none arrives in time."""
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
        """Stores a received message for `response` or `receive`."""
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
            self._responses[message.transaction] = message


def _peer(peer):
    """A peer's address as an attribute value, which is encoded once the transaction ID is known."""
    return peer if isinstance(peer, tuple) else (peer, 0)


def _fill(value, message):
    return stun.xor_address(value, message.transaction) if isinstance(value, tuple) else value
