"""Credentials as Synapse, Nextcloud Talk, Prosody, Janus, MediaMTX, BigBlueButton and LiveKit make them, with the relay of
docs/integrations.md. The names and passwords are made here as each of the products does, with Python's own HMAC.
"""

import base64
import hmac
import re
import time

import pytest

from conftest import NAME
from documents import DOCS, configurations
from hosts import eventually
from test_documents import SECRET, documented_relay, host  # noqa: F401 fixtures
from turn import Client, User, error_code

DAY = 86_400

# The name of each product, for an expiry; the user that it counts as.
NAMES = {
    "Synapse": ("%d:%s", "@alice:example.org", "@alice:example.org"),
    "Nextcloud Talk": ("%d:%s", "abcdefghijklmnop", "abcdefghijklmnop"),
    "Jitsi Meet": ("%d%s", "", None),
    "Prosody with a username": ("%d:%s", "jitsi", "jitsi"),
    "Janus with a service": ("%d:%s", "janus", "janus"),
    "MediaMTX": ("%d:%s", "c3k1l0xq8z7m2n4p5r6t", "c3k1l0xq8z7m2n4p5r6t"),
    "BigBlueButton": ("%d:%s", "w_hi2cyjqbxlfs", "w_hi2cyjqbxlfs"),
    "Element Call": ("%d:%s", "PA_7DsGnvYbdBhM", "PA_7DsGnvYbdBhM"),
}


def credentials(product, ttl, secret=SECRET):
    """What a client of the product gets, and whom it counts as."""
    form, user, counts_as = NAMES[product]
    name = form % (int(time.time()) + ttl, user)
    password = base64.b64encode(hmac.digest(secret.encode(), name.encode(), "sha1")).decode()
    return User(name, password), counts_as or name


def quoted(reason):
    """The words of the page's line for a reason, but for the client, its name and numbers."""
    [line] = re.findall(rf'^ {{4}}INFO (refused .* reason="{reason}" .*)$', (DOCS / "integrations.md").read_text(), flags=re.M)
    return [part for part in re.split(r'client=\S+|user="[^"]*"|expires_in=\S+', line) if part.strip()]


def test_credentials_of_each_product(documented_relay, host, clients, peers):  # noqa: F811
    """The rule: what a product makes is accepted by the documented relay and relays; an expired one and one with another secret are
    refused, with the lines that the page has.
    """
    page = configurations("integrations.md", "## The relay")
    relay = documented_relay(page["hairpin.toml"], f"{peers.v4}:1-65535")
    server = (host.v4, 3478)
    for product in NAMES:
        user, counts_as = credentials(product, DAY)
        with Client(clients, server, user) as client, peers.udp(peers.v4) as peer:
            client.allocate()
            channel = client.bind(peer.getsockname())
            client.send_channel(channel, product.encode())
            assert peer.recvfrom(100)[0] == product.encode()
            assert [row["user"] for row in relay.ask("list")["allocations"]] == [counts_as], product
            client.refresh(0)
        for user, reason in [
            (credentials(product, -60)[0], "expired"),
            (credentials(product, DAY, SECRET + "\n")[0], "wrong_password"),
        ]:
            with Client(clients, server, user) as client:
                assert error_code(client.allocate) == 401, product
    for reason in ("expired", "wrong_password"):
        lines = lambda: [line for line in relay.log.splitlines() if f'reason="{reason}"' in line]
        eventually(lambda: len(lines()) == len(NAMES))
        for line in lines():
            assert all(part.strip() in line for part in quoted(reason)), line
    assert SECRET not in relay.log


def test_a_static_user_for_janus(documented_relay, host, clients):  # noqa: F811
    """Janus has a user of its own, whose name and password are those of its configuration."""
    page = configurations("integrations.md", "## Janus")
    documented_relay(page["hairpin.toml"])
    [name], [password] = (re.findall(rf'{key} = "(.*)"', page["janus.jcfg"]) for key in ("turn_user", "turn_pwd"))
    with Client(clients, (host.v4, 3478), User(name, password)) as client:
        client.allocate()


def test_the_documented_secret_is_everywhere_the_same():
    """A configuration of another product has the secret of the relay's file."""
    text = (DOCS / "integrations.md").read_text()
    for key in ("turn_shared_secret: ", "external_service_secret = ", "value="):
        assert f'{key}"{SECRET}"' in text, key
    assert NAME in text
