"""Passes on a CUDA device that leave it no pause: recorded once for each shape, and fetched while the next one runs."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ww_core.embedding.tokens import Batch
from ww_core.models import Vector

logger = logging.getLogger(__name__)

AHEAD = 2
"""Passes that are under way on the device while the one before them is read."""
WIDTH_STEP = 16
"""Word pieces by which the widths of passes differ, so that there are few shapes."""
_MET = 3  # passes of one shape from which recording it pays
_MOST_RECORDED = 64  # shapes; each keeps its input and its result on the device, and what is between they share


def _torch() -> Any:
    """Torch, which is slow to import and whose streams and events have no types."""
    return import_module("torch")


class Fetched:
    """A result on its way from the device to this machine's memory, behind the pass that makes it."""

    def __init__(self, result: Any) -> None:
        torch = _torch()

        self._here = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
        self._here.copy_(result.float(), non_blocking=True)
        self._arrived = torch.cuda.Event(blocking=True)
        self._arrived.record()

    def rows(self) -> Vector:
        """float32 (b, d); waits for the pass and for no later one."""
        self._arrived.synchronize()
        rows: Vector = self._here.numpy()
        return rows


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: Any
    given: Any
    """int64 (2, b, t) on the device: ids and mask."""
    result: Any
    """(b, d) on the device, overwritten by every replay."""


class Passes:
    """Runs ``forward`` (ids, mask: int64 (b, t) on the device; to (b, d)) on batches, by CUDA graphs where it can.

    Launching the many small kernels of a pass one by one takes longer than their arithmetic, for models as small as
    those that embed episodes. A model that cannot be recorded is run the ordinary way, which is logged once.
    Thread-safe.
    """

    def __init__(self, forward: Callable[[Any, Any], Any], device: str) -> None:
        self._forward = forward
        self._device = device
        self._lock = threading.Lock()
        self._met: Counter[tuple[int, ...]] = Counter()
        self._recorded: dict[tuple[int, ...], _Recorded] = {}
        self._pool: Any = None
        self._recordable = True

    def run(self, batch: Batch) -> Fetched:
        """Begin a pass; it is not waited for."""
        torch = _torch()

        given = torch.empty((2, *batch.ids.shape), dtype=torch.int64, pin_memory=True)
        given[0].copy_(torch.from_numpy(batch.ids))
        given[1].copy_(torch.from_numpy(batch.mask))
        with torch.inference_mode():
            with self._lock:
                recorded = self._for(batch.ids.shape)
                if recorded is not None:
                    recorded.given.copy_(given, non_blocking=True)
                    recorded.graph.replay()
                    return Fetched(recorded.result)
            ids, mask = given.to(self._device, non_blocking=True)
            return Fetched(self._forward(ids, mask))

    def _for(self, shape: tuple[int, ...]) -> _Recorded | None:
        found = self._recorded.get(shape)
        if found is None and self._recordable and len(self._recorded) < _MOST_RECORDED:
            self._met[shape] += 1
            if self._met[shape] >= _MET:
                found = self._try_recording(shape)
        return found

    def _try_recording(self, shape: tuple[int, ...]) -> _Recorded | None:
        try:
            self._recorded[shape] = self._record(shape)
        except Exception as error:
            # Whatever a model does that a recording does not allow, or that memory does not: the ordinary way works.
            self._recordable = False
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
            logger.info("Passes are not recorded: %s", reason, extra={"action": "embedding.not_recorded"})
        return self._recorded.get(shape)

    def _record(self, shape: tuple[int, ...]) -> _Recorded:
        torch = _torch()

        given = torch.ones((2, *shape), dtype=torch.int64, device=self._device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # what a first pass of a shape sets up must not be recorded
            self._forward(given[0], given[1])
        torch.cuda.current_stream().wait_stream(aside)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = self._forward(given[0], given[1])
        return _Recorded(graph, given, result)


__all__ = ["AHEAD", "WIDTH_STEP", "Fetched", "Passes"]
