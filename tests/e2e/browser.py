"""Headless Chromium on a host: started with a profile of its own, and told what to do over the DevTools protocol.

The protocol runs through two pipes, its descriptors 3 and 4, so nothing listens and nothing needs a client library. The
browser is the first process of a PID namespace, so the kernel ends all of its processes when it ends.
"""

import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path

from hosts import eventually

# No sandbox, since it runs as root; and nobody to ask for updates.
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
    """A browser with one empty page. It trusts `authority`, a certificate in a file, and knows the hosts in `names`."""

    def __init__(self, host, authority, names):
        # Its path is short: one of a socket in it may have no more than 108 bytes.
        self._home = tempfile.TemporaryDirectory(prefix="hairpin-browser-", ignore_cleanup_errors=True)
        home = Path(self._home.name)
        _trust(home, authority)
        # The star stands for the final dot that Chromium gives some names, which it would ask the network for.
        known = ", ".join(f"MAP {name}* {address}" for name, address in names.items())
        browser = ["chromium", *OPTIONS, f"--user-data-dir={home}/profile", f"--host-resolver-rules={known}"]
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

    def open(self, script):
        """Waits for the page and runs a script in it."""

        def pages():
            """there is a page"""
            targets = self._ask("Target.getTargets")["targetInfos"]
            return [target["targetId"] for target in targets if target["type"] == "page"]

        attached = self._ask("Target.attachToTarget", targetId=eventually(pages)[0], flatten=True)
        self._page = {"sessionId": attached["sessionId"]}
        self.run(script)
        return self

    def run(self, script, timeout=60):
        """The value of a script; if that is a promise, what it is fulfilled with. Fails when it throws."""
        answer = self._ask("Runtime.evaluate", timeout, expression=script, awaitPromise=True, returnByValue=True)
        thrown = answer.get("exceptionDetails")
        assert not thrown, thrown["exception"].get("description", thrown)
        return answer["result"].get("value")

    def close(self):
        """Ends it, which it does by itself once nobody can tell it anything more, and removes its files."""
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
        while (answer := self._receive(end, method)).get("id") != self._asked:
            pass  # an event, which nobody here waits for
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _receive(self, end, method):
        while b"\0" not in self._received:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            assert ready, f"the browser did not answer {method} in time:\n{self._log.read_text()}"
            received = os.read(self.process.stdout.fileno(), 1 << 20)
            assert received, f"the browser ended:\n{self._log.read_text()}"
            self._received += received
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)


def _trust(home, authority):
    """Puts the certificate of an authority into the store that Chromium reads."""
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{store}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    subprocess.run([*certutil, "-A", "-n", "authority", "-t", "C,,", "-i", authority], check=True)
