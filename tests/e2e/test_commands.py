"""`hairpin check` and `hairpin credentials`, and how `serve` rejects an invalid configuration."""

import json
import re
import subprocess

import pytest

import relay as daemon
from turn import Client, User, time_limited

MISTAKES = """\
workers = "four"
colour = "red"

[listen]
udp = ["192.0.2.256:3478"]

[relay]
ports = "65000-60000"

[auth]
secrets = ["too short"]

[[auth.user]]
name = "bob"

[limits]
channels = 20000

[peers]
deny = ["10.0.0.1/8"]
"""

# Line, key, value, and a word of the suggested fix.
FOUND = [
    (1, "workers", '"four"', "quotes"),
    (2, "colour", "", "remove"),
    (5, "listen.udp", '"192.0.2.256:3478"', "write it like"),
    (8, "relay.ports", '"65000-60000"', "60000-65000"),
    (11, "auth.secrets", "***", "16"),
    (14, "auth.user", '"bob"', "password"),
    (17, "limits.channels", "20000", "4096"),
    (20, "peers.deny", '"10.0.0.1/8"', "10.0.0.0/8"),
]


def run(host, *arguments, environment=None):
    """Runs hairpin until it exits; returns (status, standard output, standard error)."""
    command = host.command(daemon.PROGRAM, *arguments)
    variables = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=30)
    return done.returncode, done.stdout, done.stderr


def write(folder, config):
    """Writes a configuration file."""
    file = folder / "hairpin.toml"
    file.write_text(config if isinstance(config, str) else daemon.toml(config))
    file.chmod(0o600)
    return file


def test_check_reports_every_mistake(host, tmp_path):
    """Each of eight mistakes is reported on a line of its own, with file, line, key, value, problem and fix. No file is
    created.
    """
    file = write(tmp_path, MISTAKES)
    status, output, errors = run(host, "check", file)
    assert status == 2 and errors == ""
    lines = output.splitlines()
    assert len(lines) == len(FOUND), output
    for line, (number, key, value, fix) in zip(lines, FOUND):
        assert line.startswith(f"{file}:{number}: {key}"), line
        assert value in line and fix in line and ";" in line, line
    assert "too short" not in output, "secrets are never shown"
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


def test_serve_reports_every_mistake(host, tmp_path):
    """`serve` rejects the file with the same lines and the same status."""
    file = write(tmp_path, MISTAKES)
    status, output, errors = run(host, "serve", "--config", file)
    assert status == 2 and output == ""
    assert errors.splitlines() == run(host, "check", file)[1].splitlines()


def test_check_of_a_good_file(host, tmp_path):
    """A valid file yields status 0."""
    status, output, _ = run(host, "check", write(tmp_path, daemon.configuration(host)))
    assert status == 0 and output.endswith(": ok\n")


def test_check_of_the_sample(host):
    """The sample configuration lacks only credentials."""
    sample = daemon.Path(__file__).parents[2] / "conf" / "hairpin.toml"
    status, output, _ = run(host, "check", sample)
    assert status == 2 and len(output.splitlines()) == 1 and "credentials" in output, output
    status, output, _ = run(host, "check", sample, environment={"HAIRPIN_AUTH_SECRET": daemon.SECRET})
    assert status == 0, output


def test_check_of_a_missing_or_broken_file(host, tmp_path):
    """A missing file and a file that is not TOML are reported with one line each."""
    for file in (tmp_path / "missing.toml", write(tmp_path, "[listen\n")):
        status, output, _ = run(host, "check", file)
        assert status == 2 and len(output.splitlines()) == 1 and str(file) in output, output


@pytest.mark.parametrize("auth", [{"secrets": [], "user": []}, {"secrets": ["fifteen letters"], "user": []}])
def test_serve_requires_credentials(auth, host, tmp_path):
    """The relay does not start without credentials or with a secret that can be guessed."""
    file = write(tmp_path, daemon.configuration(host, auth=auth))
    status, _, errors = run(host, "serve", "--config", file)
    assert status == 2 and "auth.secrets" in errors, errors


