"""Storms of operations that cost a relay more than packets do: connections, handshakes, allocations, and endless
messages from one client. Each storm is a separate process that runs until it is killed and prints one byte per
completed operation.
"""

import itertools
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from pathlib import Path

import stun
from hosts import Background
from turn import Client, User

# Kinds of endless messages over one connection.
MESSAGES = ("requests", "bindings", "channels", "unframed")

CLIENTS = 32


class Storm(Background):
    """A storm from a host. `of` names one of the functions below and `words` are its arguments."""

    def __init__(self, host, of, *words):
        # The measuring process must not wait for this one.
        command = ["nice", "-n", "5", sys.executable, Path(__file__), of, *words]
        self.process = host.start(*command, stdout=subprocess.PIPE)

    def stop(self):
        """Kills the storm, possibly in the middle of an operation; returns how many operations it completed."""
        assert self.process.poll() is None, "the storm ended by itself"
        self.process.kill()
        return len(self.process.stdout.read())


def handshakes(address, port, trust, name):
    """TLS handshakes. Every second one is aborted after the server's first flight."""
    context = ssl.create_default_context(cafile=trust)
    for n in itertools.count():
        with _connected(address, port) as opened:
            if n % 2:
                context.wrap_socket(opened, server_hostname=name).close()
            else:
                opened.sendall(_hello(context, name))
                opened.recv(1)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        yield


def allocations(address, port, name, password):
    """Allocations with a channel, deleted immediately."""
    clients = []
    for _ in range(CLIENTS):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        clients.append(Client(None, (address, int(port)), User(name, password), "any", opened))
    for client in itertools.cycle(clients):
        client.allocate()
        client.bind(("203.0.113.3", 9))
        client.refresh(0)
        yield


def messages(kind, address, port, trust="", name=""):
    """Sends messages over one connection as fast as the relay reads them. When the relay closes it, continues on a new
    one.
    """
    batch = b"".join(itertools.islice(_messages(kind), 2000))
    context = ssl.create_default_context(cafile=trust) if trust else None
    while True:
        with _connected(address, port) as opened:
            if context:
                opened = context.wrap_socket(opened, server_hostname=name)
            opened.setblocking(False)
            rest = batch
            try:
                while True:
                    try:
                        rest = rest[opened.send(rest) :] or batch
                        yield
                    except (BlockingIOError, ssl.SSLWantWriteError):
                        pass
                    try:
                        if not opened.recv(1 << 16):
                            break
                    except (BlockingIOError, ssl.SSLWantReadError):
                        pass
            except OSError:
                pass
        yield


def _messages(kind):
    for n in itertools.count():
        if kind == "bindings":
            yield stun.Message(stun.REQUEST, stun.BINDING).encode()
        elif kind == "requests":
            yield stun.Message(stun.REQUEST, stun.ALLOCATE).encode()
        elif kind == "channels":
            yield stun.channel_data(0x4000 + n % 0x1000, b"")
        else:
            yield b"\xff" + os.urandom(99)


def _connected(address, port):
    while True:
        try:
            return socket.create_connection((address, int(port)), timeout=10)
        except ConnectionError:
            time.sleep(0.01)


def _hello(context, name):
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


if __name__ == "__main__":
    _, of, *words = sys.argv
    storm = {"handshakes": handshakes, "allocations": allocations, "messages": messages}[of]
    for _ in storm(*words):
        os.write(1, b".")
