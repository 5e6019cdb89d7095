"""The forward pass of a BERT encoder over packed texts, its matrix products in 16-bit integers, compiled by numba.

Every linear layer rounds each row of its input to integers with a scale of that row's own, multiplies exactly and sums
exactly in 32 bits. A text's states depend on nothing but the text: not on what shares its pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ww_core.embedding.int16.tiles import COLUMNS, ROWS, float_tile, from_bits, int16_tile
from ww_core.models import Vector

LEVELS = 4_095  # the largest magnitude of an activation as an integer
_BYTES = 4  # of a float32, and of a pair of integers
_KEPT_ROWS = 16 * ROWS  # that meet one panel of weights while it lies in the core's first cache
_LARGEST_POWER = np.float32(80)  # e to it, and to minus it, are float32

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    made: Function = njit(nogil=True, fastmath=True, cache=True, error_model="numpy")(function)
    return made


class Linear(NamedTuple):
    """The linear layers of one kind: ``x @ weights * scales + bias``."""

    weights: NDArray[np.int16]
    """(layers, out / COLUMNS, in / 2, COLUMNS, 2)."""
    scales: Vector
    """(layers, out): what a step of a weight is worth."""
    bias: Vector
    """(layers, out)."""


class Norm(NamedTuple):
    """The layer normalisations of one kind, each (layers, h)."""

    gain: Vector
    bias: Vector


class Encoder(NamedTuple):
    """All that a forward pass reads."""

    words: Vector
    """(vocabulary, h)."""
    places: Vector
    """(positions, h)."""
    embedded: Norm
    projected: Linear
    """Queries, keys and values beside each other; the queries scaled."""
    attended: Linear
    attended_norm: Norm
    up: Linear
    down: Linear
    down_norm: Norm
    heads: int
    epsilon: np.float32


class _Room(NamedTuple):
    """What a pass writes. Rows are rounded up to whole tiles, and one tile follows where tiles begin at any row."""

    states: Any
    projected: Any
    mixed: Any
    inner: Any
    narrow: Any
    wide: Any
    """Of the integers of ``states`` and of ``inner``, in the same place."""
    scales: Any
    keys: Any
    """Of one head, (panels, head size, COLUMNS)."""
    scores: Any
    """Of ROWS queries of one head."""


@_compiled
def forward(encoder: Any, ids: Any, lengths: Any) -> Any:
    """The last hidden states float32 (n, h) of texts whose word pieces ``ids`` int64 (n,) lie end to end.

    ``lengths`` int64 (texts,), each > 0, none above the positions that ``encoder`` has.
    """
    room = _room(encoder, ids.size, lengths.max())
    row = 0
    for length in lengths:
        for place in range(length):
            room.states[row] = encoder.words[ids[row]]
            _normalise(room.states[row], encoder.places[place], encoder.embedded, 0, encoder.epsilon)
            row += 1
    for layer in range(encoder.up.bias.shape[0]):
        _attention(encoder, layer, ids.size, lengths, room)
        _feed_forward(encoder, layer, ids.size, room)
    return room.states[: ids.size]


@_compiled
def _room(encoder: Any, count: int, longest: int) -> Any:
    hidden, inner = encoder.words.shape[1], encoder.up.bias.shape[1]
    rows = (count + ROWS - 1) // ROWS * ROWS
    panels = (longest + COLUMNS - 1) // COLUMNS
    integers = np.zeros(rows * max(hidden, inner), np.int16)
    return _Room(
        np.zeros((rows, hidden), np.float32),
        np.zeros((rows + ROWS, 3 * hidden), np.float32),
        np.zeros((rows + ROWS, hidden), np.float32),
        np.zeros((rows, inner), np.float32),
        integers[: rows * hidden].reshape(rows, hidden),
        integers[: rows * inner].reshape(rows, inner),
        np.zeros(rows, np.float32),
        np.zeros((panels, hidden // encoder.heads, COLUMNS), np.float32),
        np.zeros((ROWS, panels * COLUMNS), np.float32),
    )


@_compiled
def _attention(encoder: Any, layer: int, count: int, lengths: Any, room: Any) -> None:
    for row in range(count):
        room.scales[row] = _quantise(room.states[row], room.narrow[row])
    _linear(room.narrow, room.scales, encoder.projected, layer, False, room.projected)
    start = 0
    for length in lengths:
        for head in range(encoder.heads):
            _attend(start, length, head, encoder.heads, room)
        start += length
    for row in range(count):
        room.scales[row] = _quantise(room.mixed[row], room.narrow[row])
    _linear(room.narrow, room.scales, encoder.attended, layer, True, room.states)
    for row in range(count):
        _normalise(room.states[row], encoder.attended.bias[layer], encoder.attended_norm, layer, encoder.epsilon)


@_compiled
def _feed_forward(encoder: Any, layer: int, count: int, room: Any) -> None:
    for row in range(count):
        room.scales[row] = _quantise(room.states[row], room.narrow[row])
    _linear(room.narrow, room.scales, encoder.up, layer, False, room.inner)
    for row in range(count):
        _gelu(room.inner[row])
        room.scales[row] = _quantise(room.inner[row], room.wide[row])
    _linear(room.wide, room.scales, encoder.down, layer, True, room.states)
    for row in range(count):
        _normalise(room.states[row], encoder.down.bias[layer], encoder.down_norm, layer, encoder.epsilon)


@_compiled
def _linear(integers: Any, scales: Any, linear: Any, layer: int, residual: bool, out: Any) -> None:
    """``out`` = ``integers * scales`` @ the layer's weights + its bias or, ``residual``, + ``out``."""
    weights = linear.weights[layer]
    b_scales, bias = linear.scales[layer].ctypes.data, linear.bias[layer].ctypes.data
    rows, stride = integers.shape[0], weights.shape[1] * _BYTES
    out_stride = out.shape[1] * _BYTES
    for first in range(0, rows, _KEPT_ROWS):
        for panel in range(weights.shape[0]):
            column = panel * COLUMNS * _BYTES
            b = weights.ctypes.data + panel * stride * COLUMNS
            for row in range(first, min(rows, first + _KEPT_ROWS), ROWS):
                to = out.ctypes.data + row * out_stride + column
                int16_tile(
                    integers.ctypes.data + row * stride,
                    stride,
                    scales.ctypes.data + row * _BYTES,
                    b,
                    weights.shape[1],
                    b_scales + column,
                    to if residual else bias + column,
                    out_stride if residual else 0,
                    to,
                    out_stride,
                )


