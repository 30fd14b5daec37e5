"""docker-compose.yml: what it says, and what its services do when their own commands run here."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from cryptography.fernet import Fernet
from jobledger.history.schema_version import REVISIONS
from jobledger.settings import Settings
from redis import Redis
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from . import postgresql
from .history.raw_database import load_old_ledger
from .postgresql import NoServer, Programs, administer, installation_of

ROOT = Path(__file__).parent.parent
COMPOSE_FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "deploy" / "example.env"
OURS = ("worker", "control")
LONG_RUNNING = ("redis", "postgres", *OURS)
ONE_SHOT = "migrate"
EVERY = (*LONG_RUNNING, ONE_SHOT, "tests")
SERVICE_KEYS = {
    *(
        "build",
        "cap_drop",
        "command",
        "depends_on",
        "environment",
        "healthcheck",
        "image",
        "init",
        "ports",
        "profiles",
    ),
    *("restart", "security_opt", "shm_size", "stop_grace_period", "user", "volumes"),
}
ENVIRONMENT = {
    "JOBLEDGER_REDIS_PASSWORD": "0f1e2d3c4b5a",
    "JOBLEDGER_POSTGRES_PASSWORD": "5a4b3c2d1e0f",
    "JOBLEDGER_SNAPSHOT_KEY": Fernet.generate_key().decode(),
}
#: Names the broker of the file's own service, where the suite runs as the file's `tests` service.
BROKER_VARIABLE = "TEST_REDIS_URL"
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::(?P<mode>[-?])(?P<word>[^}]*))?\})")


class Eventually(Protocol):
    def __call__(self, condition: Callable[[], Any], timeout: float = ..., message: str = ...) -> Any: ...


# What the file says


def test_the_services_are_broker_database_migration_workers_and_leader() -> None:
    assert set(_services()) == {"redis", "postgres", "migrate", "worker", "control", "tests"}


@pytest.mark.parametrize("name", EVERY)
def test_a_service_has_known_keys_and_either_an_image_or_a_build(name: str) -> None:
    service = _services()[name]
    assert set(service) <= SERVICE_KEYS
    assert "image" in service or "build" in service
    assert isinstance(service["command"], list)


def test_volumes_and_dependencies_that_are_used_are_declared() -> None:
    file = _load()
    for service in file["services"].values():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert source in file["volumes"]
            assert target.startswith("/")
        for other, condition in service.get("depends_on", {}).items():
            waits_for = "service_completed_successfully" if other == ONE_SHOT else "service_healthy"
            assert condition == {"condition": waits_for}
            assert other == ONE_SHOT or "test" in file["services"][other]["healthcheck"]


def test_nothing_of_ours_starts_before_the_ledger_has_its_schema() -> None:
    services = _services()
    assert services[ONE_SHOT]["command"] == ["jobledger", "db", "upgrade"]
    assert set(services[ONE_SHOT]["depends_on"]) == {"postgres"}
    for name in OURS:
        assert set(services[name]["depends_on"]) == {"redis", ONE_SHOT}
        assert services[name]["environment"] == services[ONE_SHOT]["environment"]


def test_the_migration_ends_and_is_confined_like_the_others() -> None:
    service = _services()[ONE_SHOT]
    assert service["restart"] == "no"
    assert service["healthcheck"] == {"disable": True}
    assert service["cap_drop"] == ["ALL"]


def test_all_of_ours_on_a_host_share_their_journals() -> None:
    services = _services()
    for name in (*OURS, ONE_SHOT):
        place = services[name]["environment"]["JOBLEDGER_DATA_DIR"]
        assert f"data:{place}" in services[name]["volumes"]
    assert "data:" not in "".join(services["redis"]["volumes"])


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_is_watched_restarted_and_confined(name: str) -> None:
    service = _services()[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"]
    assert service["stop_grace_period"]


def test_no_port_leaves_this_host() -> None:
    ports = [port for service in _services().values() for port in service.get("ports", [])]
    assert [port for port in ports if not str(port).startswith("127.0.0.1:")] == []


def test_images_are_pinned_and_ours_carries_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, service in _services().items():
        if name in (*OURS, ONE_SHOT):
            assert service["image"] == f"jobledger:{version}"
        elif "image" in service:
            assert re.fullmatch(r"[a-z]+:\d+(\.\d+)*(-\w+)?", service["image"])
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert [base for base in bases if base not in _stages()] == ["python:3.12-slim-bookworm"]


def test_every_target_is_a_stage_and_no_service_runs_as_root() -> None:
    stages = _stages()
    for service in _services().values():
        if "build" in service:
            assert re.search(r"^USER jobledger$", stages[service["build"]["target"]], re.MULTILINE)
        else:
            assert service["user"] not in {"root", "0"}
    assert list(stages)[-1] == "runtime"


def test_the_image_has_the_databases_driver() -> None:
    for stage in ("test", "runtime"):
        [extras] = re.findall(r"pip install .*\[([a-z,]+)\]", _stages()[stage])
        assert "postgres" in extras.split(",")


def test_no_secret_is_in_the_image_or_has_a_default() -> None:
    assert not re.search(r"(?i)password|secret|_key|token", (ROOT / "Dockerfile").read_text())
    assert {".env", ".git"} <= set((ROOT / ".dockerignore").read_text().split())
    secret = {name: modes for name, modes in _variables().items() if re.search("PASSWORD|KEY", name)}
    assert set(secret) == set(ENVIRONMENT)
    assert set().union(*secret.values()) == {"?"}


@pytest.mark.parametrize("secret", ENVIRONMENT)
def test_a_start_without_a_secret_is_refused(secret: str) -> None:
    with pytest.raises(LookupError, match=secret):
        _load(environment={**ENVIRONMENT, secret: ""})


def test_the_example_explains_every_variable_and_no_other() -> None:
    explained = re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(_variables())


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_ours_is_a_setting_and_its_value_is_accepted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = _services()[name]["environment"]
    for variable, value in variables.items():
        assert variable in {f"JOBLEDGER_{name.upper()}" for name in Settings.model_fields}
        monkeypatch.setenv(variable, str(value))
    settings = Settings()
    assert settings.broker_url is not None
    assert settings.broker_url.get_secret_value() == "redis://:0f1e2d3c4b5a@redis:6379/0"
    assert settings.ledger_url == "postgresql+psycopg://jobledger:5a4b3c2d1e0f@postgres:5432/jobledger"
    assert f"{settings.data_dir}" in {volume.split(":")[1] for volume in _services()[name]["volumes"]}


@pytest.mark.parametrize("name", OURS)
def test_every_command_of_ours_exists(name: str) -> None:
    service = _services()[name]
    for words in (service["command"], service["healthcheck"]["test"][1:]):
        assert words[0] == "jobledger"
        result = subprocess.run([*_native(words[:2]), "--help"], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_the_suite_reads_the_variables_that_its_service_is_given() -> None:
    assert set(_services()["tests"]["environment"]) == {BROKER_VARIABLE, postgresql.VARIABLE}


def test_a_stopping_worker_gets_longer_than_a_cancelled_job() -> None:
    worker = _services()["worker"]
    assert _seconds(worker["stop_grace_period"]) >= 600 > float(worker["environment"]["JOBLEDGER_CANCEL_GRACE"])


# What its services do


def test_the_broker_keeps_what_it_was_given_and_wants_a_password(stack: Stack) -> None:
    stack.start("redis")
    assert stack.health("redis") == 0
    assert stack.broker.config_get("append*")["appendonly"] == "yes"
    assert stack.broker.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert stack.broker.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    stack.broker.set("kept", 1)
    stack.kill("redis")
    stack.start("redis")
    assert stack.broker.get("kept") == b"1"
    assert stack.run(["redis-cli", "-e", "-p", str(stack.port), "ping"], {}).returncode != 0


def test_the_brokers_password_is_in_no_argument(stack: Stack) -> None:
    # Redis writes a title over its arguments, which does not help before it has started.
    text = COMPOSE_FILE.read_text().replace("--maxmemory-policy", "--set-proc-title no --maxmemory-policy")
    stack.file = _load(text)
    stack.start("redis")
    assert "--set-proc-title no" in stack.arguments("redis")
    assert ENVIRONMENT["JOBLEDGER_REDIS_PASSWORD"] not in stack.arguments("redis")


def test_what_the_file_says_is_what_is_started(stack: Stack) -> None:
    stack.file = _load(COMPOSE_FILE.read_text().replace("--appendfsync everysec", "--appendfsync always"))
    stack.start("redis")
    assert stack.broker.config_get("appendfsync") == {"appendfsync": "always"}


def test_the_database_keeps_what_it_was_given_and_wants_a_password(stack: Stack) -> None:
    stack.start("postgres")
    assert stack.health("postgres") == 0
    administer(stack.ledger, "CREATE TABLE kept (number int)")
    stack.kill("postgres")
    assert stack.health("postgres") != 0
    stack.start("postgres")
    assert administer(stack.ledger, "SELECT to_regclass('kept')::text") == "kept"
    by_socket = {"host": str(stack.database_home), "port": str(stack.database_port)}
    nowhere = URL.create(stack.ledger.drivername, "jobledger", database="jobledger")
    for stranger in (
        stack.ledger.set(password="guessed"),
        nowhere.set(host="127.0.0.1", port=stack.database_port),
        nowhere.set(query=by_socket),
    ):
        with pytest.raises(OperationalError, match="password"):
            administer(stranger, "SELECT 1")


def test_the_database_runs_with_the_files_parameters_and_checks_its_pages(stack: Stack) -> None:
    stack.start("postgres")
    wanted = {"shared_buffers": "256MB", "max_wal_size": "2GB", "idle_in_transaction_session_timeout": "5min"}
    found = {name: administer(stack.ledger, f"SHOW {name}") for name in wanted}
    assert found == wanted
    assert administer(stack.ledger, "SHOW data_checksums") == "on"
    assert administer(stack.ledger, "SHOW password_encryption") == "scram-sha-256"


def test_the_databases_password_is_in_no_argument(stack: Stack) -> None:
    stack.start("postgres")
    assert "idle_in_transaction_session_timeout" in stack.arguments("postgres")
    assert ENVIRONMENT["JOBLEDGER_POSTGRES_PASSWORD"] not in stack.arguments("postgres")


def test_the_migration_makes_the_schema_and_then_finds_nothing_to_do(stack: Stack) -> None:
    stack.start("postgres")
    for told in ("empty before, made with schema", "nothing to do"):
        done = stack.run_once(ONE_SHOT)
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
        assert ENVIRONMENT["JOBLEDGER_POSTGRES_PASSWORD"] not in done.stdout + done.stderr


def test_the_migration_upgrades_an_old_ledger_that_nothing_else_touches(stack: Stack) -> None:
    stack.start("postgres")
    load_old_ledger(stack.ledger.render_as_string(hide_password=False), REVISIONS[0])
    refused = stack.ours("control", "jobs")
    assert refused.returncode != 0
    assert "older schema" in refused.stderr
    assert f"upgraded from {REVISIONS[0]} to {REVISIONS[-1]}" in stack.run_once(ONE_SHOT).stdout
    listed = stack.ours("control", "jobs", "--json")
    assert len(json.loads(listed.stdout)["jobs"]) == 6, listed.stderr


def test_a_migration_without_a_database_fails_and_tells_no_password(stack: Stack) -> None:
    failed = stack.run_once(ONE_SHOT)
    assert failed.returncode != 0
    assert "does not answer" in failed.stderr
    assert ENVIRONMENT["JOBLEDGER_POSTGRES_PASSWORD"] not in failed.stderr


@pytest.mark.timeout(300)
def test_worker_and_leader_run_a_job_report_health_and_stop_when_asked(stack: Stack) -> None:
    if stack.given_broker is None:
        stack.start("redis")
    stack.start("postgres")
    assert stack.run_once(ONE_SHOT).returncode == 0
    for name in OURS:
        stack.start(name)
    for name in OURS:
        stack.wait_until_healthy(name)
    shutil.copytree(ROOT / "examples" / "pictures", stack.folder / "pictures", dirs_exist_ok=True)
    submitted = stack.ours("control", "submit-pipeline", str(ROOT / "examples" / "pipeline.json"), "--json")
    assert submitted.returncode == 0, submitted.stderr
    job_id = json.loads(submitted.stdout)["job_id"]
    stack.eventually(lambda: stack.status(job_id) in {"COMPLETED", "FAILED"}, 60, f"{job_id} does not end")
    assert stack.status(job_id) == "COMPLETED"
    assert len(list((stack.folder / "data" / "outputs").rglob("*.jpg"))) == 4
    for name in OURS:
        assert stack.stop(name) == 0
    assert stack.health("worker") != 0
    assert administer(stack.ledger, "SELECT count(*) FROM jobs") == 1


@dataclass
class Stack:
    """The file's services as processes of this machine: volumes are folders, host names are loopback."""

    folder: Path
    port: int
    database_home: Path
    database_port: int
    eventually: Eventually
    file: dict[str, Any] = field(default_factory=lambda: _load(COMPOSE_FILE.read_text()))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    given_broker: str | None = field(default_factory=lambda: os.environ.get(BROKER_VARIABLE))

    @property
    def broker(self) -> Redis:
        return Redis(port=self.port, password=ENVIRONMENT["JOBLEDGER_REDIS_PASSWORD"])

    @property
    def ledger(self) -> URL:
        return self._database("jobledger")

    def start(self, name: str) -> None:
        if name == "postgres":
            self._start_database()
            return
        command = self._here(name, self.file["services"][name]["command"])
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                _native(command),
                env=self._environment(name),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if name == "redis":
            self.wait_until_healthy("redis")

    def _start_database(self) -> None:
        """Do what the image's entry point does, and then run the file's own command."""
        service, programs = self.file["services"]["postgres"], Programs(self.database_home, installation_of())
        is_new = not (self.database_home / "data").exists()
        if is_new:
            _make_cluster(programs, self.database_home, service["environment"])
        place = ("-D", "data", "-k", str(self.database_home))
        address = ("-c", "listen_addresses=127.0.0.1", "-p", str(self.database_port))
        self.processes["postgres"] = programs.start(*service["command"], *place, *address)
        (self.folder / "postgres.log").unlink(missing_ok=True)
        (self.folder / "postgres.log").symlink_to(programs.log)
        self.wait_until_healthy("postgres")
        if is_new:
            administer(self._database("postgres"), f"CREATE DATABASE {service['environment']['POSTGRES_DB']}")

    def run_once(self, name: str) -> subprocess.CompletedProcess[str]:
        return self.run(self._here(name, self.file["services"][name]["command"]), self._environment(name))

    def wait_until_healthy(self, name: str) -> None:
        def settled() -> bool:
            return self.health(name) == 0 or self.processes[name].poll() is not None

        log = self.folder / f"{name}.log"
        self.eventually(settled, 60, f"{name} does not become healthy")
        assert self.processes[name].poll() is None, log.read_text()

    def health(self, name: str) -> int:
        kind, *words = self.file["services"][name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(self._here(name, words), self._environment(name)).returncode

    def ours(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(["jobledger", *words], self._environment(name))

    def status(self, job_id: str) -> str:
        shown = self.ours("control", "show", job_id, "--json")
        assert shown.returncode == 0, shown.stderr
        return str(json.loads(shown.stdout)["status"])

    def run(self, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run(
            _native(words),
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def arguments(self, name: str) -> str:
        process = self.processes[name]
        shown = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(process.pid)], capture_output=True, text=True, check=True
        )
        return shown.stdout

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=60)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        # A database's own processes would outlive a kill -9 of the first one for a moment, and keep its memory.
        process.send_signal(signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def _environment(self, name: str) -> dict[str, str]:
        given = self.file["services"][name].get("environment", {})
        variables = {key: self._here(name, [str(value)])[0] for key, value in given.items()}
        if self.given_broker is not None and "JOBLEDGER_BROKER_URL" in variables:
            variables["JOBLEDGER_BROKER_URL"] = self.given_broker
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **variables}

    def _here(self, name: str, words: list[str]) -> list[str]:
        places = {
            "redis:6379": f"127.0.0.1:{self.port}",
            "@postgres:5432": f"@127.0.0.1:{self.database_port}",
            "--port 6379": f"--port {self.port} --bind 127.0.0.1",
        }
        for volume in self.file["services"][name]["volumes"]:
            source, target = volume.split(":")[:2]
            folder = self.folder / source
            folder.mkdir(exist_ok=True)
            places[target] = str(folder)
        ports = {"6379": str(self.port), "5432": str(self.database_port)}
        return [ports.get(word) or _moved(word, places) for word in words]

    def _database(self, name: str) -> URL:
        given = self.file["services"]["postgres"]["environment"]
        user, password = given["POSTGRES_USER"], given["POSTGRES_PASSWORD"]
        return URL.create("postgresql+psycopg", user, password, "127.0.0.1", self.database_port, name)


@pytest.fixture
def stack(data_dir: Path, eventually: Eventually) -> Iterator[Stack]:
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have redis-server and redis-cli")
        pytest.skip("no redis-server and redis-cli on this machine")
    try:
        installation_of()
    except NoServer as reason:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have it: {reason}")
        pytest.skip(str(reason))
    with tempfile.TemporaryDirectory(prefix="jl-pg-", dir="/tmp") as database_home:
        stack = Stack(data_dir, _free_port(), Path(database_home), _free_port(), eventually)
        yield stack
        stack.kill_all()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _make_cluster(programs: Programs, home: Path, given: dict[str, str]) -> None:
    (home / "password").write_text(given["POSTGRES_PASSWORD"])
    owner = (f"--username={given['POSTGRES_USER']}", "--pwfile=password")
    programs.run("initdb", *owner, *shlex.split(given["POSTGRES_INITDB_ARGS"]), "--encoding=UTF8", "--no-sync", "data")


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = _load()["services"]
    return services


def _load(text: str | None = None, environment: dict[str, str] = ENVIRONMENT) -> dict[str, Any]:
    file: dict[str, Any] = _substituted(yaml.safe_load(text or COMPOSE_FILE.read_text()), environment)
    return file


def _substituted(value: Any, environment: dict[str, str]) -> Any:
    match value:
        case str():
            return VARIABLE.sub(lambda found: _value_of(found, environment), value)
        case dict():
            return {key: _substituted(item, environment) for key, item in value.items()}
        case list():
            return [_substituted(item, environment) for item in value]
    return value


def _value_of(found: re.Match[str], environment: dict[str, str]) -> str:
    if found["escaped"]:
        return "$"
    value = environment.get(found["name"], "")
    if not value and found["mode"] == "?":
        raise LookupError(f"{found['name']}: {found['word']}")
    return value or (found["word"] or "")


def _variables() -> dict[str, set[str]]:
    modes: dict[str, set[str]] = {}
    for found in VARIABLE.finditer(COMPOSE_FILE.read_text()):
        if found["name"]:
            modes.setdefault(found["name"], set()).add(found["mode"])
    return modes


def _stages() -> dict[str, str]:
    _, *stages = re.split(r"^FROM \S+ AS ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return {stage.split()[0]: stage for stage in stages}


def _moved(word: str, places: dict[str, str]) -> str:
    for there, here in places.items():
        word = word.replace(there, here)
    return word


def _native(words: list[str]) -> list[str]:
    if words[0] == "jobledger":
        return [str(Path(sys.executable).with_name("jobledger")), *words[1:]]
    if words[0] == "pg_isready":
        return [str(installation_of() / "bin" / "pg_isready"), *words[1:]]
    return words


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]
