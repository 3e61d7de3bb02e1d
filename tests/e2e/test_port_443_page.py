"""docs/port-443.md: its configurations are run as they are, but for paths, with nginx and HAProxy of Debian. The relay's machine
is 203.0.113.7, and clients are elsewhere.
"""

import contextlib
import os
import re
import socket
import ssl
import subprocess
import threading

import pytest

from documents import DOCS, configurations
from hosts import eventually
from livekit import Program
from relay import PROGRAM
from streams import StreamClient, connect
from test_symptoms import pattern
from turn import Client, time_limited

PAGE = "port-443.md"
SECRET = "a shared secret of this page's relays"
TURN, WEBSITE, MEET = "turn.example.org", "www.example.org", "meet.example.org"
NAMES = (TURN, WEBSITE, MEET)
LIVE = "/etc/letsencrypt/live"
TEXT = "This is the website."


def files(shape):
    """The files of a shape, by name."""
    return configurations(PAGE, f"### {shape}")


@pytest.fixture
def host(switch):
    """The machine with one address."""
    return switch.host("machine", ["203.0.113.7/24"], default_route=True)


@pytest.fixture
def clients(switch):
    """The host of the clients."""
    return switch.host("clients", ["203.0.113.50/24"], default_route=True)


@pytest.fixture
def live(authority, tmp_path):
    """A folder of certificates as certbot leaves them."""
    for name in NAMES:
        folder = tmp_path / "live" / name
        folder.mkdir(parents=True)
        cert, key = authority.issue(name)
        (folder / "fullchain.pem").write_text(cert.read_text() + authority.certificate.read_text())
        (folder / "privkey.pem").write_text(key.read_text())
        (folder / "privkey.pem").chmod(0o600)
    return tmp_path / "live"


@pytest.fixture
def serve(start, host, live, tmp_path):
    """Starts the relay of a shape."""

    def serve(text, *arguments):
        file = tmp_path / "hairpin.toml"
        file.write_text(text.replace(LIVE, str(live)))
        file.chmod(0o600)
        environment = {"HAIRPIN_AUTH_SECRET": SECRET}
        return start(host, "--config", file, *arguments, configured=False, process={"environment": environment})

    return serve


@pytest.fixture
def programs(request):
    """Programs of a test, which end with it."""
    programs = []
    request.node.programs = programs
    yield programs
    for program in programs:
        program.kill()


@pytest.fixture
def nginx(host, live, programs, tmp_path):
    """Starts nginx with these files, which Debian's nginx.conf includes: in the context of `http`, or outside of it."""

    def nginx(http=(), main=()):
        folder = tmp_path / "nginx"
        (folder / "html" / "folder").mkdir(parents=True)
        (folder / "html" / "index.html").write_text(TEXT)
        places = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = f"""
            daemon off; master_process off; user root; pid {folder}/pid;
            load_module /usr/lib/nginx/modules/ngx_stream_module.so;
            events {{ }}
            {" ".join(main)}
            http {{
                {places}
                log_format seen '$remote_addr $server_protocol $host $http_x_forwarded_for';
                access_log {folder}/access seen;
                {" ".join(http)}
            }}
        """.replace(LIVE, str(live)).replace("/var/www/html", f"{folder}/html")
        (folder / "conf").write_text(text)
        programs.append(Program(host, folder, "nginx", "-p", folder, "-c", folder / "conf", "-e", "stderr"))
        return listens(programs[-1].start())

    return nginx


def listens(program):
    """Waits until a program listens on TCP."""
    def listening():
        """it listens"""
        assert program.process.poll() is None, f"it exited with status {program.process.returncode}:\n{program.log}"
        return re.search(rf"pid={program.process.pid},", program.host.run("ss", "-Hltnp"))

    eventually(listening)
    return program


@pytest.fixture
def get(clients, authority):
    """Gets the page at `/` of a name on port 443, as a browser would; the client forges a header."""

    def get(name, address="203.0.113.7", version="2"):
        how = ["--cacert", authority.certificate, "--resolve", f"{name}:443:{address}", f"--http{version}"]
        return clients.run("curl", "-sS", "--max-time", "20", *how, "-H", "X-Forwarded-For: 192.0.2.66", f"https://{name}/")

    return get


@pytest.fixture
def moved(clients, authority):
    """Where nginx sends a visitor of the website that asks for a folder without the slash."""

    def moved():
        how = ["--cacert", authority.certificate, "--resolve", f"{WEBSITE}:443:203.0.113.7"]
        head = clients.run("curl", "-sSI", "--max-time", "20", *how, f"https://{WEBSITE}/folder")
        return re.search(r"^location: *(\S+)", head, flags=re.M | re.I)[1]

    return moved


