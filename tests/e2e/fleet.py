"""A fleet as its operator monitors it: two relays whose metrics need a token, a sidecar with LiveKit, and Prometheus; and work that
shows on each panel of the dashboard.
"""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import tomllib
from http.client import HTTPConnection

import pytest

from clouds import METADATA, Cloud
from conftest import ALICE
from documents import DOCS, configurations
from floods import from_sockets
from hosts import eventually
from livekit import KEY, LiveKit, Sidecar, turn_servers
from prometheus import Prometheus
from relay import SECRET
from rooms import programs  # noqa: F401 a fixture
from streams import StreamClient, connect
from test_losses import receive_drops, stopped
from turn import Client, User, error_code

ONE, TWO = "turn-1.example.org", "turn-2.example.org"

# The second relay's addresses outside of its cloud, one after the other
OUTSIDE = ("192.0.2.77", "192.0.2.78")

# A network that clients may reach, and to which there is no route
NOWHERE = "10.9.0.0/24"


@pytest.fixture
def token(tmp_path):
    """A token, made by the documented commands: its file for Prometheus, and one for the relays."""
    section = (DOCS / "monitoring.md").read_text().partition("\n## Scrape a fleet\n")[2]
    [commands] = re.findall(r"(?:^    .*openssl rand.*\n)(?:^    .*\n)+", section, flags=re.M)
    here = commands.replace("/etc/prometheus/", f"{tmp_path}/")
    line = subprocess.run(["sh", "-e", "-c", here], check=True, capture_output=True, text=True).stdout
    tokens = tmp_path / "metrics-tokens"
    tokens.write_text(line)
    tokens.chmod(0o600)
    return tmp_path / "hairpin.token", tokens


@pytest.fixture
def fleet(switch, start, authority, token):
    """Two relays whose metrics need a token, over TLS. The second one has its external address from its cloud."""
    documented = tomllib.loads(configurations("monitoring.md", "## Scrape a fleet")["hairpin.toml"])["http"]
    hosts, relays = [switch.host("one"), switch.host("two")], []
    [provider] = [switch.host("cloud", [f"{METADATA}/32"])]
    hosts[1].run("ip", "route", "add", f"{METADATA}/32", "dev", "eth0")
    provider.run("ip", "route", "add", "203.0.113.0/24", "dev", "eth0")
    cloud = Cloud(provider, "hetzner", hosts[1].v4, OUTSIDE[0])
    for name, host in zip((ONE, TWO), hosts):
        cert, key = map(str, authority.issue(name, host.v4))
        external = {"external_ip": "auto", "external_ip_interval": 1} if name == TWO else {}
        web = {"address": "0.0.0.0:8080", "transports": ["tcp"], "http": "127.0.0.1:8000"}
        relays.append(
            start(
                host,
                wait=False,
                listen={"tcp": ["0.0.0.0:3478"], "tls": ["0.0.0.0:5349"]},
                relay={"addresses": [host.v4, host.v6], **external},
                peers={"allow": [*switch.NETWORKS, NOWHERE]},
                tls={"cert": cert, "key": key},
                limits={"connections_per_source": 16, "client_queue": 16384},
                http=documented | {"tokens_file": str(token[1])},
                listener=[web],
                workers=2,
            )
        )
    relays[1].cloud = cloud
    yield relays
    cloud.close()


@pytest.fixture
def room(switch, fleet, authority, programs, tmp_path):  # noqa: F811
    """LiveKit, whose clients use the first relay, and who tells the sidecar what happens."""
    one, sfu = fleet[0].host, switch.host("sfu")
    servers = turn_servers(one.v4, "udp", secret=SECRET)
    webhook = {"api_key": KEY, "urls": [f"https://{one.v4}:9643/v1/webhook"]}
    room = LiveKit(sfu, tmp_path / "livekit", rtc={"turn_servers": servers}, webhook=webhook)
    room._environment["SSL_CERT_FILE"] = str(authority.certificate)
    programs.append(room)
    return room.start()


