"""What can go wrong with one text, told apart from what is wrong with the machine.

A drain counts ``TextRefused`` and ``EncodingFailed`` against a text that stands alone; ``ModelUnavailable`` and its
child ``OutOfMemory`` never: they are worth another try later.
"""

from __future__ import annotations

from ww_core.errors import InvalidInput, ModelUnavailable, WorldWeaverError


class TextRefused(InvalidInput):
    """This text cannot be tokenised (a lone surrogate). ``index`` is its place in the call, -1 where unknown."""

    def __init__(self, message: str, *, hint: str = "", index: int = -1) -> None:
        super().__init__(message, hint=hint)
        self.index = index


class EncodingFailed(WorldWeaverError):
    """The model ran and failed on these texts, or gave a vector that is not finite."""


class OutOfMemory(ModelUnavailable):
    """No memory for this batch now, on the device or in this process; nothing is wrong with the texts."""


__all__ = ["EncodingFailed", "OutOfMemory", "TextRefused"]