def test_unusual_lifetimes_are_warned_about(start, host, tmp_path):
    """Lifetimes that differ from the RFC's cause one warning each."""
    limits = {"permission_lifetime": 100, "channel_lifetime": 60}
    relay = start(host, limits=limits)
    warned = [line["message"] for line in relay.lines() if line["level"] == "WARN"]
    for key in limits:
        assert any(f"limits.{key}" in line and "RFC 8656" in line for line in warned), warned
    status, output, _ = run(host, "check", relay.folder / "hairpin.toml")
    assert status == 0 and output.count("warning: limits.") == 2, output


def test_credentials_of_a_configuration(start, host, clients):
    """`credentials` prints ICE servers whose credentials, made from the first secret, can allocate."""
    relay = start(host, auth={"secrets": [daemon.SECRET, "another secret, to be retired"]})
    file = relay.folder / "hairpin.toml"
    arguments = ["credentials", "--config", file, "--user", "bob", "--ttl", "1h"]
    status, output, errors = run(host, *arguments)
    assert (status, errors) == (0, ""), errors
    [server] = json.loads(output)["iceServers"]
    hosts, over = (host.v4, f"[{host.v6}]"), ("udp", "tcp")
    assert server["urls"] == [f"turn:{name}:3478?transport={one}" for one in over for name in hosts]
    expiry, name = server["username"].split(":")
    made = time_limited(daemon.SECRET, "bob")
    assert name == "bob" and abs(int(expiry) - int(made.name.split(":")[0])) < 60
    with Client(clients, (host.v4, 3478), User(server["username"], server["credential"])) as client:
        client.allocate()
    _, output, _ = run(host, *arguments, "--domain", "turn.example.org")
    urls = [f"turn:turn.example.org:3478?transport={transport}" for transport in over]
    assert json.loads(output)["iceServers"][0]["urls"] == urls


def test_credentials_of_a_relay_without_configuration(start, switch, clients, tmp_path):
    """`credentials` uses the secret that `serve` stores; before the first start it fails."""
    host = switch.host("relay", default_route=True)
    arguments = ["credentials", "--user", "carol", "--state-dir", tmp_path / "state"]
    status, output, errors = run(host, *arguments)
    assert status == 1 and output == "" and "hairpin serve" in errors, errors
    start(host, "--state-dir", tmp_path / "state", configured=False)
    status, output, errors = run(host, *arguments)
    assert status == 0, errors
    [server] = json.loads(output)["iceServers"]
    with Client(clients, (host.v4, 3478), User(server["username"], server["credential"])) as client:
        client.allocate()


def test_credentials_need_a_secret(host, tmp_path):
    """A configuration with only static users has no secret to make credentials from."""
    file = write(tmp_path, daemon.configuration(host, auth={"secrets": []}))
    status, output, errors = run(host, "credentials", "--config", file, "--user", "bob")
    assert status == 1 and output == "" and "auth.secrets" in errors, errors


@pytest.mark.parametrize("arguments", [[], ["serve", "--secret", "x"], ["credentials"], ["check", "--secret", "x"], ["fly"]])
def test_wrong_arguments(arguments, host):
    """Wrong arguments print the usage on standard error; the status is 2."""
    status, output, errors = run(host, *arguments)
    assert status == 2 and output == "" and re.search("(?i)usage", errors), errors


def test_help(host):
    """--help and --version print to standard output."""
    status, output, _ = run(host, "--help")
    assert status == 0 and all(word in output for word in ("serve", "check", "credentials"))
    status, output, _ = run(host, "--version")
    assert status == 0 and re.fullmatch(r"hairpin \d+\.\d+\.\d+ \(\S+\) features: [\w. -]+\n", output), output
