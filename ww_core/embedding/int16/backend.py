"""The backend over the integer kernels: weights rounded at loading, passes side by side on threads of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.bert import BertWeights, UnsupportedModel
from ww_core.embedding.int16.kernels import LEVELS, Encoder, Linear, Norm, forward
from ww_core.embedding.int16.tiles import COLUMNS
from ww_core.embedding.source import ModelSource
from ww_core.embedding.tokens import Batch
from ww_core.models import Vector

_LARGEST_SUM = 2**31 - 1
_LARGEST_WEIGHT = 2**15 - 1
_PROJECTIONS = ("attention.self.query", "attention.self.key", "attention.self.value")


class Int16Backend:
    """A BERT encoder whose matrix products are of 16-bit integers (vpmaddwd of AVX2)."""

    name = "int16"
    device = "cpu"

    def __init__(self, encoder: Encoder, pooling: str, threads: int) -> None:
        self._encoder = encoder
        self._pooling = pooling
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ww-encode") if threads > 1 else None

    @classmethod
    def load(cls, source: ModelSource, *, threads: int) -> Int16Backend:
        """Read, round and compile: a second, or about ten the first time on a machine; numba keeps what it made.

        Raises UnsupportedModel where the CPU has no AVX2, or the model is no BERT encoder of fitting sizes.
        """
        _check_cpu()
        bert = BertWeights.read(source)
        backend = cls(_encoder(bert), bert.pooling, threads)
        forward(backend._encoder, np.zeros(2, np.int64), np.array([2]))
        return backend

    def run(self, batches: Iterable[Batch]) -> Iterator[Vector]:
        if self._pool is None:
            yield from (self._pooled(batch) for batch in batches)
            return
        under_way: deque[Future[Vector]] = deque()
        for batch in batches:
            under_way.append(self._submit(self._pool, batch))
            if len(under_way) > self._threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def pooled_and_states(self, batch: Batch) -> tuple[Vector, NDArray[np.float32]]:
        lengths, states = self._states(batch)
        padded = np.zeros((*batch.ids.shape, states.shape[1]), dtype=np.float32)
        padded[batch.mask.astype(bool)] = states
        return self._pool_states(lengths, states), padded

    def _submit(self, pool: ThreadPoolExecutor, batch: Batch) -> Future[Vector]:
        try:
            return pool.submit(self._pooled, batch)
        except RuntimeError:  # there are no threads any more: the interpreter is ending
            made: Future[Vector] = Future()
            made.set_result(self._pooled(batch))
            return made

    def _pooled(self, batch: Batch) -> Vector:
        return self._pool_states(*self._states(batch))

    def _states(self, batch: Batch) -> tuple[NDArray[np.int64], Vector]:
        """The length of each text, and the states of all their word pieces end to end."""
        lengths = batch.mask.sum(axis=1)
        words, places = len(self._encoder.words), len(self._encoder.places)
        if not 0 < lengths.min() <= lengths.max() <= places or not 0 <= batch.ids.min() <= batch.ids.max() < words:
            raise ValueError(f"a text is empty, or beyond {places} word pieces or the {words} that the model knows")
        states: Vector = forward(self._encoder, batch.ids[batch.mask.astype(bool)], lengths)
        return lengths, states

    def _pool_states(self, lengths: NDArray[np.int64], states: Vector) -> Vector:
        starts = np.cumsum(lengths) - lengths
        if self._pooling == "cls":
            pooled: Vector = states[starts]
        else:
            pooled = np.add.reduceat(states, starts, axis=0)
            pooled /= lengths[:, np.newaxis]
        return pooled


def _check_cpu() -> None:
    from llvmlite import binding
    from numba import config

    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        raise UnsupportedModel("NUMBA_CPU_NAME or NUMBA_CPU_FEATURES asks for another CPU than this one")
    if not binding.get_host_cpu_features().get("avx2"):
        raise UnsupportedModel("the CPU has no AVX2")


def _encoder(bert: BertWeights) -> Encoder:
    if bert.hidden // bert.heads % COLUMNS:
        raise UnsupportedModel(f"heads have {bert.hidden // bert.heads} numbers, no multiple of {COLUMNS}")
    encoder = Encoder(
        words=_finite(bert.get("embeddings.word_embeddings.weight")),
        places=_finite(bert.places()),
        embedded=_norm(bert, ["embeddings.LayerNorm"]),
        projected=_linear(bert, _PROJECTIONS),
        attended=_linear(bert, ["attention.output.dense"]),
        attended_norm=_norm(bert, [layer + "attention.output.LayerNorm" for layer in bert.layers]),
        up=_linear(bert, ["intermediate.dense"]),
        down=_linear(bert, ["output.dense"]),
        down_norm=_norm(bert, [layer + "output.LayerNorm" for layer in bert.layers]),
        heads=bert.heads,
        epsilon=np.float32(bert.epsilon),
    )
    _check_shapes(encoder, bert.hidden)
    return encoder


def _check_shapes(encoder: Encoder, hidden: int) -> None:
    """The kernels work at addresses: they would read beyond an array that is smaller than the others say.

    Raises UnsupportedModel.
    """
    layers, wide = encoder.up.bias.shape
    linears = (
        (encoder.projected, hidden, 3 * hidden),
        (encoder.attended, hidden, hidden),
        (encoder.up, hidden, wide),
        (encoder.down, wide, hidden),
    )
    fits = all(
        linear.weights.shape == (layers, out // COLUMNS, deep // 2, COLUMNS, 2) and linear.bias.shape == (layers, out)
        for linear, deep, out in linears
    )
    for norm, count in ((encoder.embedded, 1), (encoder.attended_norm, layers), (encoder.down_norm, layers)):
        fits &= norm.gain.shape == norm.bias.shape == (count, hidden)
    fits &= hidden % encoder.heads == 0 and encoder.words.shape[1:] == encoder.places.shape[1:] == (hidden,)
    if not fits:
        raise UnsupportedModel("the weights' shapes are not those of one encoder")


def _norm(bert: BertWeights, names: Sequence[str]) -> Norm:
    return Norm(*(_finite(np.stack([bert.get(f"{name}.{part}") for name in names])) for part in ("weight", "bias")))


def _linear(bert: BertWeights, names: Sequence[str]) -> Linear:
    """The layers of that kind; those of several ``names`` beside each other."""
    layers = []
    for layer in bert.layers:
        weights, biases = zip(*(bert.linear(layer + name) for name in names), strict=True)
        layers.append((*_rounded(_finite(np.concatenate(weights, axis=1))), _finite(np.concatenate(biases))))
    return Linear(*(np.stack(part) for part in zip(*layers, strict=True)))


def _rounded(weights: Vector) -> tuple[NDArray[np.int16], Vector]:
    """Weights (in, out) as integers in the order of Linear, and the scale (out,) of each column.

    The scale is the finest with which no sum over inputs of LEVELS leaves 32 bits, each weight rounded by up to a half.
    """
    deep, wide = weights.shape
    if deep % 2 or wide % COLUMNS:
        raise UnsupportedModel(f"a layer is {deep} by {wide}: no multiples of 2 and {COLUMNS}")
    magnitude = np.maximum(np.abs(weights.astype(np.float64)), np.finfo(np.float32).tiny)
    factor = np.minimum(
        (_LARGEST_SUM // LEVELS - deep / 2) / magnitude.sum(axis=0), _LARGEST_WEIGHT / magnitude.max(axis=0)
    )
    integers = np.rint(weights * factor).astype(np.int16)
    panels = integers.reshape(deep // 2, 2, wide // COLUMNS, COLUMNS).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(panels), (1 / factor).astype(np.float32)


def _finite(array: Vector) -> Vector:
    """Rounding would hide what is not finite. Raises UnsupportedModel."""
    if not np.isfinite(array).all():
        raise UnsupportedModel("a weight is not finite")
    return np.ascontiguousarray(array)


__all__ = ["Int16Backend"]