@pytest.fixture
def relays(clients, authority):
    """Allocates over TLS, TCP and UDP on port 443. The relay knows the client by its own address."""

    def relays(name=TURN, address="203.0.113.7"):
        user = time_limited(SECRET, "alice")
        server = (address, 443)
        for client in (
            StreamClient(clients, server, user, trust=authority.certificate, name=name),
            StreamClient(clients, server, user),
            Client(clients, server, user),
        ):
            with client:
                client.allocate()
                assert client.binding()[0] == clients.v4

    return relays


def seen(nginx):
    """What nginx has logged: the client, the protocol, and what was forged."""
    return (nginx.folder / "access").read_text().splitlines()


def test_configurations_have_no_mistake(host, live, tmp_path):
    """Each hairpin.toml of the page is one that `hairpin check` accepts, without a warning."""
    host.add_address("203.0.113.8/24")
    shapes = re.findall(r"^### (\d\. .*)$", (DOCS / PAGE).read_text(), flags=re.M)
    found = [text for shape in shapes for name, text in files(shape).items() if name == "hairpin.toml"]
    assert len(found) == 4
    for text in found:
        file = tmp_path / "hairpin.toml"
        file.write_text(text.replace(LIVE, str(live)))
        command = host.command(PROGRAM, "check", "--state-dir", tmp_path / "state", file)
        checked = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        assert checked.returncode == 0 and "warning" not in checked.stdout, (text, checked)


def test_hairpin_in_front(serve, nginx, get, moved, relays, clients):
    """1: nginx has the website, unopened, and sees who visits it; everything else is the relay's."""
    shape = files("1. hairpin in front")
    site = nginx([shape["www.conf"]])
    serve(shape["hairpin.toml"])
    assert get(WEBSITE) == get(WEBSITE, version="1.1") == TEXT
    assert seen(site) == [f"{clients.v4} HTTP/{version} {WEBSITE} 192.0.2.66" for version in ("2.0", "1.1")]
    assert moved() == "/folder/"
    relays()


def test_one_name(serve, nginx, get, relays, clients):
    """2: HTTP/1.1, HTTP/2 and TURN under one name. The application is told the client's address, and no forged one."""
    shape = files("2. One name for everything")
    told = "server { listen 127.0.0.1:3000; access_log off; return 200 '$http_x_forwarded_for $http_x_forwarded_proto'; }"
    site = nginx([shape["meet.conf"], told])
    serve(shape["hairpin.toml"])
    assert get(MEET) == get(MEET, version="1.1") == f"{clients.v4} https"
    assert seen(site) == [f"{clients.v4} HTTP/{version} {MEET} 192.0.2.66" for version in ("2.0", "1.1")]
    relays(MEET)


def in_front(relay, site, get, moved, relays, clients):
    """The website and the relay see who the clients are, behind a proxy that knows, and no visitor sees nginx's own port."""
    assert get(WEBSITE) == TEXT
    assert seen(site) == [f"{clients.v4} HTTP/2.0 {WEBSITE} 192.0.2.66"]
    assert moved() == "/folder/"
    relays()
    opened = eventually(lambda: re.findall(r"allocation opened client=(\S+):\d+ ", relay.log))
    assert set(opened) == {clients.v4}
    assert not re.search(r"connection closed|handshake failed", relay.log), "a health check is no error"


def test_behind_haproxy(serve, nginx, get, moved, relays, host, clients, programs, tmp_path):
    """3: HAProxy chooses by name; its health checks are no lines of the log."""
    shape = files("3. Behind HAProxy")
    site = nginx([files("1. hairpin in front")["www.conf"]])
    relay = serve(shape["hairpin.toml"])
    (tmp_path / "haproxy.cfg").write_text(shape["haproxy.cfg"])
    programs.append(Program(host, tmp_path / "haproxy", "haproxy", "-db", "-f", tmp_path / "haproxy.cfg"))
    listens(programs[-1].start())
    in_front(relay, site, get, moved, relays, clients)


def test_behind_nginx(serve, nginx, get, moved, relays, clients):
    """4: nginx chooses by name."""
    main = files("4. Behind nginx")["90-port443.conf"]
    site = nginx([files("1. hairpin in front")["www.conf"]], [main])
    relay = serve(files("3. Behind HAProxy")["hairpin.toml"])
    in_front(relay, site, get, moved, relays, clients)


