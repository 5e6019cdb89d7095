"""Frames on the owner's socket: a length, a JSON header, then the arrays that it lists."""

from __future__ import annotations

import json
import math
import socket
import struct
from typing import Any

import numpy as np

from ww_core.stores.embedded.vectors.codec import Array, Arrays

PROTOCOL = 5
"""Raised with every change of what is said on the socket; owner and client must agree."""

_LENGTH = struct.Struct("!I")
_MAX_HEADER = 256 * 2**20
_DTYPES = {"<f4": np.dtype("<f4"), "<u4": np.dtype("<u4")}


class Hangup(ConnectionError):
    """The other side is gone or speaks something else: the connection is of no more use."""


def send(connection: socket.socket, header: dict[str, Any], arrays: Arrays) -> None:
    """Write one message. Raises OSError where the other side is gone."""
    shaped = [array.astype(array.dtype.newbyteorder("<"), copy=False) for array in arrays]
    header = header | {"arrays": [[array.dtype.str, array.shape] for array in shaped]}
    text = json.dumps(header, separators=(",", ":")).encode()
    connection.sendall(b"".join([_LENGTH.pack(len(text)), text, *(array.tobytes() for array in shaped)]))


def receive(connection: socket.socket) -> tuple[dict[str, Any], Arrays]:
    """Read one message. Raises Hangup at the end of the stream, OSError (also TimeoutError) from the socket."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _MAX_HEADER:
        raise Hangup(f"a header of {length} bytes is no message")
    try:
        header: dict[str, Any] = json.loads(_exactly(connection, length))
        shapes = [(_DTYPES[dtype], tuple(int(n) for n in shape)) for dtype, shape in header.pop("arrays")]
    except (ValueError, KeyError, TypeError) as error:
        raise Hangup(f"not a message: {error}") from error
    return header, [_array(connection, dtype, shape) for dtype, shape in shapes]


def _array(connection: socket.socket, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    raw = _exactly(connection, dtype.itemsize * math.prod(shape))
    return np.frombuffer(raw, dtype).reshape(shape)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise Hangup("the connection ended")
        view = view[count:]
    return buffer
