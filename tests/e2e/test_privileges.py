"""The setting `user`: a relay that is started as root becomes another user."""

import os
import pwd
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

import relay as daemon
from hosts import eventually
from relay import PROGRAM, toml
from turn import time_limited

NOBODY = pwd.getpwnam("nobody")

# CAP_NET_BIND_SERVICE (linux/capability.h): ports below 1024.
KEPT = 1 << 10

# A relay that changes its user no longer dies with its parent (PR_SET_PDEATHSIG in prctl(2)). This shell does, and as the first
# process of its namespace it takes the relay with it. It runs $1 first.
INIT = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "sh", "-c")
INIT += ('eval "$1"; shift; "$@"; exit $?', "sh")

# The relay's /run is its own, and nothing says where its control socket is to be.
DEFAULT_FOLDER = "mount -t tmpfs -o mode=755 run /run; unset RUNTIME_DIRECTORY"


@pytest.fixture
def folder():
    """A folder that every user may enter, unlike those of pytest. Those of runs that were killed are removed."""
    temporary = Path(tempfile.gettempdir())
    for old in temporary.glob("hairpin-test-*-*"):
        if (found := re.fullmatch(r"hairpin-test-(\d+)-\w+", old.name)) and not Path("/proc", found[1]).exists():
            shutil.rmtree(old)
    path = Path(tempfile.mkdtemp(prefix=f"hairpin-test-{os.getpid()}-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class Dropped(daemon.Relay):
    """A relay that is the child of `INIT`, which exits as the relay does, and ends it when it is killed itself."""

    @property
    def pid(self):
        """The relay's process."""
        shell = eventually(lambda: children(self.process.pid))[0]
        return eventually(lambda: children(shell))[0]

    @property
    def root(self):
        """Its file system, with its own mounts."""
        return Path(f"/proc/{self.pid}/root")

    def stop(self, how=signal.SIGTERM):
        """Sends a signal, waits, and returns the exit status."""
        try:
            if self.process.poll() is None:
                os.kill(self.pid, how)
            return self.process.wait(timeout=30)
        finally:
            self.kill()


def children(pid):
    """The children of a process with one thread."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def dropped(host, folder):
    """Starts a relay as root that becomes `nobody`: `dropped(**changes)`. Its control socket is in a folder of its own, and its state
    in another one. `first` is what a shell in its mount namespace does before; `environment` configures it instead of a file.
    """
    relays = []

    def start(*arguments, user="nobody", name="one", wait=True, first=":", environment=None, **changes):
        config = daemon.configuration(host, **({"user": user} if user else {}), **changes)
        place = folder / name
        (place / "run/hairpin").mkdir(parents=True, exist_ok=True)
        variables = {"RUNTIME_DIRECTORY": str(place / "run/hairpin")} | (environment or {})
        options = {"environment": variables, "wrapper": (*INIT, first)}
        arguments = ("--state-dir", place / "state", *arguments)
        relay = Dropped(host, place, *arguments, config=None if environment else config, **options)
        relays.append(relay)
        return relay.wait_until_healthy() if wait else relay

    try:
        yield start
        for relay in relays:
            relay.stop()
    finally:
        for relay in relays:
            relay.kill()


def ids(relay):
    """The user, groups and capabilities of each thread."""
    found = set()
    for task in Path(f"/proc/{relay.pid}/task").iterdir():
        status = (task / "status").read_text()
        names = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
        found.add(tuple(re.search(rf"^{name}:\s*(.*?)\s*$", status, re.M)[1] for name in names))
    return found


def warnings(relay):
    """The warnings that the change of the user has caused."""
    return [line["message"] for line in relay.lines(level="WARN") if "what root has read serves" in line["message"]]


def test_every_thread_becomes_the_user(dropped, host, connect, folder):
    """Every thread has the user, its groups and no capability but that for ports below 1024; a call works. A reload opens another
    port below 1024, and the state directory and the control socket are the user's.
    """
    (folder / "one").mkdir()
    relay = dropped(listen={"udp": ["0.0.0.0:3478"], "tcp": ["0.0.0.0:443"]})
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    user, group = "\t".join([str(uid)] * 4), "\t".join([str(gid)] * 4)
    none, kept = f"{0:016x}", f"{KEPT:016x}"
    groups = " ".join(map(str, sorted(os.getgrouplist("nobody", gid))))
    assert ids(relay) == {(user, group, groups, none, kept, kept, kept, none, "1")}
    client = connect()
    client.allocate()
    assert relay.ask("status")["ready"]
    assert relay.line("became user \"nobody\"; kept of root's privileges: CAP_NET_BIND_SERVICE")
    relay.ctl("revoke", "mallory", "--for", "1h")
    owners = {(entry.stat().st_uid, entry.name) for entry in (folder / "one/state").iterdir()}
    assert {owner for owner, _ in owners} == {uid} and "revocations" in {name for _, name in owners}
    assert relay.socket.stat().st_uid == uid
    # The configuration is readable by root alone, as that of many relays is: it serves, and the log says what to do.
    [warning] = warnings(relay)
    assert 'hairpin.toml: the user "nobody" cannot read it: what root has read serves until a reload' in warning
    assert "which will fail; allow the user that runs hairpin" in warning
    assert "permission denied" in relay.ctl("reload", status=1)
    file = relay.folder / "hairpin.toml"
    file.write_text(file.read_text().replace('"0.0.0.0:443"', '"0.0.0.0:443", "0.0.0.0:444"'))
    os.chown(file, 0, gid)
    file.chmod(0o640)
    relay.ctl("reload")
    host.tcp("127.0.0.1", 444).close()
    assert client.refresh() == 600
    assert relay.stop() == 0
    assert not relay.socket.exists()


def test_a_state_directory_of_root_is_handed_over(dropped, folder):
    """What an earlier start as root, or as another user, has made goes on being used."""
    relay = dropped(user=None)
    relay.ctl("revoke", "mallory", "--for", "1h")
    [warning] = [line["message"] for line in relay.lines(level="WARN") if "runs as root" in line["message"]]
    assert "user = " in warning
    assert relay.stop() == 0 and (folder / "one/state").stat().st_uid == 0
    relay = dropped()
    assert relay.ask("revocations")["revocations"][0]["user"] == "mallory"
    relay.ctl("revoke", "eve", "--for", "1h")
    assert relay.stop() == 0
    relay = dropped(user="daemon")
    assert len(relay.ask("revocations")["revocations"]) == 2
    relay.ctl("unrevoke", "eve")
    assert relay.stop() == 0 and (folder / "one/state").stat().st_uid == pwd.getpwnam("daemon").pw_uid


@pytest.mark.parametrize("what", ["a file", "a folder"])
def test_a_directory_for_something_else_stays_as_it_is(what, dropped, folder):
    """A state directory of root with one file that is not the relay's, such as /etc/hairpin, is named by mistake: nothing in it is
    given away, and the start fails.
    """
    other = folder / "one/state"
    other.mkdir(parents=True)
    (other / "secret").write_text("a shared secret of the operator\n")
    (other / "secret").chmod(0o600)
    if what == "a file":
        (other / "hairpin.toml").write_text("")
    else:
        (other / "hairpin.toml").mkdir()
    relay = dropped(wait=False)
    assert relay.process.wait(20) == 2
    assert f"it has more than a relay keeps in it: {other}/hairpin.toml; name another one with --state-dir" in relay.log
    assert {path.stat().st_uid for path in (other, *other.iterdir())} == {0}


@pytest.mark.parametrize("named", ["by default", "by its path"])
def test_the_folder_of_the_control_socket(named, dropped, host):
    """/run/hairpin, which only root can make, is made for the user, whether admin.socket names it or not."""
    admin = {} if named == "by default" else {"admin": {"socket": "/run/hairpin/control.sock"}}
    relay = dropped(first=DEFAULT_FOLDER, **admin)
    socket = relay.root / "run/hairpin/control.sock"
    assert (socket.stat().st_uid, socket.parent.stat().st_uid) == (NOBODY.pw_uid, NOBODY.pw_uid)
    host.run(PROGRAM, "ctl", "--socket", socket, "status")
    assert relay.stop() == 0


def test_a_folder_for_something_else_is_not_the_sockets(dropped, folder):
    """A folder that has more than sockets stays root's, and the start says why there is no control socket in it."""
    place = folder / "one/hairpin"
    place.mkdir(parents=True)
    (place / "hairpin.toml").write_text("")
    relay = dropped(wait=False, admin={"socket": str(place / "control.sock")})
    assert relay.process.wait(20) == 1
    assert f"control socket {place}/control.sock: " in relay.log and "ermission denied" in relay.log
    assert {path.stat().st_uid for path in (place, *place.iterdir())} == {0}


def test_without_a_configuration_file(dropped, folder, connect, host):
    """A container has flags and an environment: a file that these name and the user may not read is a warning, too."""
    place = folder / "one"
    place.mkdir()
    (place / "turn").write_text("a secret that only root may read\n")
    (place / "turn").chmod(0o400)
    environment = {
        "HAIRPIN_USER": "nobody",
        "HAIRPIN_AUTH_SECRET_FILES": str(place / "turn"),
        "HAIRPIN_RELAY_ADDRESSES": host.v4,
        "HAIRPIN_LOG_FORMAT": "json",
    }
    relay = dropped(environment=environment)
    [warning] = warnings(relay)
    assert str(place / "turn") in warning and 'the user "nobody" cannot read it' in warning
    connect(time_limited("a secret that only root may read", "bob")).allocate()
    assert relay.stop() == 0


def test_keys_that_the_user_may_not_read_are_named(dropped, folder, authority, clients, host):
    """TLS works with a key that root has read, and a warning names each file that a renewal will not be able to read, and the fix."""
    cert, key = authority.issue("turn.example.org")
    place = folder / "one"
    place.mkdir()
    for file, name, mode in ((cert, "cert.pem", 0o644), (key, "key.pem", 0o600)):
        shutil.copy(file, place / name)
        (place / name).chmod(mode)
    (place / "secrets").write_text("a secret that only root may read\n")
    (place / "secrets").chmod(0o600)
    files = {"cert": "cert.pem", "key": "key.pem"}
    auth = {"secrets": [], "secret_files": ["secrets"]}
    relay = dropped(tls=files, listen={"udp": ["0.0.0.0:3478"], "tls": ["0.0.0.0:443"]}, auth=auth)
    found = warnings(relay)
    for name, line in (("key.pem", "tls.key"), ("secrets", "auth.secret_files")):
        assert [one for one in found if name in one and line in one and "allow the user that runs hairpin" in one], found
    assert not [one for one in found if "cert.pem" in one], found
    context = ssl.create_default_context(cafile=authority.certificate)
    with clients.tcp(host.v4, 443) as raw, context.wrap_socket(raw, server_hostname="turn.example.org"):
        pass


def test_mistakes_are_named(host, folder, dropped):
    """An unknown user is a mistake with file, line and fix; a process that is not root cannot become another user, but may be
    that user already.
    """
    file = folder / "hairpin.toml"
    file.write_text('# one\nuser = "nobody-like-this"\n\n' + toml({"auth": {"secrets": [daemon.SECRET]}}))
    file.chmod(0o644)
    done = subprocess.run([PROGRAM, "check", file], capture_output=True, text=True)
    assert done.returncode == 2
    assert f'{file}:2: user = "nobody-like-this": this machine has no user of this name; create it' in done.stdout

    file.write_text(file.read_text().replace("nobody-like-this", "daemon"))
    shutil.copy(PROGRAM, folder / "hairpin")
    command = [folder / "hairpin", "serve", "--config", file, "--state-dir", folder / "state"]
    as_nobody = [f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups"]
    run = host.start(*command, privileges=as_nobody, stderr=subprocess.PIPE, text=True)
    _, log = run.communicate(timeout=20)
    assert run.returncode == 2
    assert f'{file}:2: user = "daemon": hairpin runs as "nobody", and only root can become another user; start it as root' in log

    file.write_text(file.read_text().replace('"daemon"', '"nobody"'))
    (folder / "state").mkdir()
    os.chown(folder / "state", NOBODY.pw_uid, NOBODY.pw_gid)
    run = host.start(*command, "--set", "http.listen=127.0.0.1:9641", privileges=as_nobody, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(host))
        run.terminate()
        assert run.wait(20) == 0
    finally:
        run.kill()
        run.wait()


def answers(host):
    """the relay serves HTTP"""
    try:
        host.tcp("127.0.0.1", 9641).close()
        return True
    except OSError:
        return False
