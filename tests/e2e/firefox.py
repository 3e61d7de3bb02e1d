"""Runs headless Firefox on a host with its own profile, controlled over Marionette, its own protocol for that.

Marionette listens on the loopback interface of the host, so a host has one Firefox at a time. The browser is the first
process of a PID namespace, so the kernel kills all of its processes when it exits.
"""

import json
import os
import socket
import subprocess
import tempfile
from pathlib import Path

from browser import trust
from hosts import eventually

PORT = 2828

# It must not contact servers of its own, nor take a host without a way to the Internet for offline.
PREFERENCES = {
    "marionette.port": PORT,
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.sessionstore.resume_from_crash": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "media.autoplay.default": 0,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disableIPv6": True,
    "network.manage-offline-status": False,
    "network.trr.mode": 5,
    "services.settings.server": "data:,none",
    "toolkit.telemetry.enabled": False,
}

# In a mount namespace of the browser's own, host names come from a file, and no DNS server is waited for.
START = 'mount --bind "$1" /etc/hosts && mount --bind /dev/null /etc/resolv.conf && shift && exec "$@"'

# Evaluates a script as if the page had, waits for what it promises, and passes its value as JSON.
EVALUATE = r"""
const [source, done] = arguments;
const told = `(async () => {
  try {
    return JSON.stringify({ value: await (0, eval)(${JSON.stringify(source)}) });
  } catch (error) {
    return JSON.stringify({ thrown: String(error) + "\\n" + (error?.stack ?? "") });
  }
})()`;
window.eval(told).then(done);
"""

# Declarations of a script element stay in the page, unlike those of an evaluated script.
INCLUDE = """
const script = document.createElement("script");
script.textContent = arguments[0];
document.documentElement.append(script);
"""


class Firefox:
    """A browser with one empty page, which is used like a `browser.Browser`. `preferences` add to those above."""

    def __init__(self, host, authority, names, preferences=None):
        self._home = tempfile.TemporaryDirectory(prefix="hairpin-firefox-", ignore_cleanup_errors=True)
        home = self.home = Path(self._home.name)
        profile, hosts = home / "profile", home / "hosts"
        trust(profile, authority)
        pairs = (PREFERENCES | (preferences or {})).items()
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in pairs]
        (profile / "user.js").write_text("".join(lines))
        known = {"localhost": "127.0.0.1", socket.gethostname(): "127.0.0.1", **names}
        hosts.write_text("".join(f"{address} {name}\n" for name, address in known.items()))
        browser = ["firefox-esr", "--headless", "--marionette", "--no-remote", "--profile", profile]
        namespace = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
        self._host = host
        self._log = home / "log"
        self._connection = None
        with open(self._log, "wb") as log:
            variables = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "MOZ_CRASHREPORTER_DISABLE": "1"}
            self.process = host.start(
                *namespace, "sh", "-c", START, "sh", hosts, *browser, stdout=log, stderr=log, env=variables
            )
        self._received = b""
        self._asked = 0

    def open(self, script, url=None):
        """Waits for the page, loads a URL into it if one is given, and runs a script in it."""

        def connects():
            """the browser takes commands"""
            assert self.process.poll() is None, f"the browser ended:\n{self._log.read_text()}"
            try:
                self._connection = self._host.tcp("127.0.0.1", PORT)
                return True
            except OSError:
                return False

        if not self._connection:
            eventually(connects, 60)
            self._receive()  # a greeting
            self._ask("WebDriver:NewSession", 180, capabilities={})  # a loaded machine takes long
            self._ask("WebDriver:SetTimeouts", script=600_000, pageLoad=60_000)
        if url:
            self.load(url)
        self._ask("WebDriver:ExecuteScript", script=INCLUDE, args=[script])
        return self

    def load(self, url):
        """Loads a URL into the page; whatever ran there ends."""
        self._ask("WebDriver:Navigate", url=url)

    def run(self, script, timeout=60):
        """Returns the value of a script, or the value its promise resolves to. Fails if the script throws."""
        told = self._ask("WebDriver:ExecuteAsyncScript", timeout, script=EVALUATE, args=[script])["value"]
        result = json.loads(told)
        assert "thrown" not in result, result["thrown"]
        return result.get("value")

    def close(self):
        """Closes the browser and removes its files."""
        if self._connection:
            self._connection.close()
        self.process.kill()
        self.process.wait()
        self._home.cleanup()

    def _ask(self, method, timeout=60, **parameters):
        self._asked += 1
        question = json.dumps([0, self._asked, method, parameters]).encode()
        self._connection.settimeout(timeout)
        self._connection.sendall(b"%d:%s" % (len(question), question))
        try:
            kind, asked, error, result = self._receive()
        except TimeoutError:
            raise AssertionError(f"the browser did not respond to {method} in time:\n{self._log.read_text()}") from None
        assert (kind, asked) == (1, self._asked), "a response to something else"
        assert not error, f"{method}: {error['error']}: {error['message']}"
        return result

    def _receive(self):
        """The next message: its length, a colon and JSON."""
        while b":" not in self._received:
            self._read()
        length, _, self._received = self._received.partition(b":")
        while len(self._received) < int(length):
            self._read()
        message, self._received = self._received[: int(length)], self._received[int(length) :]
        return json.loads(message)

    def _read(self):
        received = self._connection.recv(1 << 16)
        assert received, f"the browser ended:\n{self._log.read_text()}"
        self._received += received
