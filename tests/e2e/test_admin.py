"""The admin API: every verb of `hairpin ctl` against a relay with running calls, and who may use it."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import relay as daemon
from conftest import NAME
from hosts import eventually
from relay import PROGRAM, SECRET, USER
from turn import error_code, time_limited

ADMIN = "0123456789abcdef0123456789abcdef"
READ = "fedcba9876543210fedcba9876543210"

NOBODY = 65534


@contextlib.contextmanager
def folder():
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="hairpin-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@contextlib.contextmanager
def running(client, peer):
    """A call that goes on: what the client sends arrives, and what the peer sends."""
    channel = client.bind(peer.getsockname())

    def works(payload):
        client.send_channel(channel, payload)
        data, relayed = peer.recvfrom(100)
        assert data == payload and relayed == client.relayed
        peer.sendto(payload, client.relayed)
        assert client.receive().payload == payload

    works(b"it begins")
    yield works
    works(b"it still runs")


def audit(relay, action):
    """The line of the audit log about an action."""
    return relay.line("audit", action=action)


def test_every_verb(start, host, connect, peers):
    """Each verb does what it says to one call, while another one goes on; each change is one line of the audit log."""
    relay = start(host, auth={"user": [{"name": USER, "password": daemon.PASSWORD}]})
    status = relay.ask("status")
    assert f"turn:{host.v4}:3478?transport=udp" in status["ice_urls"] and status["ready"], status
    assert {"peer": "203.0.113.0/24", "action": "allow", "origin": "file", "what": None} in status["peers"]
    assert "203.0.113.0/24" in relay.ctl("status")
    call, other, third = connect(), connect(time_limited(SECRET, "bob/1")), connect(time_limited(SECRET, "bob/1"))
    call.allocate()
    with peers.udp() as peer, running(call, peer) as works:
        other.allocate()
        third.allocate()
        other.permit(peers.v4)

        listed = relay.ask("list")["allocations"]
        assert [one["user"] for one in listed] == [USER, "bob/1", "bob/1"], "in the order of their creation"
        mine, bobs, thirds = listed
        assert mine["client"] == "%s:%d" % call.socket.getsockname() and mine["transport"] == "udp"
        assert mine["relayed"][0]["address"] == "%s:%d" % call.relayed
        assert (mine["to_peer"]["packets"], mine["to_client"]["bytes"]) == (1, len("it begins"))
        assert relay.ask("list", "--user", "bob/1", "--no-rates")["allocations"][0]["id"] == bobs["id"]
        for filters, expected in [
            (("--client", "%s:%d" % other.socket.getsockname()), [bobs]),
            (("--client", "198.51.100.0/24"), []),
            (("--peer", peers.v4), [mine, bobs]),
            (("--peer", "%s:%d" % peer.getsockname()), [mine]),
            (("--transport", "tcp"), []),
            (("--min-age", "1h"), []),
            (("--max-age", "1h", "--user", USER), [mine]),
        ]:
            found = relay.ask("list", *filters, "--no-rates")["allocations"]
            assert [one["id"] for one in found] == [one["id"] for one in expected], filters
        first = relay.ask("list", "--limit", "2", "--no-rates")
        rest = relay.ask("list", "--limit", "2", "--cursor", first["next"], "--no-rates")
        assert [one["id"] for one in first["allocations"] + rest["allocations"]] == [one["id"] for one in listed]
        assert rest["next"] is None
        assert len(relay.ask("list", "--all", "--limit", "1", "--no-rates")["allocations"]) == 3
        shown = relay.ask("show", mine["id"])
        assert shown["peers"]["permissions"][0]["peer"] == peers.v4
        assert shown["peers"]["channels"][0]["peer"] == "%s:%d" % peer.getsockname()
        assert mine["id"] in relay.ctl("list", "--no-rates") and "channel" in relay.ctl("show", mine["id"])

        assert relay.ctl("end", bobs["id"]) == "1 allocation ended\n"
        assert error_code(other.refresh) == 437
        assert "there is no allocation" in relay.ctl("end", bobs["id"], status=1)
        assert relay.ctl("end-user", "bob/1") == "1 allocation ended\n"
        assert error_code(third.refresh) == 437
        works(b"calls of others do not notice")

        third.allocate()
        assert "1 allocation ended" in relay.ctl("revoke", "bob/1", "--for", "2h")
        assert error_code(third.refresh) in (437, 401)
        assert error_code(connect(time_limited(SECRET, "bob/1")).allocate) == 401
        later = connect(time_limited(SECRET, "bob/1", 3 * 3600))
        assert later.allocate(), "a credential that was made since"
        [revoked] = relay.ask("revocations")["revocations"]
        assert revoked["user"] == "bob/1" and revoked["until"]
        assert relay.line("audit", action="revoke bob/1", outcome="ok")["until"] == revoked["until"]
        assert "bob/1" in relay.ctl("revocations")
        assert "0 allocations ended" in relay.ctl("revoke", "bob/1", "--for", "2h", "--keep-later")
        assert later.refresh(), "it expires later than the revocation refuses"
        relay.ctl("unrevoke", "bob/1")
        assert connect(time_limited(SECRET, "bob/1")).allocate()
        assert "is not revoked" in relay.ctl("unrevoke", "bob/1", status=1)
        assert relay.ask("end-user", "bob/1")["ended"] == 2

        assert "no setting has changed" in relay.ctl("reload")
        sfu = "%s:%d" % peer.getsockname()
        relay.ctl("peers", "set", "sfu", "--mode", "only", sfu)
        overlays = relay.ask("peers", "list")["overlays"]
        assert [(one["owner"], one["mode"], one["addresses"]) for one in overlays] == [("sfu", "only", [sfu])]
        assert "overlay sfu" in relay.ctl("peers", "list")
        assert relay.line("audit", action="peers set sfu", outcome="ok")["mode"] == "only"
        relay.ctl("peers", "clear", "sfu")
        assert "has no overlay" in relay.ctl("peers", "clear", "sfu", status=1)
        assert "never opens those" in relay.ctl("peers", "set", "sfu", "127.0.0.1:80", status=1)

    with peers.udp() as peer:
        call.bind(peer.getsockname())
        relay.ctl("drain", "--deadline", "1h")
        assert relay.get("/readyz")[0] == 503
        assert relay.ask("status")["draining"]["allocations"] == 1
        assert error_code(connect().allocate) == 508
        assert call.refresh() == 600
        relay.ctl("undrain")
        assert relay.get("/readyz")[0] == 200 and "was not draining" in relay.ctl("undrain")
        relay.ctl("drain", "--deadline", "1h")
        wait = relay.host.start(PROGRAM, "ctl", "--socket", relay.socket, "drain", "--wait", stderr=subprocess.PIPE, text=True)
        assert "waits for the end of 1 allocation" in wait.stderr.readline()
        call.refresh(0)
        assert wait.wait(30) == 0 and "has ended" in wait.stderr.read()
        wait.stderr.close()
    assert relay.process.wait(30) == 0
    assert not relay.socket.exists()
    for action, outcome in [
        (f"end {bobs['id']}", "ok"),
        ("end-user bob/1", "ok"),
        ("revoke bob/1", "ok"),
        ("unrevoke bob/1", "ok"),
        ("reload", "ok"),
        ("peers set sfu", "ok"),
        ("peers clear sfu", "ok"),
        ("drain", "ok"),
        ("undrain", "ok"),
    ]:
        line = audit(relay, action)
        assert (line["uid"], line["outcome"], line["level"]) == (0, outcome, "INFO"), line
    assert any("not_found" in line["outcome"] for line in relay.lines("audit", action=f"end {bobs['id']}"))


def test_revocations_and_overlays_survive_a_kill(start, host, connect, peers, tmp_path):
    """kill -9 directly after the answer: both hold from the first Allocate after the next start."""
    state = ("--state-dir", tmp_path / "state")
    relay = start(host, *state)
    call, alice = connect(time_limited(SECRET, "bob")), connect()
    call.allocate()
    alice.allocate()
    relay.ctl("peers", "set", "sfu", "--mode", "only", f"{peers.v4}:7882")
    relay.ctl("revoke", "bob")
    relay.kill()
    relay = start(host, *state)
    assert error_code(connect(time_limited(SECRET, "bob")).allocate) == 401
    assert [one["user"] for one in relay.ask("revocations")["revocations"]] == ["bob"]
    client = connect()
    client.allocate()
    assert error_code(client.bind, (peers.v4, 7883)) == 403 or not reaches(client, (peers.v4, 7883))
    assert client.bind((peers.v4, 7882))
    relay.ctl("peers", "clear", "sfu")
    relay.ctl("unrevoke", "bob")
    with peers.udp() as peer, running(client, peer):
        assert connect(time_limited(SECRET, "bob")).allocate()


def test_the_mode_of_the_socket_is_the_gate(start, host):
    """A user outside the group is refused, whoever the folder admits; a member of the group is not."""
    with folder() as place:
        path = place / "control.sock"
        relay = start(host, admin={"socket": str(path), "group": str(NOBODY - 1)})
        assert (path.stat().st_mode & 0o7777, path.stat().st_gid) == (0o660, NOBODY - 1)

        def ctl(group, *arguments):
            privileges = (f"--reuid={NOBODY}", f"--regid={group}", "--clear-groups")
            command = host.command(PROGRAM, "ctl", "--socket", path, *arguments, privileges=privileges)
            return subprocess.run(command, capture_output=True, text=True)

        refused = ctl(NOBODY, "reload")
        assert refused.returncode == 1, refused
        assert f"permission denied: {path} is for the group {NOBODY - 1}" in refused.stderr, refused
        done = ctl(NOBODY - 1, "reload")
        assert done.returncode == 0, done
        [line] = eventually(lambda: relay.lines("audit"))
        assert (line["uid"], line["gid"], line["action"], line["outcome"]) == (NOBODY, NOBODY - 1, "reload", "ok")


def test_the_api_over_tcp(start, host, clients, connect, authority, tmp_path):
    """Tokens, the host, TLS and web pages; and clients do not reach the listener through the relay."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ops:admin:{ADMIN}\nwatch:read:{READ}\n")
    tokens.chmod(0o600)
    settings = {"listen": [f"{host.v4}:9642"], "tls": True, "tokens_file": str(tokens), "hosts": [NAME]}
    cert, key = map(str, authority.issue(NAME, host.v4))
    relay = start(host, admin=settings, tls={"cert": cert, "key": key}, peers={"allow": ["203.0.113.0/24", f"{host.v4}/32"]})
    trust = ssl.create_default_context(cafile=authority.certificate)

    def call(path, method="GET", token=ADMIN, name=NAME, **headers):
        connection = trust.wrap_socket(clients.tcp(host.v4, 9642), server_hostname=NAME)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {name}:9642"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            response = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        head, _, body = response.partition("\r\n\r\n")
        return int(head.split()[1]), head.lower(), json.loads(body)

    assert call("/v1/status")[2]["admin"] == [f"{host.v4}:9642"]
    assert call("/v1/status")[2]["auth"]["secret_files"] == []
    assert call("/v1/status", token=READ)[2]["auth"]["secret_files"] is None, "only for those who may change the relay"
    assert call("/v1/status", token=READ)[0] == 200 and call("/v1/status", name=host.v4)[0] == 200
    status, head, _ = call("/v1/status", token=None)
    assert status == 401 and "www-authenticate: bearer" in head
    assert call("/v1/status", token=ADMIN[1:])[0] == 401
    status, _, body = call("/v1/reload", "POST", token=READ)
    assert (status, body["error"]["code"]) == (403, "read_only")
    assert call("/v1/reload", "POST")[0] == 200
    assert call("/v1/status", name="evil.example")[0] == 403
    assert call("/v1/status", Origin="https://evil.example")[0] == 403
    status, head, _ = call("/v1/drain")
    assert status == 405 and "allow: post" in head
    with clients.tcp(host.v4, 9642) as plain:
        plain.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in plain.recv(1000), "TLS only"

    command = [PROGRAM, "ctl", "--url", f"https://{host.v4}:9642", "--ca-file", authority.certificate, "status", "--json"]
    environment = {"PATH": os.environ["PATH"], "HAIRPIN_ADMIN_TOKEN": READ}
    done = subprocess.run(clients.command(*command), capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and json.loads(done.stdout)["ready"], done

    client = connect()
    client.allocate()
    assert error_code(client.bind, (host.v4, 9642)) == 403 or not reaches(client, (host.v4, 9642))
    lines = eventually(lambda: relay.lines("audit", outcome="ok") and relay.lines("audit"))
    assert [(line["token"], line["outcome"].split(":")[0]) for line in lines] == [("watch", "read_only"), ("ops", "ok")]
    assert relay.lines(level="WARN") and ADMIN[1:] not in relay.log and READ not in relay.log

    # The old and the new token of one name are valid at a time.
    new = "a" * 64
    tokens.write_text(f"ops:admin:{new}\nops:admin:{ADMIN}\n")
    assert call("/v1/reload", "POST")[0] == 200
    assert call("/v1/status", token=new)[0] == 200 and call("/v1/status")[0] == 200
    tokens.write_text(f"ops:admin:{new}\n")
    assert call("/v1/reload", "POST", token=new)[0] == 200
    assert call("/v1/status")[0] == 401


def reaches(client, peer):
    """Whether what a client sends to a peer is relayed."""
    client.permit(peer)
    client.send(peer, b"knock")
    try:
        return client.receive(1) is not None
    except TimeoutError:
        return False


def test_silent_and_endless_callers(start, host, connect):
    """Connections that say nothing, heads and bodies without an end hold up neither the API nor calls."""
    relay = start(host)
    client = connect()
    client.allocate()
    hanging = []
    for n in range(60):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(relay.socket))
        if n % 3:
            connection.sendall(b"POST /v1/drain HTTP/1.1\r\nHost: x\r\n" + b"X-Y: z\r\n" * (n % 5))
        hanging.append(connection)
    since = time.monotonic()
    assert relay.ask("status")["ready"] and client.refresh() == 600
    assert time.monotonic() - since < 5
    with socket.socket(socket.AF_UNIX) as endless:
        endless.connect(str(relay.socket))
        head = b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        with contextlib.suppress(OSError):
            endless.sendall(head)
            for _ in range(100):
                endless.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        assert endless.recv(100).startswith(b"HTTP/1.1 413")
    assert relay.ask("status")["draining"] is None
    for connection in hanging:
        connection.close()


def test_a_socket_left_by_a_killed_relay(start, host):
    """The socket of a killed relay is replaced by the next one; that of a live one is not."""
    with folder() as place:
        path = str(place / "control.sock")
        first = start(host, admin={"socket": path})
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        assert os.path.exists(path)
        start(host, admin={"socket": path})
        ports = {"listen": {"udp": ["0.0.0.0:3479"], "tcp": []}, "http": {"listen": []}, "relay": {"ports": "20000-20100"}}
        third = start(host, admin={"socket": path}, wait=False, **ports)
        assert third.process.wait(20) == 1
        [line] = [line["message"] for line in third.lines(level="ERROR")]
        assert "another relay uses it" in line and path in line, line
