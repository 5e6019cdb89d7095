"""What a run has read of new episodes."""

from __future__ import annotations

import numpy as np

from ww_core.consolidation.duplicates import Texts
from ww_core.consolidation.selection import New
from ww_core.stores.texts import SIZE, digest


def test_texts_come_in_the_order_of_their_digests_and_of_one_generation_at_a_time() -> None:
    said = [f"text {i}" for i in range(50)]
    ids = [f"e{i}" for i in range(50)]
    generations = np.where(np.arange(50) % 7 == 3, 2, 1)
    new = New(ids, Texts.of(said), generations, np.ones(50, np.bool_))
    found: dict[str, tuple[bytes, int]] = {}
    for part in new.read_texts(8):
        digests = [part.digests[at : at + SIZE] for at in range(0, len(part.digests), SIZE)]
        assert digests == sorted(digests)
        assert len(digests) == len(part.episode_ids) <= 8
        found |= {name: (text, part.generation) for name, text in zip(part.episode_ids, digests, strict=True)}
    assert found == {name: (digest(said[i]), int(generations[i])) for i, name in enumerate(ids)}
    assert list(New([], Texts.of(()), np.empty(0, np.int64), np.empty(0, np.bool_)).read_texts(8)) == []
