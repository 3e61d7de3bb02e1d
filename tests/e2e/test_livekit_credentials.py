"""LiveKit's own credentials, which it issues for its embedded TURN server: `auth.livekit_keys_file`."""

import hashlib
import signal
import time
from pathlib import Path

import pytest

import relay as daemon
import stun
from conftest import NAME
from hosts import eventually
from relay import SECRET
from turn import User, error_code, named

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
KEYS = {"APIone": "the secret of the first API key of LiveKit", "APItwo": "the secret of the second API key of LiveKit"}


def base62(data):
    """LiveKit's base62: six bits a digit from the least significant end, five where six would be 62 or 63."""
    number, left, text = int.from_bytes(data, "big"), len(data) * 8, ""
    while left > 0:
        digit, taken = number & 0x3F, 6
        if digit & 0x1E == 0x1E:
            taken = 5 if left > 6 or digit > 0x1F else 6
            digit &= 0x1F
        text += ALPHABET[digit]
        number >>= taken
        left -= taken
    return text


def participant(sid, ttl=300, key="APIone", secret=None, algorithm=None):
    """A participant with the credentials that LiveKit makes; without `ttl`, in the form of LiveKit up to 1.11."""
    end = f"|{int(time.time()) + ttl}" if ttl is not None else ""
    digest = hashlib.sha256(f"{secret or KEYS[key]}|{sid}{end}".encode()).digest()
    return User(base62(f"{key}|{sid}{end}".encode()), base62(digest), algorithm)


def write_keys(folder, keys):
    """Writes a file as LiveKit's `key_file`."""
    file = folder / "livekit-keys.yaml"
    file.write_text("# keys of LiveKit\n" + "".join(f"{key}: {secret}\n" for key, secret in keys.items()))
    file.chmod(0o600)
    return file


@pytest.fixture
def livekit(start, host, tmp_path):
    """Starts a relay that has no other credentials than LiveKit's API keys, but for `auth`."""

    def livekit(**auth):
        keys = str(write_keys(tmp_path, KEYS))
        return start(host, auth={"secrets": [], "user": [], "livekit_keys_file": keys, **auth})

    return livekit


def test_the_scheme_matches_its_vectors():
    """The implementation of these tests makes what LiveKit does."""
    for data, text in [(b"Hello", "vxGblhE"), (b"a", "hB"), (bytes([0, 1]), "BAA"), (bytes([255] * 4), "ffffffD")]:
        assert base62(data) == text
    digest = hashlib.sha256(b"TestSecret|PA_valid|2000000000").digest()
    assert base62(b"APITestKey|PA_valid|2000000000") == "wADMwADMwADMywHZpxWY29VQQxXeKbJ6mrMqSCqgA"
    assert base62(digest) == "oKMUpxGjMeShED8Lybhy0u12sSfQ7S0TxAVayZRrZTP"


def test_both_forms_and_every_key(livekit, connect, peers):
    """Credentials of each API key, with two parts and with three, with MD5 and SHA-256, relay in any realm. The relay needs no
    other credentials, and does not offer username anonymity.
    """
    relay = livekit()
    users = [participant(f"PA_{key}{ttl}", ttl, key) for key in KEYS for ttl in (300, None)]
    users += [participant("PA_md5", algorithm=stun.MD5), participant("PA_sha256", algorithm=stun.SHA256)]
    with peers.udp() as peer:
        for user in users:
            client = connect(user)
            client.allocate()
            assert stun.features(client.nonce) == stun.COOKIE_PASSWORD_ALGORITHMS
            channel = client.bind(peer.getsockname())
            client.send_channel(channel, b"hello")
            assert peer.recvfrom(100)[0] == b"hello"
            assert client.refresh() == 600
    listed = {one["user"] for one in relay.ask("list")["allocations"]}
    assert listed == {"PA_APIone300", "PA_APIoneNone", "PA_APItwo300", "PA_APItwoNone", "PA_md5", "PA_sha256"}


def test_a_call_outlives_its_credential(livekit, connect, peers):
    """Allocate judges the expiry; Refresh, permissions and channels go on after it. The log tells what to look at."""
    relay = livekit()
    client = connect(participant("PA_x", ttl=2))
    client.allocate()
    time.sleep(3)
    assert client.refresh() == 600
    with peers.udp() as peer:
        client.permit(peers.v4)
        channel = client.bind(peer.getsockname())
        client.send_channel(channel, b"still here")
        assert peer.recvfrom(100)[0] == b"still here"
    assert error_code(connect(client.user).allocate) == 401
    assert "clocks" in relay.line("refused", reason="expired")["fix"]


