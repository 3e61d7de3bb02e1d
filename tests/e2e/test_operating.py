"""docs/operating.md as a new user follows it: its commands, in their order, on a bare Debian machine at 203.0.113.7, up to calls
of a browser on another host. Tests replace what needs the internet, and nothing else: apt-get, and certbot by a test authority
that leaves its files where certbot would.
"""

import contextlib
import json
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from browser import Browser
from conftest import NAME
from documents import DOCS, marked
from hosts import eventually
from machine import Machine
from relay import PROGRAM
from streams import StreamClient
from test_browser import CALL, begin, flows
from turn import Client, User, error_code

PAGE = "operating.md"
LIVE = f"/etc/letsencrypt/live/{NAME}"
# What docs/operating.md opens; and ports that nobody should reach, next to those and where the relay has its metrics.
OPEN = {"tcp": (22, 80, 443, 3478, 5349), "udp": (443, 3478, 49152, 65535)}
CLOSED = {"tcp": (23, 8080, 9641, 9642, 49152), "udp": (53, 80, 5349, 49151)}


@pytest.fixture
def machine(switch, tmp_path, request):
    """The VPS, with nothing but Debian."""
    host = switch.host("vps", ["203.0.113.7/24", "2001:db8:1::7/64"], default_route=True)
    with Machine(host, tmp_path / "machine") as machine:
        request.node.programs = [machine]
        yield machine.boot()


@pytest.fixture
def office(switch):
    """The host of the browser."""
    return switch.host("office", ["203.0.113.50/24"], default_route=True)


@pytest.fixture
def page(machine, office, authority):
    """A page in a browser on another host."""
    browser = Browser(office, authority=authority.certificate, names={NAME: machine.host.v4})
    try:
        yield browser.open(CALL)
    finally:
        browser.close()


def enter(machine, text):
    """Types commands, each of which has to succeed; returns what they print."""
    return machine.run("bash", "-euc", "cd /root\n" + text).stdout


def follow(machine, *kinds):
    """Runs the blocks of the page of these kinds, in the page's order; returns what the last one prints."""
    blocks = [text for kind, text in marked(PAGE, "vps") if kind in kinds]
    assert blocks, f"the page has none of {kinds}"
    return [enter(machine, text) for text in blocks][-1]


def certbot(machine, authority, n=1):
    """What `certbot certonly` leaves, for the nth time: nobody but root may read it."""
    cert, key = authority.issue(NAME, file=f"{NAME}-{n}")
    chain = authority.certificate.read_text()
    pems = {"cert": cert.read_text(), "chain": chain, "fullchain": cert.read_text() + chain, "privkey": key.read_text()}
    enter(machine, "cd /etc; umask 077; mkdir -p letsencrypt/live letsencrypt/archive; chmod 755 letsencrypt")
    archive = LIVE.replace("live", "archive")
    enter(machine, f"mkdir -p {LIVE} {archive}")
    for name, text in pems.items():
        machine.write(f"{archive}/{name}{n}.pem", text, mode=0o600 if name == "privkey" else 0o644)
        enter(machine, f"ln -sfn ../../archive/{NAME}/{name}{n}.pem {LIVE}/{name}.pem")


def install(machine, package):
    """The package is copied to the machine."""
    machine.copy(package, "/root/hairpin_tested.deb")


def example(machine, package, authority):
    """Follows the worked example; returns the ICE servers that its last command prints."""
    install(machine, package)
    steps = marked(PAGE, "vps")
    last = [kind for kind, _ in steps].index("credentials")
    for kind, text in steps[: last + 1]:
        if kind == "online":
            if "certbot certonly" in text:
                certbot(machine, authority)
            else:
                assert re.findall(r"apt-get (.*)", text) == ["update", "install --yes nftables certbot"]
        else:
            assert kind in ("", "nftables", "credentials"), kind
            printed = enter(machine, text)
    return json.loads(printed)


def admits(machine, client, transport, port):
    """Whether the machine's firewall lets a packet of the client through to a port."""
    address = (machine.host.v4, port)
    if transport == "tcp":
        with client.inside(), socket.socket() as connecting:
            connecting.settimeout(3)
            with contextlib.suppress(ConnectionRefusedError):  # the machine says that nobody listens
                try:
                    connecting.connect(address)
                except TimeoutError:
                    return False
            return True
    try:
        receiving = machine.host.udp(machine.host.v4, port)
    except OSError:  # the relay has it
        with Client(client, address, User("nobody", "")) as asking:
            return asking.binding() is not None
    with receiving, client.udp() as sending:
        receiving.settimeout(3)
        sending.sendto(b"anybody there?", address)
        try:
            return receiving.recv(100) == b"anybody there?"
        except TimeoutError:
            return False


