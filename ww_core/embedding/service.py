"""What the rest of the system asks for embeddings: one service per settings, with a cache in front of the model."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ww_core.config import Settings
from ww_core.embedding.backends import unit
from ww_core.embedding.cache import EmbeddingCache
from ww_core.embedding.encoder import Kind, TextEncoder, TokenVectors, loaded, shared
from ww_core.embedding.errors import EncodingFailed, OutOfMemory
from ww_core.embedding.paths import Choice, Memory
from ww_core.embedding.runner import ModelOptions
from ww_core.embedding.source import ModelSource, locate
from ww_core.errors import ConfigurationError, InvalidInput, ModelUnavailable
from ww_core.models import Vector
from ww_core.stores.ports import Fingerprint

BULK = 256  # texts run through the model in one process from which the fastest path pays what it costs to take

_Key = tuple[str, str]  # (prompt, text); the model is the service's own


@dataclass(frozen=True, slots=True)
class EncoderState:
    """How the model runs in this process. ``choice`` None: nothing was compared on this machine yet."""

    fingerprint: Fingerprint
    directory: str
    window_tokens: int
    """Word pieces of one window, special tokens included."""
    loaded: bool
    device: str | None
    choice: Choice | None


class EmbeddingService:
    """Embeds texts with the model of the settings. Thread-safe; survives fork (the child loads its own model).

    Nothing is loaded before the first text: ``fingerprint``, ``dimension`` and ``cache_stats`` read files at most. The
    model is shared by all services of the process that ask for the same one.

    Raises ConfigurationError for settings that contradict each other. Every method that embeds raises
    ModelUnavailable where the model cannot be loaded or the device gives out (``OutOfMemory``), TextRefused
    (InvalidInput) for what is no valid text, and EncodingFailed where the model fails on these texts.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        if settings.embedding_fp16 and settings.embedding_device == "cpu":
            raise ConfigurationError(
                "embedding_fp16 is true but embedding_device is cpu",
                hint="half precision needs cuda or mps: set embedding_fp16: false",
            )
        self._settings = settings
        self._options = ModelOptions(
            device=settings.embedding_device, fp16=settings.embedding_fp16, threads=settings.embedding_threads
        )
        self._cache: EmbeddingCache[_Key] = EmbeddingCache(
            settings.embedding_cache_size, settings.embedding_cache_ttl, clock=clock
        )
        self._bulk = threading.Lock()
        self._texts = 0
        _services.add(self)

    # -- what it is

    @cached_property
    def source(self) -> ModelSource:
        """The model's directory and configuration. Raises ModelUnavailable where there is none."""
        return locate(self._settings.embedding_model)

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes this model's vectors comparable; read from the model's files without loading it."""
        return self.source.fingerprint

    @property
    def dimension(self) -> int:
        return self.source.dimension

    @property
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``mps``: where the model runs. Loads it."""
        return self._encoder().device

    @property
    def window_tokens(self) -> int:
        """Word pieces of one window, special tokens not counted. Loads the model."""
        return self._encoder().window_tokens

    def describe(self) -> EncoderState:
        """How the model runs and why, for people. Loads nothing."""
        encoder = loaded(self.source, self._options)
        choice = encoder.choice if encoder else Memory().recall(self.source, self._options.threads)
        return EncoderState(
            fingerprint=self.fingerprint,
            directory=str(self.source.directory),
            window_tokens=self.source.max_tokens,
            loaded=encoder is not None,
            device=encoder.device if encoder else None,
            choice=choice,
        )

    def warm(self) -> None:
        """Load the model and run it once, so that the next text does not wait."""
        self._encoder().encode(["warm"])

    def settle(self) -> Choice:
        """Find this machine's fastest way of running the model now, if it was not found before (seconds, once).

        Otherwise a process of its own does it once ``BULK`` texts went through the model; nobody waits for it.
        """
        return self._encoder().settle()

    def close(self) -> None:
        """Forget what is cached. The model stays, for other services of this process."""
        self._cache.clear()

    # -- embedding

    def encode(self, texts: str | Sequence[str]) -> Vector:
        """float32 (n, d), unit rows, through the cache. A long text is the unit mean of its windows."""
        if texts is None:
            raise InvalidInput("texts is None", hint="give a text, or a list of texts")
        return self._cached([texts] if isinstance(texts, str) else list(texts), "document")

    def encode_query(self, text: str, *, counted: bool = True) -> Vector:
        """float32 (d,), unit length, through the cache; not ``counted`` where the one who asks has counted it."""
        row: Vector = self._cached([text], "query", counted=counted)[0]
        return row

    def encode_query_with_tokens(self, text: str) -> tuple[Vector, TokenVectors | None]:
        """``encode_query``, and the word pieces that late interaction reads: one pass of the model for both.

        Where that pass fails the vector is made as ever, and there are no word pieces.
        """
        read: list[TokenVectors | None] = []

        def compute(missing: list[_Key]) -> list[Vector]:
            try:
                rows, tokens = self._encoder(1).with_tokens(text, kind="query")
            except (EncodingFailed, OutOfMemory):
                read.append(None)
                return [_mean(row) for row in self._encode([text], "query")]
            read.append(tokens)
            return [_mean(rows)]

        _check([text])
        (row,) = self._cache.fetch([self._key(text, "query")], compute)
        return row, read[0] if read else self._tokens_of(text)

    def _tokens_of(self, query: str) -> TokenVectors | None:
        try:
            return self.token_vectors([query], kind="query")[0]
        except (EncodingFailed, ModelUnavailable):
            return None

    def embed_windows(self, texts: Sequence[str]) -> list[Vector]:
        """float32 (w, d), unit rows, one per window, for each text.

        The bulk path: it reads the cache and leaves it as it is, and one bulk at a time runs the model in this process.
        """
        texts = list(texts)
        made = dict(self.windows_as_made([texts])) if texts else {}
        return [made[place] for place in range(len(texts))]

    def windows_as_made(self, lists: Iterable[Sequence[str]]) -> Generator[tuple[int, Vector]]:
        """What ``embed_windows`` gives, text by text as soon as it is made, in no order, with its place in all that the
        ``lists`` hold.

        A list is asked for when there is not much left of the one before: while the model is at that, where it can be.
        Other bulks have their turn between two passes of the model.
        """
        bulk = _Bulk(lists, self._known)
        while not bulk.read:
            missing, rows_at_once = self._counted(bulk.missing()), self._settings.embedding_batch_size
            with closing(self._encoder().windows_as_made(missing, rows=rows_at_once)) as stream:
                while True:
                    with self._bulk:  # never while this is suspended: whoever reads it may be writing, or waiting
                        made = next(stream, None)
                    yield from bulk.known()
                    if made is None:
                        break
                    number, rows = made
                    yield from ((place, rows) for place in bulk.places.pop(number))

    def _known(self, texts: Sequence[str]) -> dict[str, Vector]:
        """float32 (1, d) of those that the cache holds."""
        # of a long text the cache holds the mean of its windows, which is no window
        return {
            text: row[np.newaxis]
            for (_, text), row in self._cache.peek([self._key(text, "document") for text in texts]).items()
            if len(self.windows(text)) == 1
        }

    def _counted(self, lists: Iterable[list[str]]) -> Iterator[list[str]]:
        for texts in lists:
            self._encoder(len(texts))
            yield texts

    def windows(self, text: str) -> list[str]:
        """``text`` as overlapping slices that each fit the model; ``[text]`` where it fits."""
        return self._encoder().windows(text)

    def token_vectors(self, texts: Sequence[str], *, kind: Kind = "document") -> list[TokenVectors]:
        """Every word piece of each text with its vector (not cached), for late interaction."""
        _check(texts)
        return self._encoder().token_vectors(texts, kind=kind)

    def word_pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text's word pieces, special tokens at both ends; the model is not run."""
        _check(texts)
        return self._encoder().word_pieces(texts)

    def cache_stats(self) -> Mapping[str, float]:
        """``hits``, ``misses``, ``total``, ``hit_rate`` and more, as EmbeddingCache.stats describes them."""
        return self._cache.stats()

    def seed(self, text: str, vector: Vector) -> None:
        """Keep a vector float32 (d,) that this model once made of a text of one window, so that it need not again."""
        self._cache.put(self._key(text, "document"), vector)

    def forget(self, texts: Sequence[str] | None) -> None:
        """Drop what the cache holds of these texts, or everything with None: their episodes were erased."""
        if texts is None:
            self._cache.clear()
        else:
            self._cache.discard([self._key(text, kind) for text in texts for kind in ("document", "query")])

    # -- inside

    def _encoder(self, texts: int = 0) -> TextEncoder:
        """This process's encoder, for so many texts to run through the model."""
        encoder = shared(self.source, self._options)
        self._texts += texts
        if self._texts >= BULK:
            encoder.settle_aside(self._settings.embedding_model)
        return encoder

    def _key(self, text: str, kind: Kind) -> _Key:
        return (self.source.prompts.get(kind, ""), text)

    def _cached(self, texts: list[str], kind: Kind, *, counted: bool = True) -> Vector:
        _check(texts)
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        keys = [self._key(text, kind) for text in texts]

        def compute(missing: list[_Key]) -> list[Vector]:
            return [_mean(rows) for rows in self._encode([text for _, text in missing], kind)]

        return np.stack(self._cache.fetch(keys, compute, counted=counted))

    def _encode(self, texts: Sequence[str], kind: Kind) -> list[Vector]:
        return self._encoder(len(texts)).encode_windows(texts, kind=kind, rows=self._settings.embedding_batch_size)


