"""Moves between the two tiers of vectors that were cut off, switched off, or met by other processes' writes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import qdrant_edge as edge

from tests.contract.vector_stores import MODEL, cold_points, point, unit
from tests.support.files import files_with
from ww_core.errors import ConfigurationError
from ww_core.stores.embedded.vectors import EdgeVectorStore, engine
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import CONTENT, PointChange, Search, Where
from ww_core.stores.tiers import TieredVectors

ARCHIVED = Where(archived=True)


@contextmanager
def opened(directory: Path, **options: bool) -> Iterator[EdgeVectorStore]:
    store = EdgeVectorStore(directory / "vectors" / "ww", namespace="ww", **options)
    store.ensure(MODEL)
    yield store
    store.close()


class Tiers:
    """Both tiers, and stores on them as several processes have them on a server. Time stands still."""

    def __init__(self, directory: Path) -> None:
        self.hot = Shard(directory, namespace="ww")
        self.cold = Shard(directory / "cold", namespace="ww", cold=True)
        self.hot.ensure(MODEL)

    def process(self) -> TieredVectors[edge.Record]:
        return TieredVectors(self.hot, self.cold, archive_cold=True, writing=nullcontext, clock=lambda: 0.0)

    def held(self) -> tuple[int, int]:
        return self.hot.count(), self.cold.count()


@pytest.fixture
def tiers(quick_path: Path) -> Iterator[Tiers]:
    made = Tiers(quick_path)
    yield made
    made.cold.close()
    made.hot.close()


@pytest.fixture
def unaware(tiers: Tiers) -> TieredVectors[edge.Record]:
    """A process that saw no cold collection a moment ago; ``a`` was archived since by another one."""
    store = tiers.process()
    store.upsert([point("a"), point("b")])
    assert store.generations(["a"]) == {"a": (1, 1)}
    tiers.process().change([PointChange("a", archived=True)])
    assert tiers.held() == (1, 1)
    return store


@pytest.mark.parametrize("question", ["vectors", "generations"])
def test_what_comes_back_while_it_is_looked_for_is_found(
    tiers: Tiers, unaware: TieredVectors[edge.Record], monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """Also by a process that does not know yet that there is a cold collection."""
    asked = getattr(tiers.cold, question)

    def come_back(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        tiers.process().change([PointChange("a", archived=False)])
        return asked(*arguments, **options)

    monkeypatch.setattr(tiers.cold, question, come_back)
    found = getattr(unaware, question)(["a", "b", "c"])
    assert list(getattr(found, "episode_ids", found)) in (["a", "b"], ["b", "a"])
    assert tiers.held() == (2, 0)


def test_who_saw_no_cold_collection_a_moment_ago_deletes_there_all_the_same(
    tiers: Tiers, unaware: TieredVectors[edge.Record]
) -> None:
    assert unaware.delete(["a", "b"]) == 2
    assert tiers.held() == (0, 0)


def test_who_saw_no_cold_collection_a_moment_ago_writes_no_second_generation_beside_it(
    tiers: Tiers, unaware: TieredVectors[edge.Record]
) -> None:
    unaware.upsert([point("a", generation=1)])
    assert tiers.held() == (1, 1)
    unaware.upsert([point("a", generation=2)])
    assert tiers.held() == (2, 0)


def test_who_saw_no_cold_collection_a_moment_ago_changes_what_is_there(
    tiers: Tiers, unaware: TieredVectors[edge.Record]
) -> None:
    unaware.change([PointChange("a", outcome="failure")])
    assert tiers.cold.count(Where(outcomes=("failure",), archived=None)) == 1
    unaware.change([PointChange("a", archived=False)])
    assert tiers.held() == (2, 0)


def test_the_cold_tier_gets_only_changes_of_what_it_holds(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tiers.process()
    store.upsert([point("a"), point("b"), point("c", archived=True)])
    given: list[str] = []
    change = tiers.cold.change

    def noted(changes: Sequence[PointChange]) -> None:
        given.extend(one.episode_id for one in changes)
        change(changes)

    monkeypatch.setattr(tiers.cold, "change", noted)
    store.change([PointChange(name, outcome="success") for name in "abc"])
    assert given == ["c"]


def test_a_cold_shard_that_cannot_be_opened_leaves_the_other_one_closed(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []
    close = Shard.close

    def noted(shard: Shard) -> None:
        close(shard)
        closed.append(shard._directory)

    with opened(quick_path) as store:
        store.upsert([point("a", archived=True)])
    monkeypatch.setattr(Shard, "close", noted)
    (manifest,) = (quick_path / "vectors" / "ww" / "cold").rglob("collection.json")
    whole = manifest.read_bytes()
    manifest.write_bytes(b"{")
    store = EdgeVectorStore(quick_path / "vectors" / "ww", namespace="ww")
    with pytest.raises(ConfigurationError, match="damaged"):
        store.ping()
    assert closed == [quick_path / "vectors" / "ww"]
    manifest.write_bytes(whole)
    assert store.generations(["a"]) == {"a": (1, 1)}
    store.close()


def test_an_interrupted_move_is_found_once_and_completed_by_the_next(quick_path: Path) -> None:
    hot = Shard(quick_path, namespace="ww")
    cold = Shard(quick_path / "cold", namespace="ww", cold=True)
    store = TieredVectors(hot, cold, archive_cold=True, writing=nullcontext)
    store.ensure(MODEL)
    cold.ensure(MODEL)
    store.upsert([point("a"), point("b")])
    cold.write(hot.read(["a"]))  # and then it died
    assert store.generations(["a", "b"]) == {"a": (1, 1), "b": (1, 1)}
    everywhere = store.search([Search(CONTENT, unit(1.0), Where(archived=None))])[0]
    assert sorted(hit.episode_id for hit in everywhere) == ["a", "b"]
    assert [stored.episode_id for stored in store.vectors(["a", "b"])] == ["a", "b"]
    assert (store.count(), store.info()["points"], len(store.walk()[0])) == (3, 3, 3), "points, and there are two"
    store.change([PointChange("a", archived=True)])
    assert (hot.count(), cold.count()) == (1, 1)
    assert (store.count(), store.info()["points"], len(store.walk()[0])) == (2, 2, 2)
    assert [hit.episode_id for hit in store.search([Search(CONTENT, unit(1.0), ARCHIVED)])[0]] == ["a"]
    store.close()


def test_a_point_that_was_written_anew_meanwhile_stays(quick_path: Path) -> None:
    hot = Shard(quick_path, namespace="ww")
    hot.ensure(MODEL)
    hot.upsert([point("a", generation=2)])
    hot.discard({"a": 1, "absent": 7})
    assert hot.generations(["a"]) == {"a": (2, 1)}
    hot.write(hot.read(["a"]))
    assert hot.count() == 1
    hot.close()


def test_switched_off_nothing_moves_and_what_moved_comes_back(quick_path: Path) -> None:
    with opened(quick_path) as store:
        store.upsert([point("a"), point("b")])
        store.change([PointChange("a", archived=True)])
        assert cold_points(store) == 1
    with opened(quick_path, archive_cold=False) as store:
        store.upsert([point("c", archived=True)])
        store.change([PointChange("b", archived=True)])
        assert cold_points(store) == 1
        found = store.search([Search(CONTENT, unit(1.0), ARCHIVED)])[0]
        assert sorted(hit.episode_id for hit in found) == ["a", "b", "c"]
        store.change([PointChange("a", archived=True)])
        assert cold_points(store) == 0
    with opened(quick_path) as store:
        store.change([PointChange(name, archived=True) for name in "abc"])
        assert cold_points(store) == 3


def test_the_bytes_of_an_erased_archived_point_are_gone(quick_path: Path) -> None:
    secret = b"kilimanjarovex"
    mark = b64encode(secret)
    with opened(quick_path) as store:
        store.upsert([point("a", pieces=secret), point("b")])
        store.change([PointChange("a", archived=True), PointChange("b", archived=True)])
        assert files_with(mark, quick_path)
        assert store.delete(["a"]) == 1
        store.scrub()
        assert files_with(mark, quick_path) == []
        assert store.generations(["a", "b"]) == {"b": (1, 1)}


def test_a_cold_shard_is_written_in_its_lasting_form_when_it_opens(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMPACTED_FROM", 300)
    with opened(quick_path) as store:
        store.upsert([point(str(i), unit(1.0, i), archived=True) for i in range(1000)])
        loose = store.info()["cold"]["segments"]
    with opened(quick_path) as store:
        assert store.info()["cold"]["segments"] > loose, "one that is written, one that stays"
        hit = store.search([Search(CONTENT, unit(1.0, 7.0), ARCHIVED, limit=1)])[0][0]
        assert hit.episode_id == "7"
        store.change([PointChange("7", archived=False)])
        assert store.generations(["7"]) == {"7": (1, 1)}
        assert cold_points(store) == 999