def only_documented_ports(machine, client):
    """The firewall admits what the page opens, and nothing else."""
    ways = [(transport, port) for ports in (OPEN, CLOSED) for transport, some in ports.items() for port in some]
    with ThreadPoolExecutor(len(ways)) as pool:
        admitted = pool.map(lambda way: admits(machine, client, *way), ways)
    assert [way for way, yes in zip(ways, admitted) if yes] == [
        (transport, port) for transport, some in OPEN.items() for port in some
    ]


def users(servers):
    """The user of printed ICE servers."""
    [server] = servers["iceServers"]
    return User(server["username"], server["credential"])


def test_from_nothing_to_a_call(machine, page, office, clients, package, authority):
    """Every command of the worked example works. Each URL that it prints connects a call in the browser, by the page's own
    script, and the one on port 443 does where the network lets nothing else through. The firewall is closed but for what the
    page opens, and the relay's packets are not tracked. A renewed certificate reaches clients.
    """
    servers = example(machine, package, authority)
    assert "the shared secret is in /var/lib/hairpin (generated now)" in machine.journal("hairpin")
    [server] = servers["iceServers"]
    assert server["urls"] == [
        f"turn:{NAME}:3478?transport=udp",
        f"turn:{NAME}:443?transport=udp",
        f"turn:{NAME}:3478?transport=tcp",
        f"turns:{NAME}:443?transport=tcp",
        f"turns:{NAME}:5349?transport=tcp",
    ]
    only_documented_ports(machine, clients)

    [script] = [text for kind, text in marked(PAGE, "vps") if kind == "browser"]
    placeholder = '{"iceServers": [/* ... */]}'
    assert placeholder in script
    script = script.replace(placeholder, json.dumps(servers))
    said = page.run(
        "(async () => { const said = []; const console = { log: (...words) => said.push(words.join(' ')) };"
        f"{script}; return said; }})()"
    )
    assert said == [f"{url} works" for url in server["urls"]]

    chain = "type filter hook output priority 0; policy drop; oif lo accept; tcp dport 443 accept;"
    office.run("nft", f"table inet office {{ chain out {{ {chain} }}; }}")
    begin(page, {"iceServers": [server]})
    page.run("call.connected(true)")
    flows(page, "tls")

    def tracked():
        return int(machine.read("/proc/sys/net/netfilter/nf_conntrack_count"))

    before = tracked()
    for _ in range(50):
        with Client(clients, (machine.host.v4, 3478), User("nobody", "")) as client:
            client.binding()
    assert tracked() < before + 25

    renewal(machine, clients, users(servers), authority)


def renewal(machine, clients, user, authority):
    """After a renewal, certbot's new key belongs to root alone. The deploy hook lets the relay read it, and new connections get
    the new certificate without a signal.
    """

    def served():
        how = {"trust": authority.certificate, "name": NAME}
        with StreamClient(clients, (machine.host.v4, 443), user, **how) as client:
            client.allocate()
            return client.socket.connection.getpeercert()["serialNumber"]

    before = served()
    certbot(machine, authority, n=2)
    machine.run("/etc/letsencrypt/renewal-hooks/deploy/hairpin", environment={"RENEWED_LINEAGE": LIVE})
    eventually(lambda: served() != before)
    assert machine.run("stat", "-Lc", "%a %U %G", f"{LIVE}/privkey.pem").stdout == "640 root hairpin\n"


def test_ufw(machine, clients, package):
    """The commands of the README work, and the rules for ufw open the same ports as those for nftables."""
    install(machine, package)
    [(_, text)] = marked("../README.md", "vps")
    with Client(clients, (machine.host.v4, 3478), users(json.loads(enter(machine, text).splitlines()[-1]))) as client:
        client.allocate()
    assert ("online", "apt-get install --yes ufw\n") in marked(PAGE, "vps")
    follow(machine, "ufw")
    only_documented_ports(machine, clients)


