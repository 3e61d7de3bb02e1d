"""LiveKit: the real server, the sidecar under test, and browsers with LiveKit's own client.

The programs are built by tests/run.sh; LIVEKIT_TOOLS names their folder.
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path

from browser import Browser
from conftest import NAME
from hosts import eventually
from relay import SECRET, toml

TARGET = Path(__file__).parents[2] / "target"
TOOLS = Path(os.environ.get("LIVEKIT_TOOLS") or TARGET / "livekit").resolve()
SIDECAR = Path(os.environ.get("HAIRPIN_LIVEKIT") or TARGET / "release" / "hairpin-livekit").resolve()

KEY, API_SECRET = "APIhairpintests", "the API secret of these tests, 32 characters"

SIGNAL, MEDIA_TCP, MEDIA = 7880, 7881, (50000, 52999)

# What a browser may reach at a relay
RELAY_PORTS = (3478, 5349, 443)

# Those of a relay with the default ports, given its address and its name
URLS = ["turn:{0}:3478?transport=udp", "turn:{0}:3478?transport=tcp", "turns:{1}:5349?transport=tcp"]

ROOM = "the room"


# Tokens


def token(grants, identity=None, key=KEY, secret=API_SECRET, ttl=600):
    """A LiveKit access token: a JWT with video grants."""
    now = int(time.time())
    claims = {"iss": key, "nbf": now - 5, "exp": now + ttl, "video": grants}
    if identity is not None:
        claims |= {"sub": identity, "name": identity}
    parts = [base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.digest(secret.encode(), ".".join(parts).encode(), hashlib.sha256)
    return ".".join([*parts, base64url(signature)])


def join_token(identity, room=ROOM, **options):
    """A token with which a participant joins a room."""
    return token({"room": room, "roomJoin": True}, identity, **options)


def base64url(raw):
    """The encoding of a JWT's parts."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# HTTP


def request(host, address, method, path, body=None, headers=None):
    """The status, headers and body of a response, asked for from this host."""
    connection = http.client.HTTPConnection(*address)
    with host.tcp(*address) as connection.sock:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read().decode()


class Program:
    """A program on a host whose output goes to a file. It can be started again."""

    def __init__(self, host, folder, *argv, environment=None):
        self.host = host
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._argv = argv
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **(environment or {})}
        self._runs = itertools.count()
        self.process = None

    def start(self):
        """Starts it; its earlier output is kept."""
        with open(self.folder / f"log-{next(self._runs)}", "wb") as log:
            options = {"stdout": log, "stderr": log, "env": self._environment, "cwd": self.folder}
            self.process = self.host.start(*self._argv, **options)
        return self

    @property
    def log(self):
        """All that it has written."""
        files = sorted(self.folder.glob("log-*"), key=lambda file: int(file.name.removeprefix("log-")))
        return "".join(file.read_text(errors="replace") for file in files)

    def answers(self, address, path, status=200):
        """Waits until it answers a GET request with this status."""

        last = None

        def answers():
            nonlocal last
            assert self.process.poll() is None, f"it exited with status {self.process.returncode}:\n{self.log}"
            try:
                last = request(self.host, address, "GET", path)
            except OSError as error:
                last = [error]
            answers.__doc__ = f"{self.folder.name} answers at {address}{path} with {status}; last {last}"
            return last[0] == status

        eventually(answers, 30)
        return self

    def stop(self, how=signal.SIGTERM):
        """Sends a signal, waits, and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self):
        """Kills it."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def resident(self):
        """Its resident memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status)[1])


class LiveKit(Program):
    """A LiveKit server, which clients know by `url`. `rtc` changes keys of that section and `changes` other sections of its
    configuration, which is in `file`; a file that exists is used as it is.
    """

    def __init__(self, host, folder, *, address=None, url=None, rtc=None, **changes):
        self.address = address or host.v4
        self.url = url or f"ws://{self.address}:{SIGNAL}"
        self.file = Path(folder) / "livekit.yaml"
        super().__init__(host, folder, TOOLS / "server", "--config", self.file)
        if not self.file.exists():
            low, high = MEDIA
            media = {"tcp_port": MEDIA_TCP, "port_range_start": low, "port_range_end": high}
            media |= {"use_external_ip": False, "node_ip": self.address}
            config = {
                "port": SIGNAL,
                "rtc": {key: value for key, value in {**media, **(rtc or {})}.items() if value is not None},
                "keys": {KEY: API_SECRET},
                "logging": {"level": "info", "json": True},
                **changes,
            }
            write_private(self.file, yaml(config))

    def start(self):
        """Starts it and waits until it serves."""
        super().start()
        return self.answers(("127.0.0.1", SIGNAL), "/")

    def call(self, method, room=None, **arguments):
        """Calls a method of the room API; returns its response."""
        grants = {"roomAdmin": True, "room": room, "roomList": True, "roomCreate": True}
        headers = {"Authorization": f"Bearer {token(grants)}", "Content-Type": "application/json"}
        body = json.dumps(({"room": room} if room else {}) | arguments)
        path = f"/twirp/livekit.RoomService/{method}"
        status, _, answer = request(self.host, ("127.0.0.1", SIGNAL), "POST", path, body, headers)
        assert status == 200, f"{method}: {status}: {answer}"
        return json.loads(answer)

    def rooms(self):
        """The names of all rooms."""
        return [room["name"] for room in self.call("ListRooms").get("rooms", [])]

    def participants(self, room=ROOM):
        """The identities of a room's participants and their sids."""
        listed = self.call("ListParticipants", room).get("participants", [])
        return {participant["identity"]: participant["sid"] for participant in listed}

    def remove(self, identity, room=ROOM):
        """Removes a participant from a room."""
        self.call("RemoveParticipant", room, identity=identity)

    def delete(self, room=ROOM):
        """Deletes a room."""
        self.call("DeleteRoom", room)