class SecureSidecar(Sidecar):
    """A sidecar that speaks HTTPS."""

    def __init__(self, relay, room, folder, authority, name):
        self.context = ssl.create_default_context(cafile=authority.certificate)
        self.name = name
        pair = {"cert": authority.folder / f"{name}.pem", "key": authority.folder / f"{name}.key"}
        https = {key: str(file) for key, file in pair.items()}
        changes = {"http": https, "health": {"interval": 1}, "peers": {"mode": "add"}}
        super().__init__(relay, room, folder, authority, name=name, **changes)

    def answers(self, address, path, status=200):
        """Waits until it answers a GET request with this status."""

        def answers():
            with contextlib.suppress(OSError):
                return self.get(path)[0] == status

        eventually(answers, 30)
        return self

    def get(self, path, headers=None, method="GET"):
        """The status and body of a page."""
        with self.host.tcp(*self.http) as raw, self.context.wrap_socket(raw, server_hostname=self.name) as tls:
            connection = HTTPConnection(*self.http)
            connection.sock = tls
            connection.request(method, path, None, headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()


@pytest.fixture
def sidecar(fleet, room, authority, programs, tmp_path):  # noqa: F811
    """A sidecar beside the first relay."""
    programs.append(SecureSidecar(fleet[0], room, tmp_path / "sidecar", authority, ONE))
    return programs[-1].start()


@pytest.fixture
def monitor(switch, fleet, token, authority, programs, tmp_path):  # noqa: F811
    """Prometheus as prometheus.yml has it, on a host of its own, but that it scrapes each second."""
    names = {ONE: fleet[0].host.v4, TWO: fleet[1].host.v4}
    host = switch.host("monitor")
    monitor = Prometheus(host, tmp_path / "monitor", {**names, "inventory.example.org": host.v4})
    shutil.copy(authority.certificate, monitor.configuration / "authority.pem")
    shutil.copy(token[0], monitor.configuration)
    monitor.every_second()
    programs.append(monitor)
    return monitor.start()


class Work:
    """What clients, attackers and operators do to the fleet. It goes on where it is visible to `monitor`."""

    def __init__(self, fleet, clients, peers, authority, monitor):
        self.one, self.two = fleet
        self.clients, self.peers, self.authority, self.monitor = clients, peers, authority, monitor
        self.server = (self.one.host.v4, 3478)

    def run(self):
        """All of it, once."""
        with contextlib.ExitStack() as opened, self.peers.udp() as peer:
            calls = [opened.enter_context(call) for call in self.calls()]
            channels = [self.talks(call, peer) for call in calls]
            self.slow_client(calls[1], peer)
            self.strangers(calls[0], peer)
            self.overload(calls[0], channels[0])
            self.monitor.until("hairpin_allocations > 0")
            self.tls()
            self.web()
            for call in calls[:2]:
                call.refresh(0)
        self.certificates()
        self.operator()
        self.addresses()

    def calls(self):
        """Clients over each transport."""
        yield Client(self.clients, self.server, ALICE)
        yield StreamClient(self.clients, self.server, ALICE, receive_buffer=4096)
        yield StreamClient(self.clients, (self.server[0], 5349), ALICE, trust=self.authority.certificate, name=ONE)

    def talks(self, client, peer):
        """A client and a peer exchange some packets; returns the channel."""
        client.binding()
        client.allocate()
        channel = client.bind(peer.getsockname())
        client.permit(self.peers.v4)
        for _ in range(20):
            client.send_channel(channel, bytes(200))
            payload, source = peer.recvfrom(1000)
            peer.sendto(payload, source)
            assert client.receive().payload == payload
        return channel

    def slow_client(self, client, peer):
        """A client over TCP reads nothing."""

        def dropped():
            for _ in range(100):
                peer.sendto(bytes(1200), client.relayed)
            return self.monitor.now("hairpin_connections_dropped_messages_total > 0")

        eventually(dropped)

    def strangers(self, client, peer):
        """Wrong credentials, peers that are denied or cannot be reached, packets of no protocol, and too many connections."""
        for user in (User("nobody", "x"), User(ALICE.name, "a wrong password")):
            with Client(self.clients, self.server, user) as other:
                assert error_code(other.allocate) == 401
        assert error_code(client.permit, "127.0.0.1") == 403
        client.permit("10.9.0.1")
        client.send(("10.9.0.1", 9), b"to nowhere")
        client.send(("203.0.113.200", 9), b"without a permission")
        client.socket.sendto(b"GET / HTTP/1.0", client.server)
        with contextlib.ExitStack() as many:
            for _ in range(24):
                many.enter_context(self.clients.tcp(*self.server))
            self.monitor.until("sum(hairpin_connections_refused_total) > 0")
            self.monitor.until("hairpin_connections > 0")

    def overload(self, client, channel):
        """More packets than the queue of a relay takes that does not run."""
        header = channel.to_bytes(2, "big") + (1196).to_bytes(2, "big")
        with stopped(self.one):
            with from_sockets(self.clients, [(client.socket, client.server, header)], 1200):
                # So many that the share of lost packets does not vanish in what was relayed before.
                eventually(lambda: receive_drops(self.one.host) > 2000, timeout=60)
        self.monitor.until('hairpin_socket_drops_total{queue="data"} > 0')

    def tls(self):
        """Clients that refuse the certificate."""
        for _ in range(3):
            with pytest.raises(ssl.SSLError):
                connect(self.clients, (self.server[0], 5349), trust=self.authority.certificate, name="another.example.org")

    def web(self):
        """A browser finds the web server behind the first relay stopped, and then gets a page."""

        def get():
            browser = self.clients.tcp(self.one.host.v4, 8080)
            browser.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return browser

        with get() as browser:
            assert browser.recv(100) == b""
        self.monitor.until("hairpin_backend_up == 0 and on (instance) rate(hairpin_splices_failed_total[10s]) > 0")
        with self.one.host.inside():
            server = socket.create_server(("127.0.0.1", 8000))
        with server, get() as browser:
            web, _ = server.accept()
            while not web.recv(1000):
                # The relay has looked whether the server is back.
                web.close()
                web, _ = server.accept()
            with web:
                self.monitor.until("hairpin_spliced_connections > 0 and hairpin_backend_up == 1")
                web.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(100_000))
            while browser.recv(65536):
                pass
        self.monitor.until('rate(hairpin_spliced_bytes_total{direction="to_client"}[10s]) > 0')

    def certificates(self):
        """A certificate is damaged, and then renewed."""
        cert = self.authority.folder / f"{ONE}.pem"
        cert.write_text("nothing\n")
        self.monitor.until("hairpin_tls_certificate_failing == 1")
        self.authority.issue(ONE, self.one.host.v4)
        self.monitor.until('hairpin_tls_certificate_reloads_total{outcome="renewed"} > 0')

    def operator(self):
        """Reloads with and without a mistake, a revocation, and a drain that is taken back."""
        file = self.one.folder / "hairpin.toml"
        right = file.read_text()
        file.write_text(right + "\nworkers = many\n")
        self.one.ctl("reload", status=1)
        self.monitor.until("hairpin_config_last_reload_successful == 0")
        file.write_text(right)
        self.one.ctl("reload")
        self.one.ctl("revoke", "somebody", "--for", "1h")
        with Client(self.clients, (self.two.host.v4, 3478), ALICE) as last:
            last.allocate()
            self.two.ctl("drain")
            # For so long that no step of a range misses it
            self.monitor.until("min_over_time(hairpin_draining[2s]) == 1 and hairpin_ready == 0")
            with Client(self.clients, (self.two.host.v4, 3478), ALICE) as late:
                assert error_code(late.allocate) == 508
            self.two.ctl("undrain")
            self.monitor.until("hairpin_revocations > 0")

    def addresses(self):
        """The second relay loses an address and gets it back, and its cloud gives it another one outside."""
        self.two.cloud.external = OUTSIDE[1]
        host = self.two.host
        host.run("ip", "address", "delete", f"{host.v6}/64", "dev", "eth0")
        self.monitor.until("increase(hairpin_relay_address_changes_total[1m]) > 0")
        host.add_address(f"{host.v6}/64")
        self.monitor.until("increase(hairpin_external_address_changes_total[1m]) > 0")
