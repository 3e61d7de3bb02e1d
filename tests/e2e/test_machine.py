"""The machine that other tests boot is what they take it for: a Debian with systemd that reaches only their network."""

import os
from pathlib import Path

import pytest

from hosts import eventually


def connects(host, address):
    """a TCP connection succeeds"""
    try:
        host.tcp(*address).close()
        return True
    except ConnectionRefusedError:
        return False


def test_it_boots_keeps_its_disk_and_leaves_nothing_behind(machine, host, clients):
    """systemd boots without a failed unit; files survive a reboot; a service's port is reached through the host's address."""
    machine.write("/etc/kept", "before the first boot\n", mode=0o600)
    machine.boot()
    assert machine.state() == "running", machine.systemctl("--failed")
    assert machine.systemctl("is-active", "dbus.socket") == "active"
    assert machine.run("stat", "-c", "%a %U", "/etc/kept").stdout == "600 root\n"
    machine.write("/var/lib/kept", "while it ran\n")
    machine.run("systemd-run", "--unit=listener", "openssl", "s_server", "-nocert", "-www", "-accept", "443")
    eventually(lambda: connects(clients, (host.v4, 443)))
    assert machine.main_pid("listener") > 1
    assert "listener" in machine.journal("listener")

    routes = machine.run("ip", "route").stdout.splitlines()
    assert routes and all(route.startswith("203.0.113.0/24 dev eth0") for route in routes)
    before = Path("/proc/sys/kernel/pid_max").read_text()
    machine.run("sysctl", "-w", "kernel.pid_max=4194303", check=1)
    assert Path("/proc/sys/kernel/pid_max").read_text() == before

    group, first = machine._group, machine.pid
    machine.reboot()
    assert machine.state() == "running" and machine.pid != first
    assert machine.read("/etc/kept") + machine.read("/var/lib/kept") == "before the first boot\nwhile it ran\n"
    machine.cut_power()
    assert not group.exists()
    assert machine.read("/var/lib/kept") == "while it ran\n"
    with pytest.raises(AssertionError, match="exit status 1"):
        machine.run("false")
    assert not os.listdir(machine.folder / "disk"), "the disk is visible outside the machine's mounts"
