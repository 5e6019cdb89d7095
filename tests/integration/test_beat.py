"""Beat on a real Redis: two beats, and one that slept, make one consolidation per session and window."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.processes import RedisServer, Worker, clean_environment, until
from ww.memory.episodic import EpisodicMemory
from ww_workers.settings import BEAT_TICK

INTERVAL = 4.0


@contextmanager
def _beat(redis_url: str, data_dir: Path, schedule: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = clean_environment(
        T4DM_REDIS_URL=redis_url, T4DM_DATA_DIR=str(data_dir), T4DM_CONSOLIDATION_INTERVAL=str(INTERVAL)
    )
    command = [sys.executable, "-m", "celery", "-A", "ww_workers", "beat", "-s", str(schedule)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_two_beats_and_one_that_slept_make_one_run_per_session_and_window(
    tmp_path: Path, redis_server: RedisServer, start_worker: Callable[..., Worker]
) -> None:
    data_dir = tmp_path / "memory"
    start_worker(data_dir, "-c", "2", T4DM_CONSOLIDATION_INTERVAL=str(INTERVAL))
    memory = EpisodicMemory(
        session_id="ops", data_dir=data_dir, redis_url=redis_server.url, consolidation_interval=INTERVAL
    )
    graph = memory.core.deployment.graph

    def done() -> int:
        return sum(run.status == "done" for run in graph.runs("ops", limit=500))

    def feed(number: int) -> None:
        memory.sync.store_batch([f"Round {number}: valve {n} of pump {n % 5} was replaced" for n in range(40)])
        memory.sync.flush(timeout=90)

    with ExitStack() as stack:
        stack.callback(memory.close)
        first = stack.enter_context(_beat(redis_server.url, data_dir, tmp_path / "first"))
        stack.enter_context(_beat(redis_server.url, data_dir, tmp_path / "second"))
        feed(0)
        until(lambda: done() >= 1, what="a scheduled run")
        first.send_signal(signal.SIGSTOP)
        feed(1)
        until(lambda: done() >= 2, what="a run with one beat asleep")
        first.send_signal(signal.SIGCONT)
        feed(2)
        until(lambda: done() >= 3, what="a run after the beat woke up")
        until(lambda: graph.get_fact(BEAT_TICK) is not None, what="a tick that the doctor sees")

    windows = Counter(run.window for run in graph.runs("ops", limit=500))
    assert None not in windows
    assert max(windows.values()) == 1, windows
