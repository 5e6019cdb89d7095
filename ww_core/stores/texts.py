"""When two texts are the same: digests by which graph stores find copies, and know again what an update replaced."""

from __future__ import annotations

from hashlib import blake2b

from ww_core.models import Episode
from ww_core.stores.ports import Added

SIZE = 16
"""Bytes of a digest."""


def plain(text: str) -> str:
    """The text without regard to case and white space: exact copies share it."""
    return " ".join(text.split()).casefold()


def digest(text: str) -> bytes:
    """SIZE bytes that exact copies share. It tells a short text to whoever can guess it: erasing one erases both."""
    return digest_of_plain(plain(text))


def exact_digest(text: str) -> bytes:
    """SIZE bytes that only the very same text has: what is kept of a text that an update replaced."""
    return digest_of_plain(text)


def digest_of_plain(text: str) -> bytes:
    """The same from ``plain(text)``."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=SIZE).digest()


def added_again(episode: Episode, session_id: str, content: str | None, first: str | None) -> Added:
    """What becomes of an episode whose id a living row has already.

    ``session_id`` and ``content`` are the row's; ``first``: the exact digest, as hexadecimal digits, of the content it
    was stored with, None where no update has replaced that.
    """
    if session_id != episode.session_id:
        return Added.CONFLICT
    if content == episode.content:
        return Added.DUPLICATE
    return Added.CORRECTED if first == exact_digest(episode.content).hex() else Added.CONFLICT
