"""Metadata services of clouds, a STUN server and a resolver, as a relay behind a 1:1 NAT meets them."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import stun
from stun import Message

METADATA = "169.254.169.254"
TOKEN = "AQAEAtoken=="


class Cloud:
    """A metadata service on `host`. `external` is the public address of the inside address `local`; None if there is none.
    `asked` are the requests so far.
    """

    def __init__(self, host, kind, local, external):
        self.kind, self.local, self.external = kind, local, external
        self.asked = []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply()

            def do_PUT(self):
                self.reply()

            def reply(self):
                cloud.asked.append((self.command, self.path))
                status, text = getattr(cloud, cloud.kind)(self.command, self.path, self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        with host.inside():
            self._server = ThreadingHTTPServer((METADATA, 80), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def aws(self, method, path, headers):
        """IMDSv2: nothing is told without a token."""
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, TOKEN) if headers["X-aws-ec2-metadata-token-ttl-seconds"] else (400, "")
        if method != "GET" or headers["X-aws-ec2-metadata-token"] != TOKEN:
            return 401, "Unauthorized"
        macs = "/latest/meta-data/network/interfaces/macs/"
        associations = f"{macs}0e:49:61:0f:c3:11/ipv4-associations/"
        pages = {macs: "0e:49:61:0f:c3:11/", "/latest/meta-data/local-ipv4": "10.0.0.99"}
        if self.external:
            pages |= {associations: self.external, associations + self.external: self.local}
        return self._page(pages, path)

    def google(self, method, path, headers):
        if headers["Metadata-Flavor"] != "Google":
            return 403, "Missing Metadata-Flavor:Google header."
        interface = "/computeMetadata/v1/instance/network-interfaces/"
        pages = {interface: "0/\n", f"{interface}0/ip": self.local}
        if self.external:
            pages[f"{interface}0/access-configs/0/external-ip"] = self.external
        return self._page(pages, path)

    def azure(self, method, path, headers):
        if headers["Metadata"] != "true" or not path.startswith("/metadata/instance/network?api-version="):
            return 400, "Bad request. Required metadata header not specified"
        address = {"privateIpAddress": self.local, "publicIpAddress": self.external or ""}
        return 200, json.dumps({"interface": [{"ipv4": {"ipAddress": [address]}, "ipv6": {"ipAddress": []}}]})

    def hetzner(self, method, path, headers):
        return self._page({"/hetzner/v1/metadata/public-ipv4": self.external}, path)

    def silent(self, method, path, headers):
        return 503, ""

    @staticmethod
    def _page(pages, path):
        text = pages.get(path)
        return (404, "") if text is None else (200, text)


@contextlib.contextmanager
def stun_server(host, mapped):
    """A STUN server on port 3478 that sees every client at the address `mapped()`."""
    socket = host.udp(port=3478)
    socket.settimeout(0.1)
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                raw, source = socket.recvfrom(1500)
                request = stun.parse(raw, source)
                address = stun.xor_address((mapped(), source[1]), request.transaction)
                attributes = [(stun.XOR_MAPPED_ADDRESS, address)]
                response = Message(stun.SUCCESS, stun.BINDING, attributes, request.transaction)
                socket.sendto(response.encode(), source)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        socket.close()
