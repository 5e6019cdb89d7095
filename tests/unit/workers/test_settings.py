"""The Celery configuration that the settings make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT, clean_environment, run_python
from ww_core.config import Settings
from ww_core.stores.ports import Queue
from ww_workers import lifecycle
from ww_workers.settings import RENEWAL_SECONDS, UNACKED, VISIBILITY_SECONDS, celery_settings


def values(tmp_path: Path, **settings: object) -> dict[str, object]:
    return celery_settings(Settings(data_dir=tmp_path, redis_url="redis://cache:6379/3", **settings))


def test_a_plain_worker_consumes_our_queues_and_never_celerys_own(tmp_path: Path) -> None:
    queues = [queue.name for queue in values(tmp_path)["task_queues"]]  # type: ignore[attr-defined]
    assert queues == [queue.value for queue in Queue]
    assert "celery" not in queues


def test_work_that_is_lost_comes_back_through_its_lease(tmp_path: Path) -> None:
    made = values(tmp_path)
    assert made["task_acks_late"] is True
    assert made["task_reject_on_worker_lost"] is False
    assert made["worker_cancel_long_running_tasks_on_connection_loss"] is False
    assert made["worker_prefetch_multiplier"] == 1
    assert made["accept_content"] == ["json"]


def test_messages_are_renewed_often_enough_and_kept_apart_from_others(tmp_path: Path) -> None:
    options = values(tmp_path)["broker_transport_options"]
    assert options["visibility_timeout"] == VISIBILITY_SECONDS >= 60  # type: ignore[index]
    assert VISIBILITY_SECONDS >= 3 * RENEWAL_SECONDS
    # with the common keys our timeout would hand out other applications' messages again
    assert options["unacked_key"] == UNACKED != "unacked"  # type: ignore[index]


def test_the_schedule_follows_the_interval_and_its_messages_expire_within_it(tmp_path: Path) -> None:
    schedule = values(tmp_path, consolidation_interval=120)["beat_schedule"]
    due = schedule["consolidate what is due"]  # type: ignore[index]
    assert (due["task"], due["schedule"]) == ("ww.consolidate_due", 120)
    assert all(entry["options"]["expires"] <= entry["schedule"] for entry in schedule.values())  # type: ignore[attr-defined]


def test_alerts_are_checked_as_often_as_the_setting_says(tmp_path: Path) -> None:
    entry = values(tmp_path, alert_interval=7)["beat_schedule"]["alerts"]  # type: ignore[index]
    assert (entry["task"], entry["schedule"]) == ("ww.alerts", 7)


def test_results_are_kept_as_long_as_the_setting_says(tmp_path: Path) -> None:
    assert values(tmp_path, result_expires=77)["result_expires"].total_seconds() == 77  # type: ignore[attr-defined]


def test_without_a_broker_tasks_run_at_once(tmp_path: Path) -> None:
    assert celery_settings(Settings(data_dir=tmp_path))["task_always_eager"] is True
    assert values(tmp_path)["task_always_eager"] is False


def test_a_run_ends_itself_before_celery_ends_it(tmp_path: Path) -> None:
    limits = values(tmp_path, consolidation_time_limit=100)["task_annotations"]["ww.consolidate"]  # type: ignore[index]
    assert 100 < limits["soft_time_limit"] < limits["time_limit"]


def test_every_task_of_the_contract_is_registered_and_no_other(tmp_path: Path) -> None:
    script = "from ww_workers import celery; celery.loader.import_default_modules(); print(*sorted(celery.tasks))"
    names = run_python(script, cwd=tmp_path, PYTHONPATH=str(ROOT), T4DM_REDIS_URL="redis://cache/0").split()
    assert [name for name in names if name.startswith("ww.")] == [
        "ww.alerts",
        "ww.consolidate",
        "ww.consolidate_due",
        "ww.decay",
        "ww.embed_pending",
        "ww.embed_query",
        "ww.store",
        "ww.sweep",
        "ww.verify",
    ]


def test_the_configuration_for_people_is_the_one_in_force(tmp_path: Path) -> None:
    script = (
        "import celeryconfig; from ww_workers import celery; "
        "print(celeryconfig.broker_url == celery.conf.broker_url, celery.conf.broker_url)"
    )
    printed = run_python(script, cwd=ROOT, PYTHONPATH=str(ROOT), T4DM_REDIS_URL="redis://cache/5")
    assert printed.split() == ["True", "redis://cache/5"]


def test_a_foreign_celeryconfig_in_the_directory_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("raise SystemExit('read')\n")
    command = [sys.executable, "-m", "celery", "-A", "ww_workers", "report"]
    environment = clean_environment(PYTHONPATH=str(ROOT), T4DM_REDIS_URL="redis://cache/5")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "redis://cache/5" in done.stdout


def test_a_worker_says_what_is_wrong_with_how_it_was_started(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert len(lifecycle.problems(settings, {})) == 2
    good = Settings(data_dir=tmp_path, redis_url="redis://cache/0")
    assert lifecycle.problems(good, {"REMAP_SIGTERM": "SIGQUIT"}) == []
