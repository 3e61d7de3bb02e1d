"""The programs as services of a machine with systemd, installed by hand as the package installs them."""

import contextlib
import ctypes
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


@contextlib.contextmanager
def stuck(pid, name):
    """Stops one thread of a process, as a debugger would, until the process is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    tasks = Path(f"/proc/{pid}/task").iterdir()
    [thread] = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]
    seize, interrupt, detach, all_children = 0x4206, 0x4207, 17, 0x40000000
    assert libc.ptrace(seize, thread, None, None) == 0, os.strerror(ctypes.get_errno())
    libc.ptrace(interrupt, thread, None, None)
    os.waitpid(thread, all_children)

    def is_gone():
        """the process has ended"""
        # Its parent hears of the end once the tracer knows that the thread has ended.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(thread, os.WNOHANG | all_children)
        return not Path(f"/proc/{pid}/task/{thread}").exists()

    try:
        yield is_gone
    finally:
        libc.ptrace(detach, thread, None, None)
