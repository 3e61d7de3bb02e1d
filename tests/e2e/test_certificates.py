"""Certificates that are renewed, damaged and chosen while calls over TLS run on."""

import contextlib
import re
import shutil
import signal
import ssl
import subprocess
import threading

import pytest

import relay as daemon
from authority import RSA
from conftest import NAME
from hosts import eventually
from relay import PASSWORD, USER
from streams import StreamClient
from turn import User, error_code

ALICE = User(USER, PASSWORD)


@pytest.fixture
def served(host, clients):
    """What a new handshake gets: `served(name)` returns the certificate as DER. Without a name, none is asked for."""

    def served(name=NAME):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with clients.tcp(host.v4, 5349) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
            return tls.getpeercert(True)

    served.host, served.clients = host, clients
    return served


@pytest.fixture
def calling(host, clients, peers, authority):
    """Runs calls over TLS; on leaving, no packet of them may have been lost, and they were never interrupted."""

    @contextlib.contextmanager
    def calling(count=2):
        calls = [Call(host, clients, peers, authority) for _ in range(count)]
        try:
            yield calls
        finally:
            for call in calls:
                call.ending.set()
            for call in calls:
                call.thread.join()
        for call in calls:
            assert call.error is None, call.error
            assert call.echoed > 20, "the call was running"
            assert call.client.refresh() == 600
            call.close()

    return calling


class Call:
    """A call over TLS whose packets go to a peer and back, one after the other: a lost one ends it with an error."""

    def __init__(self, host, clients, peers, authority):
        self.client = StreamClient(clients, (host.v4, 5349), ALICE, trust=authority.certificate, name=NAME)
        self.peer = peers.udp()
        self.client.allocate()
        self.channel = self.client.bind(self.peer.getsockname())
        self.echoed, self.error, self.ending = 0, None, threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            while not self.ending.wait(0.005):
                payload = b"%d" % self.echoed
                self.client.send_channel(self.channel, payload)
                received, source = self.peer.recvfrom(100)
                assert received == payload
                self.peer.sendto(received, source)
                assert self.client.receive().payload == payload
                self.echoed += 1
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def close(self):
        """Closes what this object opened."""
        self.client.socket.close()
        self.peer.close()


def der(certificate):
    """The contents of a PEM file."""
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def test_renewal_by_certbot(start, served, calling, authority, tmp_path):
    """certbot writes new files into archive/ and then swaps a link for each in live/. New handshakes get the new
    certificate, without a signal; running calls lose nothing.
    """
    archive, live = tmp_path / "archive" / NAME, tmp_path / "live" / NAME
    archive.mkdir(parents=True)
    live.mkdir(parents=True)

    def renew(n):
        certificate, key = authority.issue(NAME)
        for file, name in ((certificate, "fullchain"), (key, "privkey")):
            shutil.copy(file, archive / f"{name}{n}.pem")
        for name in ("fullchain", "privkey"):
            with contextlib.suppress(FileNotFoundError):
                (live / f"{name}.pem").unlink()
            (live / f"{name}.pem").symlink_to(f"../../archive/{NAME}/{name}{n}.pem")
        return der(certificate)

    before = renew(1)
    files = {"cert": str(live / "fullchain.pem"), "key": str(live / "privkey.pem")}
    relay = start(served.host, tls=files)
    assert served() == before
    with calling():
        for n in (2, 3):
            after = renew(n)
            eventually(lambda after=after: served() == after)
    assert relay.metric("tls_certificate_reloads_total", outcome="renewed") == 2
    assert relay.metric("tls_certificate_failing") == 0


