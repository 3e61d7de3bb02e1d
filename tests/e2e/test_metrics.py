"""What /metrics promises to Prometheus: its conventions, series that are there from the start and that no client can add to, and
figures that follow what happens.
"""

import shutil
import signal
import ssl
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import stun
from conftest import NAME
from hosts import eventually
from livekit import Sidecar
from relay import SECRET
from streams import StreamClient
from test_certificates import end_date
from test_reload import reload
from turn import Client, error_code, named

PAIR = (stun.EVEN_PORT, b"\x80")


def series(relay):
    """The names and labels of all samples."""
    return {(name, labels) for name, samples in relay.metrics().items() for labels in samples}


def ask_all(clients, method, *attributes):
    """Sends a request of each client before it waits for the responses, which must be of success."""
    waiting = []
    for client in clients:
        raw, transaction = client.prepare(method, *attributes)
        client.socket.sendto(raw, client.server)
        waiting.append((client, raw, transaction))
    for client, raw, transaction in waiting:
        client.socket.settimeout(0.5)
        for _ in range(20):
            try:
                response = client.socket.recv(2000)
            except TimeoutError:
                client.socket.sendto(raw, client.server)
                continue
            if response[8:20] == transaction:
                break
        assert response[8:20] == transaction and response[0] & 1 and not response[1] & 0x10, client.user


