"""``install``: one call, before or after the tasks, with the user's own classes and settings left alone."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task
from celery.worker.request import Request
from jobledger import install
from jobledger.history.event import EventKind
from jobledger.history.job import JobStatus
from jobledger.settings import Settings, load_settings
from jobledger.workers.installation import installation_of
from jobledger.workers.job_request import JobRequest, request_class
from jobledger.workers.priorities import PRIORITY_STEPS, contradictions


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    return load_settings(data_dir=data_dir)


def test_each_setting_is_set_only_where_the_user_has_not_set_it(settings: Settings) -> None:
    app = Celery(set_as_current=False)
    app.conf.worker_prefetch_multiplier = 8
    app.conf.broker_transport_options = {"visibility_timeout": 77}

    install(app, settings)

    assert app.conf.worker_prefetch_multiplier == 8
    assert app.conf.worker_disable_prefetch is True
    assert app.conf.task_default_priority == 5
    assert app.conf.broker_transport_options == {"visibility_timeout": 77, "priority_steps": PRIORITY_STEPS}


def test_a_setting_that_comes_after_install_is_the_users_too(settings: Settings) -> None:
    app = Celery(set_as_current=False)
    install(app, settings)
    app.config_from_object({"task_default_priority": 7, "broker_transport_options": {"visibility_timeout": 9}})

    assert app.conf.task_default_priority == 7
    assert app.conf.broker_transport_options["priority_steps"] == PRIORITY_STEPS


def test_a_contradicting_setting_is_named_with_its_consequence_and_remedy(settings: Settings) -> None:
    app = Celery(set_as_current=False)
    app.conf.update(
        worker_disable_prefetch=False,
        task_acks_late=True,
        broker_transport_options={"priority_steps": [0, 3, 6, 9]},
    )
    install(app, settings)

    named = [contradiction.setting for contradiction in contradictions(app)]

    # A value that equals Celery's default counts as set when it is written down.
    assert named == ["broker_transport_options['priority_steps']", "worker_disable_prefetch", "task_acks_late"]
    assert all(contradiction.remedy for contradiction in contradictions(app))


def test_a_second_install_changes_nothing(settings: Settings) -> None:
    app = Celery(set_as_current=False)

    assert install(app, settings) is install(app, settings)
    assert installation_of(Celery(set_as_current=False)) is None


def test_install_starts_nothing_and_creates_nothing(data_dir: Path) -> None:
    code = (
        "import threading, jobledger, celery\n"
        "app = celery.Celery()\n"
        "jobledger.install(app)\n"
        "app.conf.task_default_priority\n"
        "print(threading.active_count())"
    )
    directory = data_dir / "untouched"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"JOBLEDGER_DATA_DIR": str(directory), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.strip() == "1"
    assert not directory.exists()


def test_a_request_class_of_the_users_own_is_kept_and_extended() -> None:
    class TheirRequest(Request):  # type: ignore[misc]
        def info(self, safe: bool = False) -> dict[str, Any]:
            return {"theirs": True}

    ours = request_class(TheirRequest)

    assert issubclass(ours, JobRequest)
    assert issubclass(ours, TheirRequest)
    assert ours.info is TheirRequest.info
    assert request_class(ours) is ours
    assert request_class(Request) is JobRequest


OWN_CLASSES = """
import jobledger
from celery import Celery, Task
from celery.worker.request import Request

class TheirRequest(Request):
    pass

class TheirTask(Task):
    Request = TheirRequest
    def before_start(self, task_id, args, kwargs):
        self.marks = ["before_start"]

app = Celery("own", task_cls=TheirTask)

@app.task(name="own.before")
def before(): return before.marks

{install}

@app.task(name="own.after", base=TheirTask)
def after(): return after.marks

@app.task(name="own.replaced", bind=True)
def replaced(self, left):
    if left:
        return self.replace(self.s(left - 1))
    return "the last"

@app.task(name="own.ignored")
def ignored():
    from celery.exceptions import Ignore
    raise Ignore
"""


@pytest.fixture
def own_app(site: Any, tmp_path: Path) -> Any:
    """A worker of an application with classes of its own; its jobs are sent by ``send``."""
    (tmp_path / "own.py").write_text(OWN_CLASSES.format(install="jobledger.install(app)"))
    environment = site.environment_with(PYTHONPATH=str(tmp_path))
    log = (tmp_path / "worker.log").open("wb")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "own", "worker", "-c", "1", "-n", "own@test", "--without-mingle"],
        env=environment,
        stdout=log,
        stderr=log,
    )

    def send(task: str, *args: Any) -> str:
        code = f"import own; print(own.app.tasks[{task!r}].delay(*{args!r}).id)"
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    yield send
    worker.terminate()
    worker.wait(30)
    log.close()


def test_tasks_before_and_after_install_and_with_classes_of_the_users_own_are_recorded(site: Any, own_app: Any) -> None:
    for task in ("own.before", "own.after"):
        entry = site.wait_for_end(own_app(task), 20)
        assert (entry.status, entry.end.result_ref) == (JobStatus.COMPLETED, '["before_start"]')


def test_a_task_that_replaces_itself_is_one_job_that_ends_once(site: Any, own_app: Any) -> None:
    job_id = own_app("own.replaced", 2)

    entry = site.wait_for_end(job_id, 20)

    assert (entry.status, entry.end.result_ref) == (JobStatus.COMPLETED, '"the last"')
    assert site.kinds(job_id).count(EventKind.STARTED) == 3
    assert site.kinds(job_id).count(EventKind.ENDED) == 1


def test_a_task_that_ignores_itself_has_ended(site: Any, own_app: Any) -> None:
    entry = site.wait_for_end(own_app("own.ignored"), 20)

    assert entry.status is JobStatus.COMPLETED
    assert "Ignore" in entry.end.detail


@pytest.mark.parametrize("option", ["--max-tasks-per-child=2", "--autoscale=3,1"])
def test_pools_that_renew_their_processes_lose_nothing(site: Any, option: str, eventually: Any) -> None:
    site.start_worker(option)

    jobs = [site.controller.submit("jobs.add", [number, 1]) for number in range(12)]

    eventually(lambda: all(site.status(job) is JobStatus.COMPLETED for job in jobs), 30)


def test_spawned_pool_processes_belong_to_the_nodes_boot(site: Any) -> None:
    site.start_worker(JOBS_START_METHOD="spawn")
    job_id = site.controller.submit("jobs.polite", [60])
    site.wait_for_status(job_id, JobStatus.RUNNING, timeout=30)

    site.controller.cancel_job(job_id)

    assert site.wait_for_end(job_id).status is JobStatus.CANCELLED
    boots = {recorded.event.boot_id for recorded in site.store.get_job_events(job_id) if recorded.event.boot_id}
    assert boots == {site.store.list_nodes()[0].boot_id}


def test_eager_tasks_are_not_recorded_and_run_as_ever(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.app.conf.task_always_eager = True

    with caplog.at_level(logging.ERROR):
        result = site.app.tasks["jobs.add"].delay(1, 2)

    assert result.get() == 3
    assert site.store.list_jobs() == []
    assert not caplog.records


def test_task_classes_without_install_are_untouched() -> None:
    assert "before_start" not in vars(Celery(set_as_current=False).Task)
    assert not hasattr(Task.before_start, "checks_cancel")
