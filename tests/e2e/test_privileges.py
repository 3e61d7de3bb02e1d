"""The setting `user`: a relay that is started as root becomes another user."""

import os
import pwd
import re
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

import relay as daemon
from hosts import eventually
from relay import PROGRAM, toml

NOBODY = pwd.getpwnam("nobody")

# Bits of linux/capability.h: ports below 1024, and socket buffers beyond the system's limit.
KEPT = 1 << 10 | 1 << 12


@pytest.fixture
def folder():
    """A folder that every user may enter, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="hairpin-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def dropped(host, folder):
    """Starts a relay as root that becomes `nobody`: `dropped(**changes)`. Its control socket is in a folder of its own, and its state
    in another one.
    """
    relays = []

    def start(*arguments, user="nobody", name="one", wait=True, **changes):
        config = daemon.configuration(host, **({"user": user} if user else {}), **changes)
        place = folder / name
        (place / "run/hairpin").mkdir(parents=True, exist_ok=True)
        options = {"environment": {"RUNTIME_DIRECTORY": str(place / "run/hairpin")}}
        relay = daemon.Relay(host, place, "--state-dir", place / "state", *arguments, config=config, **options)
        relays.append(relay)
        return relay.wait_until_healthy() if wait else relay

    yield start
    for relay in relays:
        relay.stop()


def ids(relay):
    """The user, groups and capabilities of each thread."""
    found = set()
    for task in Path(f"/proc/{relay.process.pid}/task").iterdir():
        status = (task / "status").read_text()
        names = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
        found.add(tuple(re.search(rf"^{name}:\s*(.*?)\s*$", status, re.M)[1] for name in names))
    return found


def warnings(relay):
    """The warnings that the change of the user has caused."""
    return [line["message"] for line in relay.lines(level="WARN") if "has to be able to do this" in line["message"]]


def test_every_thread_becomes_the_user(dropped, host, connect, folder):
    """Every thread has the user, its groups and no capability but those that listeners need; a call works. A reload opens another
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
    assert relay.line("became user \"nobody\"; kept of root's privileges: CAP_NET_BIND_SERVICE and CAP_NET_ADMIN")
    relay.ctl("revoke", "mallory", "--for", "1h")
    owners = {(entry.stat().st_uid, entry.name) for entry in (folder / "one/state").iterdir()}
    assert {owner for owner, _ in owners} == {uid} and "revocations" in {name for _, name in owners}
    assert relay.socket.stat().st_uid == uid
    # The configuration is readable by root alone, as that of many relays is: it serves, and the log says what to do.
    [warning] = warnings(relay)
    assert "hairpin.toml: cannot be read: permission denied; allow the user" in warning
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
    """What an earlier start as root, or as another user, has made goes on being used; a folder with something else in it is not
    touched.
    """
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
    other = folder / "two/state"
    (other / "something").mkdir(parents=True)
    relay = dropped(name="two", wait=False)
    assert relay.process.wait(20) == 2
    assert "it has more than a relay keeps in it" in relay.log and other.stat().st_uid == 0


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
    finally:
        run.terminate()
        assert run.wait(20) == 0


def answers(host):
    """the relay serves HTTP"""
    try:
        host.tcp("127.0.0.1", 9641).close()
        return True
    except OSError:
        return False
