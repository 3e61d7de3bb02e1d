"""`hairpin import-coturn`: five configurations as operators have them are imported, and the relay that the result starts serves
coturn's own client with the credentials that coturn accepted.
"""

import contextlib
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import coturn
import relay as daemon
from hosts import Switch

CONFIGURATIONS = Path(__file__).with_name("coturn")

# For each configuration: uclient's options, user and password or secret, and what the comments of the import say.
CASES = {
    "vps": (["-t", "-S"], "alice", {"password": "wonderland"}, ["lost: cipher-list", "note: external-ip=203.0.113.1 is left out"]),
    "synapse": ([], "alice", {"secret": "9c1f5b0e73d24ac58e6b17fd0a2c44d1e98b3570"}, ["203.0.113.1 is the relay itself"]),
    "nextcloud-talk": (["-p", 443, "-s"], "alice", {"secret": "5ed7c0e9a4f34f7d9ad6f2bd70ce1ba1"}, ["private networks"]),
    "jitsi": (["-t", "-S"], "alice", {"secret": "mWq7c0T3bPz4vJ8k"}, ["keep-address-family has no counterpart"]),
    "everything": (
        ["-p", 3479],
        "carol",
        {"password": "a password of the database"},
        [
            "danger: allowed-peer-ip=0.0.0.0-255.255.255.255 undoes every denied-peer-ip",
            "danger: denied-peer-ip=8.8.8.0/24",
            "danger: allow-loopback-peers",
            "danger: cli-password=*** is not taken over",
            "lost: mobility",
            "lost: bps-capacity",
            "no-such-option is no setting of coturn",
            "note: log-file=/var/log/turnserver/turn.log # rotated: coturn takes `#`",
        ],
    ),
}


class Site:
    """A relay with the configuration of coturn, on a switch of its own, so that all have the same address."""

    def __init__(self, name, folder, authority):
        self.name, self.folder = name, folder
        folder.mkdir()
        self.switch = Switch()
        self.host = self.switch.host("relay", default_route=True)
        self.clients, self.peers = self.switch.host("clients"), self.switch.host("peers")
        self.conf = folder / "turnserver.conf"
        shutil.copy(CONFIGURATIONS / f"{name}.conf", self.conf)
        certificate, key = authority.issue(daemon.REALM, file=name)
        shutil.copy(certificate, folder / "turn.pem")
        shutil.copy(key, folder / "turn.key")
        self.out = folder / "hairpin.toml"

    def imports(self, *arguments):
        """Imports the configuration; returns what is said on standard error."""
        done = self.run("import-coturn", self.conf, "--out", self.out, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def run(self, *arguments):
        """Runs hairpin on the host of the relay."""
        command = self.host.command(daemon.PROGRAM, *arguments)
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def close(self):
        self.switch.close()


@pytest.fixture
def site(tmp_path, authority):
    """Creates sites."""
    sites = []

    def site(name):
        sites.append(Site(name, tmp_path / name, authority))
        return sites[-1]

    yield site
    for one in sites:
        one.close()


def turndb(file, realm, user, password):
    """A database as coturn's own tool makes it."""
    schema = Path("/usr/share/coturn/schema.sql").read_text()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(schema)
    admin = ["turnadmin", "-a", "-b", file, "-u", user, "-r", realm, "-p", password]
    subprocess.run(admin, check=True, capture_output=True)


def test_what_coturn_served_is_served(site, tmp_path, authority, request):
    """Each configuration is imported, accepted by `hairpin check`, started, and serves the credentials it had."""
    database = tmp_path / "turndb"
    turndb(database, "turn.example.org", "carol", "a password of the database")
    relays = request.node.relays = []
    sites = {name: site(name) for name in CASES}
    try:
        for name, (_, _, _, phrases) in CASES.items():
            one = sites[name]
            said = one.imports(*(["--turndb", database] if name == "everything" else []))
            assert "`hairpin check` accepts it" in said, said
            checked = one.run("check", one.out)
            assert checked.returncode == 0, checked.stdout
            text = one.out.read_text().replace("\n# ", " ")
            assert one.out.stat().st_mode & 0o077 == 0
            for phrase in phrases:
                assert phrase in text, (name, phrase, text)
            assert "changeit" not in text and "changeit" not in said
            relays.append(daemon.Relay(one.host, tmp_path / f"relay-{name}", "--config", one.out))
        for relay in relays:
            relay.wait_until_healthy()
        with ThreadPoolExecutor(len(CASES)) as pool:
            runs = dict(zip(CASES, pool.map(lambda name: relayed(sites[name], authority, *CASES[name][:3]), CASES)))
        for name, run in runs.items():
            # Of two clients that send to each other, one may send before the other has a permission.
            assert run.status == 0 and 2 * run.received > run.sent > 0, (name, run.output)
        for relay in relays:
            assert relay.stop() == 0
    finally:
        for relay in relays:
            relay.kill()


def relayed(site, authority, options, user, credentials):
    """Two clients of the relay send to each other; in the configuration with everything, a client sends to an echo peer."""
    secret = ["-W", credentials["secret"]] if "secret" in credentials else []
    who = {"user": user, "password": credentials.get("password"), "rfc5766": True}
    verified = ["-E", authority.certificate] if "-S" in options else []
    common = [*options, *verified, *secret, "-n", 10, "-m", 2]
    if site.name != "everything":
        return coturn.uclient(site.clients, site.host.v4, *common, "-y", **who)
    with coturn.echo_peer(site.peers):
        return coturn.uclient(site.clients, site.host.v4, *common, "-e", site.peers.v4, **who)
