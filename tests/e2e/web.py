"""Web servers that share a port with a relay: nginx, and a server of WebSockets that echo."""

import contextlib
import json
import random
import threading
from pathlib import Path

from websockets.sync.server import serve

from conftest import NAME
from hosts import eventually
from livekit import Program

SITE = "www.example.org"

# nginx's ports on the loopback interface, all with the PROXY protocol: TLS, HTTP/1.1 and HTTP/2 without TLS
HTTPS, HTTP, H2C = 8443, 8080, 8081

# The server of WebSockets
ECHO = 8090

# The routes of a listener: the website goes through unopened, and the relay's own name has WebSockets and files beside TURN.
ROUTES = {
    SITE: {"pass": f"127.0.0.1:{HTTPS}", "send_proxy": True},
    NAME: {"http": f"127.0.0.1:{HTTP}", "h2c": f"127.0.0.1:{H2C}", "send_proxy": True},
}

LARGE = 16 << 20


@contextlib.contextmanager
def website(host, folder, authority):
    """nginx and the server of WebSockets behind it, on a host."""
    echo = EchoServer(host)
    nginx = Nginx(host, folder, authority)
    try:
        yield nginx.start()
    finally:
        nginx.kill()
        echo.close()


class Nginx(Program):
    """nginx on the loopback interface of a host: HTTPS for `SITE` with a certificate of `authority`, and HTTP for the relay's
    name, whose TLS ends at the relay. Behind `/echo` are the WebSockets of `EchoServer`.

    The page at `/` has the scripts of call.js and site.js.
    """

    def __init__(self, host, folder, authority):
        folder = Path(folder)
        super().__init__(host, folder, "nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr")
        cert, key = authority.issue(SITE)
        here, site = Path(__file__).parent, folder / "site"
        site.mkdir()
        for script in ("call.js", "site.js"):
            (site / script).write_bytes((here / script).read_bytes())
        scripts = '<script src="/call.js"></script><script src="/site.js"></script>'
        (site / "index.html").write_text(f"<!doctype html><title>{SITE}</title><h1>A real page</h1>{scripts}")
        self.large = random.Random(443).randbytes(LARGE)
        (site / "large").write_bytes(self.large)
        (folder / "nginx.conf").write_text(f"""
            daemon off;
            master_process off;
            user root;
            pid {folder}/pid;
            events {{ worker_connections 4096; }}
            http {{
                types {{ text/html html; text/javascript js; }}
                root {site};
                log_format seen escape=json '{{"client":"$remote_addr","port":$remote_port,"told":"$proxy_protocol_addr",'
                    '"protocol":"$server_protocol","host":"$host","path":"$request_uri","status":$status,'
                    '"connection":$connection}}';
                access_log {folder}/access.log seen;
                client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi;
                uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                client_header_timeout 5;
                set_real_ip_from 127.0.0.1;
                real_ip_header proxy_protocol;
                server {{
                    listen 127.0.0.1:{HTTPS} ssl http2 proxy_protocol;
                    server_name {SITE};
                    ssl_certificate {cert};
                    ssl_certificate_key {key};
                }}
                server {{
                    listen 127.0.0.1:{HTTP} proxy_protocol;
                    location /echo {{
                        proxy_pass http://127.0.0.1:{ECHO};
                        proxy_http_version 1.1;
                        proxy_set_header Upgrade $http_upgrade;
                        proxy_set_header Connection upgrade;
                    }}
                }}
                server {{
                    listen 127.0.0.1:{H2C} http2 proxy_protocol;
                }}
            }}
        """)

    def start(self):
        """Starts it and waits until it listens."""
        super().start()

        def listens():
            """nginx listens"""
            assert self.process.poll() is None, f"it exited with status {self.process.returncode}:\n{self.log}"
            try:
                for port in (HTTPS, HTTP, H2C):
                    self.host.tcp("127.0.0.1", port).close()
                return True
            except OSError:
                return False

        eventually(listens)
        return self

    def requests(self, **fields):
        """What its log has about requests with these fields, as dicts."""
        lines = (self.folder / "access.log").read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in found if fields.items() <= line.items()]

    def request(self, **fields):
        """Waits for a request with these fields in its log; returns the last one."""
        return eventually(lambda: self.requests(**fields))[-1]


class EchoServer:
    """A server of WebSockets on the loopback interface of a host, which send back what they receive."""

    def __init__(self, host):
        with host.inside():
            self._server = serve(_echo, "127.0.0.1", ECHO, ping_interval=None)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        """Stops it."""
        self._server.shutdown()


def _echo(connection):
    for message in connection:
        connection.send(message)
