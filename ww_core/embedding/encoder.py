"""A loaded model: texts in, unit vectors out, one per process however many services use it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.backends import Backend, domain_error, unit
from ww_core.embedding.errors import EncodingFailed, OutOfMemory
from ww_core.embedding.source import ModelSource
from ww_core.embedding.tokens import Batch, WordPieces
from ww_core.embedding.torch_backend import TorchBackend, pick_device, single_threaded_after_fork
from ww_core.errors import WorldWeaverError
from ww_core.models import Vector
from ww_core.stores.ports import Fingerprint

logger = logging.getLogger(__name__)

Kind = Literal["query", "document"]
_Forward = Callable[[Batch], NDArray[np.float32]]

BATCH_ROWS = {"cuda": 64, "mps": 64, "cpu": 8}  # texts of one forward pass where the setting is silent
_BATCH_TOKENS = {
    "cuda": 16_384,
    "mps": 8_192,
    "cpu": 2_048,
}  # padded word pieces of one forward pass: bounds its memory
_CHUNK = 4_096  # texts tokenised and sorted at a time: bounds the memory of a bulk of any size
_MAX_LOADED = 2  # models kept loaded in one process


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is to be run; models are shared between services that ask for the same."""

    device: str = "auto"
    fp16: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The word pieces of one text with their vectors, special tokens included.

    ``ids`` int64 (t,); ``vectors`` float32 (t, h), unit rows; a text longer than the model's window is cut.
    """

    ids: NDArray[np.int64]
    vectors: Vector


class TextEncoder:
    """A model with its tokenizer. Thread-safe; made by ``shared``."""

    def __init__(self, source: ModelSource, options: ModelOptions) -> None:
        self.source = source
        self.options = options
        device = pick_device(options.device)
        self.pieces = WordPieces(source, parallel=device != "cpu")
        self.backend: Backend = TorchBackend.load(source, device=device, fp16=options.fp16, threads=options.threads)

    @property
    def fingerprint(self) -> Fingerprint:
        return self.source.fingerprint

    @property
    def device(self) -> str:
        return self.backend.device

    @property
    def window_tokens(self) -> int:
        """Word pieces of one window of a document, special tokens and the model's prompt not counted."""
        return self._window_tokens("document")

    def windows(self, text: str) -> list[str]:
        """``text`` as overlapping slices of at most ``window_tokens`` word pieces; ``[text]`` where it fits."""
        return self.pieces.windows(text, limit=self.window_tokens)

    def encode(self, texts: Sequence[str], *, rows: int | None = None) -> Vector:
        """float32 (n, d), unit rows; a text beyond the window is cut to it.

        Raises TextRefused, EncodingFailed, OutOfMemory, ModelUnavailable.
        """
        return self._embed(self.pieces.ids(texts), rows)

    def encode_windows(self, texts: Sequence[str], *, kind: Kind = "document", rows: int | None = None) -> list[Vector]:
        """float32 (w, d), unit rows, for each text: one row per window. Raises what ``encode`` raises."""
        result: list[Vector] = []
        for start in range(0, len(texts), _CHUNK):
            result += self._encode_chunk(texts[start : start + _CHUNK], kind, rows)
        return result

    def token_vectors(self, texts: Sequence[str], *, kind: Kind = "document") -> list[TokenVectors]:
        """The last hidden state of every word piece of each text, for late interaction."""
        prompt = self.source.prompts.get(kind, "")
        ids = self.pieces.ids([prompt + text for text in texts] if prompt else texts)
        found: dict[int, TokenVectors] = {}
        for batch in self.pieces.batches(ids, rows=self._rows(None), tokens=_BATCH_TOKENS[self.device]):
            states = self._guarded(batch, self.backend.token_states)
            for line, row in enumerate(batch.rows):
                length = int(batch.mask[line].sum())
                found[row] = TokenVectors(batch.ids[line, :length].copy(), unit(states[line, :length]))
        return [found[row] for row in range(len(texts))]

    def _encode_chunk(self, texts: Sequence[str], kind: Kind, rows: int | None) -> list[Vector]:
        prompt = self.source.prompts.get(kind, "")
        limit = self.pieces.max_tokens
        pieces: list[list[int]] = []
        counts: list[int] = []
        for index, ids in enumerate(self.pieces.ids([prompt + text for text in texts] if prompt else texts)):
            if len(ids) <= limit:
                pieces.append(ids)
                counts.append(1)
            else:
                parts = self.pieces.windows(texts[index], limit=self._window_tokens(kind))
                pieces += self.pieces.ids([prompt + part for part in parts])
                counts.append(len(parts))
        ends = np.cumsum(counts)
        return np.split(self._embed(pieces, rows), ends[:-1]) if counts else []

    def _window_tokens(self, kind: Kind) -> int:
        prompt = self.source.prompts.get(kind, "")
        return max(1, self.pieces.window_tokens - (len(self.pieces.ids([prompt])[0]) if prompt else 0))

    def _rows(self, rows: int | None) -> int:
        return rows or BATCH_ROWS[self.device]

    def _embed(self, pieces: Sequence[Sequence[int]], rows: int | None) -> Vector:
        result = np.empty((len(pieces), self.source.dimension), dtype=np.float32)
        rows, tokens = self._rows(rows), _BATCH_TOKENS[self.device]
        todo: Sequence[int] = range(len(pieces))
        while todo:
            try:
                self._run([pieces[i] for i in todo], todo, result, rows, tokens)
                break
            except OutOfMemory:
                # Smaller passes may fit; when a single text does not, it is the machine's lack, and said so.
                if rows == 1:
                    raise
                rows, tokens = max(1, rows // 2), max(self.pieces.max_tokens, tokens // 2)
                logger.warning("Batch halved", extra={"action": "embedding.batch_halved", "rows": rows})
                _free_device_memory(self.device)
        if not np.isfinite(result).all():
            bad = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
            raise EncodingFailed(f"the model gave a vector that is not finite (window {bad} of {len(pieces)})")
        return result

    def _run(
        self, pieces: Sequence[Sequence[int]], places: Sequence[int], result: Vector, rows: int, tokens: int
    ) -> None:
        under_way: deque[tuple[int, ...]] = deque()

        def feed() -> Iterator[Batch]:
            for batch in self.pieces.batches(pieces, rows=rows, tokens=tokens):
                under_way.append(batch.rows)
                yield batch

        try:
            for vectors in self.backend.run(feed()):
                result[[places[row] for row in under_way.popleft()]] = unit(vectors)
        except WorldWeaverError:
            raise
        except (RuntimeError, MemoryError, ValueError, IndexError, AssertionError) as error:
            raise domain_error(error, self.device) or _failed(error) from error

    def _guarded(self, batch: Batch, forward: _Forward) -> NDArray[np.float32]:
        try:
            return forward(batch)
        except (RuntimeError, MemoryError, ValueError, IndexError, AssertionError) as error:
            raise domain_error(error, self.device) or _failed(error) from error


_lock = threading.Lock()
_loaded: OrderedDict[tuple[str, Fingerprint, ModelOptions], TextEncoder] = OrderedDict()


def shared(source: ModelSource, options: ModelOptions) -> TextEncoder:
    """This process's encoder of that model, loaded at the first call; at most two models stay loaded."""
    key = (str(source.directory), source.fingerprint, options)
    with _lock:
        if (encoder := _loaded.get(key)) is None:
            started = time.monotonic()
            encoder = _loaded[key] = _load(source, options)
            logger.info(
                "Model loaded",
                extra={
                    "action": "embedding.loaded",
                    "model": source.fingerprint.model,
                    "device": encoder.device,
                    "path": encoder.backend.name,
                    "seconds": round(time.monotonic() - started, 3),
                },
            )
        _loaded.move_to_end(key)
        while len(_loaded) > _MAX_LOADED:
            _loaded.popitem(last=False)
        return encoder


def unload() -> None:
    """Let go of every loaded model of this process; the next use loads again."""
    with _lock:
        _loaded.clear()


def _load(source: ModelSource, options: ModelOptions) -> TextEncoder:
    try:
        return TextEncoder(source, options)
    except (RuntimeError, MemoryError) as error:
        raise domain_error(error, options.device) or _failed(error) from error


def _failed(error: BaseException) -> EncodingFailed:
    return EncodingFailed(f"the model failed: {type(error).__name__}: {str(error)[:200]}")


def _free_device_memory(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


def _after_fork_in_child() -> None:
    # Loaded models lean on thread pools that stayed with the parent: the child loads its own.
    global _lock
    _lock = threading.Lock()
    _loaded.clear()
    single_threaded_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["BATCH_ROWS", "Kind", "ModelOptions", "TextEncoder", "TokenVectors", "shared", "unload"]
