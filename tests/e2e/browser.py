"""Runs headless Chromium on a host with its own profile, controlled over the DevTools protocol.

The protocol runs over two pipes, file descriptors 3 and 4, so no port is opened and no client library is needed. The
browser is the first process of a PID namespace, so the kernel kills all of its processes when it exits.
"""

import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path

from hosts import eventually

# Chromium has no sandbox when it runs as root. It must not contact update servers.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-breakpad",
    "--remote-debugging-pipe",
)

PIPES = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'


class Browser:
    """A browser with one empty page. It trusts `authority`, the path of a certificate, and resolves the host names in
    `names`. `options` are further ones of the program's.
    """

    def __init__(self, host, authority, names, *options):
        # The path is kept short: Chromium creates a Unix socket in it, whose path is limited to 108 bytes.
        self._home = tempfile.TemporaryDirectory(prefix="hairpin-browser-", ignore_cleanup_errors=True)
        home = self.home = Path(self._home.name)
        trust(home / ".pki" / "nssdb", authority)
        # The `*` matches the trailing dot that Chromium adds to some names, which it would otherwise look up in the
        # DNS.
        known = ", ".join(f"MAP {name}* {address}" for name, address in names.items())
        browser = ["chromium", *OPTIONS, f"--user-data-dir={home}/profile", f"--host-resolver-rules={known}", *options]
        namespace = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
        self._log = home / "log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                host.command(*namespace, "sh", "-c", PIPES, "sh", *browser, "about:blank"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)},
            )
        self._received = b""
        self._asked = 0
        self._page = {}

    def open(self, script, url=None):
        """Waits for the page, loads a URL into it if one is given, and runs a script in it."""

        def pages():
            """a page exists"""
            targets = self._ask("Target.getTargets")["targetInfos"]
            return [target["targetId"] for target in targets if target["type"] == "page"]

        attached = self._ask("Target.attachToTarget", targetId=eventually(pages)[0], flatten=True)
        self._page = {"sessionId": attached["sessionId"]}
        if url:
            self.load(url)
        self.run(script)
        return self

    def load(self, url):
        """Loads a URL into the page; whatever ran there ends."""

        def loaded():
            """the page is loaded"""
            complete = "!globalThis.earlier && document.readyState === 'complete'"
            return self.run(f"{complete} ? location.href : ''").startswith(url)

        self.run("globalThis.earlier = true")
        self._ask("Page.navigate", url=url)
        eventually(loaded)

    def run(self, script, timeout=60):
        """Returns the value of a script, or the value its promise resolves to. Fails if the script throws."""
        response = self._ask("Runtime.evaluate", timeout, expression=script, awaitPromise=True, returnByValue=True)
        thrown = response.get("exceptionDetails")
        assert not thrown, thrown["exception"].get("description", thrown)
        return response["result"].get("value")

    def close(self):
        """Closes the browser, which exits when its control pipe closes, and removes its files."""
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._home.cleanup()

    def _ask(self, method, timeout=60, **parameters):
        self._asked += 1
        question = {"id": self._asked, "method": method, "params": parameters, **self._page}
        self.process.stdin.write(json.dumps(question).encode() + b"\0")
        end = time.monotonic() + timeout
        while (response := self._receive(end, method)).get("id") != self._asked:
            pass  # skip events
        assert "error" not in response, f"{method}: {response['error']}"
        return response["result"]

    def _receive(self, end, method):
        while b"\0" not in self._received:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            assert ready, f"the browser did not respond to {method} in time:\n{self._log.read_text()}"
            received = os.read(self.process.stdout.fileno(), 1 << 20)
            assert received, f"the browser ended:\n{self._log.read_text()}"
            self._received += received
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)


def trust(store, authority):
    """Makes a certificate store with the certificate of an authority, as Chromium and Firefox have them."""
    store.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{store}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    subprocess.run([*certutil, "-A", "-n", "authority", "-t", "C,,", "-i", authority], check=True)
