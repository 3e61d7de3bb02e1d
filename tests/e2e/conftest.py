"""Shared fixtures: hosts, a relay on one of them, and the relay's log when a test fails."""

import os
from pathlib import Path

import pytest

import relay as daemon
from authority import Authority
from hosts import Switch
from machine import Machine
from turn import Client, User

ALICE = User(daemon.USER, daemon.PASSWORD)
NAME = "turn.example.org"


@pytest.fixture
def switch():
    """A switch that only this test uses."""
    switch = Switch()
    yield switch
    switch.close()


@pytest.fixture
def start(switch, tmp_path, request):
    """Starts relays: `start(host, limits={..})` starts one with the default configuration and these changes, and waits
    until it serves. `process` holds arguments of `Relay`, such as its environment.

    Relays that the test did not stop are stopped afterwards and must exit cleanly. No relay may have logged a bug.
    """
    relays = []

    def start(host, *arguments, configured=True, wait=True, process=None, **changes):
        config = daemon.configuration(host, **changes) if configured else None
        folder = tmp_path / f"relay-{len(relays)}"
        relay = daemon.Relay(host, folder, *arguments, config=config, **(process or {}))
        relays.append(relay)
        request.node.relays = relays
        return relay.wait_until_healthy() if wait else relay

    try:
        yield start
        for relay in relays:
            running = relay.process.poll() is None
            status = relay.stop()
            assert status == 0 or not running, f"the relay exited with status {status}:\n{relay.log}"
            assert "this is a bug" not in relay.log, relay.log
    finally:
        for relay in relays:
            relay.kill()


@pytest.fixture
def authority(tmp_path):
    """The certificate authority that clients trust."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def tls(authority):
    """The `[tls]` section with a certificate that clients trust."""
    cert, key = authority.issue(NAME)
    return {"cert": str(cert), "key": str(key)}


@pytest.fixture
def host(switch):
    """The host that the relay runs on."""
    return switch.host("relay")


@pytest.fixture
def clients(switch):
    """The host of the clients."""
    return switch.host("clients")


@pytest.fixture
def peers(switch):
    """The host of the peers."""
    return switch.host("peers")


@pytest.fixture
def machine(host, tmp_path, request):
    """A Debian machine on the relay's host, which is switched off: `machine.boot()` boots it."""
    with Machine(host, tmp_path / "machine") as machine:
        request.node.programs = [machine]
        yield machine


@pytest.fixture
def package():
    """The Debian package under test."""
    path = os.environ.get("HAIRPIN_DEB")
    assert path and Path(path).exists(), "HAIRPIN_DEB has to name the package that `cargo deb` made"
    return Path(path)


@pytest.fixture(params=[1, 4], ids=["1-worker", "4-workers"])
def workers(request):
    """The number of workers, for tests whose result could depend on it."""
    return request.param


@pytest.fixture
def connect(host, clients):
    """Creates clients of the relay on `host`: each `connect()` returns a new 5-tuple of user alice."""
    opened = []

    def connect(user=ALICE, server=None, source=None, at=clients):
        client = Client(at, server or (host.v4, 3478), user, source)
        opened.append(client)
        return client

    yield connect
    for client in opened:
        client.socket.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the logs of a failed test's relays and programs to its report, because the log files are removed with the test."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for n, relay in enumerate(getattr(item, "relays", [])):
            report.sections.append((f"log of relay {n}", relay.log[-20_000:]))
        for program in getattr(item, "programs", []):
            report.sections.append((f"log of {program.folder.name}", program.log[-20_000:]))