def test_refusals_are_explained(livekit, connect):
    """An unknown API key, another secret, too long a life and a form that is turned off are refused with 401, and the log names the
    API key and the setting, and no secret.
    """
    relay = livekit(livekit_two_part=False, max_lifetime=600)
    for user, reason, words in [
        (participant("PA_x", key="APIthree", secret="x"), "unknown_user", ["APIthree", "auth.livekit_keys_file"]),
        (participant("PA_x", secret="another secret"), "wrong_password", ["APIone", "auth.livekit_keys_file"]),
        (participant("PA_x", ttl=700), "expiry_too_far", ["turn.ttl_seconds", "auth.max_lifetime"]),
        (participant("PA_x", ttl=None), "unknown_user", ["auth.livekit_two_part = true"]),
    ]:
        assert error_code(connect(user).allocate) == 401
        line = relay.line("refused", user=user.name)
        assert line["reason"] == reason and all(word in line["fix"] for word in words), line
    connect(participant("PA_x", ttl=500)).allocate()
    assert not any(secret in relay.log for secret in KEYS.values())


def test_one_revocation_refuses_a_participant(livekit, connect):
    """A sid has credentials of several forms: one revocation ends its allocations and refuses all of them, also the one that never
    expires, and no one else's.
    """
    relay = livekit(secrets=[SECRET])
    shared = named(SECRET, f"{int(time.time()) + 60}:PA_gone")
    users = [participant("PA_gone"), participant("PA_gone", ttl=None), shared]
    for user in [*users, participant("PA_stays")]:
        connect(user).allocate()
    relay.ctl("revoke", "PA_gone", "--for", "1h")
    eventually(lambda: [one["user"] for one in relay.ask("list")["allocations"]] == ["PA_stays"])
    for user in users:
        assert error_code(connect(user).allocate) == 401
        assert "hairpin ctl unrevoke" in relay.line("refused", user=user.name, reason="revoked")["fix"]
    connect(participant("PA_gone", ttl=7200)).allocate()


@pytest.mark.parametrize("on_removal", ["keep", "end"])
def test_a_removed_key_after_a_reload(on_removal, livekit, connect, tmp_path):
    """A reload reads the file again. New allocations need a key that is there; running ones of a removed key end if
    `auth.on_removal` says so.
    """
    relay = livekit(on_removal=on_removal)
    first, second = connect(participant("PA_one")), connect(participant("PA_two", key="APItwo"))
    first.allocate(), second.allocate()
    write_keys(tmp_path, {"APItwo": KEYS["APItwo"], "APIthree": "the secret of the third API key of LiveKit"})
    relay.process.send_signal(signal.SIGHUP)
    line = eventually(lambda: [one for one in relay.lines() if one["message"].startswith("SIGHUP: ")])[0]
    assert "is reloaded" in line["message"], line
    assert [one for one in relay.lines() if "auth.livekit_keys_file: changed" in one["message"]]
    kept = ["PA_one", "PA_two"] if on_removal == "keep" else ["PA_two"]
    eventually(lambda: [one["user"] for one in relay.ask("list")["allocations"]] == kept)
    assert second.refresh() == 600
    assert error_code(connect(participant("PA_one")).allocate) == 401
    connect(participant("PA_3", key="APIthree", secret="the secret of the third API key of LiveKit")).allocate()


def test_the_status_tells_who_may_use_the_relay(livekit, tmp_path):
    """A program that registers the relay learns what it needs, and no secret."""
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{SECRET}\na second secret of this test\n")
    secrets.chmod(0o600)
    relay = livekit(secret_files=[str(secrets)], max_lifetime=86400)
    status = relay.ask("status")
    assert status["auth"] == {
        "realm": daemon.REALM,
        "shared_secrets": 2,
        "secret_files": [str(secrets)],
        "livekit_keys": 2,
        "livekit_two_part": True,
        "users": 0,
        "max_lifetime": 86400,
    }
    text = relay.ctl("status")
    line = next(line for line in text.splitlines() if line.startswith("auth "))
    assert "2 shared secrets" in line and "2 LiveKit API keys" in line and str(secrets) in line, line
    everything = text + str(status) + relay.log
    assert not any(secret in everything for secret in [SECRET, *KEYS.values()])


def test_the_status_tells_of_a_generated_secret(start, host, tls, tmp_path):
    """A secret that the relay has generated is in a file of the state directory, until the configuration has others. The names of
    the certificate are those by which clients verify it.
    """
    state = tmp_path / "state"
    nobody = {"secrets": [], "user": []}
    listen = {"tls": ["0.0.0.0:5349"]}
    relay = start(host, "--state-dir", state, auth=nobody, tls=tls, listen=listen)
    status = relay.ask("status")
    assert status["domain"] is None and status["auth"]["shared_secrets"] == 1
    [file] = status["auth"]["secret_files"]
    assert file == str(state / "secret") and Path(file).read_text().strip() not in str(status)
    [certificate] = status["certificates"]
    assert NAME in certificate["names"] and not certificate["self_signed"]
    assert NAME in next(line for line in relay.ctl("status").splitlines() if line.startswith("certificate "))
    (relay.folder / "hairpin.toml").write_text(daemon.toml(daemon.configuration(host, tls=tls, listen=listen)))
    relay.ctl("reload")
    auth = relay.ask("status")["auth"]
    assert (auth["secret_files"], auth["shared_secrets"], auth["users"]) == ([], 1, 1)
