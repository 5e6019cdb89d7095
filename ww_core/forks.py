"""What a forked child must neither use nor take down: objects whose threads and files stayed with the parent."""

from __future__ import annotations

import ctypes


def immortal(thing: object) -> None:
    """Keep the object from ever being finalised in this process, not even at its end.

    Finalising a parent's connection, shard or model in a child closes files that the parent writes, or waits for
    threads that do not exist here.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
