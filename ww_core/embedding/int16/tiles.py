"""Tiles of matrix products in vector registers, written as LLVM instructions and compiled for the CPU they run on.

numba keeps what it compiled by the file of the caller: after a change here, touch kernels.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

ROWS, COLUMNS = 6, 16  # of a tile: its twelve sums and what feeds them fill the sixteen registers of AVX2
_LANES = 8  # 32-bit numbers of a register
_BYTES = 4
_PANEL = range(0, COLUMNS * _BYTES, _LANES * _BYTES)  # where in a tile's row each register begins

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_PAIRS, _INTS, _FLOATS = ir.VectorType(_I16, 2 * _LANES), ir.VectorType(_I32, _LANES), ir.VectorType(_F32, _LANES)
_FAST = ("fast",)

Tile = list[list[Any]]
"""Registers: ROWS of len(_PANEL)."""


@intrinsic
def int16_tile(
    typing: Any,
    a: Any,
    a_stride: Any,
    a_scales: Any,
    b: Any,
    pairs: Any,
    b_scales: Any,
    base: Any,
    base_stride: Any,
    out: Any,
    out_stride: Any,
) -> Any:
    """``out`` = ``base + a @ b * a_scales * b_scales``, at addresses; strides are bytes from one row to the next.

    ``a`` int16 (ROWS, 2 * pairs); ``b`` int16 (pairs, COLUMNS, 2), contiguous; ``a_scales`` float32 (ROWS,);
    ``b_scales`` float32 (COLUMNS,); ``base`` and ``out`` float32 (ROWS, COLUMNS), which may be the same. ``pairs`` > 0.
    The sums are int32 and must not overflow.
    """
    return types.void(*[types.uintp] * 10), _int16_tile


@intrinsic
def float_tile(typing: Any, a: Any, a_stride: Any, b: Any, b_stride: Any, depth: Any, out: Any, out_stride: Any) -> Any:
    """``out`` (ROWS, COLUMNS) = ``a`` (ROWS, depth) @ ``b`` (depth, COLUMNS), float32 at addresses; ``depth`` > 0."""
    return types.void(*[types.uintp] * 7), _float_tile


@intrinsic
def from_bits(typing: Any, bits: Any) -> Any:
    """The float32 that the bits of an int32 stand for."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _F32)

    return types.float32(types.int32), write


def _int16_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    a, a_stride, a_scales, b, pairs, b_scales, base, base_stride, out, out_stride = arguments
    writer = _Writer(builder)
    multiply = _multiply_add(builder.module)
    a_rows = writer.rows(a, a_stride)

    def step(index: Any, sums: Tile) -> Tile:
        b_row = writer.panel(_PAIRS, builder.add(b, builder.mul(index, _I64(COLUMNS * _BYTES))))
        column = builder.mul(index, _I64(_BYTES))
        made = []
        for row, old in zip(a_rows, sums, strict=True):
            pair = builder.bitcast(writer.broadcast(_I32, builder.add(row, column)), _PAIRS)
            products = [builder.call(multiply, [pair, part]) for part in b_row]
            made.append([builder.add(o, p) for o, p in zip(old, products, strict=True)])
        return made

    sums = writer.sums(pairs, ir.Constant(_INTS, [0] * _LANES), step)
    factors = writer.panel(_FLOATS, b_scales)
    for number, (base_row, out_row) in enumerate(
        zip(writer.rows(base, base_stride), writer.rows(out, out_stride), strict=True)
    ):
        scale = writer.broadcast(_F32, a_scales, number * _BYTES)
        for offset, total, factor in zip(_PANEL, sums[number], factors, strict=True):
            worth = builder.fmul(scale, factor, flags=_FAST)
            value = builder.fmul(builder.sitofp(total, _FLOATS), worth, flags=_FAST)
            value = builder.fadd(value, writer.load(_FLOATS, base_row, offset), flags=_FAST)
            writer.store(value, out_row, offset)
    return context.get_dummy_value()


def _float_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    a, a_stride, b, b_stride, depth, out, out_stride = arguments
    writer = _Writer(builder)
    a_rows = writer.rows(a, a_stride)

    def step(index: Any, sums: Tile) -> Tile:
        b_row = writer.panel(_FLOATS, builder.add(b, builder.mul(index, b_stride)))
        column = builder.mul(index, _I64(_BYTES))
        made = []
        for row, old in zip(a_rows, sums, strict=True):
            factor = writer.broadcast(_F32, builder.add(row, column))
            products = [builder.fmul(factor, part, flags=_FAST) for part in b_row]
            made.append([builder.fadd(o, p, flags=_FAST) for o, p in zip(old, products, strict=True)])
        return made

    sums = writer.sums(depth, ir.Constant(_FLOATS, [0.0] * _LANES), step)
    for row, values in zip(writer.rows(out, out_stride), sums, strict=True):
        for offset, value in zip(_PANEL, values, strict=True):
            writer.store(value, row, offset)
    return context.get_dummy_value()


def _multiply_add(module: Any) -> Any:
    """Sixteen products of 16-bit integers, neighbours added: eight 32-bit integers (vpmaddwd)."""
    name = "llvm.x86.avx2.pmadd.wd"
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(_INTS, [_PAIRS, _PAIRS]), name)


class _Writer:
    """Loads, stores, broadcasts and one loop, at byte addresses of any alignment."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def load(self, kind: Any, address: Any, offset: int = 0) -> Any:
        return self._builder.load(self._place(kind, address, offset), align=_BYTES)

    def store(self, value: Any, address: Any, offset: int = 0) -> None:
        self._builder.store(value, self._place(value.type, address, offset), align=_BYTES)

    def panel(self, kind: Any, address: Any) -> list[Any]:
        return [self.load(kind, address, offset) for offset in _PANEL]

    def rows(self, address: Any, stride: Any) -> list[Any]:
        """The addresses of a tile's rows."""
        return [self._builder.add(address, self._builder.mul(stride, _I64(row))) for row in range(ROWS)]

    def broadcast(self, kind: Any, address: Any, offset: int = 0) -> Any:
        """A register whose every lane is what lies at the address."""
        unknown = ir.Constant(ir.VectorType(kind, _LANES), ir.Undefined)
        single = self._builder.insert_element(unknown, self.load(kind, address, offset), _I32(0))
        return self._builder.shuffle_vector(single, unknown, ir.Constant(_INTS, [0] * _LANES))

    def sums(self, count: Any, zero: Any, step: Callable[[Any, Tile], Tile]) -> Tile:
        """What ``step(index, sums)`` has made of zeros after ``count`` (> 0) rounds of a loop."""
        builder, before = self._builder, self._builder.block
        loop, done = builder.append_basic_block("sum"), builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(_I64)
        old = [[builder.phi(zero.type) for _ in _PANEL] for _ in range(ROWS)]
        new = step(index, old)
        following = builder.add(index, _I64(1))
        variables = [(index, _I64(0), following)]
        variables += [
            (o, zero, n) for olds, news in zip(old, new, strict=True) for o, n in zip(olds, news, strict=True)
        ]
        for variable, first, later in variables:
            variable.add_incoming(first, before)
            variable.add_incoming(later, loop)
        builder.cbranch(builder.icmp_unsigned("<", following, count), loop, done)
        builder.position_at_end(done)
        return new

    def _place(self, kind: Any, address: Any, offset: int) -> Any:
        moved = self._builder.add(address, _I64(offset)) if offset else address
        return self._builder.inttoptr(moved, kind.as_pointer())


__all__ = ["COLUMNS", "ROWS", "float_tile", "from_bits", "int16_tile"]
