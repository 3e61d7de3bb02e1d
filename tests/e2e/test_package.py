"""The Debian package on a bare Debian with systemd: installed, used, upgraded, removed and purged, as its operator sees it."""

import json
import os.path
import re
import subprocess
from pathlib import PurePosixPath

import pytest

import coturn
from hosts import eventually
from turn import Client, User

CONFIG = "/etc/hairpin/hairpin.toml"
SERVICE = ("--config", CONFIG, "--state-dir", "/var/lib/hairpin")

# What programs and services of Debian write by themselves, and the user, which stays.
OTHERS = re.compile(
    r"/(dev|proc|run|sys|tmp|var/(cache|log|tmp)|var/lib/(dpkg|systemd/(timers|timesync|random-seed|coredump|linger))|"
    r"etc/(passwd|group|shadow|gshadow|subuid|subgid)-|etc/\.pwd\.lock)(/|$)"
)


@pytest.fixture
def host(switch):
    """The host of the machine. Its default route leads nowhere; the relay takes its address from it."""
    return switch.host("relay", default_route=True)


def next_version(package, folder):
    """The same package with a higher version and a sample configuration that has changed."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.0-1", control.read_text(), flags=re.M))
    with open(tree / CONFIG.lstrip("/"), "a") as sample:
        sample.write("# A comment of the new version\n")
    subprocess.run(["dpkg-deb", "-Znone", "--build", tree, folder / "next.deb"], check=True, capture_output=True)
    return folder / "next.deb"


def dpkg(machine, *arguments, check=True):
    """Runs dpkg; returns what it printed."""
    done = machine.run("dpkg", *arguments, check=check)
    return done.stdout + done.stderr


def install(machine, package, *options):
    """Copies a package to the machine and installs it; returns what dpkg printed."""
    machine.copy(package, "/root/hairpin.deb")
    return dpkg(machine, *options, "--install", "/root/hairpin.deb")


def files(machine):
    """Every file but those that others write."""
    names = machine.run("find", "/", "-xdev").stdout.splitlines()
    return {name for name in names if not OTHERS.match(name)}


def credentials(machine, *arguments):
    """The ICE servers that root gets for a user."""
    printed = machine.run("hairpin", "credentials", "--user", "alice", *(arguments or SERVICE)).stdout
    [server] = json.loads(printed)["iceServers"]
    return server


def maintainer_script(machine, name, *arguments):
    """Runs a script of the installed package as dpkg does; returns what it printed."""
    environment = {"DPKG_MAINTSCRIPT_PACKAGE": "hairpin", "DPKG_MAINTSCRIPT_NAME": name, "DPKG_ROOT": ""}
    return machine.run(f"/var/lib/dpkg/info/hairpin.{name}", *arguments, environment=environment).stdout


def is_active(machine, unit="hairpin"):
    """Whether a service runs."""
    return machine.systemctl("is-active", unit, check=False) == "active"


def test_the_life_of_the_package(package, machine, host, clients, tmp_path):
    """Installed, the relay runs with a generated secret. An upgrade keeps the operator's configuration and the running relay, and says
    how to start the new version. A removal stops and disables it and keeps the configuration; a purge leaves nothing.
    """
    machine.boot()
    before = files(machine)

    # Installed
    said = install(machine, package)
    assert is_active(machine) and machine.systemctl("is-enabled", "hairpin") == "enabled", said
    assert machine.systemctl("is-enabled", "hairpin-livekit", check=False) == "disabled"
    assert not is_active(machine, "hairpin-livekit")
    assert "the relay is running" in said and "journalctl --unit hairpin" in said
    assert "the shared secret is in /var/lib/hairpin (generated now)" in machine.journal("hairpin")
    modes = machine.run("stat", "-c", "%a %U:%G %n", "/etc/hairpin", CONFIG, "/etc/hairpin/hairpin-livekit.toml").stdout
    assert modes.splitlines() == [
        "750 root:hairpin /etc/hairpin",
        "640 root:hairpin /etc/hairpin/hairpin.toml",
        "640 root:hairpin /etc/hairpin/hairpin-livekit.toml",
    ]
    assert machine.run("hairpin", "ctl", "status").stdout
    listening = machine.run("ss", "-Htunlp").stdout
    for protocol, port in (("udp", 3478), ("tcp", 3478), ("tcp", 9641)):
        assert re.search(rf"^{protocol}\s.*:{port}\s.*hairpin", listening, re.M), listening

    # The command that the installation has printed makes credentials that work.
    [command] = re.findall(r"(hairpin credentials --user NAME .*)$", said, re.M)
    server = credentials(machine, *command.split()[4:])
    assert f"turn:{host.v4}:3478?transport=udp" in server["urls"]
    user, password = server["username"], server["credential"]
    run = coturn.uclient(clients, host.v4, "-y", "-n", 10, "-m", 2, user=user, password=password)
    assert run.status == 0 and run.sent == run.received >= 20, run.output

    # Upgraded
    machine.run("sed", "-i", "1i # edited by the operator", CONFIG)
    machine.run("systemctl", "stop", "hairpin")
    assert "the relay was not running. To start it: systemctl start hairpin" in install(machine, package)
    assert not is_active(machine), "an upgrade starts what its operator has stopped"
    assert maintainer_script(machine, "postinst", "abort-upgrade", "99.0-1") == "" and not is_active(machine)
    machine.systemctl("start", "hairpin")
    pid, secret = machine.main_pid("hairpin"), machine.read("/var/lib/hairpin/secret")
    server = credentials(machine)
    with Client(clients, (host.v4, 3478), User(server["username"], server["credential"])) as client:
        client.allocate()
        package = next_version(package, tmp_path)
        said = install(machine, package, "--force-confold")
        assert "hairpin ctl drain --wait && systemctl start hairpin" in said and "systemctl restart hairpin" in said
        assert "the relay was not restarted: it runs the program that it was started with" in said
        assert machine.main_pid("hairpin") == pid and is_active(machine)
        client.refresh()
    assert dpkg(machine, "--status", "hairpin").count("Version: 99.0-1") == 1
    assert machine.read(CONFIG).startswith("# edited by the operator\n")
    assert machine.exists(CONFIG + ".dpkg-dist")
    # The commands that it has printed.
    machine.run("sh", "-ec", "hairpin ctl drain --deadline 1 --wait && systemctl start hairpin")
    assert machine.main_pid("hairpin") not in (0, pid) and machine.read("/var/lib/hairpin/secret") == secret
    assert machine.run("readlink", f"/proc/{machine.main_pid('hairpin')}/exe").stdout == "/usr/bin/hairpin\n"

    # A removal that fails has stopped it.
    maintainer_script(machine, "prerm", "remove")
    assert not is_active(machine)
    assert maintainer_script(machine, "postinst", "abort-remove") == "" and is_active(machine)
    assert not is_active(machine, "hairpin-livekit"), "it was never enabled"

    # Disabled by its operator, it stays disabled.
    machine.systemctl("disable", "hairpin")
    install(machine, package)
    assert machine.systemctl("is-enabled", "hairpin", check=False) == "disabled" and is_active(machine)

    # Removed, and installed again
    dpkg(machine, "--remove", "hairpin")
    assert not is_active(machine) and not machine.exists("/usr/bin/hairpin")
    assert machine.read(CONFIG).startswith("# edited by the operator\n")
    assert machine.read("/var/lib/hairpin/secret") == secret
    assert machine.run("find", "/etc/systemd/system", "-name", "hairpin*").stdout == ""
    install(machine, package)
    assert is_active(machine) and machine.systemctl("is-enabled", "hairpin") == "enabled"
    assert machine.read("/var/lib/hairpin/secret") == secret

    # Purged
    machine.write("/etc/hairpin/users.toml", "[users]\n")
    dpkg(machine, "--purge", "hairpin")
    machine.run("rm", "/root/hairpin.deb")
    assert files(machine) == before
    assert machine.state() == "running", machine.systemctl("--failed")
    assert not machine.exists("/run/hairpin")

    install(machine, package)
    assert is_active(machine) and machine.read("/var/lib/hairpin/secret") != secret


def test_an_installation_where_systemd_does_not_run(package, machine):
    """In a chroot, as images are made, the package installs and starts nothing. The relay starts with the first boot."""
    said = install(machine, package)
    assert "hairpin:" not in said, said
    machine.boot()
    eventually(lambda: is_active(machine))
    assert "the shared secret is in /var/lib/hairpin (generated now)" in machine.journal("hairpin")
    assert machine.state() == "running", machine.systemctl("--failed")


def test_an_installation_that_may_not_or_cannot_start_the_relay(package, machine):
    """policy-rc.d is obeyed. A port that another program has does not fail the installation, which says what to look at."""
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
    machine.boot()
    said = install(machine, package)
    assert not is_active(machine) and machine.systemctl("is-enabled", "hairpin") == "enabled"
    assert "the relay is running" not in said and "has not started" not in said, said
    dpkg(machine, "--purge", "hairpin")

    machine.run("rm", "/usr/sbin/policy-rc.d")
    machine.run("systemd-run", "--unit=other", "openssl", "s_server", "-nocert", "-www", "-accept", "3478")
    eventually(lambda: ":3478 " in machine.run("ss", "-Htnl").stdout)
    said = install(machine, package)
    assert "the relay has not started: journalctl --unit hairpin says why" in said, said
    assert dpkg(machine, "--status", "hairpin").count("Status: install ok installed") == 1
    assert re.search(r"3478.*(in use|uses it)", machine.journal("hairpin")), machine.journal("hairpin")
    machine.systemctl("stop", "other")
    machine.systemctl("start", "hairpin")


def dead_links(machine, names):
    """The links of the packaged pages that lead nowhere in the package."""
    dead = []
    for page in (name for name in names if name.startswith("/usr/share/doc/hairpin/") and name.endswith(".md")):
        for link in re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", machine.read(page)):
            target = os.path.normpath(PurePosixPath(page).parent / link)
            if not re.match(r"[a-z]+:", link) and target not in names:
                dead.append(f"{page}: {link}")
    return dead


def test_what_is_in_the_package(package, machine):
    """Both programs have manual pages without errors for every command, and completions for three shells. The units are well-formed, and
    the documentation is there.
    """
    install(machine, package)
    for program in ("hairpin", "hairpin-livekit"):
        shown = machine.run("man", "--warnings", "-P", "cat", program)
        assert shown.stderr == "" and "EXIT STATUS" in shown.stdout and "/etc/hairpin/" in shown.stdout
        commands = re.findall(rf"^ +({program}-[a-z-]+)\(1\)$", shown.stdout, re.M)
        assert len(commands) >= 5
        for command in commands:
            shown = machine.run("man", "--warnings", "-P", "cat", command)
            assert shown.stderr == "" and "NAME" in shown.stdout, shown.stderr
        completed = machine.run("bash", "-c", f"source /usr/share/bash-completion/completions/{program}; complete -p {program}")
        assert completed.stdout.startswith("complete ") and completed.stdout.endswith(f" {program}\n")
        for path in (f"zsh/vendor-completions/_{program}", f"fish/vendor_completions.d/{program}.fish"):
            assert f"{program} completions" in machine.read(f"/usr/share/{path}")
    assert "--deadline" in machine.run("man", "-P", "cat", "hairpin-ctl-drain").stdout
    machine.run("systemd-analyze", "verify", "--man=no", "hairpin.service", "hairpin-livekit.service")
    names = dpkg(machine, "--listfiles", "hairpin").splitlines()
    for name in ("copyright", "changelog.gz", "changelog.Debian.gz", "README.md", "docs/operating.md", "docs/configuration.md"):
        assert f"/usr/share/doc/hairpin/{name}" in names
    for name in ("grafana/hairpin.json", "prometheus/alerts.yml", "prometheus/recording.yml"):
        assert f"/usr/share/doc/hairpin/examples/{name}" in names
    for unit in ("hairpin", "hairpin-livekit"):
        [page] = re.findall(r"file://(\S+)", machine.read(f"/usr/lib/systemd/system/{unit}.service"))
        assert page in names
    assert not dead_links(machine, names)
    assert not [name for name in names if name.startswith(("/usr/local", "/opt", "/lib/"))]
    conffiles = machine.run("dpkg-query", "--showformat=${Conffiles}", "--show", "hairpin").stdout.split()[::2]
    assert set(conffiles) == {CONFIG, "/etc/hairpin/hairpin-livekit.toml"}


def test_the_sidecar_as_a_service(package, machine):
    """`hairpin-livekit init` replaces the packaged sample, and what it prints starts the service, which can read the configuration and
    the API keys that root has written. It waits for LiveKit, which is not there.
    """
    machine.boot()
    install(machine, package)
    machine.write("/etc/hairpin/livekit-keys", f"APIexample: {32 * 's'}\n", mode=0o600)
    init = ("hairpin-livekit", "init", "--livekit-url", "ws://127.0.0.1:7880", "--api-key-file", "/etc/hairpin/livekit-keys")
    config = "/etc/hairpin/hairpin-livekit.toml"
    # Status 1: LiveKit is missing, and the configuration is written nevertheless.
    printed = machine.run(*init, check=1).stdout
    assert printed.startswith(f"The configuration is in {config}.\n"), printed
    assert machine.run(*init, check=1).stderr.count("use --force") == 1
    machine.run(*init, "--force", check=1)
    assert machine.run("stat", "-c", "%a %U:%G", config).stdout == "640 root:hairpin\n"
    commands = re.findall(r"^ {5}((?:chgrp|chmod|systemctl) .*)$", printed, re.M)
    assert commands == [
        "chgrp hairpin /etc/hairpin/livekit-keys",
        "chmod 640 /etc/hairpin/livekit-keys",
        "systemctl enable --now hairpin-livekit",
    ]
    machine.run("sh", "-ec", "\n".join(commands))
    assert is_active(machine, "hairpin-livekit"), machine.journal("hairpin-livekit")

    # A removal that fails starts what it has stopped.
    maintainer_script(machine, "prerm", "remove")
    assert not is_active(machine, "hairpin-livekit")
    maintainer_script(machine, "postinst", "abort-remove")
    assert is_active(machine, "hairpin-livekit") and is_active(machine)
