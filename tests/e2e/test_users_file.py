"""Users in files: a hundred thousand of them, changed by reloads while calls go on, and mistakes that change nothing."""

import signal

import coturn
import relay as daemon
import stun
from calls import Calls
from hosts import eventually
from relay import REALM
from turn import User, error_code

COUNT = 100_000


def name(n):
    return f"user-{n:06}"


def password(n):
    return f"the password of {n:06}"


def line(n):
    """Every tenth user has a key, as in coturn's databases, and every seventh a limit."""
    key = stun.long_term_key(stun.MD5, name(n), REALM, password(n)).hex()
    secret = f"0x{key}" if n % 10 == 0 else password(n)
    return f"{name(n)}:{secret}" + (":5" if n % 7 == 0 else "")


def user(n, algorithm=None):
    return User(name(n), password(n), algorithm)


def write(path, lines):
    """Replaces a file at once, so that nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_text("# users\n" + "\n".join(lines) + "\n")
    new.chmod(0o600)
    new.rename(path)


def reload(relay):
    """Sends SIGHUP, waits for the result, and returns its log message."""
    told = lambda: [line for line in relay.lines() if line["message"].startswith("SIGHUP: ")]
    before = len(told())
    relay.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(told()) > before, timeout=60)
    return told()[-1]["message"]


def start_with(start, host, path, **auth):
    """A relay whose only users are those of a file. Deriving the keys of many takes a while on a machine that is busy."""
    auth = {"users_file": str(path), "secrets": [], "user": [], **auth}
    relay = start(host, wait=False, workers=2, auth=auth)
    eventually(lambda: relay.lines("workers run"), timeout=120)
    return relay.wait_until_healthy()


def test_a_hundred_thousand_users(start, host, clients, peers, connect, tmp_path):
    """Any of 100,000 users makes calls. A reload replaces the password of one, adds one and removes one, in place: a call
    beside it loses no packet. With `on_removal = "end"`, the calls of users that are gone end, and no others.
    """
    path = tmp_path / "users"
    lines = [line(n) for n in range(COUNT)]
    write(path, lines)
    relay = start_with(start, host, path, on_removal="end")
    assert relay.ask("status")["auth"]["users"] == COUNT
    for n in (0, 1, 7, COUNT // 2, COUNT - 1):
        connect(user(n)).allocate()
        assert error_code(connect(User(name(n), "another password")).allocate) == 401
    assert error_code(connect(User("user-1", password(1))).allocate) == 401
    with coturn.echo_peer(peers):
        last = coturn.uclient(
            clients, host.v4, "-e", peers.v4, "-n", 20, "-m", 1, user=name(COUNT - 1), password=password(COUNT - 1)
        )
    assert last.status == 0 and last.sent == last.received > 0, last.output

    running, leaving = connect(user(3)), connect(user(4))
    for client in (running, leaving):
        client.allocate()
    calls = Calls([running], peers)
    lines[5] = f"{name(5)}:a new password"
    del lines[4]
    lines.append("zoe:the password of zoe")
    write(path, lines)
    relay.process.send_signal(signal.SIGHUP)
    outcome = calls.run(3, 300)
    said = eventually(lambda: [line for line in relay.lines() if line["message"].startswith("SIGHUP: ")], timeout=60)
    assert "is reloaded" in said[0]["message"], said
    assert outcome.loss == 0
    [changed] = [line for line in relay.lines() if line["message"].startswith("reloaded: auth.users_file")]
    assert "1 added, 1 removed, 1 changed, 100000 users now" in changed["message"], changed
    connect(User("zoe", "the password of zoe")).allocate()
    connect(User(name(5), "a new password")).allocate()
    assert error_code(connect(user(5)).allocate) == 401
    assert error_code(connect(user(4)).allocate) == 401
    relay.line("allocation closed", user=name(4))
    assert error_code(leaving.refresh) == 401
    assert running.refresh() == 600
    calls.close()
    for secret in ("the password of", "a new password", "0x"):
        assert secret not in relay.log


def test_a_limit_of_a_user_of_a_file(start, host, connect, tmp_path):
    """`name:password:limit`: requests for more allocations than the limit are refused with 486."""
    path = tmp_path / "users"
    write(path, ["alice:wonder:2", "bob:builder"])
    start_with(start, host, path)
    codes = [error_code(connect(User("alice", "wonder")).allocate) for _ in range(3)]
    assert codes == [0, 0, 486]
    for _ in range(3):
        connect(User("bob", "builder")).allocate()


def test_toml_and_both_generations_of_credentials(start, host, connect, tmp_path):
    """The sections `[[user]]` of a file, and lines of another one: RFC 8489 clients with SHA-256 and USERHASH, too."""
    sections, lines = tmp_path / "users.toml", tmp_path / "users"
    sections.write_text('[[user]]\nname = "al:ice"\npassword = "won:5"\n\n[[user]]\nname = "carol"\npassword = "c"\n')
    write(lines, ["bob:won:der:"])
    relay = start(host, auth={"users_file": [str(sections), str(lines)], "secrets": [], "user": []})
    for who, secret in (("al:ice", "won:5"), ("bob", "won:der"), ("carol", "c")):
        connect(User(who, secret)).allocate()
        connect(User(who, secret, stun.SHA256)).allocate()
        connect(User(who, secret, stun.SHA256, hashed=True)).allocate()
    assert relay.ask("status")["auth"]["users"] == 3


def test_a_broken_file_changes_nothing(start, host, connect, tmp_path):
    """The error names file and line of a mistake, never a password, and everything is as before."""
    path = tmp_path / "users"
    write(path, ["alice:wonder", "bob:builder"])
    relay = start_with(start, host, path)
    call = connect(User("alice", "wonder"))
    call.allocate()
    for lines, said in (
        (["carol:hush", "bob:hush", "nonsense hush"], f"{path}:4: has no colon"),
        (["carol:hush", "bob:hush", "carol:hush"], f'{path}:4: the user "carol" is listed already in {path}:2'),
        (["carol:hush:hush"], f"{path}:2: has after the last colon what is no number"),
    ):
        write(path, lines)
        assert "nothing has changed: the configuration has 1 mistake" in reload(relay)
        assert any(line["level"] == "ERROR" and said in line["message"] for line in relay.lines()), relay.log
    path.write_text("")
    assert "nothing has changed" in reload(relay)
    path.unlink()
    assert "nothing has changed" in reload(relay)
    connect(User("bob", "builder")).allocate()
    assert call.refresh() == 600 and "hush" not in relay.log
    write(path, ["bob:builder"])
    assert "1 setting has changed" in reload(relay)
    assert call.refresh() == 600, "`on_removal` is `keep`"
    assert error_code(connect(User("alice", "wonder")).allocate) == 401
