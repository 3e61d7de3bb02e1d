"""The units under a real systemd: what an operator does with systemctl, and what systemd does by itself."""

import json
import re
import shlex
import ssl
import time
from pathlib import Path

import pytest

import relay as daemon
import stun
from conftest import NAME
from hosts import eventually
from relay import toml
from services import CONFIG, UNITS, configure, drop_in, install, process, status
from stuck import stuck
from turn import Client, User

UNIT = "hairpin"

# The only capability that the service has: CAP_NET_BIND_SERVICE is number 10 (linux/capability.h).
BIND = f"{1 << 10:016x}"


def configuration(host, **changes):
    """The configuration of a relay with a static user."""
    return toml(daemon.configuration(host, **({"log": {"format": "human"}} | changes)))


def restarts(machine):
    """How often systemd has started the service again by itself."""
    return int(machine.show(UNIT, "NRestarts")["NRestarts"])


def serves(machine, unit=UNIT):
    """Waits until the status says that it serves."""
    eventually(lambda: status(machine, unit).startswith("serving"), 30)


def test_a_first_start_without_credentials(machine, host, clients, peers):
    """The relay starts at boot with the packaged configuration, which sets nothing: it generates a secret, the log says where and how
    to get credentials, and these work. Its files belong to it, its privileges are one, and its group may use the control socket.
    """
    install(machine, Path(__file__).parents[2].joinpath("conf/hairpin.toml").read_text())
    host.run("ip", "route", "add", "default", "via", clients.v4)
    machine.boot()
    assert machine.state() == "running", machine.systemctl("--failed")
    serves(machine)
    assert "serving clients on udp 0.0.0.0:3478" in machine.systemctl("status", UNIT)

    log = machine.journal(UNIT)
    assert "the shared secret is in /var/lib/hairpin (generated now)" in log, log
    command = re.search(r"run `(hairpin credentials .*?)` as root", log)[1].replace("NAME", "bob")
    [server] = json.loads(machine.run(*shlex.split(command)).stdout)["iceServers"]
    with Client(clients, (host.v4, 3478), User(server["username"], server["credential"])) as client:
        address, _ = client.allocate()
        assert address == host.v4
    owned = {
        "/etc/hairpin": "750 root hairpin",
        CONFIG: "640 root hairpin",
        "/var/lib/hairpin": "700 hairpin hairpin",
        "/var/lib/hairpin/secret": "600 hairpin hairpin",
        "/run/hairpin": "755 hairpin hairpin",
        "/run/hairpin/control.sock": "660 hairpin hairpin",
    }
    assert machine.run("stat", "-Lc", "%n %a %U %G", *owned).stdout.splitlines() == [
        f"{path} {what}" for path, what in owned.items()
    ]

    pid = process(machine)
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text()
        sets = dict(re.findall(r"^(Cap\w+|NoNewPrivs|Seccomp):\t(\S+)$", lines, re.M))
        assert {sets[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {BIND}, lines
        assert (sets["NoNewPrivs"], sets["Seccomp"]) == ("1", "2")
        # setpriority(2) works: packets come before everything else.
        nice = int((task / "stat").read_text().rpartition(")")[2].split()[16])
        is_worker = re.fullmatch(r"worker-\d+\n", (task / "comm").read_text())
        assert is_worker is None or nice == 0
        assert nice == 10 or (task / "comm").read_text().strip() not in ("hairpin", "worker-0-conn"), (task / "comm").read_text()

    # Who may use the control socket: root and the group.
    assert json.loads(machine.run("hairpin", "ctl", "status", "--json").stdout)["ready"]
    anybody = ["setpriv", "--reuid=nobody", "--regid=nogroup"]
    machine.run(*anybody, "--clear-groups", "hairpin", "ctl", "status", check=1)
    group = machine.run("getent", "group", "hairpin").stdout.split(":")[2]
    machine.run(*anybody, f"--groups={group}", "hairpin", "ctl", "status")

    # It restarts in order: calls end, the secret stays.
    machine.systemctl("restart", UNIT)
    eventually(lambda: machine.journal(UNIT).count("(from an earlier start)") == 1)
    assert restarts(machine) == 0


def test_443_certificates_and_reloads(machine, host, clients, tls):
    """It binds 443, and what a reload adds below 1024. `systemctl reload` returns when the change holds, and fails with the mistakes
    if nothing has changed, which the status says, too. A renewed certificate serves without a reload, and losses are counted.
    """
    files = {"cert": "/etc/hairpin/cert.pem", "key": "/etc/hairpin/key.pem"}
    listen = {"udp": ["0.0.0.0:443"], "tcp": [], "tls": ["0.0.0.0:443"]}
    install(machine, configuration(host, listen=listen, tls=files, admin={"group": "adm"}))
    # A group of the operator's choice may use the control socket: chown(2) is allowed.
    drop_in(machine, "SupplementaryGroups=adm")
    for kind in ("cert", "key"):
        machine.copy(tls[kind], f"/etc/hairpin/{kind}.pem", mode=0o640, owner="root:hairpin")
    machine.boot()
    serves(machine)

    def certificate(port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with clients.tcp(host.v4, port) as raw, context.wrap_socket(raw, server_hostname=NAME) as secure:
            return secure.getpeercert(True)

    first = certificate(443)
    assert machine.run("stat", "-c", "%a %U %G", "/run/hairpin/control.sock").stdout == "660 hairpin adm\n"
    with Client(clients, (host.v4, 443), User(daemon.USER, daemon.PASSWORD)) as client:
        client.allocate()
        configure(machine, configuration(host, listen=listen | {"tls": ["0.0.0.0:443", "0.0.0.0:853"]}, tls=files))
        machine.systemctl("reload", UNIT)
        assert certificate(853) == first, "the change holds when systemctl returns"
        configure(machine, "nothing = 1\n" + configuration(host, listen=listen, tls=files))
        failed = machine.run("systemctl", "reload", UNIT, check=1)
        assert "journalctl" in failed.stderr, failed
        eventually(lambda: "the last reload has changed nothing: the configuration has 1 mistake" in status(machine))
        assert machine.show(UNIT, "ActiveState")["ActiveState"] == "active"
        assert eventually(lambda: f"{CONFIG}:1: nothing" in machine.journal(UNIT))
        configure(machine, configuration(host, listen=listen, tls=files, admin={"socket": ""}))
        machine.systemctl("reload", UNIT)
        eventually(lambda: status(machine).startswith("serving"))
        # There is no control socket any more: a signal reloads.
        configure(machine, configuration(host, listen=listen | {"tls": ["0.0.0.0:444"]}, tls=files))
        machine.systemctl("reload", UNIT)
        assert eventually(lambda: port_is_open(clients, (host.v4, 444)))
        eventually(lambda: "no control socket at the default path; SIGHUP was sent" in machine.journal(UNIT))
        client.refresh()
    machine.run("openssl", *"req -x509 -newkey rsa:2048 -noenc -days 9 -subj /CN=renewed".split(), "-keyout",
                "/etc/hairpin/key.new", "-out", "/etc/hairpin/cert.new")
    machine.run("sh", "-ec", "cd /etc/hairpin; chgrp hairpin *.new; chmod 640 *.new; mv key.new key.pem; mv cert.new cert.pem")
    eventually(lambda: certificate(444) != first)
    # /proc/net is not hidden.
    assert "receive_buffer" in get(host, "/metrics")


def port_is_open(host, address):
    """a TCP connection succeeds"""
    try:
        host.tcp(*address).close()
        return True
    except OSError:
        return False


def get(host, path):
    """A page of the relay's HTTP server."""
    with host.tcp("127.0.0.1", 9641) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode().partition("\r\n\r\n")[2]


def hears(machine, unit=UNIT):
    """Waits until systemd has heard twice that the service is alive."""
    for _ in range(2):
        before = machine.show(unit, "WatchdogTimestampMonotonic")
        eventually(lambda: machine.show(unit, "WatchdogTimestampMonotonic") != before, 30)


def test_the_watchdog_restarts_a_relay_with_a_stuck_worker(machine, host, connect):
    """While one worker is stuck, systemd hears nothing and restarts the service, which then serves."""
    install(machine, configuration(host, workers=2))
    assert "\nWatchdogSec=30\n" in (UNITS / "hairpin.service").read_text()
    # More than the 3 seconds after which a busy worker counts as stuck.
    drop_in(machine, "WatchdogSec=10")
    machine.boot()
    serves(machine)
    hears(machine)
    assert restarts(machine) == 0, machine.journal(UNIT)
    with stuck(process(machine), "worker-1") as is_gone:
        eventually(is_gone, 60)
    eventually(lambda: restarts(machine) > 0, 30)
    eventually(lambda: "Watchdog timeout" in machine.journal(UNIT))
    serves(machine)
    connect().allocate()


def test_a_start_before_the_network(machine, host, connect):
    """At boot without an address the service is active and says what it waits for; it serves as soon as there is one."""
    install(machine, configuration(host, relay={"addresses": []}))
    host.run("ip", "addr", "flush", "dev", "eth0")
    machine.boot()
    assert machine.show(UNIT, "ActiveState")["ActiveState"] == "active", machine.journal(UNIT)
    assert status(machine).startswith("waiting: there is no address to relay with ("), status(machine)
    host.run("ip", "addr", "add", f"{host.v4}/24", "dev", "eth0")
    host.run("ip", "route", "add", "default", "via", "203.0.113.254")
    serves(machine)
    assert host.v4 in status(machine)
    connect().allocate()
    # The next boot finds the network there, and what the first one left.
    machine.shutdown()
    machine.boot()
    serves(machine)
    connect().allocate()


def test_stops_and_drains(machine, host, connect):
    """A stop ends calls and is no failure. The end of a drain stays one unless the unit says Restart=always. With
    KillSignal=SIGUSR1 a stop is a drain, which takes longer than TimeoutStopSec while calls run. One that takes as long as
    `stop_deadline` allows is not killed either.
    """
    install(machine, configuration(host, workers=2))
    machine.boot()
    serves(machine)
    connect().allocate()
    machine.systemctl("stop", UNIT)
    assert machine.show(UNIT, "Result", "ActiveState") == {"Result": "success", "ActiveState": "inactive"}
    eventually(lambda: "has stopped" in machine.journal(UNIT))

    machine.systemctl("start", UNIT)
    machine.run("hairpin", "ctl", "drain")
    eventually(lambda: machine.show(UNIT, "ActiveState")["ActiveState"] == "inactive")
    time.sleep(3)
    assert machine.show(UNIT, "Result", "ActiveState") == {"Result": "success", "ActiveState": "inactive"}

    drop_in(machine, "Restart=always", "KillSignal=SIGUSR1", "TimeoutStopSec=1")
    machine.systemctl("start", UNIT)
    before = machine.main_pid(UNIT)
    machine.run("hairpin", "ctl", "drain")
    eventually(lambda: machine.main_pid(UNIT) not in (0, before))
    serves(machine)

    client = connect()
    client.allocate()
    machine.systemctl("stop", "--no-block", UNIT)
    eventually(lambda: status(machine) == "draining: the relay drains; 1 allocation is left")
    time.sleep(4)
    assert machine.show(UNIT, "ActiveState")["ActiveState"] == "deactivating", machine.journal(UNIT)
    assert client.refresh() == 600, "the call goes on"
    client.refresh(0)
    eventually(lambda: machine.show(UNIT, "ActiveState")["ActiveState"] == "inactive")
    assert machine.show(UNIT, "Result")["Result"] == "success", machine.journal(UNIT)

    configure(machine, configuration(host, workers=2, stop_deadline=4))
    drop_in(machine, "TimeoutStopSec=1")
    machine.systemctl("start", UNIT)
    with stuck(process(machine), "worker-0") as is_gone:
        machine.systemctl("stop", "--no-block", UNIT)
        eventually(is_gone, 30)
    eventually(lambda: machine.show(UNIT, "ActiveState")["ActiveState"] != "deactivating")
    eventually(lambda: "worker 0 has not ended within stop_deadline, 4 s" in machine.journal(UNIT))
    assert machine.show(UNIT, "Result")["Result"] == "exit-code", machine.journal(UNIT)


def test_the_sidecar_beside_the_relay(machine, host):
    """hairpin-livekit.service reads its configuration, keeps its state, and reaches the control socket; its status says what
    it waits for. It reloads, satisfies a watchdog, and outlives the end of the relay: the peers return with that.
    """
    install(machine, configuration(host), programs=("hairpin", "hairpin-livekit"))
    machine.write("/etc/hairpin/keys", "key: a secret of this LiveKit server\n", mode=0o640, owner="root:hairpin")
    config = {
        "livekit": {"url": "http://127.0.0.1:7880", "keys_file": "/etc/hairpin/keys"},
        "peers": {"mode": "add", "addresses": [f"{host.v4}:7882"]},
    }
    configure(machine, toml(config), "/etc/hairpin/hairpin-livekit.toml")
    sidecar = "hairpin-livekit"
    drop_in(machine, "WatchdogSec=5", unit=sidecar)
    machine.boot()
    machine.systemctl("start", sidecar)
    eventually(lambda: status(machine, sidecar).startswith("waiting: "))

    def has_peers():
        """the sidecar has named its peers to the relay"""
        return f"{host.v4}:7882" in machine.run("hairpin", "ctl", "peers", "list", check=False).stdout

    eventually(has_peers)
    configure(machine, toml(config | {"log": {"level": "debug"}}), "/etc/hairpin/hairpin-livekit.toml")
    machine.systemctl("reload", sidecar)
    eventually(lambda: "1 setting changed: log.level" in machine.journal(sidecar))
    owners = machine.run("stat", "-Lc", "%a %U", "/var/lib/hairpin-livekit").stdout
    assert owners == "700 hairpin\n"
    lines = Path(f"/proc/{process(machine, sidecar)}/status").read_text()
    assert all(f"{line}\n" in lines for line in (f"CapEff:\t{BIND}", f"CapBnd:\t{BIND}", "Seccomp:\t2")), lines
    before = machine.main_pid(sidecar)
    machine.systemctl("stop", UNIT)
    hears(machine, sidecar)
    assert machine.show(sidecar, "ActiveState")["ActiveState"] == "active", machine.journal(sidecar)
    # Nothing is left of the peers but what the sidecar knows.
    machine.run("rm", "-f", "/var/lib/hairpin/overlays.json")
    machine.systemctl("start", UNIT)
    eventually(has_peers, 60)
    assert machine.main_pid(sidecar) == before, machine.journal(sidecar)
    machine.systemctl("stop", sidecar)
    assert machine.show(sidecar, "Result")["Result"] == "success"
    assert machine.show(UNIT, "ActiveState")["ActiveState"] == "active"


@pytest.mark.parametrize("unit", ["hairpin.service", "hairpin-livekit.service"])
def test_the_sandbox_is_rated_well(unit, machine):
    """systemd rates the exposure of both units at 1.7 at most, although the relay may read /proc/net and lower the priority of its
    threads. Neither waits for network-online.target.
    """
    lines = (UNITS / unit).read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert "ProcSubset=pid" not in lines and not any("network-online" in line or "@resources" in line for line in lines)
    machine.copy(UNITS / "hairpin.sysusers", "/usr/lib/sysusers.d/hairpin.conf", mode=0o644)
    machine.run("systemd-sysusers", "hairpin.conf")
    file = f"/usr/lib/systemd/system/{unit}"
    machine.copy(UNITS / unit, file, mode=0o644)
    machine.boot()
    rated = machine.run("systemd-analyze", "security", "--offline=yes", "--threshold=17", file)
    assert float(re.search(r"exposure level for \S+: (\S+)", rated.stdout)[1]) <= 1.7
    # The programs are not there.
    complaints = machine.run("systemd-analyze", "verify", "--man=no", file, check=False).stderr.splitlines()
    assert not [line for line in complaints if "is not executable" not in line], complaints