class Redis(Program):
    """Redis, which the nodes of a distributed deployment share."""

    PORT = 6379

    def __init__(self, host, folder):
        options = ["--port", self.PORT, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", folder]
        super().__init__(host, folder, "redis-server", *options)

    def start(self):
        """Starts it and waits until it serves."""
        super().start()

        def serves():
            """Redis serves"""
            try:
                self.host.tcp(self.host.v4, self.PORT).close()
                return True
            except OSError:
                return False

        eventually(serves)
        return self

    @property
    def address(self):
        """Where nodes find it."""
        return f"{self.host.v4}:{self.PORT}"


class Sidecar(Program):
    """The sidecar `hairpin-livekit run` beside a relay, whose certificate is for `name` from `authority`. `changes` replace keys of whole
    sections of its configuration, which is in `file`; a file that exists is used as it is.
    """

    def __init__(self, relay, livekit, folder, authority=None, *, environment=None, name=NAME, **changes):
        self.file = Path(folder) / "hairpin-livekit.toml"
        self.relay = relay
        super().__init__(relay.host, folder, SIDECAR, "run", "--config", self.file, environment=environment)
        self.http = ("127.0.0.1", 9643)
        if not self.file.exists():
            keys, secret = self.folder / "keys", self.folder / "secret"
            write_private(keys, f"{KEY}: {API_SECRET}\n")
            write_private(secret, f"{SECRET}\n")
            low, high = MEDIA
            there = {"socket": str(relay.socket), "urls": [url.format(relay.host.v4, name) for url in URLS]}
            if authority:
                there["ca_file"] = str(authority.certificate)
            config = {
                "livekit": {"url": livekit.url, "keys_file": str(keys)},
                "relay": [there],
                "credentials": {"secret_file": str(secret)},
                "http": {"listen": ["0.0.0.0:9643"], "origins": [Participant.ORIGIN]},
                "peers": {"addresses": [f"{livekit.address}:{low}-{high}"]},
                "lifecycle": {"state_dir": str(self.folder / "state")},
            }
            for section, keys in changes.items():
                config[section] = {**config.get(section, {}), **keys} if isinstance(keys, dict) else keys
            write_private(self.file, toml(config))

    def start(self):
        """Starts it and waits until it serves."""
        super().start()
        return self.answers(self.http, "/livez")

    def ready(self):
        """Waits until it has found everything to be well, and has told the relay where the SFU is."""
        self.answers(self.http, "/readyz")
        eventually(lambda: self.relay.ask("peers", "list")["overlays"])
        return self

    def get(self, path, headers=None):
        """The status, headers and body of a page."""
        return request(self.host, self.http, "GET", path, None, headers)

    def metrics(self):
        """All samples of /metrics: {name: {labels: value}}, with labels as a frozenset of pairs."""
        status, _, page = self.get("/metrics")
        assert status == 200
        samples = defaultdict(dict)
        for line in page.splitlines():
            if line and not line.startswith("#"):
                name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
                samples[name][frozenset(re.findall(r'(\w+)="([^"]*)"', labels or ""))] = float(value)
        return samples

    def metric(self, name, **labels):
        """The sum of the samples of a metric with these labels."""
        samples = self.metrics()
        assert name in samples, f"no metric {name}: {sorted(samples)}"
        return sum(value for found, value in samples[name].items() if labels.items() <= set(found))


def sidecar_command(host, *arguments, environment=None, status=0):
    """Runs the sidecar's program, which must exit with this status; returns what it printed: errors, if it had to fail and wrote
    any.
    """
    variables = {"PATH": os.environ["PATH"], **(environment or {})}
    pipe = subprocess.PIPE
    process = host.start(SIDECAR, *arguments, stdout=pipe, stderr=pipe, env=variables, text=True)
    output, error = process.communicate(timeout=120)
    assert process.returncode == status, f"{arguments}: {process.returncode}: {error or output}"
    return status and error or output


def write_private(file, text):
    """Writes a file that only its owner may read."""
    file.write_text(text)
    file.chmod(0o600)


class Load:
    """Participants that join a room at once, from a host, over relays only. They stay until `leave` or the end of the
    `with` block. `result` is what the client reports once each has joined or failed, described in
    tests/livekit/load/main.go.
    """

    def __init__(self, host, livekit, count, room=ROOM):
        words = ["--url", livekit.url, "--room", room, "--count", count]
        enter = host.command(TOOLS / "load", *words)
        variables = {"PATH": os.environ["PATH"], "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": API_SECRET}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(enter, stdin=pipe, stdout=pipe, env=variables, text=True)
        self.result = json.loads(self.process.stdout.readline())

    def leave(self):
        """All leave the room."""
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Participant:
    """A browser whose page holds LiveKit's client, at http://localhost:8000. It reads and publishes streams, too."""

    PORT = 8000
    ORIGIN = f"http://localhost:{PORT}"

    def __init__(self, host, authority, names):
        self.host = host
        self._web = _serve_page(host, self.PORT)
        self.browser = Browser(host, authority=authority.certificate, names=names)
        self.browser.open("0", self.ORIGIN)

    def close(self):
        """Closes the browser."""
        self.browser.close()
        self._web.shutdown()
        self._web.server_close()

    def reaches_only(self, *destinations):
        """Cuts everything but these destinations, each an address, its ports, and `udp` or `tcp` if not both. Packets that
        are no responses to what this host has sent there do not arrive either, so all media takes one of these ways.
        """
        rules = [
            f"ip{'6' if ':' in at else ''} daddr {at} {protocol[0] if protocol else 'th'} dport {{ {', '.join(map(str, ports))} }} accept"
            for at, ports, *protocol in destinations
        ]
        file = Path(self.browser.home) / "firewall"
        file.write_text(
            "table inet only\ndelete table inet only\ntable inet only {\n"
            "chain out { type filter hook output priority 0; policy drop; oif lo accept; icmpv6 type != echo-request "
            f"accept; {' '.join(f'{rule};' for rule in rules)} }}\n"
            "chain in { type filter hook input priority 0; policy drop; iif lo accept; icmpv6 type != echo-request "
            "accept; ct state established,related accept; }\n}\n"
        )
        self.host.run("nft", "-f", file)

    def join(self, livekit, identity, room=ROOM, *, publish=False, ask=None, pair=None):
        """Joins a room, with ICE servers from the sidecar at the URL `ask` if that is given. `pair` is an API key and its secret,
        as arguments of `token`.
        """
        words = [livekit.url, join_token(identity, room, **(pair or {})), ask]
        joined = f"member.join({', '.join(map(json.dumps, words))})"
        self.run(f"globalThis.member?.leave(); globalThis.member = new Member(); {joined}")
        if publish:
            self.run("member.publish()")
        return self

    def stream(self, action, url):
        """Publishes or reads a stream of a MediaMTX server."""
        self.run(f"globalThis.member?.leave(); globalThis.member = new Stream(); member.{action}({json.dumps(url)})")

    def run(self, script, timeout=60):
        """Returns the value of a script in the page."""
        return self.browser.run(script, timeout)

    @property
    def sid(self):
        """The server's identifier of this participant."""
        return self.run("member.sid")

    @property
    def state(self):
        """The client's view: connected, reconnecting, .. or disconnected."""
        return self.run("member.state")

    @property
    def urls(self):
        """The URLs of the ICE servers in use."""
        return sorted({url for server in self.run("member.iceServers()") for url in server["urls"]})

    def watch(self, count=20):
        """Waits for video frames of others; returns the seconds from joining to the first."""
        return self.run(f"member.watch({count})")

    def relayed(self, *protocols, at=None):
        """Checks that all media takes relayed candidates over one of these protocols, perhaps at this address.

        Without an address, the server may see the candidate at another one than the relay tells the browser, which
        then calls it peer-reflexive: a relay and a server on one machine behind a NAT know each other by private
        addresses.
        """
        pairs = self.run("member.selected()")
        assert pairs, "no transport is connected"
        for pair in pairs:
            kinds = ["relay"] if at else ["relay", "prflx"]
            assert pair["local"]["candidateType"] in kinds and pair["local"]["relayProtocol"] in protocols, pair
            assert at is None or pair["local"]["address"] == at, pair

    def longest_pause(self):
        """The longest time without a new frame since the last call, in seconds."""
        return self.run("member.longestPause()")

    def leave(self):
        """Leaves the room, whatever state the client is in."""
        self.browser.load(self.ORIGIN)


def _serve_page(host, port):
    """Serves the page on this host's loopback interface."""
    here = Path(__file__).parent
    scripts = {
        "/client.js": (TOOLS / "livekit-client.umd.js").read_bytes(),
        "/call.js": (here / "call.js").read_bytes(),
        "/livekit.js": (here / "livekit.js").read_bytes(),
    }
    # livekit.js goes first, because the client keeps the class of peer connections that it finds.
    order = ("/call.js", "/livekit.js", "/client.js")
    page = "<!doctype html><title>room</title>" + "".join(f'<script src="{name}"></script>' for name in order)

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers with the page or one of its scripts."""

        def do_GET(self):
            """Answers a request."""
            body, kind = scripts.get(self.path, page.encode()), "text/javascript" if self.path in scripts else "text/html"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Logs nothing."""

    with host.inside():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


# Configuration


def turn_servers(at, *protocols, secret, name=None, ttl=600):
    """The `rtc.turn_servers` section for a relay at an address, by name over TLS."""
    ports = {"udp": 3478, "tcp": 3478, "tls": 5349}
    hosts = {"udp": at, "tcp": at, "tls": name}
    return [
        {"host": hosts[protocol], "port": ports[protocol], "protocol": protocol, "secret": secret, "ttl": ttl}
        for protocol in protocols
    ]


def yaml(value, indent=0):
    """Nested dicts and lists in YAML's block style, as people write it."""
    space = "  " * indent
    if isinstance(value, dict):
        lines = [f"{space}{key}:{_below(inner, indent + 1)}" for key, inner in value.items()]
    else:
        lines = []
        for inner in value:
            if isinstance(inner, (dict, list)) and inner:
                lines.append(f"{space}- " + yaml(inner, indent + 1).lstrip().rstrip("\n"))
            else:
                lines.append(f"{space}-{_below(inner, indent + 1)}")
    return "\n".join(lines) + "\n"


def _below(value, indent):
    if isinstance(value, (dict, list)) and value:
        return "\n" + yaml(value, indent).rstrip("\n")
    return " " + json.dumps(value)
