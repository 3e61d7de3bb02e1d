"""The log answers why a client could not connect: its lines can be joined, say which limit was reached and what to do, and show
no address of anybody else if that is wanted.
"""

import os
import re
import socket
import ssl

import pytest

import streams
import stun
from conftest import NAME
from documents import DOCS
from hosts import eventually
from relay import PASSWORD, SECRET, USER
from streams import StreamClient
from test_reload import reload
from test_symptoms import pattern
from turn import Client, Refused, User, error_code, time_limited

ALICE = User(USER, PASSWORD)
PORTS = {"udp": 3478, "tcp": 3478, "tls": 5349}
SESSION = re.compile(r"[0-9a-f]{11}")
SFU = 7882


@pytest.fixture
def dial(host, clients, authority):
    """Creates clients over each transport. They are closed after the test."""
    opened = []

    def dial(over, user=ALICE):
        server = (host.v4, PORTS[over])
        trusted = {"trust": authority.certificate, "name": NAME} if over == "tls" else {}
        client = Client(clients, server, user) if over == "udp" else StreamClient(clients, server, user, **trusted)
        opened.append(client)
        return client

    yield dial
    for client in opened:
        client.socket.close()


def call(client, peers):
    """A call that relays something, is refused a peer, and sends to a closed port of another."""
    client.allocate()
    with peers.udp(peers.v4, SFU) as peer:
        channel = client.bind(peer.getsockname())
        client.send_channel(channel, b"there")
        peer.sendto(b"and back", peer.recvfrom(100)[1])
        client.receive()
    assert error_code(client.permit, "10.1.2.3") == 403
    client.send((peers.v4, SFU + 1), b"to a closed port")


@pytest.mark.parametrize("over", PORTS)
def test_lines_of_an_allocation_have_its_session(over, start, host, peers, tls, dial):
    """The rule: every line that concerns an allocation has its id, the one of `hairpin ctl list`; lines about a connection have
    its number, too.
    """
    relay = start(host, tls=tls, peers={"allow": [f"{peers.v4}:{SFU}"]})
    client, other = dial(over), dial(over)
    call(client, peers)
    [listed] = relay.ask("list")["allocations"]
    dropped = lambda: [line for line in relay.lines() if line["message"].startswith("dropped a packet")]
    lines = [relay.line("allocation opened"), relay.line("refused", code=403), eventually(dropped)[0]]
    relay.ctl("end", listed["id"])
    lines += [relay.line("audit"), relay.line("allocation closed")]
    assert {line["session"] for line in lines} == {listed["id"]} and SESSION.fullmatch(listed["id"]), lines
    assert lines[-1]["reason"] == "ended by an operator"
    numbers = {line.get("connection") for line in lines if line["message"] in ("allocation opened", "refused", "allocation closed")}
    assert len(numbers) == 1 and (numbers == {None}) == (over == "udp")
    # A client without an allocation is found by its address.
    assert error_code(other.refresh) == 437
    line = relay.line("refused", code=437)
    assert "session" not in line and line["client"] == "{}:{}".format(*other.socket.getsockname())


REFUSED = {
    "limits.permissions": (1, 508, "Insufficient Capacity", "RFC 8656 section 10.2"),
    "limits.channels": (1, 508, "Insufficient Capacity", "RFC 8656 section 12.2"),
    "limits.new_peers": (1, 508, "Insufficient Capacity", "RFC 8656 section 10.2"),
    "limits.allocations": (1, 508, "Insufficient Capacity", "RFC 8656 section 7.2"),
    "limits.user_allocations": (1, 486, "Allocation Quota Reached", "RFC 8656 section 7.2"),
    "limits.new_allocations_rate": (1, 486, "Allocation Quota Reached", "RFC 8656 section 7.2"),
    "relay.ports": (1, 508, "Insufficient Capacity", "RFC 8656 section 7.2"),
}


@pytest.mark.parametrize("setting", REFUSED)
def test_a_refusal_by_a_limit_names_it(setting, start, host, connect):
    """The rule: whoever is refused because something is used up finds the code's name, the section of the RFC, the setting with
    its value, and what to change.
    """
    value, code, status, rfc = REFUSED[setting]
    section, key = setting.split(".")
    changes = {section: {key: value}}
    if setting == "relay.ports":
        changes = {"relay": {"addresses": [host.v4], "ports": "50000-50000"}}
    if setting == "limits.new_allocations_rate":
        changes["limits"]["new_allocations_burst"] = 1
    relay = start(host, **changes)
    user = time_limited(SECRET, "alice")
    client, other = connect(user), connect(user)
    client.allocate()
    with pytest.raises(Refused) as refused:
        if setting == "limits.permissions":
            client.permit("8.8.8.8", "9.9.9.9")
        elif setting == "limits.channels":
            [client.bind(("8.8.8.8", port)) for port in (1, 2)]
        elif setting == "limits.new_peers":
            client.permit(*[f"8.8.8.{n}" for n in range(1, 20)])
        else:
            other.allocate()
    assert refused.value.code == code
    line = relay.line("refused", code=code)
    told = (line["status"], line["rfc"], line["setting"], line["limit"])
    assert told == (status, rfc, setting, value), line
    assert setting in line["fix"] and line["level"] == "INFO", line
    if setting == "relay.ports":
        assert (line["ports"], line["in_use"]) == ("50000-50000", 1), line