def checked(page):
    """What Prometheus' own tool has to say about a page of metrics."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: it is in Debian's package prometheus"
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_no_client_adds_a_series(start, host, clients, authority, tls):
    """10,000 users with 10,000 peers leave the series as they were before the first of them: every series is there from the
    start, and no label has a value that a client chooses.
    """
    relay = start(
        host,
        workers=2,
        listen={"tcp": ["0.0.0.0:3478"], "tls": ["0.0.0.0:5349"]},
        tls=tls,
        peers={"allow": ["10.0.0.0/8"]},
        limits={"new_allocations_rate": 0},
    )
    before, size = series(relay), len(relay.get("/metrics")[2])
    assert not checked(relay.get("/metrics")[2])
    at_once, rounds = 200, 50
    group = [Client(clients, (host.v4, 3478), named(SECRET, "first")) for _ in range(at_once)]
    for client in group:
        client.challenge()
    expiry = int(time.time()) + 3600
    for round in range(rounds):
        for n, client in enumerate(group):
            # Names that would end a label, if they were in one.
            client.user = named(SECRET, f'{expiry}:{round}-{n}"}} 1\\evil{{user="')
            client.key = stun.long_term_key(stun.MD5, client.user.name, client.realm, client.user.password)
        ask_all(group, stun.ALLOCATE, (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0])))
        permitted = [(stun.XOR_PEER_ADDRESS, (f"10.9.{round}.{n}", 7)) for n in range(at_once)]
        for some in (permitted[:100], permitted[100:]):
            ask_all(group[:1], stun.CREATE_PERMISSION, *some)
        if round == rounds - 1:
            relay.becomes("allocations", at_once)
            relay.becomes("permissions", at_once)
            relay.becomes("relay_ports_in_use", at_once, family="ipv4")
            assert series(relay) == before
        ask_all(group, stun.REFRESH, (stun.LIFETIME, stun.number(0)))
    for client in group:
        client.socket.close()
    for server, how in (((host.v4, 3478), {}), ((host.v4, 5349), {"trust": authority.certificate, "name": NAME})):
        with StreamClient(clients, server, named(SECRET, f"{expiry}:a stream"), **how) as client:
            client.allocate()
            client.refresh(0)
    users = at_once * rounds + 2
    relay.becomes("allocations_opened_total", users)
    relay.becomes("allocation_lifetime_seconds_count", users)
    relay.becomes("tls_handshake_duration_seconds_count", 1)
    for method, count in (("Allocate", users), ("CreatePermission", 2 * rounds), ("Refresh", users)):
        received = relay.metric("requests_total", method=method)
        assert received == relay.metric("responses_total", method=method) >= count
    assert series(relay) == before
    page = relay.get("/metrics")[2]
    assert len(page) < 1.2 * size and "evil" not in page and "10.9." not in page
    assert not checked(page)


def test_requests_without_a_response(start, host, clients, connect):
    """Requests count for their method when they arrive, over every transport, and responses when they leave: the difference
    is what the limit on unauthenticated responses withheld.
    """
    limits = {"binding_rate": 1, "binding_burst": 5, "unauthenticated_rate": 1, "unauthenticated_burst": 5}
    relay = start(host, listen={"tcp": ["0.0.0.0:3478"]}, limits=limits)
    client = connect()
    for method in (stun.BINDING, stun.ALLOCATE):
        for _ in range(200):
            client.socket.sendto(client.prepare(method, sign=False)[0], client.server)
    relay.becomes("requests_total", 200, method="Binding")
    relay.becomes("requests_total", 200, method="Allocate")
    withheld = relay.metric("dropped_packets_total", reason="unauthenticated_rate")
    answered = relay.metric("responses_total")
    assert withheld > 300 and withheld + answered == relay.metric("requests_total") == 400
    with StreamClient(clients, (host.v4, 3478)) as stream:
        stream.binding()
    relay.becomes("requests_total", 201, method="Binding")
    relay.becomes("responses_total", answered + 1)


def test_ports_in_use(start, host, connect):
    """Ports are in use while an allocation or a reservation holds them, out of those of the range at every relay address."""
    relay = start(host, relay={"ports": "50000-50009"})
    assert [relay.metric("relay_ports", family=family) for family in ("ipv4", "ipv6")] == [10, 10]
    first = connect()
    first.allocate(PAIR)
    assert relay.metric("relay_ports_in_use", family="ipv4") == 2, "one is reserved"
    others = [connect() for _ in range(9)]
    codes = [error_code(client.allocate) for client in others]
    assert codes == [0] * 8 + [508]
    assert relay.metric("relay_ports_in_use", family="ipv4") == relay.metric("relay_ports", family="ipv4")
    assert relay.metric("relay_ports_in_use", family="ipv6") == 0
    for client in others[:8]:
        client.refresh(0)
    relay.becomes("relay_ports_in_use", 2, family="ipv4")


def test_state_follows_orders(start, host, authority, tmp_path):
    """Readiness and drain state, the outcome, time and duration of reloads, and the expiry of a renewed certificate are those
    of now.
    """
    old, new = (authority.issue(NAME, file=f"{days}", days=days) for days in (20, 70))
    files = [tmp_path / name for name in ("cert.pem", "key.pem")]

    def install(pair):
        for source, target in zip(pair, files):
            shutil.copy(source, target)

    def expires():
        return relay.metric("tls_certificate_expiry_timestamp_seconds", certificate="1")

    install(old)
    tls = {"cert": str(files[0]), "key": str(files[1])}
    relay = start(host, tls=tls)
    assert expires() == ssl.cert_time_to_seconds(end_date(old[0]))
    assert (relay.metric("ready"), relay.metric("draining")) == (1, 0)

    install(new)
    relay.becomes("tls_certificate_expiry_timestamp_seconds", ssl.cert_time_to_seconds(end_date(new[0])))

    read_at = relay.metric("config_last_reload_success_timestamp_seconds")
    figures = relay.metrics()["hairpin_config_reload_duration_seconds"]
    assert list(figures.values()) == [0]
    time.sleep(1.1)
    (relay.folder / "hairpin.toml").write_text("workers = 0")
    relay.process.send_signal(signal.SIGHUP)
    relay.becomes("config_reloads_total", 1, result="failed")
    assert relay.metric("config_last_reload_successful") == 0
    assert relay.metric("config_last_reload_success_timestamp_seconds") == read_at
    assert "is reloaded" in reload(relay, tls=tls, limits={"channels": 7})
    relay.becomes("config_reloads_total", 1, result="ok")
    assert relay.metric("config_last_reload_successful") == 1
    assert relay.metric("config_last_reload_success_timestamp_seconds") > read_at
    [took] = relay.metrics()["hairpin_config_reload_duration_seconds"].values()
    assert 0 < took < 60
    assert expires() == ssl.cert_time_to_seconds(end_date(new[0]))

    holding = Client(host, (host.v4, 3478), named(SECRET, f"{int(time.time()) + 60}:x"))
    holding.allocate()
    relay.ctl("drain")
    assert (relay.metric("ready"), relay.metric("draining")) == (0, 1)
    relay.ctl("undrain")
    assert (relay.metric("ready"), relay.metric("draining")) == (1, 0)
    holding.socket.close()


def test_the_process(start, host, connect):
    """The metrics of the process are those that the kernel shows, by the names of Prometheus' client libraries; worker's CPU
    time is a part of the process'.
    """
    relay = start(host, workers=2)

    def value(name):
        [value] = relay.metrics()[f"process_{name}"].values()
        return value

    assert abs(value("start_time_seconds") - time.time()) < 60
    assert abs(value("resident_memory_bytes") / 1024 - relay.resident()) < 4096
    assert value("virtual_memory_bytes") > value("resident_memory_bytes")
    assert value("threads") == len(list(Path(f"/proc/{relay.process.pid}/task").iterdir()))
    before = value("open_fds")
    # The connection of the scrape is open while it counts.
    assert abs(before - relay.open_files()) <= 1 and before < value("max_fds")
    held = [connect() for _ in range(20)]
    for client in held:
        client.allocate()
    assert value("open_fds") == before + 20
    workers = relay.metrics()["hairpin_worker_cpu_seconds_total"].values()
    assert len(workers) == 2 and min(workers) > 0 and sum(workers) < value("cpu_seconds_total")
    lags = relay.metrics()["hairpin_worker_loop_lag_seconds_count"].values()
    eventually(lambda: min(relay.metrics()["hairpin_worker_loop_lag_seconds_count"].values()) > max(lags) + 2)


def test_the_sidecar(start, host, tmp_path):
    """The page of the sidecar keeps the same promises, whether or not there is a LiveKit: Prometheus' conventions, a build and
    a process, whether it is ready, and what became of reloads.
    """
    relay = start(host)
    nowhere = SimpleNamespace(url="http://127.0.0.1:9", address=host.v4)
    sidecar = Sidecar(relay, nowhere, tmp_path / "sidecar").start()
    try:
        assert not checked(sidecar.get("/metrics")[2])
        assert sidecar.metric("hairpin_livekit_build_info") == 1
        assert sidecar.metric("hairpin_livekit_ready") == 0 and sidecar.get("/readyz")[0] == 503
        assert 0 < sidecar.metric("process_open_fds") < sidecar.metric("process_max_fds")
        configuration = sidecar.file.read_text()
        for result, text in (("failed", "nonsense"), ("ok", configuration)):
            name = "hairpin_livekit_config_reloads_total"
            assert sidecar.metric(name, result=result) == 0
            sidecar.file.write_text(text)
            sidecar.process.send_signal(signal.SIGHUP)
            eventually(lambda name=name, result=result: sidecar.metric(name, result=result) == 1)
            assert sidecar.metric("hairpin_livekit_config_last_reload_successful") == (result == "ok")
        assert sidecar.metric("hairpin_livekit_config_reload_duration_seconds") > 0
        assert sidecar.stop() == 0
    finally:
        sidecar.kill()
