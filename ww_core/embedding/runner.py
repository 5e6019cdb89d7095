"""A model's forward pass by whichever path this machine runs best, with the reference behind it."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding import selftest
from ww_core.embedding.backends import Backend, domain_error, unit
from ww_core.embedding.bert import UnsupportedModel
from ww_core.embedding.cuda import WIDTH_STEP
from ww_core.embedding.errors import EncodingFailed, OutOfMemory
from ww_core.embedding.onnx_backend import OnnxBackend
from ww_core.embedding.paths import REFERENCE, Choice, Memory, compare, has_bf16, usable_cores
from ww_core.embedding.source import ModelSource
from ww_core.embedding.tokens import Batch, WordPieces
from ww_core.embedding.torch_backend import TorchBackend, pick_device
from ww_core.errors import ConfigurationError, WorldWeaverError
from ww_core.models import Vector
from ww_core.ram import return_memory

logger = logging.getLogger(__name__)

INT16 = "int16"  # the name of Int16Backend, which is imported where it is used

BATCH_ROWS = {"cuda": 64, "mps": 64, "cpu": 8}  # texts of one forward pass where the setting is silent
# Padded word pieces of one forward pass: bounds its memory. On a CPU its activations should stay in the cache.
_DEVICE_TOKENS = {"cuda": 65_536, "mps": 8_192}
# Of these, padding: with more, another pass costs a CPU less. A GPU is idle while a pass is launched.
_CPU_PADDING = 8
_ASKED_AFTER = 0.75
"""Share of a list after which the next one is asked for: the shortest texts alone are over before it is there."""
_CPU_TOKENS_PER_THREAD, _MIN_CPU_TOKENS, _MAX_CPU_TOKENS = 256, 512, 4_096


_Numbered: TypeAlias = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Places, and the word pieces of the text at each."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is to be run; models are shared between services that ask for the same."""

    device: str = "auto"
    fp16: bool = False
    threads: int | None = None