class _Bulk:
    """Lists of texts on their way to the model, which sees each text of a list once, and none that is known."""

    def __init__(self, lists: Iterable[Sequence[str]], look: Callable[[Sequence[str]], Mapping[str, Vector]]) -> None:
        self._lists = iter(lists)
        self._look = look
        self._before = 0
        self._found: list[tuple[int, Vector]] = []
        self.places: dict[int, list[int]] = {}
        """Where each of the texts stands that ``missing`` gave since it was called last, until it is made."""
        self.read = False
        """Whether there is no list left."""

    def missing(self) -> Iterator[list[str]]:
        """What the model has to see of each list, until it has to see nothing of one: what is known of that need not
        wait for the next."""
        given = 0
        for texts in self._lists:
            _check(texts)
            places: dict[str, list[int]] = {}
            for place, text in enumerate(texts, self._before):
                places.setdefault(text, []).append(place)
            self._before += len(texts)
            known = self._look(list(places))
            self._found += [(place, row.copy()) for text, row in known.items() for place in places[text]]
            missing = [text for text in places if text not in known]
            if not missing:
                return
            self.places.update(enumerate((places[text] for text in missing), given))
            given += len(missing)
            yield missing
        self.read = True

    def known(self) -> list[tuple[int, Vector]]:
        """What was found since it was asked last: places and rows."""
        found, self._found = self._found, []
        return found


def _check(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InvalidInput("a list of texts is a str", hint="give a list of it")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"text {index} is {type(text).__name__}, not str")


def _mean(rows: Vector) -> Vector:
    mean: Vector = rows[0] if len(rows) == 1 else unit(rows.mean(axis=0, keepdims=True))[0]
    return mean


_services: weakref.WeakSet[EmbeddingService] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for service in list(_services):
        service._bulk = threading.Lock()
        service._cache.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["BULK", "EmbeddingService", "EncoderState"]
