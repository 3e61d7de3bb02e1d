"""Test hosts: network namespaces connected by a switch.

The namespaces have no names. A namespace exists while this process holds its file descriptor or a process started in it
runs, and the kernel kills those processes when this process exits. Nothing is left behind however a run ends, and
parallel runs do not interfere. No host has a route to the real network.

Addresses come from the documentation ranges (RFC 5737, RFC 3849), or from private ranges where a test needs those.
"""

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import time

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A host: a network namespace of its own."""

    def __init__(self, name):
        self.name = name
        with _own_namespace() as own:
            _check(_libc.unshare(CLONE_NEWNET))
            self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _check(_libc.setns(own, CLONE_NEWNET))
        self.v4 = self.v6 = None
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *argv, privileges=()):
        """The command line that runs a program on this host, with options for setpriv. The program dies with the thread
        that starts it.
        """
        enter = ["nsenter", f"--net={self.path}", "setpriv", *privileges, "--pdeathsig", "KILL", "--"]
        return enter + [str(word) for word in argv]

    def run(self, *argv):
        """Runs a program, which must succeed; returns its standard output."""
        done = subprocess.run(self.command(*argv), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{self.name}: {' '.join(map(str, argv))}: {done.stderr or done.stdout}"
        return done.stdout

    def start(self, *argv, privileges=(), **options):
        """Starts a program; the caller waits for it or stops it."""
        command = self.command(*argv, privileges=privileges)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)

    @contextlib.contextmanager
    def inside(self):
        """Sockets that this thread or threads started by it open in this context belong to this host."""
        with _own_namespace() as own:
            _check(_libc.setns(self._namespace, CLONE_NEWNET))
            try:
                yield self
            finally:
                _check(_libc.setns(own, CLONE_NEWNET))

    def udp(self, address="", port=0, family=None):
        """A UDP socket bound to one of this host's addresses, by default its first IPv4 address."""
        address = address or self.v4
        family = family or (socket.AF_INET6 if ":" in address else socket.AF_INET)
        with self.inside():
            opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        opened.bind((address, port))
        opened.settimeout(5)
        return opened

    def tcp(self, address, port):
        """A TCP connection from this host."""
        with self.inside():
            return socket.create_connection((address, port), timeout=10)

    def add_address(self, address, *options, interface="eth0"):
        """Adds an address such as `192.0.2.7/24` to an interface. It can be used immediately."""
        nodad = ["nodad"] if ":" in address else []
        self.run("ip", "address", "add", address, "dev", interface, *nodad, *options)

    @property
    def path(self):
        """A path to the namespace, valid while this process runs."""
        return f"/proc/{os.getpid()}/fd/{self._namespace}"

    def close(self):
        """Closes the namespace's descriptor. The kernel removes the namespace once no process runs in it."""
        os.close(self._namespace)


class Switch:
    """Hosts that are connected to each other and to nothing else."""

    NETWORKS = ("203.0.113.0/24", "2001:db8:1::/64")

    def __init__(self):
        self._host = Host("switch")
        self._hosts = []
        self._host.run("ip", "link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
        self._host.run("ip", "link", "set", "switch", "up")

    def host(self, name, addresses=None, default_route=False):
        """A new host on the switch, with the next address of each of `NETWORKS`, or with the given addresses."""
        host, n = Host(name), len(self._hosts) + 1
        self._hosts.append(host)
        port = self._port(host)
        link = ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.path]
        self._host.run(*link)
        self._host.run("ip", "link", "set", port, "master", "switch", "up")
        host.run("ip", "link", "set", "eth0", "up")
        if addresses is None:
            addresses = [f"203.0.113.{n}/24", f"2001:db8:1::{n:x}/64"]
        for address in addresses:
            host.add_address(address)
        plain = [address.split("/")[0] for address in addresses]
        host.v4 = next((address for address in plain if ":" not in address), None)
        host.v6 = next((address for address in plain if ":" in address), None)
        if default_route:
            host.run("ip", "-4", "route", "add", "default", "dev", "eth0")
            host.run("ip", "-6", "route", "add", "default", "dev", "eth0")
        return host

    def lets_out(self, host, *destinations):
        """Silently drops what a host sends, but to these destinations: tuples (address, "tcp" or "udp", port). Another call
        replaces them. Addresses of neighbours can be asked for.
        """
        accepted = "".join(
            f"{'ip6' if ':' in address else 'ip'} daddr {address} {protocol} dport {port} accept\n"
            for address, protocol, port in destinations
        )
        port = self._port(host)
        rules = f"""
            table netdev {port} {{ }}
            delete table netdev {port}
            table netdev {port} {{
                counter dropped {{ }}
                chain sent {{
                    type filter hook ingress device "{port}" priority 0
                    ether type arp accept
                    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
                    {accepted}
                    counter name dropped drop
                }}
            }}
        """
        self._host.run("nft", rules)

    def dropped(self, host):
        """How many packets of a host were dropped since the last call of `lets_out`."""
        words = self._host.run("nft", "list", "counter", "netdev", self._port(host), "dropped").split()
        return int(words[words.index("packets") + 1])

    def _port(self, host):
        return f"port{self._hosts.index(host) + 1}"

    def close(self):
        """Closes all hosts."""
        for host in [*self._hosts, self._host]:
            host.close()


class Background:
    """A `process` that is killed at the end of the `with` block. Its remaining output is discarded."""

    process: subprocess.Popen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def eventually(what, timeout=20):
    """Waits until `what()` is true and returns its value. For state that other processes change asynchronously."""
    end = time.monotonic() + timeout
    while not (value := what()) and time.monotonic() < end:
        time.sleep(0.05)
    assert value, f"condition not met after {timeout} s: {what.__doc__ or what}"
    return value


@contextlib.contextmanager
def _own_namespace():
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield own
    finally:
        os.close(own)


def _check(result):
    if result != 0:
        number = ctypes.get_errno()
        hint = " (the tests need root)" if number == errno.EPERM else ""
        raise OSError(number, os.strerror(number) + hint)
