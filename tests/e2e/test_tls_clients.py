"""TLS as real clients speak it, and as firewalls that look at handshakes accept it: versions, suites, key exchange, resumption,
application protocols, and ClientHellos in any number of records and segments.
"""

import asyncio
import re
import socket
import ssl
import struct
import subprocess
from types import SimpleNamespace

import pytest

import stun
from authority import EC, RSA
from conftest import NAME
from relay import REALM, SECRET
from turn import time_limited

PORT = 5349
VERSIONS = ("-tls1_2", "-tls1_3")


@pytest.fixture
def office(start, host, clients, authority):
    """A relay with an ECDSA and an RSA certificate for one name: `relay`, and `client(*options)`, which connects with `openssl
    s_client` and returns what it printed; `status` is the exit status that it must have.
    """
    keys = [authority.issue(NAME, file=f"{n}", kind=kind) for n, kind in enumerate((EC, RSA))]
    tls = {"certificate": [{"cert": str(cert), "key": str(key)} for cert, key in keys]}
    relay = start(host, tls=tls)

    def client(*options, status=0, name=NAME, stdin=None):
        trusted = ["-CAfile", authority.certificate, "-verify_return_error", "-servername", name]
        words = ["openssl", "s_client", "-connect", f"{host.v4}:{PORT}", *trusted, *options]
        done = subprocess.run(clients.command(*words), stdin=stdin or subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=60)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return SimpleNamespace(relay=relay, client=client)


def test_suites_and_key_exchange(office):
    """RFC 9325 §4: every suite has forward secrecy and authenticated encryption, with either kind of key; suites without are
    refused with an alert, and the log says why. Key exchange is X25519, P-256 or P-384, as the client wants.
    """
    for suite in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305"):
        for kind in ("ECDSA", "RSA"):
            printed = office.client("-tls1_2", "-cipher", f"ECDHE-{kind}-{suite}")
            assert f"Cipher is ECDHE-{kind}-{suite}" in printed
            assert "Verify return code: 0 (ok)" in printed
    for suite in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"):
        assert f"Cipher is {suite}" in office.client("-tls1_3", "-ciphersuites", suite)
    for group, key in (("X25519", "X25519, 253"), ("P-256", "ECDH, prime256v1"), ("P-384", "ECDH, secp384r1")):
        assert f"Server Temp Key: {key}" in office.client("-tls1_3", "-groups", group)
        # RFC 8422 §5.1.1: with TLS 1.2 the list is also about the curve of the certificate, which is P-256.
        groups = group if group == "P-256" else f"{group}:P-256"
        assert "Server Temp Key: " in office.client("-tls1_2", "-groups", groups)
    # The first group, for which the client sends a key share, is none of the server's, and TLS 1.3 asks for another one.
    assert "Server Temp Key: X25519" in office.client("-tls1_3", "-groups", "P-521:X448:X25519")
    for old in ("AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"):
        assert "alert handshake failure" in office.client("-tls1_2", "-cipher", old, status=1)
    office.relay.reaches("tls_handshakes_failed_total", 4, reason="nothing_in_common")


@pytest.mark.parametrize("version, name, least", [("-tls1", "TLS 1.0", "TLSv1"), ("-tls1_1", "TLS 1.1", "TLSv1.1")])
def test_old_versions_are_refused(version, name, least, office):
    """RFC 8446 §4.2.1, RFC 8996: TLS 1.0 and 1.1 are refused with the alert protocol_version, and the log says what the client offered."""
    printed = office.client(version, "-cipher", "ALL:@SECLEVEL=0", status=1)
    assert "alert protocol version" in printed
    line = office.relay.line("TLS handshake failed", reason="nothing_in_common")
    assert f"{name} at most" in line["error"] and "TLS 1.2 and 1.3" in line["fix"]
    office.relay.becomes("tls_handshakes_failed_total", 1, reason="nothing_in_common")


