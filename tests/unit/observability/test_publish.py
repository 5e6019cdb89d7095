"""What every process measured is seen by all, for as long as the window lasts."""

import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.processes import RedisServer, in_child
from tests.support.clock import Clock
from ww_core.config import Settings
from ww_core.observability import Metrics
from ww_core.observability.alerts import evaluate
from ww_core.observability.metrics import ATTEMPTS, SLICES, WINDOW_SECONDS
from ww_core.observability.publish import FileBoard, Publisher, RedisBoard, deployment_snapshot
from ww_core.observability.summary import QUEUE_DEPTH


def publish_one(board: FileBoard, seconds: float, depth: float) -> None:
    metrics = Metrics()
    metrics.observe("recall", seconds)
    metrics.set_gauge(QUEUE_DEPTH, depth)
    Publisher(metrics, board).close()


def test_figures_of_other_processes_are_merged(tmp_path: Path) -> None:
    board = FileBoard(tmp_path / "metrics")
    assert in_child(lambda: publish_one(board, 0.1, 3)) == 0
    assert in_child(lambda: publish_one(board, 0.2, 4)) == 0
    own = Metrics()
    own.observe("recall", 0.3)
    Publisher(own, board).publish()  # its own publication is not counted beside what it measures now
    figures = deployment_snapshot(own, board)
    assert figures.stages["recall"].count == 3
    assert figures.recall_latency_p50 == pytest.approx(200, rel=0.01)
    assert figures.qdrant_queue_depth == 7


def test_gauges_of_a_silent_process_end_before_its_latencies(tmp_path: Path) -> None:
    board = FileBoard(tmp_path)
    assert in_child(lambda: publish_one(board, 0.1, 3)) == 0
    later = deployment_snapshot(Metrics(), FileBoard(tmp_path, clock=lambda: time.time() + 60))
    assert later.stages["recall"].count == 1
    assert math.isnan(later.qdrant_queue_depth)
    gone = deployment_snapshot(Metrics(), FileBoard(tmp_path, clock=lambda: time.time() + WINDOW_SECONDS + 1))
    assert "recall" not in gone.stages


def test_a_board_that_cannot_be_written_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    publish_one(FileBoard(tmp_path / "file" / "metrics"), 0.1, 1)


def test_files_of_long_ago_are_tidied_up(tmp_path: Path) -> None:
    board = FileBoard(tmp_path)
    assert in_child(lambda: publish_one(board, 0.1, 3)) == 0
    (path,) = tmp_path.glob("*.json")
    os.utime(path, (0, 0))
    assert board.read() == []
    assert not path.exists()


class Timed:
    """A process whose time, like that of the board's files, is the test's."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.started = time.time()
        self.metrics = Metrics(clock=self.clock)
        self.board = FileBoard(directory, clock=lambda: self.started + self.clock.now)

    def ends(self) -> None:
        """As another process: its own publication is told apart from the reader's."""
        text = json.dumps({"name": "another", **self.metrics.dump()})
        self.board.put("another", text)
        (path,) = self.board._directory.glob("another.json")
        os.utime(path, (self.started + self.clock.now,) * 2)

    def recall(self, ms: float) -> None:
        for _ in range(30):
            self.metrics.observe("recall", ms / 1000)
            self.metrics.increment(ATTEMPTS)

    def seen(self) -> Any:
        return deployment_snapshot(Metrics(), self.board)


def test_slow_recalls_leave_the_window_also_where_their_process_has_ended(tmp_path: Path) -> None:
    process = Timed(tmp_path)
    process.recall(900)
    process.clock.now = WINDOW_SECONDS - 1
    process.recall(10)
    process.ends()
    assert process.seen().stages["recall"].count == 60
    process.clock.now = WINDOW_SECONDS * (1 + 1 / SLICES) + 1
    assert process.seen().stages["recall"].count == process.seen().window[ATTEMPTS] == 30
    process.clock.now = 2 * WINDOW_SECONDS - 2
    found = process.seen()
    assert found.recall_latency_p99 == pytest.approx(10, rel=0.01)
    assert evaluate(found, Settings(), {})[0].level == "ok"


def test_a_process_is_as_old_in_every_place(tmp_path: Path) -> None:
    process = Timed(tmp_path)
    for _ in range(20):
        process.recall(50)
        process.clock.now += WINDOW_SECONDS / SLICES
        process.ends()
        here, elsewhere = process.metrics.snapshot(), process.seen()
        assert here.stages["recall"].count == elsewhere.stages["recall"].count


@pytest.mark.parametrize("skew", [-3600, -16, 16, 3600])
def test_a_hosts_clock_does_not_say_how_old_its_figures_are(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    board = RedisBoard(redis_server.client(), "ww")
    own = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: own() + skew)
        metrics = Metrics()
        metrics.observe("recall", 0.1)
        metrics.set_gauge(QUEUE_DEPTH, 3)
        board.put("another", json.dumps({"at": time.time(), "name": "another", **metrics.dump()}))
    figures = deployment_snapshot(Metrics(), board)
    assert figures.stages["recall"].count == 1
    assert figures.qdrant_queue_depth == 3


def test_in_redis_figures_age_with_their_key(redis_server: RedisServer) -> None:
    client = redis_server.client()
    board = RedisBoard(client, "ww")
    metrics = Metrics()
    metrics.observe("recall", 0.1)
    metrics.set_gauge(QUEUE_DEPTH, 3)
    board.put("another", json.dumps({"name": "another", **metrics.dump()}))
    (key,) = client.keys("*")
    client.expire(key, int(WINDOW_SECONDS - 60))
    figures = deployment_snapshot(Metrics(), board)
    assert figures.stages["recall"].count == 1
    assert math.isnan(figures.qdrant_queue_depth)
    client.persist(key)
    assert board.read() == [], "nobody knows how old it is"


def test_what_an_earlier_version_published_breaks_nothing(tmp_path: Path) -> None:
    board = FileBoard(tmp_path)
    old = {"at": time.time(), "name": "old", "sketches": {}, "window": {}, "totals": {}, "gauges": {}, "errors": 0}
    board.put("old", json.dumps(old))
    assert deployment_snapshot(Metrics(), board).processes == 0


def test_a_busy_process_publishes_little(tmp_path: Path) -> None:
    rng, clock = random.Random(1), Clock()
    metrics = Metrics(clock=clock)
    for _ in range(SLICES + 1):
        for stage in range(20):
            for _ in range(1000):
                metrics.observe(f"stage.number{stage}", rng.lognormvariate(-5, 0.5))
        clock.now += WINDOW_SECONDS / SLICES
    board = FileBoard(tmp_path)
    Publisher(metrics, board).publish()
    (path,) = tmp_path.glob("*.json")
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("left", [b"", b"{cut", b"\xff\xfe\x00", b"[]", b'{"name": "x"}'])
def test_what_a_crash_left_breaks_nothing_and_goes(tmp_path: Path, left: bytes) -> None:
    assert in_child(lambda: publish_one(FileBoard(tmp_path), 0.1, 7)) == 0
    for name in ("crashed.json", ".crashed.new"):
        (tmp_path / name).write_bytes(left)
    assert deployment_snapshot(Metrics(), FileBoard(tmp_path)).qdrant_queue_depth == 7
    later = time.time() + WINDOW_SECONDS + 1
    FileBoard(tmp_path, clock=lambda: later).read()
    assert list(tmp_path.iterdir()) == []
