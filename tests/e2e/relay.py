"""The relay under test: configures, starts, observes and stops it."""

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
    """A configuration as nested dicts: safe defaults, one user, one secret, and the test's own networks as allowed
    peers.

    `changes` replace keys of whole sections: `relay={"ports": "50000-50009"}`.
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
    """A relay on a host. Its output goes to files unless `stdout` or `stderr` is given. `wrapper` is a command that
    starts it, for example with other limits; `privileges` are options for setpriv.
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
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            # Its control socket is in its own folder.
            "RUNTIME_DIRECTORY": str(self.folder),
            **(environment or {}),
        }
        self._runtime = Path(variables["RUNTIME_DIRECTORY"])
        with open(self._stdout, "wb") as stdout, open(self._stderr, "wb") as log:
            options = {"stdout": stdout, "stderr": log, "env": variables, "cwd": self.folder, **options}
            self.process = host.start(*wrapper, PROGRAM, "serve", *arguments, **options)

    def wait_until_healthy(self):
        """Waits until the relay serves clients."""

        def healthy():
            """the relay serves clients"""
            assert self.process.poll() is None, f"the relay exited with status {self.process.returncode}:\n{self.log}"
            try:
                return self.get("/healthz")[0] == 200
            except OSError:
                return False

        eventually(healthy)
        return self

    # Output

    @property
    def log(self):
        """What the relay has written to standard error."""
        return self._stderr.read_text()

    @property
    def output(self):
        """What the relay has written to standard output."""
        return self._stdout.read_text()

    def lines(self, message=None, **fields):
        """The lines of a JSON log with this message and these fields, as dicts."""
        lines = [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")]
        if message is not None:
            lines = [line for line in lines if line["message"] == message]
        return [line for line in lines if all(line.get(key) == value for key, value in fields.items())]

    def line(self, message, **fields):
        """Waits for a line with this message and these fields; returns the first."""
        return eventually(lambda: self.lines(message, **fields))[0]

    def get(self, path, address=HTTP):
        """The status, headers and body of a page."""
        with self.host.tcp(*address) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n".encode())
            response = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        head, _, body = response.partition("\r\n\r\n")
        status, *headers = head.split("\r\n")
        return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in headers), body

    def metrics(self):
        """All samples of /metrics: {name: {labels: value}}, with labels as a frozenset of pairs."""
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
        """The sum of the samples of `hairpin_<name>` with these labels."""
        samples = self.metrics()["hairpin_" + name]
        assert samples, f"no metric {name}"
        return int(sum(value for found, value in samples.items() if labels.items() <= set(found)))

    def reaches(self, name, count, **labels):
        """Waits until a counter is at least `count`, because workers publish counters periodically; returns its value.
        """
        eventually(lambda: self.metric(name, **labels) >= count)
        return self.metric(name, **labels)

    def becomes(self, name, value, **labels):
        """Waits until a metric has this value."""
        eventually(lambda: self.metric(name, **labels) == value)

    def by_worker(self, name):
        """The samples of `hairpin_<name>`, indexed by worker."""
        samples = self.metrics()["hairpin_" + name]
        return [int(samples[frozenset({("worker", str(worker))})]) for worker in range(len(samples))]

    # Control

    @property
    def socket(self):
        """The control socket."""
        return self._runtime / "control.sock"

    def ctl(self, *arguments, status=0):
        """Runs `hairpin ctl` with the control socket, which must exit with this status; returns what it printed, on standard
        error if it had to fail.
        """
        command = [PROGRAM, "ctl", "--socket", self.socket, *arguments]
        done = self.host.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, error = done.communicate(timeout=60)
        assert done.returncode == status, f"{command}: {done.returncode}: {error or output}"
        return error if status else output

    def ask(self, *arguments):
        """The JSON that `hairpin ctl` prints."""
        return json.loads(self.ctl(*arguments, "--json"))

    # Resources

    def cpu_seconds(self):
        """The CPU time its threads have used."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident(self):
        """Its resident memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status)[1])

    def open_files(self):
        """How many file descriptors it holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # Stopping

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
        """Kills the relay."""
        self.process.kill()
        self.process.wait()


def toml(config):
    """Nested dicts as TOML: tables, arrays of tables, and values that TOML and JSON write alike."""
    plain = {key: value for key, value in config.items() if not isinstance(value, dict) and not _is_tables(value)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for section, keys in config.items():
        for entry in keys if _is_tables(keys) else []:
            lines.append(f"\n[[{section}]]")
            lines += [f"{name} = {_inline(value)}" for name, value in entry.items()]
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


def _inline(value):
    """A value on one line. TOML and JSON write all but tables alike."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{ " + ", ".join(f"{json.dumps(name)} = {_inline(inner)}" for name, inner in value.items()) + " }"


def _is_tables(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