def test_renewal_by_kubernetes(start, served, calling, authority, tmp_path):
    """Kubernetes swaps ..data, the directory that every file of a secret leads through."""
    volume = tmp_path / "volume"
    volume.mkdir()

    def renew(version):
        folder = volume / version
        folder.mkdir()
        certificate, key = authority.issue(NAME)
        shutil.copy(certificate, folder / "tls.crt")
        shutil.copy(key, folder / "tls.key")
        (volume / "..data_tmp").symlink_to(version)
        (volume / "..data_tmp").rename(volume / "..data")
        return der(certificate)

    before = renew("..2026_11_30")
    for name in ("tls.crt", "tls.key"):
        (volume / name).symlink_to(f"..data/{name}")
    relay = start(served.host, tls={"cert": str(volume / "tls.crt"), "key": str(volume / "tls.key")})
    assert served() == before
    with calling():
        after = renew("..2026_12_01")
        eventually(lambda: served() == after)
        shutil.rmtree(volume / "..2026_11_30")
        last = renew("..2026_12_02")
        eventually(lambda: served() == last)
    assert relay.metric("tls_certificate_reloads_total", outcome="failed") == 0


def test_what_cannot_be_used_keeps_the_earlier_certificate(start, served, calling, authority, tmp_path):
    """A half-written pair, a missing or an unreadable key keep the earlier certificate, with one line in the log and in the
    metrics. A reload applies everything else, and the next change is looked at again.
    """
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    first, second = authority.issue(NAME, file="first"), authority.issue(NAME, file="second")
    shutil.copy(first[0], cert)
    shutil.copy(first[1], key)
    files = {"cert": str(cert), "key": str(key)}
    relay = start(served.host, tls=files)
    expiry = relay.metric("tls_certificate_expiry_timestamp_seconds", certificate="1", file=str(cert))
    assert expiry == ssl.cert_time_to_seconds(end_date(cert))

    def failing():
        """The files cannot be used."""
        return relay.metric("tls_certificate_failing") == 1

    with calling():
        shutil.copy(second[0], cert)
        eventually(failing)
        assert served() == der(first[0])
        [line] = [line for line in relay.lines(level="WARN") if "files of a certificate" in line["message"]]
        assert "does not belong to the first certificate" in line["message"] and str(key) in line["message"]
        key.write_text("-----BEGIN PRIVATE KEY-----\nMIGH")
        eventually(lambda: relay.metric("tls_certificate_reloads_total", outcome="failed") == 2)
        # Everything else of a reload is applied.
        changed = daemon.configuration(served.host, tls=files, auth={"user": [{"name": "bob", "password": "x" * 20}]})
        (relay.folder / "hairpin.toml").write_text(daemon.toml(changed))
        relay.process.send_signal(signal.SIGHUP)
        assert "nothing has changed" not in next_sighup(relay)
        errors = [line["message"] for line in relay.lines(level="ERROR")]
        assert len(errors) == 1 and "the earlier certificate is used" in errors[0], errors
        assert served() == der(first[0])
        late = StreamClient(served.clients, (served.host.v4, 5349), ALICE, trust=authority.certificate, name=NAME)
        assert error_code(late.allocate) == 401
        late.socket.close()
        shutil.copy(second[1], key)
        eventually(lambda: served() == der(second[0]))
        assert relay.metric("tls_certificate_failing") == 0
        # A key that is gone is no reason to stop serving.
        key.unlink()
        eventually(failing)
        assert served() == der(second[0])
        shutil.copy(second[1], key)
        eventually(lambda: relay.metric("tls_certificate_failing") == 0)
    assert "MIGH" not in relay.log


def test_an_unusable_certificate_ends_a_start(start, served, authority, tmp_path):
    """At a start, a key that cannot be read or used is an error; TLS is never silently off."""
    certificate, _ = authority.issue(NAME)
    relay = start(served.host, tls={"cert": str(certificate), "key": str(tmp_path / "none.key")}, wait=False)
    assert relay.process.wait(timeout=30) == 2
    assert "tls.key" in relay.log and "cannot be read: No such file" in relay.log


