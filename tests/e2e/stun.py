"""Encodes and decodes STUN messages (RFC 8489 §5, §14; RFC 8656 §17, §18), independently of the relay's own codec.
`parse` fails on anything that a server must not send; what a server must check is not checked here.
"""

import base64
import hashlib
import hmac
import ipaddress
import os
import struct
import zlib
from dataclasses import dataclass, field

COOKIE = 0x2112A442

# Classes, RFC 8489 §5.
REQUEST, INDICATION, SUCCESS, ERROR = range(4)

# Methods, RFC 8489 §18.2 and RFC 8656 §17.
BINDING, ALLOCATE, REFRESH, SEND, DATA, CREATE_PERMISSION, CHANNEL_BIND = 1, 3, 4, 6, 7, 8, 9

# Attributes, RFC 8489 §18.3 and RFC 8656 §18.
MAPPED_ADDRESS = 0x0001
USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
CHANNEL_NUMBER = 0x000C
LIFETIME = 0x000D
XOR_PEER_ADDRESS = 0x0012
DATA_ATTRIBUTE = 0x0013
REALM = 0x0014
NONCE = 0x0015
XOR_RELAYED_ADDRESS = 0x0016
REQUESTED_ADDRESS_FAMILY = 0x0017
EVEN_PORT = 0x0018
REQUESTED_TRANSPORT = 0x0019
DONT_FRAGMENT = 0x001A
MESSAGE_INTEGRITY_SHA256 = 0x001C
PASSWORD_ALGORITHM = 0x001D
USERHASH = 0x001E
XOR_MAPPED_ADDRESS = 0x0020
RESERVATION_TOKEN = 0x0022
ADDITIONAL_ADDRESS_FAMILY = 0x8000
ADDRESS_ERROR_CODE = 0x8001
PASSWORD_ALGORITHMS = 0x8002
ICMP = 0x8004
ALTERNATE_DOMAIN = 0x8003
SOFTWARE = 0x8022
ALTERNATE_SERVER = 0x8023
FINGERPRINT = 0x8028

# Password algorithms, RFC 8489 §18.5.
MD5, SHA256 = 1, 2

# Security features of the nonce cookie, RFC 8489 §18.1 (erratum 6290).
COOKIE_PREFIX = b"obMatJos2"
COOKIE_PASSWORD_ALGORITHMS = 1
COOKIE_ANONYMITY = 2

UDP = 17
IPV4, IPV6 = 1, 2


@dataclass
class Message:
    """A message, with its attributes in order."""

    kind: int
    method: int
    attributes: list = field(default_factory=list)
    transaction: bytes = field(default_factory=lambda: os.urandom(12))
    raw: bytes = b""
    source: tuple = ()

    def get(self, kind):
        """The value of the first attribute of a kind, or None."""
        return next((value for found, value in self.attributes if found == kind), None)

    def number(self, kind):
        """The value of a four-byte attribute."""
        return struct.unpack("!I", self.get(kind))[0]

    def address(self, kind):
        """An XORed address as (address, port)."""
        return read_address(self.get(kind), self.transaction)

    def addresses(self, kind):
        """All XORed addresses of a kind."""
        return [read_address(value, self.transaction) for found, value in self.attributes if found == kind]

    @property
    def code(self):
        """The error code; 0 for a success response."""
        value = self.get(ERROR_CODE)
        return value[2] * 100 + value[3] if value else 0

    def encode(self, key=None, sha256=False, fingerprint=False):
        """The encoded message, signed if a key is given."""
        body = b"".join(attribute(kind, value) for kind, value in self.attributes)
        if key and sha256:
            mac = hmac.new(key, self._head(len(body) + 36) + body, hashlib.sha256).digest()
            body += attribute(MESSAGE_INTEGRITY_SHA256, mac)
        elif key:
            mac = hmac.new(key, self._head(len(body) + 24) + body, hashlib.sha1).digest()
            body += attribute(MESSAGE_INTEGRITY, mac)
        if fingerprint:
            crc = zlib.crc32(self._head(len(body) + 8) + body) ^ 0x5354554E
            body += attribute(FINGERPRINT, struct.pack("!I", crc))
        return self._head(len(body)) + body

    def is_signed(self, key, sha256=False):
        """Whether the integrity attribute matches the key (RFC 8489 §14.5, §14.6)."""
        kind, digest = (
            (MESSAGE_INTEGRITY_SHA256, hashlib.sha256) if sha256 else (MESSAGE_INTEGRITY, hashlib.sha1)
        )
        place = 20
        for found, value in self.attributes:
            if found == kind:
                head = self.raw[:2] + struct.pack("!H", place - 20 + 4 + len(value)) + self.raw[4:20]
                return hmac.compare_digest(hmac.new(key, head + self.raw[20:place], digest).digest(), value)
            place += 4 + (len(value) + 3 & ~3)
        return False

    def _head(self, length):
        method = (self.method & 0xF80) << 2 | (self.method & 0x70) << 1 | self.method & 0xF
        kind = (self.kind & 2) << 7 | (self.kind & 1) << 4
        return struct.pack("!HHI", method | kind, length, COOKIE) + self.transaction


