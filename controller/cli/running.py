"""The commands that run something: demo, up, worker, control."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exit_codes import ExitCode
from .flags import current_settings
from .output import note, say

if TYPE_CHECKING:
    from ...settings import Settings
    from ..worker_process import WorkerOptions


class Pool(StrEnum):
    """The pools that Jobledger knows how to watch."""

    PREFORK = "prefork"
    THREADS = "threads"
    SOLO = "solo"


class LogLevel(StrEnum):
    """How much a worker writes to its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


NameFlag = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="The node's name, such as gpu1@%h; unless named, worker1@host and so on."
    ),
]
PoolFlag = Annotated[
    Pool, typer.Option("--pool", help="prefork runs jobs in processes, which can be killed; threads and solo cannot.")
]
ConcurrencyFlag = Annotated[
    int | None,
    typer.Option("--concurrency", metavar="N", min=1, help="How many jobs at a time; one for each processor core."),
]
QueuesFlag = Annotated[
    str | None, typer.Option("--queues", metavar="A,B", help="The queues to serve; the application's own unless named.")
]
LogLevelFlag = Annotated[LogLevel, typer.Option("--loglevel", help="How much the worker writes to its log.")]
CeleryArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- CELERY_OPTIONS]", help="Passed to celery worker as they are.", show_default=False),
]


def demo(
    pictures: Annotated[
        Path | None, typer.Option("--pictures", metavar="FOLDER", help="Use your pictures; they are only read.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep ledger, queue and pictures here, to look at.")
    ] = None,
) -> int:
    """Run a show of thirty real jobs: on a broker, a worker and a ledger of its own, which end with it.

    Picture jobs of mixed priority run on two processes; one fails, one is cancelled while it waits, one while it
    runs, one is retried. At the end it says what happened, and checks that it is as promised (exit code 1 if not).

    \b
    jobledger demo
    jobledger demo --pictures ~/Pictures
    jobledger demo --keep /tmp/show && jobledger jobs --data-dir /tmp/show
    """
    from ..demo import run_demo
    from .demo_screen import demo_screen

    with demo_screen() as screen:
        summary, broken = run_demo(pictures, keep, screen)
    say("")
    for line in summary:
        say(line)
    for promise in broken:
        note(f"Not as promised: {promise}")
    return ExitCode.TROUBLE if broken else ExitCode.DONE


def up(
    pool: PoolFlag = Pool.PREFORK,
    concurrency: ConcurrencyFlag = None,
    loglevel: LogLevelFlag = LogLevel.WARNING,
) -> int:
    """Run everything one machine needs, until Ctrl-C: an embedded broker, a worker and the leader.

    Where a broker is named (--broker-url, or by your application) no embedded one is started. Ctrl-C and SIGTERM let
    the worker finish its jobs; a second Ctrl-C kills them. Nothing stays running, whichever way it ends.

    \b
    jobledger up
    jobledger up --app shop.jobs:app --concurrency 4
    jobledger up --pool threads --concurrency 16 --data-dir ./jobs
    """
    from ..worker_process import WorkerOptions

    options = WorkerOptions(pool=pool.value, concurrency=concurrency, loglevel=loglevel.value)
    return ExitCode.DONE if _run_up(current_settings(), options) else ExitCode.TROUBLE


def worker(
    celery_arguments: CeleryArguments = None,
    *,
    name: NameFlag = None,
    pool: PoolFlag = Pool.PREFORK,
    concurrency: ConcurrencyFlag = None,
    queues: QueuesFlag = None,
    loglevel: LogLevelFlag = LogLevel.INFO,
    lifeline: Annotated[int | None, typer.Option("--lifeline", hidden=True)] = None,
) -> int:
    """Run a worker, and nothing else: your application's, or Jobledger's own for picture pipelines.

    SIGTERM and Ctrl-C let it finish its jobs. What follows -- goes to celery worker as it is.

    \b
    jobledger worker --broker-url redis://queue.example:6379/0 --app shop.jobs:app
    jobledger worker --queues gpu --concurrency 1 --name gpu1@%h
    jobledger worker -- --max-tasks-per-child 100
    """
    from ..application import broker_of, load_application
    from ..worker_process import WorkerOptions, end_with_owner, run_worker

    if lifeline is not None:
        end_with_owner(lifeline)
    options = WorkerOptions(
        name=name,
        pool=pool.value,
        concurrency=concurrency,
        queues=queues,
        loglevel=loglevel.value,
        extra=tuple(celery_arguments or ()),
    )
    with broker_of(current_settings()) as settings:
        return run_worker(load_application(settings), settings, options)


def control() -> None:
    """Run the leader: it finishes cancels, keeps the deny list, and says what became of jobs whose worker is gone.

    Any number may run; one works at a time. `jobledger up` has one already.

    \b
    jobledger control --broker-url redis://queue.example:6379/0
    """
    from ..application import broker_of, load_application
    from ..foreground import wait_for_signal
    from ..leadership import leading

    _log()
    with broker_of(current_settings()) as settings, leading(load_application(settings)):
        note("The leader runs; Ctrl-C ends it.")
        wait_for_signal()


def _run_up(settings: Settings, options: WorkerOptions) -> bool:
    from ..application import broker_of, load_application
    from ..foreground import Foreground
    from ..leadership import leading
    from ..ledger import open_ledger

    _log()
    with broker_of(settings) as bound:
        app = load_application(bound)
        with closing(open_ledger(bound)) as store, leading(app):
            _introduce(app, bound)
            return Foreground(options, store, note).run()


def _introduce(app: Any, settings: Settings) -> None:
    from ...history.redaction import hide_password

    note(f"Broker:  {hide_password(app.connection_for_write().as_uri())}")
    note(f"Ledger:  {hide_password(settings.ledger_url)}")
    note(f"Jobs of: {settings.app or 'Jobledger itself (picture pipelines)'}")
    note("Ctrl-C stops after the running jobs. In another terminal: jobledger jobs, jobledger submit --help")


def _log() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("jobledger").setLevel(logging.INFO)
