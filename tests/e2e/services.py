"""The programs as services of a machine with systemd, installed by hand as the package installs them."""

import contextlib
import os
import re
from pathlib import Path

from relay import PROGRAM

UNITS = Path(__file__).parents[2] / "systemd"
CONFIG = "/etc/hairpin/hairpin.toml"


def install(machine, config="", programs=("hairpin",)):
    """Installs programs with their units, their user and this configuration, and enables the relay."""
    machine.copy(UNITS / "hairpin.sysusers", "/usr/lib/sysusers.d/hairpin.conf", mode=0o644)
    machine.run("systemd-sysusers", "hairpin.conf")
    for program in programs:
        machine.copy(PROGRAM.with_name(program), f"/usr/bin/{program}", mode=0o755)
        machine.copy(UNITS / f"{program}.service", f"/usr/lib/systemd/system/{program}.service", mode=0o644)
    machine.run("install", "-d", "-m", "750", "-g", "hairpin", "/etc/hairpin")
    configure(machine, config)
    machine.systemctl("enable", "hairpin")


def configure(machine, config, file=CONFIG):
    """Writes a configuration as the package installs it."""
    machine.write(file, config, mode=0o640, owner="root:hairpin")


def drop_in(machine, *lines, unit="hairpin"):
    """Changes the unit as an operator does."""
    machine.write(f"/etc/systemd/system/{unit}.service.d/test.conf", "\n".join(["[Service]", *lines, ""]))
    if machine.pid:
        machine.systemctl("daemon-reload")


def status(machine, unit="hairpin"):
    """The line of `systemctl status`."""
    return machine.show(unit, "StatusText")["StatusText"]


def process(machine, unit="hairpin"):
    """The process of a service, by its ID outside of the machine."""
    inside = machine.main_pid(unit)
    space = os.readlink(f"/proc/{machine.pid}/ns/pid")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(folder / "ns/pid") == space:
                numbers = re.search(r"^NSpid:\t(.*)$", (folder / "status").read_text(), re.M)[1].split()
                if int(numbers[-1]) == inside:
                    return int(folder.name)
    raise AssertionError(f"{unit} has no process:\n{machine.journal(unit)}")
