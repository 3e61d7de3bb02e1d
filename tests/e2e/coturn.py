"""coturn's test clients: `turnutils_uclient`, the echo peer it talks to, and `turnutils_stunclient`.

uclient sends EVEN-PORT with a reservation, redeems the token from another 5-tuple and counts what comes back, which
takes it seconds a run: tests run side by side.
"""

import contextlib
import functools
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

PEER_PORT = 3480


class Run(NamedTuple):
    """How a run of uclient ended."""

    status: int | None
    sent: int
    received: int
    output: str


@contextlib.contextmanager
def echo_peer(host):
    """A peer that sends back what it gets, on ports 3480 and 3481 of all addresses of a host."""
    echo = ["turnutils_peer", *(word for address in (host.v4, host.v6) for word in ("-L", address))]
    running = [
        host.start(*echo, "-p", port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for port in (PEER_PORT, PEER_PORT + 1)
    ]
    try:
        yield
    finally:
        for peer in running:
            peer.kill()
            peer.wait()


def uclient(host, server, *options, user=None, password=None, limit=100):
    """Runs uclient to its end, or until `limit` seconds have passed (then it has no status)."""
    credentials = ["-u", user, "-w", password] if password else ["-u", user]
    preload = ["env", f"LD_PRELOAD={_channels()}"]
    running = host.start(
        *[*preload, "turnutils_uclient", *credentials, *options, server],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = running.communicate(timeout=limit)
        status = running.returncode
    except subprocess.TimeoutExpired:
        running.kill()
        output, _ = running.communicate()
        status = None
    totals = re.findall(r"start_mclient: tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)
    sent, received = map(int, totals[-1]) if totals else (0, 0)
    return Run(status, sent, received, output[-5000:])


@functools.cache
def _channels():
    """A path to the library that keeps uclient's channel numbers in range (channels.c). It is in no file system."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "channels.so"
        source = Path(__file__).with_name("channels.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        memory = os.memfd_create("channels.so")
        os.write(memory, library.read_bytes())
    return f"/proc/{os.getpid()}/fd/{memory}"


def stunclient(host, server, port=3478):
    """Runs stunclient; returns what it printed."""
    return host.run("turnutils_stunclient", "-p", port, server)
