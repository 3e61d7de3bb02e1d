"""A Debian machine: a bare root file system with a real systemd as PID 1, booted in namespaces.

The file system and its mounts live in a mount namespace without a name, the machine's network is that of a `Host`, and
its processes are in a PID namespace and a control group of their own. The kernel kills them when this process exits, and
removes the namespaces with them. Only an empty control group could be left behind by a killed run; the next run removes it.

The disk is a bounded overlay in memory, which survives a reboot and ends with the `Machine`. `tests/debian/build.sh` makes
the file system below it.
"""

import contextlib
import errno
import os
import re
import shlex
import signal
import subprocess
import time
import uuid
from pathlib import Path

from hosts import eventually

ROOT = Path(
    os.environ.get("HAIRPIN_DEBIAN") or Path(__file__).parents[2] / "target" / "debian" / "root.tar"
).resolve()

# Where the host has mounted the second version of control groups, alone or beside the first.
CONTROL_GROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_PAGER": "cat",
    "SYSTEMD_COLORS": "0",
}

# Mounts a disk of bounded size over the folder $1, and keeps the mount namespace until it is killed.
PREPARE = """
set -e
mount -t tmpfs -o mode=755,size=$2 disk "$1"
cd "$1"
mkdir base upper work root
tar -xpf "$3" -C base
mount -t overlay overlay -o lowerdir=base,upperdir=upper,workdir=work root || cp -a base/. root
echo ready
exec sleep infinity
"""

# Runs in new namespaces, as the parent of nothing: mounts what systemd expects of a container manager
# (https://systemd.io/CONTAINER_INTERFACE), and becomes systemd. Kernel settings outside the network namespace are
# read-only, so that the machine's boot cannot change those of its host.
BOOT = """
set -e
root=$1
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,rw proc/sys/net
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,size=1m dev dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=1777,size=64m shm dev/shm
mount -t tmpfs -o mode=755,size=64m run run
hostname "$(cat etc/hostname)"
mkdir -p run/host
pivot_root . run/host
umount -l run/host
cd /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog --inh-caps=-sys_module,-sys_time,-sys_rawio,-syslog \\
    /lib/systemd/systemd --system --show-status=false
"""