class Runner:
    """Runs word pieces through the model. Thread-safe; not valid in a forked child.

    Raises ConfigurationError, ModelUnavailable or OutOfMemory where the model cannot be loaded as asked.
    """

    def __init__(self, source: ModelSource, options: ModelOptions) -> None:
        self.source = source
        self.options = options
        self.device = pick_device(options.device)
        if options.fp16 and self.device == "cpu":
            raise ConfigurationError(
                "embedding_fp16 is true but the model runs on cpu", hint="half precision needs cuda or mps"
            )
        self.pieces = WordPieces(source, parallel=self.device != "cpu")
        self._memory = Memory()
        self._settling = threading.Lock()
        self._settled = True
        """Whether nothing is left to find or to take."""
        self.choice, self.backend = self._begin()
        """The path in use, and why."""

    # -- which path

    def settle(self) -> Choice:
        """Run on the fastest path from here on; where no process found it here before, find it: seconds, once.

        Others go on embedding meanwhile; a second caller does not wait.
        """
        if self._settled or not self._settling.acquire(blocking=False):
            return self.choice
        try:
            if not self._settled:
                found = self._recall()
                if found:
                    self._take(found)
                else:
                    self._compare()
                self._settled = True
        finally:
            self._settling.release()
        return self.choice

    def settle_aside(self, model: str) -> None:
        """The same beside the work, once; another process does the finding. ``model`` is the setting's value."""
        if self._settled or not self._settling.acquire(blocking=False):
            return
        if self._settled:
            self._settling.release()
            return
        try:
            if self._recall():
                threading.Thread(target=self._adopt, name="ww-encoder", daemon=True).start()
            else:
                selftest.start(model, self.options.threads, self._adopt)
        except RuntimeError as error:  # there can be no thread more, or the interpreter is ending
            self._settling.release()
            logger.info("No thread to settle on: %s", error, extra={"action": "embedding.selftest"})

    def _adopt(self) -> None:
        """Use what was found; where nothing was, this process asks no more."""
        try:
            if found := self._recall():
                self._take(found)
            self._settled = True
        finally:
            self._settling.release()

    def _take(self, choice: Choice) -> None:
        """Run on its path; what is in use stays where that cannot be opened."""
        try:
            if self.backend.name != choice.path:
                self.backend = self._open(choice.path)
                return_memory()  # what the other held, and the weights before they were rounded
            self.choice = choice
        except Exception as error:
            # Whatever keeps a path from loading, there is one that works.
            reason = f"{choice.path} cannot be used: {type(error).__name__}: {error}"
            logger.warning(reason, extra={"action": "embedding.path_refused", "path": choice.path})
            self.choice = Choice(self.backend.name, reason)

    def _recall(self) -> Choice | None:
        """What some process of this machine found."""
        return self._memory.recall(self.source, self.options.threads)

    def _begin(self) -> tuple[Choice, Backend]:
        """What earlier processes found best here, else what is there soonest; the reference where that fails."""
        if self.device != "cpu":
            return Choice(REFERENCE, f"the one path on {self.device}"), self._reference()
        found = self._recall()
        self._settled = found is not None and found.path != INT16
        choice = found or Choice(OnnxBackend.name, "loads without torch; not yet compared on this machine")
        if choice.path == INT16:
            choice = Choice(OnnxBackend.name, f"loads soonest; with more work comes {INT16}, {choice.reason}")
        try:
            return choice, self._open(choice.path)
        except Exception as error:
            # The fast paths are optional: whatever keeps one from loading, the reference decides what is an error.
            self._settled = True
            reason = f"{choice.path} cannot be used: {type(error).__name__}: {error}"
            level = logging.INFO if isinstance(error, UnsupportedModel) else logging.WARNING
            logger.log(level, reason, extra={"action": "embedding.path_refused", "path": choice.path})
            return Choice(REFERENCE, reason), self._reference()

    def _open(self, path: str) -> Backend:
        if path == OnnxBackend.name:
            return OnnxBackend.load(self.source, threads=self.options.threads)
        if path == INT16:
            with _compiling:
                from ww_core.embedding.int16.backend import Int16Backend  # numba: half a second that few commands need

                return Int16Backend.load(self.source, threads=self.options.threads or usable_cores())
        reference = self._reference()
        return reference.with_bf16() if path == TorchBackend.BF16 else reference

    def _reference(self) -> TorchBackend:
        return TorchBackend.load(self.source, device=self.device, fp16=self.options.fp16, threads=self.options.threads)

    def _compare(self) -> None:
        reference = self._reference()
        backends: dict[str, Backend] = {REFERENCE: reference}
        if self.backend.name == OnnxBackend.name:
            backends[OnnxBackend.name] = self.backend
            try:
                backends[INT16] = self._open(INT16)
            except Exception as error:
                # Impossible in many ways: no AVX2, no numba for this Python, nowhere to keep what it compiles.
                logger.info(
                    "int16 cannot be used: %s", error, extra={"action": "embedding.path_refused", "path": INT16}
                )
        if has_bf16():
            backends[TorchBackend.BF16] = reference.with_bf16()
        choice = Choice(REFERENCE, self.choice.reason)
        if len(backends) > 1:
            choice = compare(
                {name: partial(self._sample, backend) for name, backend in backends.items()},
                preferred=self.backend.name,
            )
        self.choice, self.backend = choice, backends[choice.path]
        self._memory.keep(self.source, self.options.threads, choice)
        logger.info(
            "Encoder path %s: %s",
            choice.path,
            choice.reason,
            extra={"action": "embedding.path_chosen", "path": choice.path, "speed": dict(choice.speed)},
        )

    def _sample(self, backend: Backend, texts: Sequence[str]) -> Vector:
        pieces = self.pieces.ids(texts)
        result = np.empty((len(pieces), self.source.dimension), dtype=np.float32)
        numbered: Iterator[_Numbered] = iter([(range(len(pieces)), pieces)])
        for places, vectors in self._passes(backend, numbered, self._rows(None), self._tokens()):
            result[list(places)] = vectors
        return result

    def _fall_back(self, path: str, error: BaseException) -> None:
        reason = f"{path} failed: {error}"
        logger.warning(reason, extra={"action": "embedding.path_failed", "path": path})
        self._settled = True
        self.choice, self.backend = Choice(REFERENCE, reason), self._reference()

    # -- the work

    def embed(self, pieces: Sequence[Sequence[int]], rows: int | None = None) -> Vector:
        """float32 (n, d), unit rows, for word pieces with special tokens; ``rows`` texts at most in one pass.

        Raises EncodingFailed, OutOfMemory, ModelUnavailable.
        """
        result = np.empty((len(pieces), self.source.dimension), dtype=np.float32)
        for places, vectors in self.embed_as_made([pieces], rows):
            result[list(places)] = vectors
        return result

    def embed_as_made(
        self, lists: Iterable[Sequence[Sequence[int]]], rows: int | None = None
    ) -> Iterator[tuple[tuple[int, ...], Vector]]:
        """The same pass by pass: places in all that the ``lists`` hold, and float32 (b, d) for them.

        The longest of a list come first. The next list is asked for when most of the one before is made or under way:
        where the path runs several passes at a time, those go on meanwhile.
        """
        rows, tokens = self._rows(rows), self._tokens()
        coming = iter(lists)
        drawn = 0
        left: dict[int, Sequence[int]] = {}
        read = False
        trouble: Exception | None = None

        def numbered() -> Iterator[_Numbered]:
            nonlocal drawn, read, trouble
            if left:  # what a pass that failed took with it
                yield list(left), list(left.values())
            while trouble is None and self.backend is backend:  # a path that was found meanwhile has the next list
                try:
                    pieces = next(coming, None)
                except Exception as error:  # not the path's: what is under way is made first
                    trouble = error
                    return
                if pieces is None:
                    read = True
                    return
                places = range(drawn, drawn + len(pieces))
                drawn = places.stop
                left.update(zip(places, pieces, strict=True))
                yield places, pieces

        while left or not read:
            backend = self.backend
            try:
                for places, vectors in self._passes(backend, numbered(), rows, tokens):
                    for place in places:
                        del left[place]
                    yield places, vectors
            except EncodingFailed as error:
                if backend.name == REFERENCE:
                    raise
                self._fall_back(backend.name, error)
            except OutOfMemory:
                # Smaller passes may fit; when a single text does not, it is the machine's lack, and said so.
                if rows == 1:
                    raise
                rows, tokens = max(1, rows // 2), max(self.pieces.max_tokens, tokens // 2)
                logger.warning("Batch halved", extra={"action": "embedding.batch_halved", "rows": rows})
                _free_device_memory(self.device)
            if trouble is not None and not left:
                raise trouble

    def token_states(
        self, pieces: Sequence[Sequence[int]], rows: int | None = None
    ) -> Iterator[tuple[int, Vector, NDArray[np.int64], NDArray[np.float32]]]:
        """Of each text, in no order: its place in ``pieces``, its unit vector float32 (d,), its ids int64 (t,) and its
        last hidden states float32 (t, h)."""
        for batch in self.pieces.batches(pieces, rows=self._rows(rows), tokens=self._tokens()):
            with _Translated(self.device):
                pooled, states = self.backend.pooled_and_states(batch)
            vectors = unit(pooled)
            for line, row in enumerate(batch.rows):
                length = int(batch.mask[line].sum())
                yield row, vectors[line], batch.ids[line, :length].copy(), states[line, :length]

    def _passes(
        self, backend: Backend, lists: Iterator[_Numbered], rows: int, tokens: int
    ) -> Iterator[tuple[tuple[int, ...], Vector]]:
        under_way: deque[tuple[int, ...]] = deque()

        def feed() -> Iterator[Batch]:
            padding = _CPU_PADDING if self.device == "cpu" else None
            step = WIDTH_STEP if self.device == "cuda" else 1
            following = next(lists, None)
            while following is not None:
                (places, pieces), following = following, None
                given, asked = 0, False
                for batch in self.pieces.batches(pieces, rows=rows, tokens=tokens, padding=padding, step=step):
                    if not asked and given >= _ASKED_AFTER * len(pieces):
                        following, asked = next(lists, None), True
                    given += len(batch.rows)
                    under_way.append(tuple(places[row] for row in batch.rows))
                    yield batch
                if not asked:
                    following = next(lists, None)

        with _Translated(self.device):
            for vectors in backend.run(feed()):
                places = under_way.popleft()
                if not np.isfinite(vectors).all():
                    bad = places[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
                    raise EncodingFailed(f"the model gave a vector that is not finite (text {bad})")
                yield places, unit(vectors)

    def _rows(self, rows: int | None) -> int:
        return rows or BATCH_ROWS[self.device]

    def _tokens(self) -> int:
        if self.device != "cpu":
            return _DEVICE_TOKENS[self.device]
        threads = self.options.threads or usable_cores()
        return min(_MAX_CPU_TOKENS, max(_MIN_CPU_TOKENS, threads * _CPU_TOKENS_PER_THREAD))


class _Translated:
    """Turns what a library raised into an error of this tree."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Anything that is an Exception: what the libraries raise has no common base, and the caller needs to know
        # whether a text is at fault, not which line of a library it was (that is in __cause__).
        if isinstance(error, Exception) and not isinstance(error, WorldWeaverError):
            raise failure(error, self._device) from error


def failure(error: BaseException, device: str) -> WorldWeaverError:
    """OutOfMemory or ModelUnavailable where the machine is at fault, else EncodingFailed."""
    return domain_error(error, device) or EncodingFailed(
        f"the model failed: {type(error).__name__}: {str(error)[:200]}"
    )


_compiling = threading.RLock()
"""Held while numba is imported and at work: a child forked meanwhile would wait for its locks for ever."""

os.register_at_fork(before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release)


def _free_device_memory(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


__all__ = ["BATCH_ROWS", "INT16", "ModelOptions", "Runner", "failure"]
