"""Labels on their way: from a submission or a plain Celery call into the ledger, and on to a retry."""

from __future__ import annotations

from typing import Any

import pytest
from jobledger.controller.submission import Submission
from jobledger.errors import InvalidJob
from jobledger.workers.pipeline import register_pipeline_task

LABELS = {"tags": ["red", "blue"], "group_id": "october", "metadata": {"order": "7", "customer": "acme"}}
KEPT = (("blue", "red"), "october", (("customer", "acme"), ("order", "7")))
BOTH = pytest.mark.parametrize("site", ["sqlite", "postgresql"], indirect=True)


def labels(entry: Any) -> tuple[Any, ...]:
    return entry.facts.tags, entry.facts.group_id, entry.facts.metadata


@BOTH
def test_a_submission_and_its_retry_have_the_labels(site: Any) -> None:
    job_id = site.controller.submit("jobs.add", [1, 2], **LABELS)
    assert labels(site.store.get_job(job_id)) == KEPT
    site.start_worker()
    site.wait_for_end(job_id)
    assert labels(site.wait_for_end(site.controller.retry_job(job_id))) == KEPT


def test_a_pipeline_has_its_labels(site: Any) -> None:
    register_pipeline_task(site.app)
    config = {"stages": [{"name": "load"}, {"name": "save"}], "input": {"paths": ["a.jpg"]}}
    job_id = site.controller.submit_pipeline_job(config, **LABELS)
    assert labels(site.store.get_job(job_id)) == KEPT


def test_of_many_submissions_with_one_bad_label_none_is_written(site: Any) -> None:
    bad = Submission(task="jobs.echo", metadata={"password": "hunter2"})
    with pytest.raises(InvalidJob, match=r"metadata\.password: looks like a secret"):
        site.controller.submit_many([Submission(task="jobs.echo"), bad])
    assert site.store.list_jobs() == []


def test_a_plain_celery_call_brings_labels_in_its_header(site: Any) -> None:
    site.start_worker()

    job_id = site.run_python(
        "import jobs\n"
        f"headers = {{'jobledger': {LABELS!r}, 'own': 1}}\n"
        "print(jobs.app.tasks['jobs.add'].apply_async((1, 2), headers=headers).id)"
    ).strip()

    assert labels(site.wait_for_end(job_id)) == KEPT
    assert labels(site.wait_for_end(site.controller.retry_job(job_id))) == KEPT


def test_a_publisher_without_jobledger_brings_labels_too(site: Any) -> None:
    site.start_worker()

    job_id = site.run_python(
        "from celery import Celery\n"
        f"app = Celery(broker={site.redis_url!r})\n"
        f"print(app.send_task('jobs.add', (1, 2), headers={{'jobledger': {LABELS!r}}}).id)"
    ).strip()

    assert labels(site.wait_for_end(job_id)) == KEPT


def test_a_job_that_celery_retries_keeps_its_labels(site: Any, tmp_path: Any) -> None:
    site.start_worker()

    job_id = site.run_python(
        "import jobs\n"
        f"headers = {{'jobledger': {LABELS!r}}}\n"
        f"call = jobs.app.tasks['jobs.flaky'].s({str(tmp_path / 'runs')!r}, 2).set(headers=headers)\n"
        "print(call.apply_async().id)"
    ).strip()

    entry = site.wait_for_end(job_id)
    assert (entry.attempt, labels(entry)) == (3, KEPT)


def test_the_members_of_a_celery_group_have_its_id_for_their_group(site: Any) -> None:
    site.start_worker()

    group_id, *job_ids = site.run_python(
        "import jobs\n"
        "from celery import group\n"
        "add = jobs.app.tasks['jobs.add']\n"
        "result = group([add.s(1, 1), add.s(2, 2)], app=jobs.app).apply_async()\n"
        "print(result.id, *[member.id for member in result.children])"
    ).split()

    assert [site.wait_for_end(job_id).facts.group_id for job_id in job_ids] == [group_id, group_id]


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ({"tags": "one", "group_id": "october"}, ((), "october", ())),
        ({"tags": ["fine"], "group_id": 7, "metadata": {"token": "hunter2"}}, (("fine",), None, ())),
        ({"tags": None, "metadata": {"order": "a\x00b"}}, ((), None, ())),
        ("nonsense", ((), None, ())),
    ],
)
def test_a_plain_call_with_a_bad_label_is_sent_without_it_and_a_warning_says_so(
    site: Any, header: Any, kept: Any
) -> None:
    printed = site.run_python(
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, level='WARNING')\n"
        "import jobs\n"
        f"print(jobs.app.tasks['jobs.add'].apply_async((1, 2), headers={{'jobledger': {header!r}}}).id)"
    )

    *warnings, job_id = printed.strip().splitlines()
    site.start_worker()
    entry = site.wait_for_end(job_id)
    assert labels(entry) == kept
    assert entry.end.result_ref == "3"
    assert "hunter2" not in printed
    if isinstance(header, dict):
        assert any("A label of a job is left out" in line for line in warnings)
