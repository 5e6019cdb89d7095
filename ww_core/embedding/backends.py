"""The ways a model's forward pass can be run, as one small interface."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.errors import OutOfMemory
from ww_core.embedding.tokens import Batch
from ww_core.errors import ModelUnavailable, WorldWeaverError
from ww_core.models import Vector

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad_alloc", "bad allocation")
_DEVICE_WORDS = ("cuda error", "cudnn", "cublas", "device-side assert", "mps backend", "no cuda gpus")


class Backend(Protocol):
    """A loaded model on one device. Thread-safe; not valid in a forked child."""

    @property
    def name(self) -> str:
        """``torch``, ``torch-bf16``, ``onnx`` or ``int16``."""

    @property
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""

    def run(self, batches: Iterable[Batch]) -> Iterator[Vector]:
        """float32 (b, d) for each batch in order: pooled, not normalised. Raises OutOfMemory, ModelUnavailable."""

    def pooled_and_states(self, batch: Batch) -> tuple[Vector, NDArray[np.float32]]:
        """What ``run`` gives, and float32 (b, t, h): the last hidden state of every word piece, padding included."""


def unit(rows: NDArray[Any]) -> Vector:
    """``rows`` (n, d) as float32 rows of length 1; a zero row stays zero."""
    rows = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    np.maximum(norms, np.finfo(np.float32).tiny, out=norms)
    result: Vector = rows / norms
    return result


def domain_error(error: BaseException, device: str) -> WorldWeaverError | None:
    """The error of the machine that ``error`` stands for, or None where the texts may be at fault."""
    text = f"{type(error).__name__}: {error}".lower()
    if isinstance(error, MemoryError) or "outofmemory" in text or any(words in text for words in _MEMORY_WORDS):
        return OutOfMemory(
            f"out of memory on {device}: {_first_line(error)}", hint="lower embedding_batch_size or free memory"
        )
    if any(words in text for words in _DEVICE_WORDS):
        return ModelUnavailable(f"{device} failed: {_first_line(error)}", hint="check the device, or use cpu")
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


__all__ = ["Backend", "domain_error", "unit"]
