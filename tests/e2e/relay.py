"""The daemon under test: configured, started, looked at from outside, and stopped."""

import json
import os
import re
import signal
import subprocess
from collections import defaultdict
from pathlib import Path

from hosts import Switch, eventually

REALM = "example.org"
SECRET = "a shared secret for these tests"
USER, PASSWORD = "alice", "alice's own password"

HTTP = ("127.0.0.1", 9641)

PROGRAM = Path(
    os.environ.get("HAIRPIN") or Path(__file__).parents[2] / "target" / "release" / "hairpin"
).resolve()


def configuration(host, **changes):
    """A configuration as nested dicts: safe defaults, one user, one secret, peers on the test's own network.

    `changes` replace whole sections' keys: `relay={"ports": "50000-50009"}`.
    """
    config = {
        "listen": {"udp": [endpoint for endpoint in ("0.0.0.0:3478", "[::]:3478")]},
        "relay": {"addresses": [address for address in (host.v4, host.v6) if address]},
        "auth": {"realm": REALM, "secrets": [SECRET], "user": [{"name": USER, "password": PASSWORD}]},
        "peers": {"allow": list(Switch.NETWORKS)},
        "log": {"format": "json"},
    }
    for section, keys in changes.items():
        if isinstance(keys, dict):
            config[section] = config.get(section, {}) | keys
        else:
            config[section] = keys
    return config


class Relay:
    """A daemon on a host. What it writes goes to files, unless `stdout` or `stderr` is given; a `wrapper` starts it with
    other limits; `privileges` are taken from it.
    """

    def __init__(self, host, folder, *arguments, config=None, environment=None, wrapper=(), **options):
        self.host = host
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if config is not None:
            file = self.folder / "hairpin.toml"
            file.write_text(toml(config))
            file.chmod(0o600)
            arguments = ("--config", file, *arguments)
        self._stderr = self.folder / "stderr"
        self._stdout = self.folder / "stdout"
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **(environment or {})}
        with open(self._stdout, "wb") as stdout, open(self._stderr, "wb") as log:
            options = {"stdout": stdout, "stderr": log, "env": variables, "cwd": self.folder, **options}
            self.process = host.start(*wrapper, PROGRAM, "serve", *arguments, **options)

    def wait_until_healthy(self):
        """Returns once clients are served."""

        def healthy():
            """the relay serves"""
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log}"
            try:
                return self.get("/healthz")[0] == 200
            except OSError:
                return False

        eventually(healthy)
        return self

    # What it says

    @property
    def log(self):
        """All that it wrote to standard error."""
        return self._stderr.read_text()

    @property
    def output(self):
        """All that it wrote to standard output."""
        return self._stdout.read_text()

    def lines(self, message=None, **fields):
        """The lines of a JSON log with this message and these values, as dicts."""
        lines = [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")]
        if message is not None:
            lines = [line for line in lines if line["message"] == message]
        return [line for line in lines if all(line.get(key) == value for key, value in fields.items())]

    def line(self, message, **fields):
        """Waits for such a line; returns the first."""
        return eventually(lambda: self.lines(message, **fields))[0]

    def get(self, path, address=HTTP):
        """Status, headers and body of a page."""
        with self.host.tcp(*address) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        status, *headers = head.split("\r\n")
        return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in headers), body

    def metrics(self):
        """Every sample of /metrics: {name: {labels: value}}, labels as a frozenset of pairs."""
        status, _, page = self.get("/metrics")
        assert status == 200
        samples = defaultdict(dict)
        for line in page.splitlines():
            if not line.startswith("#"):
                name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
                pairs = re.findall(r'(\w+)="([^"]*)"', labels or "")
                samples[name][frozenset(pairs)] = float(value)
        return samples

    def metric(self, name, **labels):
        """The sum of the samples of `hairpin_`name with these labels."""
        samples = self.metrics()["hairpin_" + name]
        assert samples, f"no metric {name}"
        return int(sum(value for found, value in samples.items() if labels.items() <= set(found)))

    def reaches(self, name, count, **labels):
        """Waits until a counter is at least so high: workers publish theirs from time to time. Returns it."""
        eventually(lambda: self.metric(name, **labels) >= count)
        return self.metric(name, **labels)

    def becomes(self, name, value, **labels):
        """Waits until a metric has this value."""
        eventually(lambda: self.metric(name, **labels) == value)

    def by_worker(self, name):
        """The samples of `hairpin_`name, a list by worker."""
        samples = self.metrics()["hairpin_" + name]
        return [int(samples[frozenset({("worker", str(worker))})]) for worker in range(len(samples))]

    # What it takes

    def cpu_seconds(self):
        """The CPU time that its threads have used."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident(self):
        """Its resident memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status)[1])

    def open_files(self):
        """How many descriptors it holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # Its end

    def stop(self, how=signal.SIGTERM):
        """Asks it to stop, waits, and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self):
        """Ends it at once, whatever it does."""
        self.process.kill()
        self.process.wait()


def toml(config):
    """Nested dicts as TOML: tables, arrays of tables, and values that JSON writes alike."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items() if not isinstance(value, dict)]
    for section, keys in config.items():
        if not isinstance(keys, dict):
            continue
        lines.append(f"\n[{section}]")
        tables = {key: value for key, value in keys.items() if _is_tables(value)}
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items() if key not in tables]
        for key, entries in tables.items():
            for entry in entries:
                lines.append(f"\n[[{section}.{key}]]")
                lines += [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
    return "\n".join(lines) + "\n"


def _is_tables(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