@_compiled
def _attend(start: int, length: int, head: int, heads: int, room: Any) -> None:
    """One head's attention of a text, rows [start, start + length), over itself.

    Its last tile also writes into the rows of the next text, whose turn comes later.
    """
    hidden = room.mixed.shape[1]
    size = hidden // heads
    keys, scores = room.keys, room.scores
    first_key = hidden + head * size
    for place in range(length):
        for k in range(size):
            keys[place // COLUMNS, k, place % COLUMNS] = room.projected[start + place, first_key + k]
    stride, width, panel_stride = 3 * hidden * _BYTES, scores.shape[1] * _BYTES, COLUMNS * _BYTES
    queries = room.projected.ctypes.data + start * stride + head * size * _BYTES
    values = queries + 2 * hidden * _BYTES
    mixed = room.mixed.ctypes.data + (start * hidden + head * size) * _BYTES
    for row in range(0, length, ROWS):
        for panel in range((length + COLUMNS - 1) // COLUMNS):
            key = keys.ctypes.data + panel * size * panel_stride
            to = scores.ctypes.data + panel * panel_stride
            float_tile(queries + row * stride, stride, key, panel_stride, size, to, width)
        for query in range(ROWS):
            _softmax(scores[query, :length])
        for column in range(0, size * _BYTES, panel_stride):
            to = mixed + row * hidden * _BYTES + column
            float_tile(scores.ctypes.data, width, values + column, stride, length, to, hidden * _BYTES)


@_compiled
def _quantise(row: Any, integers: Any) -> Any:
    """Write ``row`` float32 (n,) as LEVELS steps to each side of 0; returns what a step is worth."""
    largest = np.float32(1e-20)
    for k in range(row.size):
        largest = max(largest, abs(row[k]))
    factor = np.float32(LEVELS) / largest
    for k in range(row.size):
        integers[k] = np.int16(np.rint(row[k] * factor))
    return largest / np.float32(LEVELS)


@_compiled
def _normalise(row: Any, shift: Any, norm: Any, layer: int, epsilon: Any) -> None:
    """Layer normalisation of ``row + shift``, in place."""
    gain, bias = norm.gain[layer], norm.bias[layer]
    total = np.float32(0)
    for k in range(row.size):
        row[k] += shift[k]
        total += row[k]
    mean = total / np.float32(row.size)
    squares = np.float32(0)
    for k in range(row.size):
        squares += (row[k] - mean) * (row[k] - mean)
    factor = np.float32(1) / np.sqrt(squares / np.float32(row.size) + epsilon)
    for k in range(row.size):
        row[k] = (row[k] - mean) * factor * gain[k] + bias[k]


@_compiled
def _softmax(row: Any) -> None:
    largest = row[0]
    for k in range(row.size):
        largest = max(largest, row[k])
    total = np.float32(0)
    for k in range(row.size):
        row[k] = _exp(max(row[k] - largest, -_LARGEST_POWER))
        total += row[k]
    factor = np.float32(1) / total
    for k in range(row.size):
        row[k] *= factor


@_compiled
def _gelu(row: Any) -> None:
    """In place, the tanh form: ``x / (1 + exp(-2 u))`` with ``u = sqrt(2 / pi) (x + 0.044715 x ** 3)``."""
    for k in range(row.size):
        x = row[k]
        power = np.float32(-1.5957691216057308) * (x + np.float32(0.044715) * x * x * x)
        row[k] = x / (np.float32(1) + _exp(min(max(power, -_LARGEST_POWER), _LARGEST_POWER)))


@_compiled
def _exp(x: Any) -> Any:
    """e to the power of x, |x| <= 80, to 4e-7 of it: a whole power of 2 times the Taylor polynomial of the rest.

    The rest is at most ln(2) / 2, and ln(2) is taken off in two parts (Cody and Waite).
    """
    whole = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    rest = x - whole * np.float32(0.693145751953125) - whole * np.float32(1.428606765330187e-06)
    power = np.float32(1 / 720)
    power = power * rest + np.float32(1 / 120)
    power = power * rest + np.float32(1 / 24)
    power = power * rest + np.float32(1 / 6)
    power = power * rest + np.float32(1 / 2)
    power = power * rest + np.float32(1)
    power = power * rest + np.float32(1)
    return power * from_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


__all__ = ["LEVELS", "Encoder", "Linear", "Norm", "forward"]
