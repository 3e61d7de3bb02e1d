"""A service manager as a program sees it: the socket of sd_notify(3), and what arrives there."""

import os
import socket
import uuid

from hosts import eventually


class Manager:
    """Receives notifications at a path or, without one, at an abstract name, which belongs to the network of a host."""

    def __init__(self, host, path=None):
        self.name = str(path or f"@hairpin-test-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        with host.inside():
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if path is None else self.name)
        if path is not None:
            os.chmod(path, 0o777)
        self.socket.setblocking(False)
        self.messages = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @property
    def environment(self):
        """What a service has in its environment."""
        return {"NOTIFY_SOCKET": self.name}

    def read(self):
        """Every message until now, as lists of `NAME=value`."""
        while True:
            try:
                self.messages.append(self.socket.recv(65536).decode().splitlines())
            except BlockingIOError:
                return self.messages

    def lines(self, prefix=""):
        """Every assignment until now that begins like this."""
        return [line for message in self.read() for line in message if line.startswith(prefix)]

    @property
    def status(self):
        """The last STATUS."""
        return (["", *self.lines("STATUS=")][-1]).removeprefix("STATUS=")

    def hears(self, line, count=1):
        """Waits until this assignment has arrived so often."""
        eventually(lambda: self.lines(line).count(line) >= count)

    def sees(self, text):
        """Waits until the STATUS contains this text; returns it."""
        return eventually(lambda: text in self.status and self.status)
