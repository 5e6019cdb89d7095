"""In a large memory light signals look for no candidates of their own, and still score those of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.recalling import open_shelf, turn
from ww_core.recall import finding
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import BM25_CONTEXT, CONTENT, CONTEXT, Hit, Search


@pytest.mark.parametrize(("many", "proposes"), [(10**9, True), (0, False)])
def test_a_light_signal_proposes_in_a_small_memory_only_and_scores_in_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, proposes: bool
) -> None:
    monkeypatch.setattr(finding, "MANY", many)
    shelf = open_shelf(tmp_path)
    try:
        shelf.store([turn(i, f"the train number {i} to the harbour") for i in range(30)])
        shelf.embed()
        asked: list[set[str]] = []
        search = shelf.vectors.search

        def watched(searches: Sequence[Search]) -> list[list[Hit]]:
            asked.append({one.using for one in searches})
            return search(searches)

        monkeypatch.setattr(shelf.vectors, "search", watched)
        found = shelf.recaller(recall_weight_context=0.2).recall(RecallRequest("train number 7", limit=3))
        assert {CONTENT, BM25_CONTEXT} <= asked[0]
        assert (CONTEXT in asked[0]) == proposes
        assert {CONTENT, CONTEXT, BM25_CONTEXT} <= set(found.results[0].components)
    finally:
        shelf.vectors.close()
        shelf.graph.close()