@pytest.mark.parametrize("how", ["-tls1_2", "-tls1_2 -no_ticket", "-tls1_3"])
def test_sessions_resume(how, office, clients, host, tmp_path):
    """RFC 5077, RFC 8446 §2.2: sessions resume with tickets and, for clients of TLS 1.2 that take none, with session IDs.
    No ticket allows early data.
    """
    session = tmp_path / "session"
    # With TLS 1.3, tickets come after the handshake: the client stays until it has one.
    with subprocess.Popen(["sh", "-c", f"until [ -s {session} ]; do sleep 0.05; done"], stdout=subprocess.PIPE) as waits:
        printed = office.client(*how.split(), "-sess_out", session, stdin=waits.stdout)
    assert "\nNew, " in printed
    assert ("Max Early Data: 0\n" in printed) == (how == "-tls1_3")
    for _ in range(2):
        printed = office.client(*how.split(), "-sess_in", session)
        assert "\nReused, " in printed and ("tls1_2" in how or "Early data was not sent" in printed)
    if "-no_ticket" in how:
        assert "TLS session ticket" not in printed
    else:
        assert re.search(r"ticket lifetime hint: 43200", printed) or how == "-tls1_3"


def test_middleboxes_see_what_they_expect(office):
    """RFC 8446 appendix D.4: to a firewall, TLS 1.3 looks like a resumption of TLS 1.2: the session number is echoed, and
    ChangeCipherSpec is sent. No record is longer than 2^14 bytes and what encryption adds.
    """
    printed = office.client("-tls1_3", "-msg")
    records = re.findall(r"<<< [^\n]*RecordHeader[^\n]*\n +((?:[0-9a-f]{2} ?){5})", printed)
    records = [bytes.fromhex(record) for record in records]
    assert b"\x14\x03\x03\x00\x01" in records, "ChangeCipherSpec"
    assert all(record[1:3] == b"\x03\x03" and struct.unpack_from("!H", record, 3)[0] <= 2**14 + 256 for record in records)
    hellos = [bytes.fromhex(re.sub(r"\s", "", dump)) for _, dump in
              re.findall(r"(<<<|>>>) [^\n]*(?:Client|Server)Hello\n((?: +[0-9a-f ]+\n)+)", printed)]
    numbers = [hello[39:39 + hello[38]] for hello in hellos]
    assert len(numbers) == 2 and len(numbers[0]) == 32 and numbers[0] == numbers[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_application_protocols(version, office):
    """RFC 7443 §3: stun.turn and stun.nat-discovery are accepted and answered. RFC 7301 §3.1: a client that offers only other
    protocols, as browsers behind an HTTP proxy do, is served without ALPN. RFC 8737 §3: acme-tls/1 is never served so.
    """
    for offered, expected in [
        ("stun.turn", "stun.turn"),
        ("stun.nat-discovery", "stun.nat-discovery"),
        ("stun.nat-discovery,stun.turn", "stun.turn"),
        ("http/1.1,stun.turn", "stun.turn"),
        ("http/1.1", None),
        ("h2,http/1.1", None),
        ("webrtc,c-webrtc", None),
        ("acme-tls/1,http/1.1", None),
    ]:
        printed = office.client(version, "-alpn", offered)
        assert (f"ALPN protocol: {expected}" if expected else "No ALPN negotiated") in printed, offered
    assert "alert no application protocol" in office.client(version, "-alpn", "acme-tls/1", status=1)
    assert "acme-tls/1" in office.relay.line("TLS handshake failed")["error"]


class Cut:
    """A TLS client whose first flight is cut: `records` bytes of the message per record, `segments` bytes per write."""

    def __init__(self, connection, trust, version):
        self.connection, self.incoming, self.outgoing = connection, ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=trust)
        context.minimum_version = context.maximum_version = version
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(20)

    def handshake(self, records, segments):
        """Shakes hands."""
        first = True
        while True:
            try:
                self.tls.do_handshake()
                return self.flush()
            except ssl.SSLWantReadError:
                sent = self.outgoing.read()
                if first:
                    message = sent[5:]
                    assert len(sent) == 5 + struct.unpack_from("!H", sent, 3)[0]
                    parts = [message[at:at + records] for at in range(0, len(message), records)]
                    sent = b"".join(sent[:3] + struct.pack("!H", len(part)) + part for part in parts)
                    first = False
                for at in range(0, len(sent), segments):
                    self.connection.sendall(sent[at:at + segments])
                self.receive()

    def flush(self):
        """Sends what there is to send."""
        self.connection.sendall(self.outgoing.read())

    def receive(self):
        """Waits for bytes."""
        received = self.connection.recv(65536)
        assert received, "the server closed the connection"
        self.incoming.write(received)

    def ask(self, message):
        """The first bytes of the answer to a message."""
        self.tls.write(message)
        self.flush()
        while True:
            try:
                return self.tls.read(100)
            except ssl.SSLWantReadError:
                self.receive()