class Machine:
    """A machine whose interfaces are those of `host`. `folder` is an empty folder of the test.

    It is switched off at first: `run` and the file methods then work in a chroot of its disk.
    """

    def __init__(self, host, folder, megabytes=1500):
        assert ROOT.exists(), f"{ROOT} is missing: tests/debian/build.sh makes it"
        self.host = host
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._disk = self.folder / "disk"
        self._disk.mkdir(exist_ok=True)
        self._console = self.folder / "console"
        self._console.touch()
        self._group = _control_group()
        self.process = self.pid = None
        self._mounts = self._prepare(megabytes)
        # Without an identity, systemd takes every boot for the first and resets which units are enabled.
        self.write("/etc/machine-id", uuid.uuid4().hex + "\n")
        self.write("/etc/hostname", "machine\n")
        self.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 machine\n")
        # It has no name server, and must not know that of the machine that made the file system.
        self.write("/etc/resolv.conf", "")

    def _prepare(self, megabytes):
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PREPARE, "sh", self._disk]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.host.start(*argv, f"{megabytes}m", ROOT, **options) as keeper:
            try:
                ready = keeper.stdout.readline()
                assert ready == "ready\n", f"cannot mount the machine's disk: {keeper.stderr.read()}"
                return os.open(f"/proc/{keeper.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                keeper.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Switching on and off

    def boot(self, timeout=60):
        """Boots and waits until systemd has finished; returns the machine."""
        assert self.process is None, "the machine is already running"
        self._group.mkdir(exist_ok=True)
        root = self._disk / "root"
        join = f'echo $$ >"{self._group}/cgroup.procs"; exec "$@"'
        unshare = "unshare --mount --uts --ipc --pid --cgroup --fork --kill-child=KILL --propagation private".split()
        with open(self._console, "ab") as console:
            self.process = self.host.start(
                *("nsenter", f"--mount={self._namespace}", "sh", "-c", join, "sh"),
                *(*unshare, "sh", "-c", BOOT, "sh", root),
                stdout=console,
                stderr=console,
            )

        def booted():
            """systemd is PID 1 of the machine and has finished booting"""
            assert self.process.poll() is None, f"the machine does not boot:\n{self.console}"
            self.pid = self.pid or _init_of(self.process.pid)
            return self.pid and self.state() in ("running", "degraded", "maintenance")

        eventually(booted, timeout)
        return self

    def state(self):
        """What `systemctl is-system-running` says."""
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def shutdown(self, timeout=60):
        """Switches off in order: services are stopped, and the disk stays as it is."""
        self.run("systemctl", "poweroff", check=False)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the machine does not shut down:\n{self.journal()[-5000:]}") from None
        finally:
            self.cut_power()

    def cut_power(self):
        """Switches off at once, as a power failure does. The disk keeps what was written."""
        if self.process is not None:
            if self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            else:
                self.process.kill()
            self.process.wait()
        self.process = self.pid = None
        _remove_group(self._group)

    def reboot(self):
        """Shuts down in order and boots again."""
        self.shutdown()
        return self.boot()

    def close(self):
        """Switches off at once and discards the disk."""
        self.cut_power()
        if self._mounts is not None:
            os.close(self._mounts)
        self._mounts = None

    # Programs and files

    def command(self, *argv, environment=None):
        """The command line that runs a program as root inside the machine."""
        variables = [f"{name}={value}" for name, value in (ENVIRONMENT | (environment or {})).items()]
        if self.pid:
            enter = ["nsenter", "--target", self.pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
            enter += ["--root", "--wd"]
        else:
            enter = ["nsenter", f"--mount={self._namespace}", f"--net={self.host.path}", "chroot", self._disk / "root"]
        return [str(word) for word in [*enter, "env", "-i", *variables, *argv]]

    def run(self, *argv, check=True, input=None, timeout=300, environment=None, binary=False):
        """Runs a program to its end. It has to succeed unless `check` is false or the exit status it must have. The time is enough
        for dpkg on a busy disk.
        """
        source = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(
            self.command(*argv, environment=environment),
            capture_output=True,
            text=not binary,
            timeout=timeout,
            **source,
        )
        if check is not False:
            expected = 0 if check is True else check
            error = f"{shlex.join(map(str, argv))}: exit status {done.returncode}:\n{done.stderr}\n{done.stdout}"
            assert done.returncode == expected, error
        return done

    def start(self, *argv, environment=None, **options):
        """Starts a program inside the machine; the caller waits for it or stops it."""
        return subprocess.Popen(self.command(*argv, environment=environment), stdin=subprocess.DEVNULL, **options)

    def read(self, path):
        """The text of a file."""
        return self.run("cat", path).stdout

    def exists(self, path):
        """Whether a file exists."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def write(self, path, content, mode=None, owner=None):
        """Writes a file, and its folder if that is missing. Mode and owner of an existing file are kept unless given."""
        content = content.encode() if isinstance(content, str) else content
        script = 'mkdir -p "$(dirname "$1")"; cat >"$1"'
        self.run("sh", "-ec", script, "sh", path, input=content, binary=True)
        if owner:
            self.run("chown", owner, path)
        if mode is not None:
            self.run("chmod", f"{mode:o}", path)

    def copy(self, source, path, mode=None, owner=None):
        """Copies a file of the test into the machine."""
        self.write(path, Path(source).read_bytes(), mode if mode is not None else os.stat(source).st_mode & 0o777, owner)

    # systemd

    def systemctl(self, *arguments, check=True):
        """The output of systemctl, which has to succeed."""
        return self.run("systemctl", *arguments, check=check).stdout.strip()

    def show(self, unit, *properties):
        """Properties of a unit, as a dict."""
        output = self.systemctl("show", unit, *(f"--property={name}" for name in properties))
        return dict(line.split("=", 1) for line in output.splitlines())

    def main_pid(self, unit):
        """The process ID of a service inside the machine, 0 if it does not run."""
        return int(self.show(unit, "MainPID")["MainPID"])

    def journal(self, unit=None, *options):
        """The journal's messages, of one unit and of systemd about it if given. Those that journald still holds are written first."""
        if self.pid:
            # While the machine shuts down, nobody may answer.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("journalctl", "--sync", check=False, timeout=20)
        unit = ["--unit", unit] if unit else []
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", *unit, *options, check=False).stdout

    @property
    def console(self):
        """What systemd wrote before there was a journal."""
        return self._console.read_text(errors="replace")

    @property
    def log(self):
        """What a failed test shows of the machine."""
        return f"{self.console}\n{self.journal() if self.pid else '(switched off)'}"

    @property
    def _namespace(self):
        return f"/proc/{os.getpid()}/fd/{self._mounts}"


def _control_group():
    """A new control group for a machine. Those of runs that were killed are removed."""
    for parent in CONTROL_GROUPS:
        if (parent / "cgroup.controllers").exists():
            break
    else:
        raise AssertionError(
            "systemd cannot be booted: no cgroup2 file system is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified"
        )
    for old in parent.glob("hairpin-test-*"):
        if (found := re.fullmatch(r"hairpin-test-(\d+)-\w+", old.name)) and not Path("/proc", found[1]).exists():
            _remove_group(old)
    group = parent / f"hairpin-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        raise AssertionError(f"systemd cannot be booted: cannot create {group}: {error.strerror}") from None
    return group


def _remove_group(group):
    """Removes a control group and those below it, whose last processes are still exiting."""
    deadline = time.monotonic() + 10
    while group.exists():
        try:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _init_of(unshare):
    """The child of `unshare` once it has become systemd."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None
