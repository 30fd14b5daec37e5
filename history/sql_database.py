"""The database behind a ledger: its address, its connections and its transactions."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..errors import EventRefused, HistoryUnavailable, SettingsError

_WRITES = "jobledger_writes"
#: How libpq finds out that a server is gone without a word: within about a quarter of a minute.
_DEAD_SERVER = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
#: How a server finds out that a client is gone, or stopped in the middle of a transaction: what the client has locked
#: there, others wait for in vain.
_DEAD_CLIENT = {
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_SET = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS setting(name, value)"
#: A value that no index takes, for instance: repeating does not mend it.
_LIMIT_EXCEEDED = "54000"
#: Of each connection to an SQLite ledger; the pages of the indexes that a batch touches are all over the file.
_CACHE_KILOBYTES = 16_384
#: Pages of 4 KB after which the write-ahead log is carried over: a page that many batches touch is then written once.
_CHECKPOINT_PAGES = 4_000
#: What repeating does not mend: this user may not write there.
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
#: Seconds of rest after which a connection is asked whether it still stands, before it is used again.
_REST = 0.005
_POSTGRESQL_NAMES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})


class SqlDatabase:
    """One SQLite file or PostgreSQL database; owns its connection pool.

    ``patience`` is how many seconds one question to a server may stay without an answer; ``None`` is for ever.
    Errors of the driver leave as ``HistoryUnavailable``, without the password that the address may hold.
    """

    def __init__(self, url: str, busy_timeout: float = 5.0, patience: float | None = None) -> None:
        self._url = _accepted(url)
        self._busy_timeout = busy_timeout
        self.shown = _shown(self._url)
        self.engine = _engine(self._url, busy_timeout, patience)

    @property
    def is_sqlite(self) -> bool:
        """Whether the ledger is a file."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The ledger's file, if it is one."""
        return Path(self._url.database or "") if self.is_sqlite else None

    @property
    def address(self) -> str:
        """The whole address, as the setting takes it, password included: never show it as it is."""
        driver = "sqlite" if self.is_sqlite else "postgresql"
        return self._url.set(drivername=driver).render_as_string(hide_password=False)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection in a transaction that only reads."""
        with self._translated(), self._connection() as connection, connection.begin():
            yield connection

    @contextmanager
    def asking(self) -> Iterator[Connection]:
        """Give a connection for questions of one statement each: a server is not told of a transaction around them."""
        with self._translated(), self._connection() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")  # noqa: PLW2901
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a transaction that writes: all of it is kept, or, after an error, nothing."""
        with self._translated(), self._connection() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def make_file(self) -> None:
        """Make an SQLite ledger's directory and empty file, for this user only, and set its journal mode."""
        if self.file is None:
            return
        with self._translated():
            self._create_file(self.file)
            self._switch_to_wal()

    def _create_file(self, file: Path) -> None:
        try:
            _create_private(file)
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                raise
            raise SettingsError(
                f"The ledger {self.shown} cannot be made: {error.strerror}. "
                "Name a directory of your own in JOBLEDGER_DATA_DIR, or another ledger in JOBLEDGER_HISTORY_URL."
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def _connection(self) -> Connection:
        if self.file is not None and not self.file.exists():
            # SQLite would make an empty one in its place.
            raise FileNotFoundError(f"the file {self.file} is gone")
        return self.engine.connect()

    def _switch_to_wal(self) -> None:
        # SQLite does not always wait when two processes switch at once; the empty transaction waits instead.
        deadline = time.monotonic() + self._busy_timeout
        with closing(self.engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
            while not _is_wal(cursor):
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("database is locked")
                cursor.execute("BEGIN IMMEDIATE")
                cursor.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DataError, self.engine.dialect.loaded_dbapi.DataError) as error:
            raise EventRefused(f"The ledger {self.shown} refuses what it was given: {_reason(error)}.") from error
        except (DBAPIError, PoolTimeout, OSError, self.engine.dialect.loaded_dbapi.Error) as error:
            # A file that was opened while it could only be read stays read-only for as long as it is open.
            self.engine.dispose()
            if _sqlstate_of(error) == _LIMIT_EXCEEDED:
                raise EventRefused(f"The ledger {self.shown} refuses what it was given: {_reason(error)}.") from error
            raise HistoryUnavailable(f"The ledger {self.shown} does not answer: {_reason(error)}.") from error


def _accepted(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError(
            "history_url (JOBLEDGER_HISTORY_URL): this is not a database address; "
            "expected sqlite:///path/to/ledger.db or postgresql://user:password@host/database."
        ) from None
    if parsed.drivername in _POSTGRESQL_NAMES:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        raise SettingsError(
            f"history_url (JOBLEDGER_HISTORY_URL): a ledger cannot be kept in {parsed.drivername!r}; "
            "use sqlite:///path/to/ledger.db or postgresql://user:password@host/database."
        )
    if not parsed.database or parsed.database == ":memory:":
        raise SettingsError(
            "history_url (JOBLEDGER_HISTORY_URL): an SQLite ledger needs a file, for instance "
            "sqlite:///ledger.db; tests that want none use MemoryJobHistoryStore."
        )
    return parsed.set(drivername="sqlite+pysqlite", database=str(Path(parsed.database).expanduser().absolute()))


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(username=None, password=None, query={}).render_as_string()


def _engine(url: URL, busy_timeout: float, patience: float | None) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": busy_timeout}
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_engine(url, connect_args={"timeout": busy_timeout}, **options)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "connect", _SameFile(url).remember)
            event.listen(engine, "checkout", _SameFile(url).require)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        seconds = max(2, round(busy_timeout))
        arguments = {"connect_timeout": seconds, **_DEAD_SERVER}
        engine = create_engine(url, connect_args=arguments, **options)
    except ImportError as error:
        raise HistoryUnavailable("A PostgreSQL ledger needs its driver: pip install 'jobledger[postgres]'.") from error
    event.listen(engine, "connect", _PostgresqlPreparation(busy_timeout))
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _PingAfterRest(engine))
    if patience is not None:
        _limit_waits(engine, patience)
    return engine


