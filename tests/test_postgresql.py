"""How the suite finds PostgreSQL: the server that is named, else this machine's, else one that it starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.exc import OperationalError

from .postgresql import (
    VARIABLE,
    WHEEL,
    NamedServerDoesNotAnswer,
    NoServer,
    administer,
    bundled,
    find_server,
    installation_of,
    local,
    named,
)

NOBODY_LISTENS = make_url("postgresql+psycopg://postgres@127.0.0.1:1/postgres")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(WHEEL) is None, reason=f"there is no wheel of {WHEEL} for this platform"
)

unnamed = partial(named, {})
absent = partial(local, NOBODY_LISTENS)


@pytest.fixture(scope="module")
def server() -> Iterator[URL]:
    with bundled() as url:
        yield url


def version_of(server: URL) -> int:
    return int(administer(server, "SHOW server_version_num"))


def must_not_be_asked() -> NoReturn:
    pytest.fail("an earlier one is there")


def test_a_named_server_comes_first(server: URL) -> None:
    address = server.render_as_string(hide_password=False)
    with find_server([partial(named, {VARIABLE: address}), must_not_be_asked]) as found:
        assert found == server


def test_a_named_server_that_does_not_answer_is_never_passed_over() -> None:
    mistyped = partial(named, {VARIABLE: "postgresql+psycopg://me:hunter2@127.0.0.1:1/none"})
    with pytest.raises(NamedServerDoesNotAnswer, match=VARIABLE) as refusal, find_server([mistyped, bundled]):
        pass
    assert "hunter2" not in str(refusal.value)


def test_this_machines_own_server_comes_next(server: URL) -> None:
    with find_server([unnamed, partial(local, server), must_not_be_asked]) as found:
        assert found == server


def test_a_server_where_nobody_may_make_databases_is_no_server(server: URL) -> None:
    administer(server, "CREATE ROLE reader LOGIN")
    with (
        pytest.raises(NoServer, match="may not create databases"),
        find_server([partial(local, server.set(username="reader"))]),
    ):
        pass


def test_where_there_is_none_a_private_one_is_started_and_ends_with_its_directory() -> None:
    with find_server([unnamed, absent, bundled]) as found:
        assert version_of(found) >= 160_000
        assert administer(found, "SHOW listen_addresses") == ""
        directory = Path(str(found.query["host"]))
        assert directory.stat().st_mode & 0o077 == 0
    assert not directory.exists()
    with pytest.raises(OperationalError):
        version_of(found)


def test_it_ends_after_a_failure_too() -> None:
    def fail_beside_a_server() -> None:
        with bundled() as found:
            directories.append(Path(str(found.query["host"])))
            pids.append(int((directories[0] / "data" / "postmaster.pid").read_text().split()[0]))
            raise ArithmeticError

    directories: list[Path] = []
    pids: list[int] = []
    with pytest.raises(ArithmeticError):
        fail_beside_a_server()
    assert not directories[0].exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an environment that others cannot read")
def test_it_starts_for_root_out_of_an_environment_that_others_cannot_read(tmp_path: Path) -> None:
    installation = installation_of()
    package = installation.parent
    place = tmp_path / "private"
    place.mkdir(mode=0o700)
    shutil.copytree(installation, place / WHEEL / installation.name, symlinks=True)
    if package.with_name(f"{WHEEL}.libs").is_dir():
        shutil.copytree(package.with_name(f"{WHEEL}.libs"), place / f"{WHEEL}.libs")
    with bundled(installation=place / WHEEL / installation.name) as found:
        assert version_of(found) >= 160_000


def test_without_any_each_reason_is_told() -> None:
    with (
        pytest.raises(NoServer, match=f"{VARIABLE} is unset; .*127.0.0.1:1.*; there is no server in no_such_wheel"),
        find_server([unnamed, absent, partial(bundled, "no_such_wheel")]),
    ):
        pass
