"""What every process measured is seen by all, for as long as the window lasts."""

import math
import os
import time
from pathlib import Path

import pytest

from tests.processes import in_child
from ww_core.observability import Metrics
from ww_core.observability.metrics import WINDOW_SECONDS
from ww_core.observability.publish import FileBoard, Publisher, deployment_snapshot
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
    later = deployment_snapshot(Metrics(), board, clock=lambda: time.time() + 60)
    assert later.stages["recall"].count == 1
    assert math.isnan(later.qdrant_queue_depth)
    gone = deployment_snapshot(Metrics(), board, clock=lambda: time.time() + WINDOW_SECONDS + 1)
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
