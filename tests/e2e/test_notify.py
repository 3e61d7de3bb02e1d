"""What the relay and the sidecar tell a service manager (sd_notify(3)), whichever that is."""

import signal
import subprocess
import time

import pytest

from hosts import eventually
from notified import Manager
from relay import PROGRAM, toml
from stuck import stuck


@pytest.fixture
def manager(host, tmp_path):
    """A service manager with a socket at a path."""
    with Manager(host, tmp_path / "notify") as manager:
        yield manager


def under(manager, **environment):
    """Arguments of a relay that this manager has started."""
    return {"environment": manager.environment | environment}


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_start_a_drain_and_a_stop(abstract, start, host, connect, manager):
    """READY=1 once it serves, with what it serves; STATUS follows a drain with the allocations that are left, and a stop says
    STOPPING=1 and how long it may take.
    """
    with Manager(host) if abstract else manager as manager:
        relay = start(host, process=under(manager), stop_deadline=20)
        manager.hears("READY=1")
        assert manager.messages[0][0] == "READY=1"
        status = manager.sees("serving clients on udp 0.0.0.0:3478")
        assert host.v4 in status, status
        assert not manager.lines("WATCHDOG") and not manager.lines("EXTEND"), "nobody has asked for it"
        connect().allocate()
        relay.process.send_signal(signal.SIGUSR1)
        manager.sees("draining: the relay drains; 1 allocation is left")
        assert manager.lines("EXTEND_TIMEOUT_USEC=30000000")
        assert relay.stop() == 0
        stopping = [message for message in manager.read() if "STOPPING=1" in message]
        assert stopping == [["STOPPING=1", "EXTEND_TIMEOUT_USEC=25000000", "STATUS=stopping"]], manager.messages


def test_every_reload_is_told_as_a_whole(start, host, manager):
    """RELOADING=1 with the time before a reload and READY=1 after it, by SIGHUP and by `hairpin ctl reload`, also if it fails:
    then STATUS says why until one succeeds.
    """
    relay = start(host, process=under(manager))
    manager.hears("READY=1")

    def phases():
        return [line for line in manager.lines() if line in ("READY=1", "RELOADING=1")]

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    relay.process.send_signal(signal.SIGHUP)
    manager.hears("READY=1", 2)
    relay.ctl("reload")
    manager.hears("READY=1", 3)
    file = relay.folder / "hairpin.toml"
    good = file.read_text()
    file.write_text(good + "\n[nothing]\nx = 1\n")
    relay.ctl("reload", status=1)
    manager.hears("READY=1", 4)
    assert "the last reload has changed nothing: the configuration has 1 mistake; serving" in manager.status
    relay.process.send_signal(signal.SIGHUP)
    manager.hears("READY=1", 5)
    file.write_text(good)
    relay.ctl("reload")
    manager.hears("READY=1", 6)
    assert phases() == ["READY=1"] + ["RELOADING=1", "READY=1"] * 5
    assert manager.status.startswith("serving"), manager.status
    for message in manager.messages:
        if "RELOADING=1" in message:
            [at] = [int(line.partition("=")[2]) for line in message if line.startswith("MONOTONIC_USEC=")]
            assert before <= at <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_relay_without_an_address_is_ready_and_says_what_it_waits_for(start, host, manager):
    """READY=1 does not wait for addresses: what starts after the relay would wait with it. STATUS is the reason of /readyz."""
    relay = start(host, process=under(manager), wait=False, relay={"addresses": ["203.0.113.200"]})
    manager.hears("READY=1")
    status = manager.sees("waiting: there is no address to relay with")
    assert status.removeprefix("waiting: ") in relay.get("/readyz")[2]
    host.run("ip", "addr", "add", "203.0.113.200/24", "dev", "eth0")
    assert "203.0.113.200" in manager.sees("serving clients")


@pytest.mark.parametrize("thread", ["worker-1", "hairpin"])
def test_a_stuck_thread_lets_the_watchdog_bite(thread, start, host, manager):
    """WATCHDOG=1 at least twice within WATCHDOG_USEC, and only while every worker and the daemon give signs of life. A stuck
    daemon does not hold up STOPPING=1.
    """
    limit = 1_000_000
    relay = start(host, workers=2, stop_deadline=2, process=under(manager, WATCHDOG_USEC=str(limit)))
    manager.hears("WATCHDOG=1", 4)
    with stuck(relay.process.pid, thread) as is_gone:

        def is_silent():
            """nothing was heard for three times as long as the watchdog waits"""
            heard = len(manager.lines("WATCHDOG=1"))
            time.sleep(3 * limit / 1e6)
            return len(manager.lines("WATCHDOG=1")) == heard

        eventually(is_silent, 30)
        assert "has given no sign of life" in manager.status
        relay.process.send_signal(signal.SIGTERM)
        manager.hears("STOPPING=1")
        eventually(is_gone)
    # The thread is gone before its process is.
    relay.process.wait(timeout=20)


def test_a_manager_that_does_not_read_holds_up_nothing(start, host, connect, manager):
    """The relay starts, reloads and stops although nobody reads what it tells, or nobody is there."""
    relay = start(host, process=under(manager, WATCHDOG_USEC="2000"))
    # The kernel's queue has room for a few messages (net.unix.max_dgram_qlen).
    time.sleep(1)
    connect().allocate()
    assert "reloaded" in relay.ctl("reload")
    assert relay.stop() == 0
    manager.socket.close()
    relay = start(host, process=under(manager))
    eventually(lambda: [line for line in relay.lines() if "service manager cannot be told" in line["message"]])
    assert "reloaded" in relay.ctl("reload")
    assert relay.stop() == 0


def test_the_sidecar_tells_the_same(host, manager, tmp_path):
    """The sidecar is ready once it serves HTTP, says what it waits for, reloads and stops, and tells its watchdog."""
    program = PROGRAM.with_name("hairpin-livekit")
    (tmp_path / "keys").write_text("key: a secret of this LiveKit server\n")
    (tmp_path / "keys").chmod(0o600)
    file = tmp_path / "hairpin-livekit.toml"
    config = {
        "livekit": {"url": "http://127.0.0.1:7880", "keys_file": str(tmp_path / "keys")},
        "peers": {"mode": "off"},
        "http": {"listen": ["127.0.0.1:9643"]},
        "lifecycle": {"state_dir": str(tmp_path / "state")},
        "relay": [{"name": "one", "socket": str(tmp_path / "missing.sock")}],
    }
    file.write_text(toml(config))
    file.chmod(0o600)
    variables = manager.environment | {"WATCHDOG_USEC": "2000000", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    with open(tmp_path / "log", "wb") as log:
        sidecar = host.start(program, "run", "--config", file, env=variables, stderr=log, stdout=subprocess.DEVNULL)
    try:
        manager.hears("READY=1")
        manager.sees("waiting: ")
        manager.hears("WATCHDOG=1", 3)
        sidecar.send_signal(signal.SIGHUP)
        manager.hears("READY=1", 2)
        file.write_text(toml(config) + "\n[nothing]\nx = 1\n")
        sidecar.send_signal(signal.SIGHUP)
        manager.sees("the last reload has changed nothing: the configuration has 1 mistake")
        phases = [line for line in manager.lines() if line in ("READY=1", "RELOADING=1")]
        assert phases == ["READY=1"] + ["RELOADING=1", "READY=1"] * 2
        sidecar.send_signal(signal.SIGTERM)
        assert sidecar.wait(20) == 0
        assert manager.lines("STOPPING=1")
    except BaseException:
        print((tmp_path / "log").read_text())
        raise
    finally:
        sidecar.kill()
        sidecar.wait()
