"""The small process that runs the embedded broker's server while somebody uses it, and ends it afterwards.

Every user keeps a connection to the control socket open. A connection ends with its process, however that
ends, so counting them needs no cooperation: when the last one has closed, the server is told to end.
``EmbeddedBroker`` starts this process in a session of its own, so that a Ctrl-C in the terminal does not
reach it, and hands over two open files: the listening control socket and the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: What a user reads from the control socket when the server answers; any other line says why it never will.
READY = "ready"
#: Seconds that the server outlives its last user, so that one command after the other finds it running.
GRACE = 0.5
#: Seconds that the server gets to write its files before it is killed.
STOP_TIMEOUT = 10.0
#: A server that lived shorter than this many seconds is not started again.
SHORTEST_LIFE = 1.0

_PING_INTERVAL = 0.01
_PING_TIMEOUT = 1.0
_LOG_TAIL = 4_096
_LOG_PREFIX = re.compile(r"^\d+:\w .{16,32}? [.*#-] ")


class ServerError(Exception):
    """Raised inside the supervisor when the server cannot be started or does not stay up."""


def call_server(server_socket: Path, command: str) -> str:
    """Return the first line of the server's answer to an inline command, or "" when nothing answers."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PING_TIMEOUT)
        connection.connect(str(server_socket))
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(256).decode(errors="replace").strip()
    return ""


def answers_ping(server_socket: Path) -> bool:
    """Return whether a server answers on the socket and has loaded its data."""
    return call_server(server_socket, "PING") == "+PONG"


def last_log_line(log: Path) -> str:
    """Return the last line of the server's log without its process and time, or "" when there is none."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(-min(_LOG_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
        lines = file.read().decode(errors="replace").split("\n")
        return next((_LOG_PREFIX.sub("", line).strip() for line in reversed(lines) if line.strip()), "")
    return ""


class BrokerSupervisor:
    """Runs one server for the users of one control socket; owns the listener and the lock that it is given.

    The server inherits the lock, so that no second server can open its files should the supervisor be killed.
    """

    def __init__(
        self, listener: socket.socket, lock: int, server_socket: Path, log: Path, command: Sequence[str]
    ) -> None:
        self._listener = listener
        self._lock = lock
        self._server_socket = server_socket
        self._log = log
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._is_ready = False
        self._is_ending = False
        self._users: set[socket.socket] = set()
        self._waiting: set[socket.socket] = set()
        self._leaving: set[socket.socket] = set()
        self._unused_since: float | None = time.monotonic()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Keep the server up until its last user has left or SIGTERM arrives; then end it and tidy up."""
        try:
            self._listen()
            self._wake_on_signals()
            self._start_server()
            while self._is_wanted():
                self._handle_news()
                self._look_after_server()
        except ServerError as failure:
            self._welcome_users()
            self._tell_waiting_users(str(failure))
        finally:
            self._stop_server()
            self._remove_sockets()
            self._release_lock_and_users()

    def _listen(self) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._welcome_users)

    def _wake_on_signals(self) -> None:
        self._wakeup, wake = socket.socketpair()
        self._wakeup.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        self._selector.register(self._wakeup, selectors.EVENT_READ, lambda: self._wakeup.recv(256))

    def _end(self, *_: object) -> None:
        self._is_ending = True

    def _start_server(self) -> None:
        self._started_at = time.monotonic()
        try:
            self._server = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, pass_fds=(self._lock,))
        except OSError as error:
            raise ServerError(f"{self._command[0]} cannot be run: {error.strerror}") from error

    def _is_wanted(self) -> bool:
        if self._is_ending:
            return False
        return self._unused_since is None or time.monotonic() < self._unused_since + GRACE

    def _handle_news(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            react: Callable[[], object] = key.data
            react()

    def _patience(self) -> float | None:
        if not self._is_ready:
            return _PING_INTERVAL
        return None if self._unused_since is None else max(0.0, self._unused_since + GRACE - time.monotonic())

    def _welcome_users(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                self._welcome(self._listener.accept()[0])

    def _welcome(self, user: socket.socket) -> None:
        user.setblocking(False)
        self._selector.register(user, selectors.EVENT_READ, lambda: self._hear(user))
        self._users.add(user)
        self._waiting.add(user)
        self._unused_since = None
        self._dismiss_leaving_users()
        if self._is_ready:
            self._tell_waiting_users(READY)

    def _hear(self, user: socket.socket) -> None:
        try:
            is_leaving = user.recv(64) == b""
        except OSError:
            is_leaving = True
        if is_leaving:
            self._see_off(user)

    def _see_off(self, user: socket.socket) -> None:
        self._selector.unregister(user)
        self._users.discard(user)
        self._waiting.discard(user)
        self._leaving.add(user)
        if self._users:
            self._dismiss_leaving_users()
        else:
            self._unused_since = time.monotonic()

    def _dismiss_leaving_users(self) -> None:
        for user in self._leaving:
            user.close()
        self._leaving.clear()

    def _tell_waiting_users(self, news: str) -> None:
        for user in self._waiting:
            with contextlib.suppress(OSError):
                user.sendall(f"{news}\n".encode())
        self._waiting.clear()

    def _look_after_server(self) -> None:
        if self._server is not None and self._server.poll() is not None:
            self._restart_server()
        elif not self._is_ready and answers_ping(self._server_socket):
            self._is_ready = True
            self._tell_waiting_users(READY)

    def _restart_server(self) -> None:
        was_ready, self._is_ready = self._is_ready, False
        if not was_ready or time.monotonic() < self._started_at + SHORTEST_LIFE:
            raise ServerError(last_log_line(self._log) or "the server ended without a word")
        self._start_server()

    def _stop_server(self) -> None:
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _remove_sockets(self) -> None:
        control_socket = Path(self._listener.getsockname())
        self._listener.close()
        control_socket.unlink(missing_ok=True)
        self._server_socket.unlink(missing_ok=True)
        # Only the private directory for the sockets of a long data directory is empty now.
        with contextlib.suppress(OSError):
            control_socket.parent.rmdir()

    def _release_lock_and_users(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        # A user that waits for its connection's end takes it for the end of the server, so this comes last.
        for user in self._users | self._leaving:
            user.close()


def main() -> None:
    """Run the supervisor: ``CONTROL_FD LOCK_FD SERVER_SOCKET LOG COMMAND...``, returning at once.

    The work goes on in a child that the init process adopts: no user waits for it, and it leaves no zombie.
    """
    control, lock, server_socket, log, *command = sys.argv[1:]
    if os.fork():
        os._exit(0)
    BrokerSupervisor(socket.socket(fileno=int(control)), int(lock), Path(server_socket), Path(log), command).run()


if __name__ == "__main__":
    main()