def test_configurations_have_no_mistake(tmp_path):
    """Each part of a hairpin.toml on the page is one that `hairpin check` accepts."""
    text = (DOCS / PAGE).read_text()
    blocks = re.findall(r"^    \[[a-z]+\]\n(?:    .*\n|\n(?=    ))+", text, flags=re.M)
    assert len(blocks) >= 4
    for block in blocks:
        file = tmp_path / "hairpin.toml"
        file.write_text(re.sub(r"^    ", "", block.split("    EOF")[0], flags=re.M).replace("/etc/", f"{tmp_path}/"))
        checked = subprocess.run([PROGRAM, "check", "--state-dir", tmp_path, file], capture_output=True, text=True)
        # The files that it names are not there, which is a mistake.
        assert checked.returncode in (0, 2) and checked.stdout, (block, checked)
        rest = [line for line in checked.stdout.splitlines() if "No such file" not in line and " warning: " not in line]
        assert not [line for line in rest if not line.endswith(": ok") and "note:" not in line], block


def test_the_rest_of_the_page(machine, clients, package):
    """A secret of one's own is rotated without ending an allocation; a backup brings everything back on a machine where all of it
    is lost; the drop-in counts; the kernel has the settings, which a machine in a namespace may not change.
    """
    install(machine, package)
    enter(machine, marked(PAGE, "vps")[0][1])
    follow(machine, "secret")
    machine.write("/etc/hairpin/hairpin.toml", '[auth]\nsecret_files = ["/etc/hairpin/secret"]\n')
    enter(machine, "hairpin ctl reload")
    server = (machine.host.v4, 3478)

    def credentials():
        printed = enter(machine, "hairpin credentials --user alice --config /etc/hairpin/hairpin.toml")
        return users(json.loads(printed))

    old = credentials()
    rotate = [text for kind, text in marked(PAGE, "vps") if kind == "rotate"]
    with Client(clients, server, old) as running:
        running.allocate()
        for text in rotate:
            enter(machine, text)
        running.refresh()
        with Client(clients, server, old) as late:
            assert error_code(late.allocate) == 401
        with Client(clients, server, credentials()) as new:
            new.allocate()
    enter(machine, "hairpin ctl revoke mallory --for 7d")
    drop_in = "/etc/systemd/system/hairpin.service.d/limit.conf"
    machine.write(drop_in, "[Service]\nLimitNOFILE=300000\n")
    enter(machine, "mkdir /var/lib/hairpin-livekit; echo '[]' > /var/lib/hairpin-livekit/rooms")
    follow(machine, "backup")
    lost = "/etc/hairpin/* /var/lib/hairpin/* /var/lib/hairpin-livekit /etc/systemd/system/hairpin*.d /etc/nftables.conf"
    enter(machine, f"systemctl stop hairpin; rm -rf {lost}")
    follow(machine, "restore")
    assert machine.exists("/etc/nftables.conf")
    assert machine.run("stat", "-c", "%U", "/var/lib/hairpin-livekit/rooms").stdout == "hairpin\n"
    assert machine.show("hairpin", "LimitNOFILE") == {"LimitNOFILE": "300000"}, "the drop-in is back, and counts"
    machine.run("rm", drop_in)
    eventually(lambda: machine.run("hairpin", "ctl", "status", check=False).returncode == 0)
    with Client(clients, server, credentials()) as client:
        client.allocate()
    assert "mallory" in enter(machine, "hairpin ctl revocations")

    follow(machine, "drop-in")
    shown = machine.show("hairpin", "LimitNOFILE", "KillSignal", "Restart")
    assert shown == {"LimitNOFILE": "2000000", "KillSignal": "10", "Restart": "always"}
    [kernel] = [text for kind, text in marked(PAGE, "vps") if kind == "kernel"]
    for key in re.findall(r"^([\w.]+) = \d+$", kernel, flags=re.M):
        assert machine.exists(f"/proc/sys/{key.replace('.', '/')}"), key


def test_a_program_that_is_installed_by_hand(machine, clients):
    """The commands for a program without the package make a service that serves, and reloads."""
    for name in ("systemd/hairpin.sysusers", "systemd/hairpin.service", "conf/hairpin.toml"):
        machine.copy(DOCS.parent / name, f"/root/{name}", mode=0o644)
    machine.copy(PROGRAM, "/root/target/release/hairpin", mode=0o755)
    follow(machine, "by-hand")
    assert machine.systemctl("is-active", "hairpin") == "active"
    assert machine.run("stat", "-c", "%a %U:%G", "/etc/hairpin/hairpin.toml").stdout == "640 root:hairpin\n"
    with Client(clients, (machine.host.v4, 3478), User("nobody", "")) as client:
        assert client.binding() is not None
    machine.systemctl("reload", "hairpin")
