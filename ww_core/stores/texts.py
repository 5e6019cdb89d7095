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


def first_digest(episode_id: str, text: str) -> str:
    """What is kept of the text that an episode was stored with once an update has replaced it: 2 SIZE hexadecimal
    digits that only the very same text gives, and that no other episode shares."""
    whole = f"{len(episode_id)}:{episode_id}{text}"  # the length says where the text begins
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=SIZE).hexdigest()


def digest_of_plain(text: str) -> bytes:
    """The same from ``plain(text)``."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=SIZE).digest()


def added_again(episode: Episode, session_id: str, content: str | None, first: str | None) -> Added:
    """What becomes of an episode whose id a living row has already.

    ``session_id`` and ``content`` are the row's; ``first``: the ``first_digest`` of the content it was stored with,
    None where no update has replaced that.
    """
    if session_id != episode.session_id:
        return Added.CONFLICT
    if content == episode.content:
        return Added.DUPLICATE
    again = first is not None and first == first_digest(episode.episode_id, episode.content)
    return Added.CORRECTED if again else Added.CONFLICT
