"""What is measured stays cheap to measure."""

from __future__ import annotations

from tests.performance.conftest import Measured
from ww.bench.recording import MOST, cost
from ww_core.observability.metrics import Metrics


class Slow(Metrics):
    """What recording must not become: every duration kept, and all of them sorted each time."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [float(n) for n in range(500)]

    def observe(self, stage: str, seconds: float) -> None:
        self.kept.sort(key=lambda kept: -kept)


def test_recording_takes_less_than_a_fiftieth_of_each_path(measured: Measured) -> None:
    found = {figure.name: figure for figure in measured("recording")}
    for name in ("store", "store_batch", "recall"):
        figure = found[f"recording_{name}"]
        print(f"{figure.name}: {figure.value:.2%} ({figure.note})")
        assert 0 < figure.value < MOST, figure
    assert found["recording_published"].value < MOST


def test_a_dear_recorder_is_seen() -> None:
    recordings = [lambda metrics: metrics.observe("recall", 0.01)] * 5
    assert cost(recordings, Slow()) > 10 * cost(recordings, Metrics())