def test_a_second_address(serve, nginx, get, relays, host, clients):
    """5: the relay and the website have port 443 at an address each."""
    host.add_address("203.0.113.8/24")
    site = files("1. hairpin in front")["www.conf"]
    site = re.sub(r"listen .*;", "listen 203.0.113.7:443 ssl;", site).replace("real_ip_header proxy_protocol;", "")
    nginx([site])
    serve(files("5. A second address")["hairpin.toml"])
    assert get(WEBSITE, version="1.1") == TEXT
    relays(address="203.0.113.8")


@contextlib.contextmanager
def backend(host, serve=lambda connection: connection.recv(1), port=8443):
    """A server on the loopback interface of a host, which serves each connection in a thread."""

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[listening.accept()[0]], daemon=True).start()

    def answer(connection):
        with contextlib.suppress(OSError), connection:
            serve(connection)

    with host.inside():
        listening = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def test_a_backend_proves_its_name_itself(serve, host, clients, live, authority):
    """What an authority asks for by TLS-ALPN (RFC 8737 §3) reaches the backend of a name that is passed through, which answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(live / WEBSITE / "fullchain.pem", live / WEBSITE / "privkey.pem")
    context.set_alpn_protocols(["acme-tls/1"])

    def prove(connection):
        with context.wrap_socket(connection, server_side=True) as proving:
            proving.recv(1)

    serve(files("1. hairpin in front")["hairpin.toml"].replace(", send_proxy = true", ""))
    asking = ssl.create_default_context(cafile=authority.certificate)
    asking.set_alpn_protocols(["acme-tls/1"])
    with backend(host, prove), asking.wrap_socket(clients.tcp(host.v4, 443), server_hostname=WEBSITE) as asked:
        assert asked.selected_alpn_protocol() == "acme-tls/1"


def test_quic_is_dropped(serve, host, clients):
    """RFC 9443 §2: what a browser sends that tries HTTP/3 is not answered, whether it begins like ChannelData or not, and TURN goes
    on, also from the same address.
    """
    relay = serve(files("1. hairpin in front")["hairpin.toml"])
    with Client(clients, (host.v4, 443), time_limited(SECRET, "alice")) as client:
        client.allocate()
        for first in (*range(64, 80), 0x7F, 0xC3, 0xFF):
            client.socket.sendto(bytes([first]) + bytes(1199), client.server)
        eventually(lambda: relay.metric("dropped_packets_total") >= 19)
        assert not client.drain() and client.refresh() > 0


def test_every_quoted_line_is_written(serve, host, clients, authority, live, tmp_path):
    """The rule: an operator who searches the page for a line of the log, or the log for a line of the page, finds it."""
    trust = authority.certificate
    front = files("1. hairpin in front")["hairpin.toml"].replace(', send_proxy = true', "")
    relay = serve(front + "\n[limits]\nspliced_connections_per_source = 1\n")
    server = (host.v4, 443)

    def hello():
        """A connection with the first bytes of a TLS client that asks for the website."""
        opened = clients.tcp(*server)
        sent, context = ssl.MemoryBIO(), ssl.create_default_context()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=WEBSITE).do_handshake()
        opened.sendall(sent.read())
        return opened

    with hello():
        eventually(lambda: "backend cannot be reached" in relay.log)
    with backend(host), hello():
        eventually(lambda: "can be reached again" in relay.log)
    with backend(host, lambda connection: connection.recv(1 << 16) and connection.recv(1)), hello(), hello():
        eventually(lambda: "there are too many" in relay.log)
    with connect(clients, server, trust=trust, name=TURN) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: turn.example.org\r\n\r\n")
        eventually(lambda: "inside TLS" in relay.log)
    with clients.tcp(*server) as balancer:
        balancer.sendall(b"PROXY TCP4 192.0.2.1 203.0.113.7 40000 443\r\n")
        eventually(lambda: "untrusted_proxy_header" in relay.log)
    user = time_limited(SECRET, "alice")
    with Client(host, ("127.0.0.1", 3478), user, source="127.0.0.1") as client:
        client.allocate()
    assert relay.stop() == 0

    behind = serve(files("3. Behind HAProxy")["hairpin.toml"])
    with host.tcp("127.0.0.1", 5349) as without:
        without.sendall(bytes(20))
        eventually(lambda: "missing_proxy_header" in behind.log)
    with backend(host, port=443):
        (tmp_path / "hairpin.toml").write_text(front.replace(LIVE, str(live)))
        behind.ctl("reload", status=1)

    written = relay.log + behind.log
    lines = re.findall(r"^ {4,}((?:ERROR|WARN|INFO) .*)$", (DOCS / PAGE).read_text(), flags=re.M)
    assert len(lines) == 8
    assert not [line for line in lines if not pattern(line).search(written)], written
