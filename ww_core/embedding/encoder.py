"""A loaded model: texts in, unit vectors out, one per process however many services use it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.backends import unit
from ww_core.embedding.errors import EncodingFailed
from ww_core.embedding.paths import Choice
from ww_core.embedding.runner import ModelOptions, Runner, failure
from ww_core.embedding.source import ModelSource
from ww_core.embedding.torch_backend import single_threaded_after_fork
from ww_core.errors import WorldWeaverError
from ww_core.forks import immortal
from ww_core.models import Vector
from ww_core.stores.ports import Fingerprint

logger = logging.getLogger(__name__)

Kind = Literal["query", "document"]

_CHUNK = 4_096  # texts tokenised and sorted at a time: bounds the memory of a bulk of any size
_WINDOWS = 64  # of long texts embedded at a time: some are whole every second or so
_MAX_LOADED = 2  # models kept loaded in one process


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
        self._runner = Runner(source, options)
        self._pieces = self._runner.pieces

    @property
    def fingerprint(self) -> Fingerprint:
        return self.source.fingerprint

    @property
    def device(self) -> str:
        return self._runner.device

    @property
    def choice(self) -> Choice:
        """The path in use, and why."""
        return self._runner.choice

    @property
    def window_tokens(self) -> int:
        """Word pieces of one window of a document, special tokens and the model's prompt not counted."""
        return self._window_tokens("document")

    def settle(self) -> Choice:
        """See Runner.settle."""
        return self._runner.settle()

    def settle_aside(self, model: str) -> None:
        """See Runner.settle_aside."""
        self._runner.settle_aside(model)

    def windows(self, text: str) -> list[str]:
        """``[text]`` where it has at most ``window_tokens`` word pieces, else overlapping slices: see WordPieces."""
        return self._pieces.windows(text, limit=self.window_tokens)

    def encode(self, texts: Sequence[str], *, rows: int | None = None) -> Vector:
        """float32 (n, d), unit rows; a text beyond the window is cut to it.

        Raises TextRefused, EncodingFailed, OutOfMemory, ModelUnavailable.
        """
        return self._runner.embed(self._prompted(texts, "document"), rows)

    def encode_windows(self, texts: Sequence[str], *, kind: Kind = "document", rows: int | None = None) -> list[Vector]:
        """float32 (w, d), unit rows, for each text: one row per window. Raises what ``encode`` raises."""
        made = dict(self.windows_as_made([texts], kind=kind, rows=rows))
        return [made[place] for place in range(len(texts))]

    def windows_as_made(
        self, lists: Iterable[Sequence[str]], *, kind: Kind = "document", rows: int | None = None
    ) -> Generator[tuple[int, Vector]]:
        """The same text by text, as soon as it is made, with its place in all that the ``lists`` hold.

        Of a list those of one window come first, then the longer. The next one is asked for as Runner.embed_as_made
        says.
        """
        owners: dict[int, tuple[int, int, int]] = {}  # of a window: the place of its text, its number, and how many
        unfinished: dict[int, dict[int, Vector]] = {}

        def pieces() -> Iterator[list[list[int]]]:
            numbers = count()
            for windows in self._windows(lists, kind):
                for place, of_one in windows:
                    owners.update((next(numbers), (place, window, len(of_one))) for window in range(len(of_one)))
                yield [ids for _, of_one in windows for ids in of_one]

        for numbers, vectors in self._runner.embed_as_made(pieces(), rows):
            for number, vector in zip(numbers, vectors, strict=True):
                place, window, windows = owners.pop(number)
                made = unfinished.setdefault(place, {})
                made[window] = vector
                if len(made) == windows:
                    del unfinished[place]
                    yield place, np.stack([made[each] for each in range(windows)])

    def _windows(self, lists: Iterable[Sequence[str]], kind: Kind) -> Iterator[list[tuple[int, list[list[int]]]]]:
        """Texts that go into the model together: the place of each and the word pieces of its windows."""
        before = 0
        for texts in lists:
            for start, pieces in self._read_ahead(texts, kind):
                fits = [len(ids) <= self._pieces.max_tokens for ids in pieces]
                yield [(before + start + i, [ids]) for i, ids in enumerate(pieces) if fits[i]]
                long = [(before + start + i, texts[start + i]) for i, fit in enumerate(fits) if not fit]
                yield from self._longer(long, kind)
            before += len(texts)

    def _read_ahead(self, texts: Sequence[str], kind: Kind) -> Iterator[tuple[int, list[list[int]]]]:
        """The word pieces of a chunk and where it starts; a device works on one chunk while the next is tokenised."""

        def read(start: int) -> list[list[int]]:
            return self._prompted(texts[start : start + _CHUNK], kind)

        starts = range(0, len(texts), _CHUNK)
        if self.device == "cpu" or len(starts) < 2:
            yield from ((start, read(start)) for start in starts)
            return
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ww-tokenise") as reader:
            coming = reader.submit(read, starts[0])
            for start, following in zip_longest(starts, starts[1:]):
                pieces = coming.result()
                if following is not None:
                    coming = reader.submit(read, following)
                yield start, pieces

    def _longer(self, texts: Sequence[tuple[int, str]], kind: Kind) -> Iterator[list[tuple[int, list[list[int]]]]]:
        """Texts of several windows, a few at a time: all at once, none would be whole before the last pass."""
        waiting: list[tuple[int, list[list[int]]]] = []
        for place, text in texts:
            parts = self._prompted(self._pieces.windows(text, limit=self._window_tokens(kind)), kind)
            if waiting and sum(len(windows) for _, windows in waiting) + len(parts) > _WINDOWS:
                yield waiting
                waiting = []
            waiting.append((place, parts))
        if waiting:
            yield waiting

    def token_vectors(self, texts: Sequence[str], *, kind: Kind = "document") -> list[TokenVectors]:
        """The last hidden state of every word piece of each text, for late interaction."""
        found = {
            row: TokenVectors(ids, unit(states))
            for row, _, ids, states in self._runner.token_states(self._prompted(texts, kind))
        }
        return [found[row] for row in range(len(texts))]

    def with_tokens(self, text: str, *, kind: Kind) -> tuple[Vector, TokenVectors]:
        """float32 (w, d) as ``encode_windows`` gives it, and the word pieces: one pass where the text is one window."""
        (pieces,) = self._prompted([text], kind)
        if len(pieces) > self._pieces.max_tokens:
            return self.encode_windows([text], kind=kind)[0], self.token_vectors([text], kind=kind)[0]
        ((_, pooled, ids, states),) = self._runner.token_states([pieces])
        if not np.isfinite(pooled).all():
            raise EncodingFailed("the model gave a vector that is not finite")
        return pooled[np.newaxis], TokenVectors(ids, unit(states))

    def word_pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text's word pieces, special tokens at both ends, never cut."""
        return self._prompted(texts, "document")

    def _prompted(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        prompt = self.source.prompts.get(kind, "")
        return self._pieces.ids([prompt + text for text in texts] if prompt else texts)

    def _window_tokens(self, kind: Kind) -> int:
        prompt = self.source.prompts.get(kind, "")
        return max(1, self._pieces.window_tokens - (len(self._pieces.ids([prompt])[0]) if prompt else 0))


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
                    "path": encoder.choice.path,
                    "seconds": round(time.monotonic() - started, 3),
                },
            )
        _loaded.move_to_end(key)
        while len(_loaded) > _MAX_LOADED:
            _loaded.popitem(last=False)
        return encoder


def loaded(source: ModelSource, options: ModelOptions) -> TextEncoder | None:
    """The same encoder, where it is loaded already."""
    return _loaded.get((str(source.directory), source.fingerprint, options))


def unload() -> None:
    """Let go of every loaded model of this process; the next use loads again."""
    with _lock:
        _loaded.clear()


def _load(source: ModelSource, options: ModelOptions) -> TextEncoder:
    try:
        return TextEncoder(source, options)
    except WorldWeaverError:
        raise
    except (RuntimeError, MemoryError) as error:
        raise failure(error, options.device) from error


def _after_fork_in_child() -> None:
    # Loaded models lean on thread pools that stayed with the parent: the child loads its own.
    global _lock
    _lock = threading.Lock()
    for encoder in _loaded.values():
        immortal(encoder)
    _loaded.clear()
    single_threaded_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["Kind", "TextEncoder", "TokenVectors", "loaded", "shared", "unload"]
