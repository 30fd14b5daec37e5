"""The settings of one process: defaults < file < environment < flags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .errors import SettingsError

ENVIRONMENT_PREFIX = "JOBLEDGER_"
FILE_VARIABLE = "JOBLEDGER_CONFIG"
DEFAULT_FILE = "jobledger.toml"


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "jobledger"


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _with_absolute_file(url: SecretStr) -> SecretStr:
    """The agent, which runs in another directory, must find the same SQLite file."""
    scheme, separator, file = url.get_secret_value().partition(":///")
    if not scheme.startswith("sqlite") or not file or file == ":memory:":
        return url
    return SecretStr(f"{scheme}{separator}{_absolute(Path(file))}")


def _split_paths(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _split_statuses(value: object) -> object:
    """Take ``failed=365,cancelled=7`` as a map, and the statuses in any case."""
    pairs = [pair.partition("=")[::2] for pair in value.split(",") if pair] if isinstance(value, str) else value
    try:
        return {str(status).strip().upper(): limit for status, limit in dict(pairs).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ValueError("expected STATUS=NUMBER pairs, such as failed=365,cancelled=7") from None


EndedStatus = Literal["COMPLETED", "FAILED", "CANCELLED"]
Days = Annotated[float, Field(ge=0, le=36_500)]
JobCount = Annotated[int, Field(ge=0)]
DaysByStatus = Annotated[dict[EndedStatus, Days], NoDecode, BeforeValidator(_split_statuses)]
JobsByStatus = Annotated[dict[EndedStatus, JobCount], NoDecode, BeforeValidator(_split_statuses)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
PathList = Annotated[tuple[AbsolutePath, ...], NoDecode, BeforeValidator(_split_paths)]


class Settings(BaseSettings):
    """Everything that can be set; ``None`` means unset.

    Read from ``jobledger.toml`` (or the file that ``JOBLEDGER_CONFIG`` names), then from the environment
    (``JOBLEDGER_BROKER_URL`` and so on), then from keyword arguments. Unknown keys in the file are refused.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)

    #: The Celery application, as ``module:attribute``. Unset: Jobledger's own application with its pipelines.
    app: str | None = None
    #: The broker. Unset: what the Celery app says, else the embedded broker of the data directory.
    broker_url: SecretStr | None = None
    #: The ledger. Unset: the SQLite file ``ledger.db`` of the data directory.
    history_url: Annotated[SecretStr, AfterValidator(_with_absolute_file)] | None = None
    #: Where journals, the embedded broker and the default ledger live; owned by one user of one host.
    data_dir: AbsolutePath = Field(default_factory=_default_data_dir)
    #: The Fernet key, or several separated by commas (the first encrypts), that protects job snapshots.
    snapshot_key: SecretStr | None = None
    #: False refuses cancel and retry, in the controller itself; jobs can still be submitted.
    job_actions_enabled: bool = True
    #: The largest accepted job payload, in bytes of its JSON text. The requirements fix 1 MB.
    payload_limit: int = Field(default=1_048_576, ge=1_024)
    #: Seconds that a cancelled running job gets to stop by itself before its process is killed.
    cancel_grace: float = Field(default=10.0, ge=0)
    #: The signal that ends a cancelled job after its grace. TERM runs ``finally`` blocks but can be ignored,
    #: and Celery then takes up to 5 s to give the slot back.
    cancel_signal: Literal["KILL", "TERM"] = "KILL"
    #: Seconds that a tombstone is kept in the broker: longer than any copy of a message can live.
    tombstone_ttl: int = Field(default=7 * 86_400, ge=7 * 86_400)
    #: True calls fsync on the journal after every event: a power cut then loses no event that still waits there. It
    #: costs a disk flush per event.
    journal_fsync: bool = False
    #: Bytes after which a process starts a new journal file.
    journal_segment: int = Field(default=64 * 2**20, ge=4_096)
    #: The Python that runs the recording agent. Unset: the one that runs this process.
    agent_python: Path | None = None
    #: Seconds between two heartbeats of a node.
    heartbeat_interval: float = Field(default=2.0, gt=0)
    #: Which records of Python's logging become lines of the job that runs: ``task`` those of Celery's task loggers,
    #: ``all`` also those of other loggers and what the job prints, ``off`` none. ``job.log()`` is always kept.
    job_log: Literal["task", "all", "off"] = "task"
    #: The least level of such records; what the worker's own log level keeps back never comes here.
    job_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    #: Days after its end that a job is kept; 0 keeps it whatever its age.
    retention_days: Days = 90.0
    #: The same for single statuses, which then do not follow ``retention_days``.
    retention_days_by_status: DaysByStatus = Field(default_factory=dict)
    #: How many ended jobs are kept, those that were submitted last; 0 keeps any number.
    retention_jobs: JobCount = 1_000_000
    #: The same for single statuses, which then are counted apart.
    retention_jobs_by_status: JobsByStatus = Field(default_factory=dict)
    #: Directory to which old jobs are exported before they are removed. Unset: they are not.
    retention_export: AbsolutePath | None = None
    #: Directories from which pipeline jobs may read pictures, links resolved. Unset: none may.
    input_dirs: PathList = ()
    #: Directory below which each pipeline job gets its own output directory. Unset: ``outputs`` of the data directory.
    output_dir: AbsolutePath | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: keyword arguments, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _settings_file())

    @property
    def journal_dir(self) -> Path:
        """Where the processes of this host write their journals, and where their agent listens."""
        return self.data_dir / "journal"

    @property
    def ledger_url(self) -> str:
        """The SQLAlchemy URL of the ledger, password included: never show it, see ``redaction.hide_password``."""
        return self.history_url.get_secret_value() if self.history_url else f"sqlite:///{self.data_dir / 'ledger.db'}"

    @property
    def outputs(self) -> Path:
        """The directory that holds one output directory per pipeline job."""
        return self.output_dir or self.data_dir / "outputs"


def load_settings(**flags: Any) -> Settings:
    """Return the settings of this process; ``flags`` that are ``None`` count as not given.

    Raises:
        SettingsError: naming the setting, what is wrong with it, and where it can be set.
    """
    _require_named_file()
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"The settings file {_settings_file()} cannot be read: {error}") from None


def _require_named_file() -> None:
    named = os.environ.get(FILE_VARIABLE)
    if named and not Path(named).is_file():
        raise SettingsError(f"The settings file {named} ({FILE_VARIABLE}) does not exist.")


def _settings_file() -> Path:
    return Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        if problem["type"] == "extra_forbidden":
            problems.append(f"there is no setting {name!r}; known ones: {', '.join(sorted(Settings.model_fields))}")
        else:
            problems.append(f"{name} ({ENVIRONMENT_PREFIX}{name.upper()}): {problem['msg']}")
    return "Wrong setting: " + "; ".join(problems)