def parse(raw, source=()):
    """Parses a message from a server, which must be complete and padded with zeros."""
    kind, length, cookie = struct.unpack_from("!HHI", raw)
    assert kind < 0x4000 and cookie == COOKIE and length == len(raw) - 20 and length % 4 == 0, raw.hex()
    method = (kind & 0x3E00) >> 2 | (kind & 0xE0) >> 1 | kind & 0xF
    message = Message((kind & 0x100) >> 7 | (kind & 0x10) >> 4, method, [], raw[8:20], raw, source)
    place = 20
    while place < len(raw):
        kind, length = struct.unpack_from("!HH", raw, place)
        end = place + 4 + length
        assert end <= len(raw) and not any(raw[end : end + -length % 4]), raw.hex()
        message.attributes.append((kind, raw[place + 4 : end]))
        place = end + -length % 4
    return message


def attribute(kind, value):
    """An attribute with its padding."""
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def number(value):
    """A four-byte number in network byte order."""
    return struct.pack("!I", value)


def xor_address(address, transaction=bytes(12)):
    """The value of an XORed address attribute (RFC 8489 §14.2). IPv6 addresses need the message's transaction ID."""
    ip = ipaddress.ip_address(address[0])
    mask = struct.pack("!I", COOKIE) + transaction
    packed = bytes(a ^ b for a, b in zip(ip.packed, mask))
    family = IPV4 if ip.version == 4 else IPV6
    return struct.pack("!BBH", 0, family, address[1] ^ COOKIE >> 16) + packed


def read_address(value, transaction):
    """The (address, port) of an XORed address attribute."""
    mask = struct.pack("!I", COOKIE) + transaction
    _, family, port = struct.unpack_from("!BBH", value)
    assert len(value) == {IPV4: 8, IPV6: 20}[family]
    packed = bytes(a ^ b for a, b in zip(value[4:], mask))
    return str(ipaddress.ip_address(packed)), port ^ COOKIE >> 16


def read_plain_address(value):
    """Decodes an address that is not XORed, as MAPPED-ADDRESS is (RFC 8489 §14.1)."""
    family, port = struct.unpack_from("!xBH", value)
    length = {IPV4: 4, IPV6: 16}[family]
    assert len(value) == 4 + length
    return str(ipaddress.ip_address(value[4:])), port


def read_icmp(value):
    """The (type, code, error data) of an ICMP attribute (RFC 8656 §18.13)."""
    assert len(value) == 8 and not any(value[:2])
    return struct.unpack_from("!BBI", value, 2)


def long_term_key(algorithm, user, realm, password):
    """The key of a long-term credential (RFC 8489 §9.2.2)."""
    digest = {MD5: hashlib.md5, SHA256: hashlib.sha256}[algorithm]
    return digest(f"{user}:{realm}:{password}".encode()).digest()


def user_hash(user, realm):
    """The value of USERHASH (RFC 8489 §14.4)."""
    return hashlib.sha256(f"{user}:{realm}".encode()).digest()


def features(nonce):
    """The security features of a nonce cookie (RFC 8489 §9.2), or None if the nonce has no cookie."""
    if not nonce.startswith(COOKIE_PREFIX):
        return None
    return int.from_bytes(base64.b64decode(nonce[len(COOKIE_PREFIX) :][:4]), "big")


def send_indication(peer, payload, *attributes):
    """An encoded Send indication."""
    message = Message(INDICATION, SEND)
    peer = xor_address(peer, message.transaction)
    message.attributes = [(XOR_PEER_ADDRESS, peer), *attributes, (DATA_ATTRIBUTE, payload)]
    return message.encode()


def channel_data(channel, payload):
    """A ChannelData message as sent over UDP (RFC 8656 §12.4)."""
    return struct.pack("!HH", channel, len(payload)) + payload


def is_channel_data(raw):
    """Whether the bytes are a ChannelData message."""
    return 0x40 <= raw[0] <= 0x4F