def test_a_hello_in_pieces(office, host, clients, authority):
    """RFC 8446 §5.1: a ClientHello may be cut into records of a byte each and arrive byte by byte."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for records, segments in [(1, 1), (1, 10_000), (7, 100), (200, 3), (10_000, 1)]:
            with clients.tcp(host.v4, PORT) as connection:
                client = Cut(connection, authority.certificate, version)
                client.handshake(records, segments)
                answer = client.ask(stun.Message(stun.REQUEST, stun.BINDING).encode())
                assert struct.unpack_from("!H", answer)[0] == 0x0101
    assert office.relay.metric("tls_handshakes_failed_total") == 0


def test_a_hello_in_fragments_of_openssl(office):
    """openssl cuts what it sends, too."""
    for version in VERSIONS:
        printed = office.client(version, "-max_send_frag", "512", "-split_send_frag", "512")
        assert "Verify return code: 0 (ok)" in printed


class Colleague:
    """One of many clients of an office, each of which has its own credentials: it connects, and allocates."""

    def __init__(self, server, trust, name):
        self.server, self.user, self.writers = server, time_limited(SECRET, name), []
        self.context = ssl.create_default_context(cafile=trust)

    async def connect(self):
        """Connects and allocates; raises what goes wrong."""
        self.reader, writer = await asyncio.open_connection(*self.server, ssl=self.context, server_hostname=NAME,
                                                            ssl_handshake_timeout=120)
        # The relay does not learn that a lost connection has ended.
        self.writers.append(writer)
        transport = (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))
        challenge = await self.ask(stun.Message(stun.REQUEST, stun.ALLOCATE, [transport]))
        key = stun.long_term_key(stun.MD5, self.user.name, REALM, self.user.password)
        signed = [transport, (stun.USERNAME, self.user.name.encode()), (stun.REALM, REALM.encode()),
                  (stun.NONCE, challenge.get(stun.NONCE))]
        response = await self.ask(stun.Message(stun.REQUEST, stun.ALLOCATE, signed), key)
        assert response.code == 0, response

    async def ask(self, request, key=None):
        """The response to a request."""
        self.writers[-1].write(request.encode(key))
        head = await self.reader.readexactly(20)
        return stun.parse(head + await self.reader.readexactly(struct.unpack_from("!H", head, 2)[0]))


def test_an_office_reconnects(start, host, clients, authority, tls):
    """1,000 clients of one address connect at once, lose their connections at once, and connect again, while the relay still has
    the allocations of before: with the default limits all of them are served, in the order in which they came.
    """
    relay = start(host, workers=2, tls=tls)
    office = [Colleague((host.v4, PORT), authority.certificate, f"colleague-{n}") for n in range(1000)]

    async def everyone():
        """Connects all; those who fail."""
        done = await asyncio.gather(*(one.connect() for one in office), return_exceptions=True)
        return [repr(one) for one in done if one is not None]

    with clients.inside():
        loop = asyncio.new_event_loop()
    try:
        for _ in range(2):
            with clients.inside():
                failed = loop.run_until_complete(everyone())
            assert not failed, (len(failed), failed[:5], relay.log[-2000:])
    finally:
        for writer in (writer for one in office for writer in one.writers):
            writer.transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    relay.becomes("allocations", 0)
    assert relay.metric("tls_handshakes_failed_total") == relay.metric("connections_refused_total") == 0