def test_several_certificates(start, served, host, clients, authority):
    """The name that a client asks for chooses, then the kind of key that it can verify. Unknown names get the default
    certificate or the alert unrecognized_name.
    """
    ecdsa, rsa = authority.issue(NAME), authority.issue(NAME, file="rsa", kind=RSA)
    other, idn = authority.issue("*.other.example"), authority.issue("xn--bcher-kva.example")
    pair = lambda files, **more: {"cert": str(files[0]), "key": str(files[1]), **more}
    sections = [pair(rsa), pair(other), pair(idn, names=["Bücher.example."])]
    relay = start(host, tls=pair(ecdsa, certificate=sections))

    for name, expected in ((NAME, ecdsa), (NAME.upper(), ecdsa), ("a.other.example", other), ("bücher.example", idn),
                           ("a.b.other.example", ecdsa), ("unknown.example", ecdsa), (None, ecdsa)):
        assert served(name) == der(expected[0]), name

    def subject(*options):
        """The kind of key that `openssl s_client` gets."""
        printed = clients.run("openssl", "s_client", "-connect", f"{host.v4}:5349", *options)
        return re.search(r"Peer signature type: (\S+)", printed)[1]

    for version in ("-tls1_2", "-tls1_3"):
        assert subject("-servername", NAME + ".", version) == "ECDSA"
        only_rsa = ("-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256")
        assert subject("-servername", NAME, version, *only_rsa) == "RSA-PSS"
        assert subject("-noservername", version, *only_rsa) == "RSA-PSS"
    assert subject("-servername", NAME, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256").startswith("RSA")

    config = daemon.configuration(host, tls=pair(ecdsa, certificate=sections, unknown_name="refuse"))
    (relay.folder / "hairpin.toml").write_text(daemon.toml(config))
    relay.process.send_signal(signal.SIGHUP)
    next_sighup(relay)
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        served("unknown.example")
    assert served(None) == der(ecdsa[0]) and served("bücher.example") == der(idn[0])
    relay.becomes("tls_handshakes_failed_total", 1, reason="unknown_name")
    line = relay.line("TLS handshake failed", reason="unknown_name")
    assert "unknown.example" in line["error"]


def test_sessions_outlive_a_renewal(start, served, host, clients, authority, tmp_path):
    """A session made before a renewal resumes after it, with TLS 1.2 and 1.3, on whatever worker. Early data is refused."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    first, second = authority.issue(NAME, file="first"), authority.issue(NAME, file="second")
    shutil.copy(first[0], cert)
    shutil.copy(first[1], key)
    relay = start(host, workers=4, tls={"cert": str(cert), "key": str(key)})
    sessions = {}
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=authority.certificate)
        context.minimum_version = context.maximum_version = version
        sessions[version] = (context, handshake(clients, host, context)[0])
    shutil.copy(second[0], cert)
    shutil.copy(second[1], key)
    eventually(lambda: served() == der(second[0]))
    for version, (context, session) in sessions.items():
        for _ in range(6):
            session, reused = handshake(clients, host, context, session)
            assert reused, version
    # RFC 8446 §4.6.1: without the extension in its ticket, a client may not send early data.
    asked = f"sleep 0.5 | openssl s_client -connect {host.v4}:5349 -servername {NAME} -tls1_3"
    printed = clients.run("sh", "-c", asked)
    assert "Early data was not sent" in printed and set(re.findall(r"Max Early Data: (\d+)", printed)) == {"0"}, printed
    assert relay.metric("tls_certificate_reloads_total", outcome="renewed") == 1


def handshake(clients, host, context, session=None):
    """A connection with a request; returns its session, and whether it was resumed."""
    raw = clients.tcp(host.v4, 5349)
    with context.wrap_socket(raw, server_hostname=NAME, session=session) as tls:
        client = StreamClient(clients, (host.v4, 5349), connection=tls)
        # Tickets of TLS 1.3 come with the first data.
        assert client.binding()
        return tls.session, tls.session_reused


def end_date(certificate):
    """When a certificate expires, as openssl writes it."""
    printed = subprocess.run(["openssl", "x509", "-in", certificate, "-noout", "-enddate"],
                             check=True, capture_output=True, text=True).stdout
    return printed.strip().removeprefix("notAfter=")


def next_sighup(relay):
    """Waits for the line about the result of SIGHUP; returns its message."""
    found = eventually(lambda: [line for line in relay.lines() if line["message"].startswith("SIGHUP: ")])
    return found[-1]["message"]