def test_connections_that_are_refused_name_the_limit(start, host, clients):
    """The same for connections, and for those that end by a timeout."""
    relay = start(host, limits={"connections_per_source": 1, "first_message_timeout": 1})
    with streams.connect(clients, (host.v4, 3478)), streams.connect(clients, (host.v4, 3478)):
        line = relay.line("connection refused")
        assert (line["setting"], line["limit"]) == ("limits.connections_per_source", 1), line
        line = relay.line("connection closed", reason="no_message")
        assert (line["setting"], line["limit"], line["level"]) == ("limits.first_message_timeout", 1, "INFO"), line
        assert line["setting"] in line["fix"] and line["connection"] >= 0, line


def test_a_first_request_is_no_refusal(start, host, connect):
    """Every client is answered 401 once, to learn realm and nonce, and that is no line of the log."""
    relay = start(host, log={"level": "debug"})
    connect().allocate()
    relay.line("allocation opened")
    assert relay.lines("refused") == []


MASKED = {"level": "debug", "mask_addresses": True}


@pytest.mark.parametrize("form", ["json", "human"])
def test_masked_addresses(form, start, host, clients, peers, tls, dial, connect, tmp_path):
    """The rule: with `log.mask_addresses` no address of a client or peer is in the log, in no line and in no sentence; networks,
    sessions and the relay's own addresses are.
    """
    limits = {"connections_per_source": 2, "unauthenticated_burst": 3, "unauthenticated_rate": 1, "first_message_timeout": 1}
    allow = [f"{peers.v4}:{SFU}"]
    tokens = tmp_path / "tokens"
    tokens.write_text("prometheus:read:" + "0" * 48 + "\n")
    tokens.chmod(0o600)
    pages = {"listen": ["127.0.0.1:9641", f"{host.v4}:9641"], "tokens_file": str(tokens)}
    relay = start(host, tls=tls, peers={"allow": allow}, limits=limits, http=pages, log=MASKED | {"format": form})
    for over in PORTS:
        client = dial(over)
        call(client, peers)
        relay.ctl("end", relay.ask("list")["allocations"][0]["id"])
    # Refused at the door, in TLS, by what they speak, by their credentials, and by their token
    with clients.tcp(host.v4, 9641) as stranger:
        stranger.sendall(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer wrong\r\n\r\n")
        eventually(lambda: "not one of http.tokens_file" in relay.log)
    with streams.connect(clients, (host.v4, 5349)) as stranger:
        stranger.sendall(b"\x16\x03\x01\0\x04nope")
        eventually(lambda: "TLS handshake failed" in relay.log)
    for raw, reason in ((b"GET / HTTP/1.1\r\n\r\n", "not_served"), (b"PROXY UNKNOWN\r\n", "untrusted_proxy_header")):
        with streams.connect(clients, (host.v4, 3478)) as stranger:
            stranger.sendall(raw)
            eventually(lambda: reason in relay.log)
    with streams.connect(clients, (host.v4, 3478)) as stranger:
        stranger.sendall(b"\0\1\0\1")
        eventually(lambda: "does not speak TURN" in relay.log)
    with streams.connect(clients, (host.v4, 3478)), streams.connect(clients, (host.v4, 3478)):
        with streams.connect(clients, (host.v4, 3478)):
            eventually(lambda: "connection refused" in relay.log)
        eventually(lambda: "no_message" in relay.log)
    assert error_code(dial("tcp", User(USER, "wrong")).allocate) == 401
    flood = connect()
    for _ in range(30):
        flood.socket.sendto(flood.prepare(stun.ALLOCATE, sign=False)[0], flood.server)
    eventually(lambda: "response withheld" in relay.log)
    eventually(lambda: relay.log.count("dropped a packet to") == 3 and relay.log.count("allocation closed") == 3)
    others = [address for at in (clients, peers) for address in (at.v4, at.v6)] + ["10.1.2.3"]
    for address in others:
        found = re.search(rf".*(?<![\d.]){re.escape(address)}(?![\d]).*", relay.log)
        assert not found, found[0]
    assert clients.v4.rpartition(".")[0] + ".0/24" in relay.log and "10.1.2.0/24" in relay.log
    assert f"{host.v4}:3478" in relay.log, "the relay's own addresses stay"
    if form == "json":
        opened = relay.lines("allocation opened")
        assert len({line["session"] for line in opened}) == 3
        for line in opened:
            lines = relay.lines(session=line["session"])
            assert len(lines) >= 5, "opened, refused, dropped, audit, closed"


def test_masked_warnings(start, host):
    """The rule holds for warnings, too: a rule of `[peers]` or of an overlay may be a single peer."""
    peers = {"allow": ["64:ff9b::198.51.100.7", "2002:c633:6407::9"], "deny": ["198.51.100.8", "198.51.100.0/28"]}
    relay = start(host, peers=peers, log={"mask_addresses": True})
    relay.ctl("peers", "set", "sfu", "198.51.100.8:7882")
    changed = peers | {"allow": ["64:ff9b::198.51.100.9"]}
    assert "is reloaded" in reload(relay, peers=changed, log={"format": "json", "mask_addresses": True})
    told = [line["message"] for line in relay.lines(level="WARN")]
    assert [line for line in told if "the overlay of sfu does not open 198.51.100.0/24" in line], told
    assert len([line for line in told if "64:ff9b::/48 has no effect" in line]) == 2, told
    found = re.search(r".*(198\.51\.100\.[789]|c633:640[789]).*", relay.log)
    assert not found, found[0]
    assert "198.51.100.0/28" in relay.log, "ranges stay"


def test_masking_is_reloaded(start, host, connect):
    """`log.mask_addresses` holds from the next line on."""
    relay = start(host)
    client = connect()
    client.allocate()
    assert relay.line("allocation opened")["client"] == "{}:{}".format(*client.socket.getsockname())
    assert "configuration is reloaded" in reload(relay, log={"format": "json", "mask_addresses": True})
    client.refresh(0)
    assert relay.line("allocation closed")["client"] == client.socket.getsockname()[0].rpartition(".")[0] + ".0/24"


@pytest.mark.parametrize("form", ["json", "human"])
def test_the_journal_gets_priorities(form, start, host, tmp_path):
    """Where standard error is the journal, each line begins with its priority, and a readable one has no time of its own. A file
    that only inherits the variable gets neither.
    """
    for is_journal in (True, False):
        stderr = os.open(tmp_path / f"journal-{is_journal}", os.O_CREAT | os.O_RDWR)
        status = os.fstat(stderr)
        named = f"{status.st_dev}:{status.st_ino if is_journal else status.st_ino + 1}"
        process = {"stderr": stderr, "environment": {"JOURNAL_STREAM": named}}
        relay = start(host, log={"format": form}, process=process)
        assert relay.stop() == 0
        lines = (tmp_path / f"journal-{is_journal}").read_text().splitlines()
        os.close(stderr)
        begin = {
            (True, "json"): r"<[3467]>\{", (False, "json"): r"\{",
            (True, "human"): r"<[3467]> *[A-Z]+ ", (False, "human"): r"\d{4}-\d\d-\d\dT",
        }[is_journal, form]
        assert len(lines) > 3 and all(re.match(begin, line) for line in lines), lines


def test_the_log_goes_to_standard_error_only(start, host, connect):
    """Nothing of it is on standard output."""
    relay = start(host)
    connect().allocate()
    relay.line("allocation opened")
    assert relay.stop() == 0 and relay.output == ""


def test_the_lines_of_the_page_are_written(start, host, clients, peers, tls, dial, switch):
    """The rule: a line that docs/logs.md quotes is one that the relay writes, but for values that differ from case to case."""
    human = {"log": {"format": "human"}}
    small = {"user_allocations": 1, "first_message_timeout": 1}
    relays = [start(host, tls=tls, limits=small, **human)]
    server = (host.v4, 3478)
    with Client(clients, server, time_limited(SECRET, "bob", ttl=-60)) as client:
        assert error_code(client.allocate) == 401
    with Client(clients, server, time_limited(SECRET, "alice")) as client:
        client.allocate()
        assert error_code(client.permit, "192.168.1.5") == 403
        with Client(clients, server, client.user) as other:
            assert error_code(other.allocate) == 486
        client.refresh(0)
    with clients.inside(), socket.create_connection((host.v4, 5349), timeout=10) as trusting:
        # It knows no authority, and says so in its alert.
        with pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(trusting, server_hostname=NAME)
    with streams.connect(clients, server):
        eventually(lambda: "no_message" in relays[0].log)
    with clients.inside(), socket.create_connection(server, timeout=10) as scanner:
        scanner.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        eventually(lambda: "not_served" in relays[0].log)
    full = switch.host("full")
    relays.append(start(full, relay={"addresses": [full.v4], "ports": "50000-50000"}, **human))
    with Client(clients, (full.v4, 3478), ALICE) as client, Client(clients, (full.v4, 3478), ALICE) as other:
        client.allocate()
        assert error_code(other.allocate) == 508
    masked = switch.host("masked")
    relays.append(start(masked, log={"format": "human", "mask_addresses": True}))
    with Client(clients, (masked.v4, 3478), ALICE) as client:
        client.allocate()
    written = "\n".join(relay.log for relay in relays)
    quoted = re.findall(r"^ {4,}((?:ERROR|WARN|INFO) .*)$", (DOCS / "logs.md").read_text(), flags=re.M)
    assert len(quoted) == 10
    assert not [line for line in quoted if not pattern(line).search(written)], written
