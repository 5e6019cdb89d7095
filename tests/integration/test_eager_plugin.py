"""The fixture ``ww_eager`` in a project that only has this package installed."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

import pytest

from tests.processes import ROOT

PROJECT = """
import asyncio
import sys
from datetime import UTC, datetime

import pytest


def test_nothing_heavy_is_loaded_before_it_is_asked_for():
    assert not {"torch", "celery", "numpy", "ww_core"} & set(sys.modules)


def test_blocking(ww_eager):
    receipt = ww_eager.sync.store("The cat sat on the mat.", session_id="pets")
    assert ww_eager.sync.get(receipt.episode_id).state == "embedded"
    assert ww_eager.sync.recall("cat").results[0].episode_id == receipt.episode_id


def test_each_test_has_a_memory_of_its_own(ww_eager):
    assert ww_eager.sync.counts().acknowledged == 0


def test_the_module_functions_and_any_celery_app_use_it_inside_a_running_loop(ww_eager):
    from celery import Celery
    from ww import memory
    from ww_workers.tasks import consolidate, embed_pending

    app = Celery(broker="redis://192.0.2.1:1/0", backend="redis://192.0.2.1:1/0")

    async def main():
        topics = ["nightly backup failed", "coffee machine is broken"]
        await memory.store_batch([{"content": f"{topics[i % 2]} on day {i}", "session_id": "ops"} for i in range(40)])
        assert (await memory.counts()).embedded == 40
        stored = app.send_task("ww.store", kwargs={"content": "hello", "session_id": "ops"}, queue="ww").get()
        assert (await memory.get(stored["episode_id"])).state == "embedded"
        run = consolidate.delay(session_id="ops").get()
        assert run["status"] == "done" and run["clusters"]
        assert await memory.clusters("ops")
        again = app.signature("ww.consolidate", kwargs={"session_id": "ops"}).apply_async().get()
        assert again["status"] == "done"
        assert app.send_task("ww.verify").get()["ok"] is True
        assert len(app.send_task("ww.embed_query", args=["cat"]).get()) == 384
        embed_pending.delay()
        app.send_task("ww.sweep")
        app.send_task("ww.consolidate_due")

    asyncio.run(main())


def test_errors_are_those_of_a_real_task(ww_eager):
    from celery import Celery
    from ww.errors import InvalidInput

    for task, kwargs, said in [
        ("ww.store", {"content": ""}, "empty"),
        ("ww.store", {}, "an item without content"),
        ("ww.store", {"session_id": "ops", "contents": "x"}, "unknown key 'contents'"),
        ("ww.consolidate", {}, "session_id must be text"),
        ("ww.embed_query", {}, "text must be text"),
    ]:
        result = Celery(broker="redis://192.0.2.1:1/0").send_task(task, kwargs=kwargs)
        assert result.failed()
        with pytest.raises(InvalidInput, match=said):
            result.get()


def test_a_task_that_does_not_exist_is_said_at_once(ww_eager):
    from celery import Celery

    with pytest.raises(ValueError, match="ww.bogus"):
        Celery(broker="redis://192.0.2.1:1/0").send_task("ww.bogus", queue="ww")


def test_a_canvas_of_an_application_reaches_no_broker(ww_eager, caplog):
    from celery import Celery, chain, chord, group

    app = Celery(broker="redis://192.0.2.1:1/0", backend="redis://192.0.2.1:1/0")

    @app.task
    def count(receipts):
        return len(receipts)

    def remember(i):
        fields = {"content": f"the {['disk', 'fan', 'cable'][i % 3]} of rack {i} was replaced", "session_id": "ops"}
        return app.signature("ww.store", kwargs=fields, queue="ww", immutable=True)

    assert len(group(remember(i) for i in range(12)).apply_async().get()) == 12
    run = chain(remember(12), app.signature("ww.consolidate", kwargs={"session_id": "ops"}, immutable=True)).delay()
    assert run.get()["considered"] == 13
    assert chord([remember(13), remember(14)], count.s()).delay().get() == 2
    assert (remember(15) | group(remember(16), remember(17))).apply_async().successful()
    remember(18).apply_async().get()
    assert ww_eager.sync.counts().embedded == 19
    assert not [record for record in caplog.records if record.name.startswith("kombu")]


def test_afterwards_everything_is_as_it_was():
    from celery import Celery, canvas

    assert Celery.send_task.__module__ == "celery.app.base"
    for kind in (canvas._chain, canvas.group, canvas._chord):
        assert kind.apply_async.__module__ == "celery.canvas"
"""


def test_a_fresh_project_tests_its_application_with_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in [key for key in os.environ if key.startswith("T4DM_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(PROJECT)
    installed = any(entry.value == "ww.pytest_plugin" for entry in entry_points(group="pytest11"))
    options = [] if installed else ["-p", "ww.pytest_plugin"]
    result = pytester.runpytest_subprocess(*options, "-p", "no:asyncio", "-q", "--import-mode=importlib", timeout=180)
    result.assert_outcomes(passed=8)
