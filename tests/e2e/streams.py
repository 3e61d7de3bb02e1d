"""A TURN client over TCP or TLS (RFC 8656 §2.1, §12.5). It behaves like the UDP client, but frames messages by their
lengths.
"""

import socket
import ssl
import struct
import time

import stun
from turn import Client


class Stream:
    """Sends and receives messages over a connection; replaces the UDP socket of a `Client`."""

    def __init__(self, connection):
        self.connection = connection
        self._received = b""

    def sendto(self, message, _server):
        """Sends one message, padded to a multiple of four bytes (RFC 8656 §12.5)."""
        self.connection.settimeout(10)
        self.connection.sendall(message + bytes(-len(message) % 4))

    def read(self, timeout):
        """The next complete message without its padding, or None if none arrives in time. Fails if the stream has
        ended.
        """
        end = time.monotonic() + timeout
        while (message := self._whole()) is None:
            remaining = end - time.monotonic()
            if remaining <= 0:
                return None
            self.connection.settimeout(remaining)
            try:
                received = self.connection.recv(65536)
            except TimeoutError:
                return None
            if not received:
                raise ConnectionResetError("the server closed the connection")
            self._received += received
        return message

    def _whole(self):
        if len(self._received) < 4:
            return None
        _, length = struct.unpack_from("!HH", self._received)
        length += 4 if stun.is_channel_data(self._received) else 20
        padded = length + -length % 4
        if len(self._received) < padded:
            return None
        message, self._received = self._received[:length], self._received[padded:]
        return message

    def getsockname(self):
        """The client's own address."""
        return self.connection.getsockname()[:2]

    def close(self):
        """Closes the connection with a FIN."""
        self.connection.close()


class StreamClient(Client):
    """A client over one connection, which `connect` opens unless one is given."""

    def __init__(self, host, server, user=None, source=None, connection=None, **how):
        stream = Stream(connection or connect(host, server, **how))
        super().__init__(host, server, user, source, opened=stream)
        self._reconnect = lambda: self._connect(host, how)

    def _connect(self, host, how):
        self.socket.close()
        self.socket = Stream(connect(host, self.server, **how))

    def _read(self, timeout):
        if timeout <= 0:
            return False
        raw = self.socket.read(timeout)
        if raw is None:
            return False
        self._take(raw, self.server)
        return True


def connect(host, server, trust=None, name=None, receive_buffer=None):
    """Opens a TCP connection from a host, or a TLS one if a certificate to trust and the server's name are given. Over
    TLS, only a close_notify counts as the end of the stream (RFC 8446 §6.1).
    """
    with host.inside():
        opened = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    opened.settimeout(10)
    opened.connect(server)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if trust:
        context = ssl.create_default_context(cafile=trust)
        opened = context.wrap_socket(opened, server_hostname=name, suppress_ragged_eofs=False)
    return opened
