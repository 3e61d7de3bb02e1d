"""HTTP proxies, as companies have them between their clients and the internet: real ones, from Debian.

Both open tunnels (CONNECT, RFC 9110 §9.3.6) to port 443 only, as squid does by default, and close one in which nothing has been
sent in either direction for `idle` seconds.
"""

import os
import re
import socket
import ssl
import tempfile
from pathlib import Path

from hosts import eventually

# The proxy finds names in this file only, and does not share it with the machine.
NAMES = 'mount --bind "$0" /etc/hosts && exec "$@"'


class HTTPProxy:
    """A proxy on a host, which knows the addresses of `names`. Its log has a line for each tunnel."""

    PORT = None

    def __init__(self, host, names, idle=600):
        self.host = host
        self._folder = tempfile.TemporaryDirectory(prefix="hairpin-proxy-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o777)  # squid becomes another user before it opens its log
        hosts = self.folder / "hosts"
        hosts.write_text("".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **names}.items()))
        file = self.folder / "conf"
        file.write_text(self.configuration(idle))
        with open(self.folder / "output", "wb") as output:
            command = ["unshare", "--mount", "sh", "-c", NAMES, hosts, *self.command(file)]
            self.process = host.start(*command, stdout=output, stderr=output, cwd=self.folder)
        eventually(self._serves)

    def configuration(self, idle):
        """Its configuration file."""
        raise NotImplementedError

    def command(self, file):
        """Its command line."""
        raise NotImplementedError

    @property
    def address(self):
        """Where clients reach it."""
        return self.host.v4, self.PORT

    @property
    def log(self):
        """What it has logged."""
        return "".join(file.read_text(errors="replace") for file in sorted(self.folder.glob("*log")) + [self.folder / "output"])

    def tunnel(self, client, server, port=443):
        """A connection of a client through the proxy."""
        opened = client.tcp(*self.address)
        opened.sendall(f"CONNECT {server}:{port} HTTP/1.1\r\nHost: {server}:{port}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            received = opened.recv(1)  # what follows is of the server
            assert received, f"the proxy answered {answer}:\n{self.log}"
            answer += received
        if not re.match(rb"HTTP/1\.\d 200 ", answer):
            opened.close()
            raise ConnectionRefusedError(answer.decode())
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def close(self):
        """Ends it."""
        self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def _serves(self):
        """the proxy listens"""
        assert self.process.poll() is None, f"it exited with status {self.process.returncode}:\n{self.log}"
        try:
            self.host.tcp(*self.address).close()
        except OSError:
            return False
        return True


class Squid(HTTPProxy):
    """squid, with `read_timeout` for tunnels."""

    PORT = 3128

    def configuration(self, idle):
        return f"""
            http_port {self.PORT}
            acl https port 443
            http_access deny CONNECT !https
            http_access allow all
            hosts_file {self.folder}/hosts
            read_timeout {idle} seconds
            cache deny all
            access_log stdio:{self.folder}/access.log
            cache_log {self.folder}/cache.log
            debug_options ALL,0
            pid_filename none
            pinger_enable off
            netdb_filename none
            coredump_dir {self.folder}
            visible_hostname proxy
        """.replace("            ", "")

    def command(self, file):
        return "squid", "-N", "-f", file


class Tinyproxy(HTTPProxy):
    """tinyproxy, with `Timeout`."""

    PORT = 8888

    def configuration(self, idle):
        return f"Port {self.PORT}\nTimeout {idle}\nConnectPort 443\nLogLevel Connect\nMaxClients 50\n"

    def command(self, file):
        return "tinyproxy", "-d", "-c", file


def only_by(client, *proxies):
    """The client's network lets nothing out but connections to these proxies, neither UDP nor names."""
    to = " ".join(f"ip daddr {address} tcp dport {port} accept;" for address, port in (proxy.address for proxy in proxies))
    rules = (
        f"table inet office {{ chain out {{ type filter hook output priority 0; policy drop; oif lo accept; {to} }}; "
        "chain in { type filter hook input priority 0; policy drop; iif lo accept; ct state established accept; }; }"
    )
    client.run("nft", rules)


def secured(connection, trust, name, protocols=()):
    """TLS over a connection, offering these protocols (ALPN)."""
    context = ssl.create_default_context(cafile=trust)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(connection, server_hostname=name)