def _limit_waits(engine: Engine, patience: float) -> None:
    from .patient_postgresql import patient_connections

    kind = patient_connections(patience)

    def connect(_dialect: object, _record: object, arguments: Any, options: Any) -> Any:
        return kind.connect(*arguments, **options)

    event.listen(engine, "do_connect", connect)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Without this the driver begins transactions by itself, and too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    cursor.close()


def _note_use(_connection: object, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


class _PingAfterRest:
    """Asks a server whether it is still there when a connection has rested: every time would cost too much."""

    def __init__(self, engine: Engine) -> None:
        self._dialect = engine.dialect

    def __call__(self, connection: Any, record: Any, _proxy: object) -> None:
        if time.monotonic() - record.info.get("used_at", 0.0) > _REST and not self._answers(connection):
            raise DisconnectionError("the server has closed the connection")

    def _answers(self, connection: Any) -> bool:
        try:
            return self._dialect.do_ping(connection)
        except self._dialect.loaded_dbapi.Error:
            return False


class _SameFile:
    """Notices that another file has taken the place of the one that a connection has open."""

    def __init__(self, url: URL) -> None:
        self._file = str(url.database)

    def remember(self, _connection: object, record: Any) -> None:
        record.info["file"] = self._identity()

    def require(self, _connection: object, record: Any, _proxy: object) -> None:
        if record.info.get("file") != self._identity():
            raise DisconnectionError(f"{self._file} is another file than before")

    def _identity(self) -> tuple[int, int]:
        found = Path(self._file).stat()
        return found.st_dev, found.st_ino


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that writes asks for the lock at its start, where SQLite waits for it instead of failing.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class _PostgresqlPreparation:
    def __init__(self, busy_timeout: float) -> None:
        self._settings = {"lock_timeout": f"{max(1, round(busy_timeout * 1_000))}ms", **_DEAD_CLIENT}

    def __call__(self, connection: Any, _record: object) -> None:
        names, values = list(self._settings), list(self._settings.values())
        with connection.cursor() as cursor:
            cursor.execute(_SET, (names, values))
        connection.commit()


def _is_wal(cursor: Any) -> bool:
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _create_private(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _sqlstate_of(error: BaseException) -> object:
    return getattr(_cause_of(error), "sqlstate", None)


def _cause_of(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def _reason(error: BaseException) -> str:
    cause = _cause_of(error)
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0].rstrip(".")
