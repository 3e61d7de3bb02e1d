"""coturn's test programs: `turnutils_uclient`, the echo peer it needs, and `turnutils_stunclient`.

uclient sends EVEN-PORT with a reservation, redeems the token from another 5-tuple and counts what is echoed. A run
takes seconds.
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
    """The result of a uclient run."""

    status: int | None
    sent: int
    received: int
    output: str


@contextlib.contextmanager
def echo_peer(host):
    """Echoes what it receives on ports 3480 and 3481 of all addresses of a host."""
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


def uclient(host, server, *options, user=None, password=None, limit=100, rfc5766=False):
    """Runs uclient until it exits or until `limit` seconds have passed. In the latter case its status is None. With
    `rfc5766` it uses any channel number of RFC 5766.
    """
    credentials = ["-u", user, "-w", password] if password else ["-u", user]
    preload = [] if rfc5766 else ["env", f"LD_PRELOAD={_channels()}"]
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
    """Builds the library that keeps uclient's channel numbers in range (channels.c), as an anonymous file; returns its
    path.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "channels.so"
        source = Path(__file__).with_name("channels.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        memory = os.memfd_create("channels.so")
        os.write(memory, library.read_bytes())
    return f"/proc/{os.getpid()}/fd/{memory}"


def stunclient(host, server, port=3478):
    """Runs stunclient; returns its output."""
    return host.run("turnutils_stunclient", "-p", port, server)
