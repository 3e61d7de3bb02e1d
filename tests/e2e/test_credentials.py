"""Authentication: both generations of long-term credentials, time-limited user names, secret rotation and stale nonces.
No secret leaks. RFC 8489 §9.2.
"""

import hashlib
import time
from pathlib import Path

import pytest

import stun
from relay import PASSWORD, REALM, SECRET, USER
from turn import Refused, User, error_code, named, time_limited

TRANSPORT = (stun.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))
STATIC = {"secrets": []}

GENERATIONS = {
    "RFC 5389": User(USER, PASSWORD),
    "MD5 chosen": User(USER, PASSWORD, stun.MD5),
    "SHA-256 chosen": User(USER, PASSWORD, stun.SHA256),
    "MD5 and USERHASH": User(USER, PASSWORD, stun.MD5, hashed=True),
    "SHA-256 and USERHASH": User(USER, PASSWORD, stun.SHA256, hashed=True),
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_of_clients(generation, start, host, connect, peers):
    """RFC 8489 §9.2.3, §9.2.4, §14.4: clients of every generation can relay. The client class checks that each response
    is signed with the algorithm of its request.
    """
    start(host, auth=STATIC)
    client = connect(GENERATIONS[generation])
    client.allocate()
    offered = client.algorithms
    assert offered == bytes([0, stun.SHA256, 0, 0, 0, stun.MD5, 0, 0])
    assert stun.features(client.nonce) == stun.COOKIE_PASSWORD_ALGORITHMS | stun.COOKIE_ANONYMITY
    with peers.udp() as peer:
        channel = client.bind(peer.getsockname())
        client.send_channel(channel, b"hello")
        assert peer.recvfrom(100)[0] == b"hello"
    assert client.refresh() == 600


def test_time_limited_users_have_both_algorithms(start, host, connect):
    """Shared secrets work with SHA-256 too. User anonymity is not offered, because a hashed name cannot carry an expiry
    time.
    """
    start(host)
    name, password, *_ = time_limited(SECRET, "bob")
    for algorithm in (None, stun.MD5, stun.SHA256):
        client = connect(User(name, password, algorithm))
        client.allocate()
        assert stun.features(client.nonce) == stun.COOKIE_PASSWORD_ALGORITHMS


def test_a_user_with_only_an_md5_key(start, host, connect):
    """A user known only by an MD5 key disables SHA-256 for everyone, and a warning says so."""
    key = hashlib.md5(f"{USER}:{REALM}:{PASSWORD}".encode()).hexdigest()
    relay = start(host, auth={"user": [{"name": USER, "key": key}]})
    client = connect()
    client.allocate()
    assert client.algorithms == bytes([0, stun.MD5, 0, 0])
    warned = [line["message"] for line in relay.lines() if line["level"] == "WARN"]
    assert any("SHA-256" in line and USER in line for line in warned), warned


def test_bid_down_is_rejected(start, host, connect):
    """RFC 8489 §9.2.1, §9.2.4: bid-down attacks on the algorithm list or on the nonce are rejected."""
    start(host)
    client = connect(User(USER, PASSWORD, stun.MD5))
    client.challenge()
    client.algorithms = bytes([0, stun.MD5, 0, 0])
    assert client.ask(stun.ALLOCATE, TRANSPORT).code == 400
    client = connect()
    client.challenge()
    client.nonce = stun.COOKIE_PREFIX + b"AAAA" + client.nonce[13:]
    assert client.ask(stun.ALLOCATE, TRANSPORT).code in (401, 438)


def test_refusals_are_indistinguishable(start, host, connect):
    """RFC 8489 §9.2.4: missing credentials, an unknown user, a wrong password and an expired user name get identical
    401 responses.
    """
    relay = start(host)
    expired = time_limited(SECRET, "bob", ttl=-10)
    users = [User("mallory", PASSWORD), User(USER, "wrong"), expired, time_limited("not the secret", "bob")]
    looks = set()
    for user in [None, *users]:
        client = connect(user)
        if user:
            client.challenge()
        response = client.ask(stun.ALLOCATE, TRANSPORT)
        assert response.code == 401
        looks.add(tuple((kind, value) for kind, value in response.attributes if kind != stun.NONCE))
    assert len(looks) == 1, looks
    for reason in ("unknown_user", "wrong_password", "expired"):
        relay.reaches("auth_failures_total", 1, reason=reason)


def test_stale_nonce(start, host, connect):
    """RFC 8489 §9.2.4, §9.2.5: a 438 response carries a new nonce, with which the client continues."""
    start(host, auth={"nonce_lifetime": 1})
    client = connect()
    client.allocate()
    first = client.nonce
    time.sleep(2.1)  # nonces have a resolution of one second
    response = client.ask(stun.REFRESH)
    assert response.code == 438 and response.get(stun.NONCE) != first
    assert client.refresh() == 600 and client.nonce != first


def test_a_nonce_is_bound_to_its_client(start, host, connect):
    """RFC 8489 §9.2.4: a nonce is valid for one 5-tuple only."""
    start(host)
    one, other = connect(), connect()
    one.challenge()
    other.challenge()
    other.nonce = one.nonce
    assert other.ask(stun.ALLOCATE, TRANSPORT).code == 438


def test_another_users_allocation(start, host, connect):
    """RFC 8656 §5: 441 for a user that did not create the allocation, 437 if there is no allocation."""
    start(host)
    client = connect()
    assert error_code(client.refresh) == 437
    client.allocate()
    client.user, client.key, client.nonce = time_limited(SECRET, "bob"), None, None
    client.challenge()
    assert error_code(client.refresh) == 441


def test_secrets_are_rotated(start, host, connect):
    """Several secrets can be configured; credentials made from any of them are valid."""
    start(host, auth={"secrets": ["the new shared secret", SECRET]})
    for secret in ("the new shared secret", SECRET):
        connect(time_limited(secret, "bob")).allocate()
    assert error_code(connect(time_limited("a secret long gone", "bob")).allocate) == 401


def test_names_without_a_user_part(start, host, connect):
    """A bare expiry time is a valid user name. `user:expiry` is valid only with `user_before_expiry`."""
    relay = start(host)
    expiry = int(time.time()) + 3600
    connect(named(SECRET, f"{expiry}")).allocate()
    swapped = named(SECRET, f"bob:{expiry}")
    assert error_code(connect(swapped).allocate) == 401
    assert relay.stop() == 0
    relay = start(host, auth={"user_before_expiry": True})
    connect(swapped).allocate()
    assert relay.line("allocation opened")["user"] == "bob"


def test_expiry_does_not_end_a_running_call(start, host, connect, peers):
    """The expiry of a user name is checked by Allocate only; a running call continues."""
    start(host)
    client = connect(time_limited(SECRET, "bob", ttl=2))
    client.allocate()
    time.sleep(3)
    assert client.refresh() == 600
    with peers.udp() as peer:
        client.permit(peers.v4)
        client.send(peer.getsockname(), b"still here")
        assert peer.recvfrom(100)[0] == b"still here"
    again = connect(client.user)
    assert error_code(again.allocate) == 401


@pytest.mark.parametrize("ttl", [31 * 86400, int(time.time()) * 999], ids=["31 days", "milliseconds"])
def test_an_expiry_too_far_away(ttl, start, host, connect):
    """A credential that expires later than `auth.max_lifetime` allows opens no allocation, and the log says why."""
    relay = start(host)
    user = time_limited(SECRET, "bob", ttl=ttl)
    assert error_code(connect(user).allocate) == 401
    assert relay.line("refused", reason="expiry_too_far")["user"] == user.name
    relay.reaches("auth_failures_total", 1, reason="expiry_too_far")
    connect(time_limited(SECRET, "bob", ttl=29 * 86400)).allocate()


def test_secrets_from_files_and_the_environment(start, host, connect, tmp_path):
    """Secrets and passwords can be read from files, shared secrets also from the environment."""
    (tmp_path / "secrets").write_text("the first secret in a file\n\nthe second secret in a file\n")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    auth = {
        "secrets": [],
        "secret_files": [str(tmp_path / "secrets")],
        "user": [{"name": USER, "password_file": str(tmp_path / "password")}],
    }
    start(host, auth=auth, process={"environment": {"HAIRPIN_AUTH_SECRET": SECRET}})
    connect().allocate()
    for secret in ("the first secret in a file", "the second secret in a file", SECRET):
        connect(time_limited(secret, "bob")).allocate()


def test_secrets_never_leak(start, host, connect):
    """Secrets appear neither in the log at its most verbose level, nor in metrics, nor in the process list."""
    relay = start(
        host,
        log={"level": "trace"},
        process={"environment": {"HAIRPIN_AUTH_SECRET": "secret of the environment"}},
    )
    bob = time_limited(SECRET, "bob")
    for user in (User(USER, PASSWORD), bob, User(USER, "wrong password"), User("mallory", "mallory's own")):
        client = connect(user)
        try:
            client.allocate()
            client.permit("8.8.8.8")
            client.refresh(0)
        except Refused:
            pass
    relay.reaches("auth_failures_total", 1, reason="unknown_user")
    command = Path(f"/proc/{relay.process.pid}/cmdline").read_text()
    page = relay.get("/metrics")[2]
    assert relay.stop() == 0
    secrets = [SECRET, PASSWORD, bob.password, "secret of the environment", "wrong password", "mallory's own"]
    secrets += [stun.long_term_key(stun.MD5, USER, REALM, PASSWORD).hex(), client.nonce.decode()]
    for secret in secrets:
        for place in (relay.log, relay.output, page, command):
            assert secret not in place, secret
    names = [USER, "bob", "mallory"]
    assert not any(name in page for name in names), "no label contains a value that a client chose"


def test_retransmissions_outlive_the_nonce(start, host, workers, connect):
    """RFC 8489 §6.3.1: the same bytes again get the same response, although the nonce has expired in between; a
    new request gets a 438.
    """
    relay = start(host, workers=workers, auth={"nonce_lifetime": 6})
    client, other = connect(), connect()
    other.allocate()
    client.challenge()
    sent = []
    for method, *attributes in ((stun.ALLOCATE, TRANSPORT), (stun.REFRESH, (stun.LIFETIME, stun.number(900)))):
        raw, transaction = client.prepare(method, *attributes)
        client.socket.sendto(raw, client.server)
        sent.append((raw, transaction, client.response(transaction, 5)))
    time.sleep(8)
    for raw, transaction, first in sent:
        client.socket.sendto(raw, client.server)
        again = client.response(transaction, 5)
        assert again.code == first.code == 0
        relayed = stun.XOR_RELAYED_ADDRESS
        assert again.addresses(relayed) == first.addresses(relayed)
    assert client.ask(stun.REFRESH).code == 438
    relay.becomes("allocations", 2)
    assert relay.metric("allocations_opened_total") == 2
