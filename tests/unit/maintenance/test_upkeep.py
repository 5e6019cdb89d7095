"""Sweep, verify, erase and refresh on the embedded stores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.files import files_with
from tests.unit.maintenance.conftest import NOON, Bench
from ww_core.embedding.sparse import SparseEncoder
from ww_core.errors import StoreUnavailable
from ww_core.maintenance.erase import erase
from ww_core.maintenance.sweep import POINTS_CURSOR, ROWS_CURSOR, repair, sweep
from ww_core.models import Episode
from ww_core.stores.leftovers import read_leftovers, write_leftovers
from ww_core.stores.points import digest
from ww_core.stores.ports import (
    BM25_CONTEXT,
    CONTENT,
    CONTEXT,
    Centroid,
    Dirty,
    Point,
    PointChange,
    Search,
    Where,
)

TEXTS = [f"sentence {i} about topic {i % 5}" for i in range(30)]


def embedded(bench: Bench) -> list[str]:
    ids = bench.store(*TEXTS)
    assert bench.drain().run().embedded == 30
    return ids


def test_a_sweep_frees_what_a_dead_worker_held(bench: Bench) -> None:
    bench.store(*TEXTS)
    assert len(bench.graph.claim(20, token="gone", lease_seconds=10)) == 20
    assert sweep(bench.graph, bench.vectors, max_attempts=3).freed == 0
    bench.seconds += 11
    report = sweep(bench.graph, bench.vectors, max_attempts=3)
    assert (report.freed, report.pending) == (20, True)
    assert bench.drain().run().embedded == 30


def test_a_sweep_reopens_rows_whose_points_are_gone(bench: Bench) -> None:
    ids = embedded(bench)
    bench.vectors.delete(ids[3:8])
    check = bench.verify()
    assert not check.ok
    assert [(c.found, c.expected) for c in check.checks if not c.ok] == [(25, 30)]
    assert check.checks[1].examples == tuple(ids[3:8])
    assert sweep(bench.graph, bench.vectors, max_attempts=3).reopened == 5
    assert bench.drain().run().embedded == 5
    assert bench.verify().ok


@pytest.mark.parametrize("whole", [True, False])
def test_a_receipt_counts_what_a_sweep_was_quicker_to_remove(
    bench: Bench, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = embedded(bench)
    tombstone = bench.graph.tombstone

    def then_sweep(**what: Any) -> tuple[list[str], int]:
        gone = tombstone(**what)
        sweep(bench.graph, bench.vectors, max_attempts=3)
        return gone

    monkeypatch.setattr(bench.graph, "tombstone", then_sweep)
    if whole:
        erased = erase(bench.graph, bench.vectors, session_id="s")
    else:
        erased = erase(bench.graph, bench.vectors, episode_ids=ids[:3])
    assert (erased.episodes, erased.vectors) == ((30, 30) if whole else (3, 3))
    assert erase(bench.graph, bench.vectors, session_id="s").vectors == (0 if whole else 27)
    assert bench.verify().ok


def test_what_a_dead_episode_said_before_it_was_corrected_is_not_found_by(bench: Bench) -> None:
    ids = embedded(bench)
    bench.graph.update(ids[0], content="corrected into something that no model takes")
    assert bench.verify().ok, "its old points are to be replaced"
    bench.graph.claim(1, token="t", lease_seconds=9)
    bench.graph.fail("t", ids[0], error="E: bad", traceback="", max_attempts=1, delay_seconds=0)
    assert [check.name for check in bench.verify().checks if not check.ok] == ["points belong to episodes"]
    assert sweep(bench.graph, bench.vectors, max_attempts=3).orphans == 1
    assert bench.verify().ok
    assert bench.graph.replay(ids[:1]) == 1
    assert bench.drain().run().embedded == 1
    assert bench.verify().ok


def test_what_is_replayed_while_its_old_points_are_removed_is_embedded_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = embedded(bench)
    bench.graph.update(ids[0], content="corrected into something that no model takes")
    bench.graph.claim(1, token="t", lease_seconds=9)
    bench.graph.fail("t", ids[0], error="E: bad", traceback="", max_attempts=1, delay_seconds=0)
    delete = bench.vectors.delete
    embedded_again: list[int] = []

    def replayed_before(names: Sequence[str]) -> int:
        if not embedded_again and bench.graph.replay(ids[:1]):
            embedded_again.append(bench.drain().run().embedded)
        return delete(names)

    monkeypatch.setattr(bench.vectors, "delete", replayed_before)
    assert sweep(bench.graph, bench.vectors, max_attempts=3).pending
    assert embedded_again == [1]
    assert bench.drain().run().embedded == 1
    assert bench.verify().ok


def test_a_repair_compares_everything_wherever_a_sweep_has_stopped(bench: Bench) -> None:
    from tests.contract.vector_stores import point

    ids = embedded(bench)
    bench.vectors.delete([ids[0], ids[29]])
    bench.vectors.upsert([point("a-stray"), point("z-stray")])
    sweep(bench.graph, bench.vectors, max_attempts=3, rows=10)
    stopped = [bench.graph.get_fact(cursor) for cursor in (ROWS_CURSOR, POINTS_CURSOR)]
    assert all(stopped)
    bench.drain().run()
    bench.vectors.delete(ids[:1])
    repair(bench.graph, bench.vectors)
    assert [bench.graph.get_fact(cursor) for cursor in (ROWS_CURSOR, POINTS_CURSOR)] == stopped
    bench.drain().run()
    assert bench.verify().ok


def test_a_sweep_removes_points_of_nobody(bench: Bench) -> None:
    ids = embedded(bench)
    late = bench.vectors.vectors(ids[:1])
    erase(bench.graph, bench.vectors, episode_ids=ids[:1])
    # a worker that was about to write when the episode was forgotten, and died before it could look again
    from tests.contract.vector_stores import point

    bench.vectors.upsert([point(ids[0], late[0].vector)])
    assert not bench.verify().ok
    report = sweep(bench.graph, bench.vectors, max_attempts=3)
    assert report.orphans == 1
    assert bench.verify().ok
    assert ids[0] not in bench.vectors.generations(ids)


def test_a_sweep_goes_round_within_its_budget(bench: Bench) -> None:
    ids = embedded(bench)
    bench.vectors.delete(ids[25:26])
    passes = 0
    while not sweep(bench.graph, bench.vectors, max_attempts=3, rows=10).reopened:
        passes += 1
        assert passes < 5
    assert passes == 2


def test_a_sweep_finishes_what_an_erasure_began(bench: Bench) -> None:
    ids = embedded(bench)
    bench.graph.tombstone(episode_ids=ids[:4])
    assert not bench.verify().ok
    assert sweep(bench.graph, bench.vectors, max_attempts=3).tombstones == 4
    assert bench.graph.unfinished_tombstones(10) == []
    assert bench.verify().ok


def test_a_sweep_names_the_runs_that_wait(bench: Bench) -> None:
    embedded(bench)
    run = bench.graph.request_run("s")
    assert [r.run_id for r in sweep(bench.graph, bench.vectors, max_attempts=3).runs] == [run.run_id]


def test_erasing_gives_a_receipt_and_is_for_good(bench: Bench) -> None:
    ids = bench.store("short", "long " * 60)
    bench.drain().run()
    erased = erase(bench.graph, bench.vectors, episode_ids=ids)
    assert (erased.episodes, erased.vectors, erased.memberships) == (2, 5, 0)
    assert erase(bench.graph, bench.vectors, episode_ids=ids).episodes == 0
    counts = bench.graph.counts()
    assert (counts.acknowledged, counts.erased, counts.balanced) == (2, 2, True)


def test_erasing_without_the_vector_store_is_finished_by_the_sweep(bench: Bench) -> None:
    from tests.unit.maintenance.test_drain import FailingVectors

    ids = embedded(bench)
    away = FailingVectors(bench.vectors, "delete", [StoreUnavailable("away")])
    with pytest.raises(StoreUnavailable):
        erase(bench.graph, away, episode_ids=ids[:1])  # type: ignore[arg-type]
    assert bench.graph.get(ids[:1]) == {}
    assert sweep(bench.graph, bench.vectors, max_attempts=3).tombstones == 1
    assert bench.verify().ok


def test_a_session_erased_without_the_vector_store_is_forgotten_by_the_sweep(bench: Bench, quick_path: Path) -> None:
    from tests.unit.maintenance.test_drain import FailingVectors

    name = "quuxelby"
    bench.store(*TEXTS, session=name)
    bench.store("it lives on", session="other")
    assert bench.drain().run().embedded == 31
    run_id = bench.graph.request_run("other").run_id
    other = bench.graph.start_run(run_id, token="t", lease_seconds=60).attempt
    row = bench.vectors.vectors(["e0"])[0].vector
    bench.vectors.put_centroids([Centroid("c", name, "r", row, 0.2), Centroid("c", "other", other, row, 0.2)])
    write_leftovers(bench.graph, name, ["e1"])
    assert holding(name, quick_path)

    with pytest.raises(StoreUnavailable):
        erase(bench.graph, FailingVectors(bench.vectors, "drop_centroids", [StoreUnavailable("away")]), session_id=name)  # type: ignore[arg-type]
    assert [found.session_id for found in bench.graph.sessions()] == ["other"]
    assert bench.graph.unfinished_sessions(9) == [name]
    assert len(bench.vectors.centroids(name, "r")) == 1

    sweep(bench.graph, bench.vectors, max_attempts=3)

    assert bench.graph.unfinished_sessions(9) == []
    assert bench.vectors.centroids(name, "r") == []
    assert len(bench.vectors.centroids("other", other)) == 1
    assert read_leftovers(bench.graph, name) == []
    assert holding(name, quick_path) == []
    counts = bench.graph.counts()
    assert (counts.acknowledged, counts.erased, bench.verify().ok) == (31, 30, True)


def holding(name: str, directory: Path) -> list[Path]:
    """The files of the record that hold the name or its digest, byte by byte, and others that hold the name."""
    digests = files_with(digest(name).encode(), directory)
    return [*files_with(name.encode(), directory), *(file for file in digests if "sqlite" in file.name)]


def test_verify_sees_a_point_too_many(bench: Bench) -> None:
    from tests.contract.vector_stores import point

    ids = embedded(bench)
    bench.vectors.upsert([point(ids[0], window=1, windows=2, generation=1)])
    report = bench.verify()
    assert not report.ok
    assert report.checks[0].ok


def test_a_changed_payload_reaches_the_points(bench: Bench) -> None:
    ids = embedded(bench)
    bench.refresh().run(max_seconds=5)
    bench.graph.update(ids[2], outcome="failure", context={"tool": "kubectl", "list": [1]})
    assert bench.vectors.count(Where(outcomes=("failure",))) == 0
    report = bench.refresh().run(max_seconds=5)
    assert (report.payload, report.more, report.outage) == (1, False, "")
    assert bench.vectors.count(Where(outcomes=("failure",), context={"tool": "kubectl"})) == 1
    assert bench.graph.dirty(Dirty.PAYLOAD, 10) == []


def test_context_vectors_are_made_and_remade_when_a_neighbour_arrives(bench: Bench) -> None:
    embedded(bench)
    words = SparseEncoder().query("avocado")

    def found() -> list[str]:
        return sorted(hit.episode_id for hit in bench.vectors.search([Search(BM25_CONTEXT, words)])[0])

    assert bench.refresh().run(max_seconds=5).context == 30
    assert found() == []
    bench.store("avocado")
    bench.drain().run()
    report = bench.refresh().run(max_seconds=5)
    assert 1 < report.context < 5
    assert found() == ["e28", "e29", "e30"]
    dense = bench.vectors.search([Search(CONTEXT, bench.embedder.embed_windows(["x"])[0][0], limit=100)])[0]
    assert len(dense) == 31
    assert bench.verify().ok


def leaning(bench: Bench, episode_id: str, **shares: float) -> float:
    """The cosine of an episode's context with the sum of its own vector and these shares of others'."""
    stored = {one.episode_id: one.vector for one in bench.vectors.vectors([episode_id, *shares])}
    among = stored[episode_id] + sum(share * stored[other] for other, share in shares.items())
    (hits,) = bench.vectors.search([Search(CONTEXT, among / np.linalg.norm(among), exact=True)])
    return next(hit.score for hit in hits if hit.episode_id == episode_id)


ALIKE = pytest.approx(1, abs=1e-3)
"""At the half precision of stored vectors."""


def test_context_is_made_of_stored_vectors_within_a_stretch(bench: Bench) -> None:
    """The episode's own vector and a share of each neighbour's; what comes an hour later is no neighbour."""
    bench.store("before", "middle", "after")
    bench.graph.add([Episode("much later", episode_id="late", session_id="s", timestamp=NOON + timedelta(hours=1))])
    bench.drain().run()
    assert bench.refresh().run(max_seconds=5).context == 4
    assert leaning(bench, "e1", e0=0.7, e2=0.3) == ALIKE
    assert leaning(bench, "e2", e1=0.7) == ALIKE
    assert leaning(bench, "late") == ALIKE


def test_a_neighbour_of_several_windows_counts_as_their_mean(bench: Bench) -> None:
    bench.store("before", "long: " + "x" * 400, "after")
    bench.drain().run()
    assert bench.vectors.generations(["e1"])["e1"][1] > 1
    bench.refresh().run(max_seconds=5)
    assert leaning(bench, "e2", e1=0.7) == ALIKE
    assert leaning(bench, "e1", e0=0.7, e2=0.3) == ALIKE


def test_an_archived_neighbour_counts_as_before(bench: Bench) -> None:
    bench.store("before", "middle", "after")
    bench.drain().run()
    bench.graph.archive(["e0"])
    bench.refresh().run(max_seconds=5)
    assert bench.vectors.count(Where(archived=True)) == 1
    assert leaning(bench, "e1", e0=0.7, e2=0.3) == ALIKE


def test_nothing_of_an_erased_neighbour_stays_in_a_context(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Erased between a refresh's reading and writing; another refresh has cleared the new flag by then."""
    bench.store("before", "avocado", "after", "last")
    bench.drain().run()
    change, words = bench.vectors.change, SparseEncoder().query("avocado")

    def overtaken(changes: Sequence[PointChange]) -> None:
        monkeypatch.setattr(bench.vectors, "change", change)
        erase(bench.graph, bench.vectors, episode_ids=["e1"])
        assert bench.refresh().run(max_seconds=5).context == 3
        change(changes)

    monkeypatch.setattr(bench.vectors, "change", overtaken)
    bench.refresh().run(max_seconds=5)
    assert bench.graph.dirty(Dirty.CONTEXT, 10) == []
    assert leaning(bench, "e2", e0=0.7, e3=0.3) == ALIKE
    assert bench.vectors.search([Search(BM25_CONTEXT, words)]) == [[]]


def test_an_episode_without_points_holds_up_no_context(bench: Bench) -> None:
    ids = embedded(bench)
    bench.vectors.delete(ids[7:8])
    assert bench.refresh().run(max_seconds=5).context == 30
    assert bench.graph.dirty(Dirty.CONTEXT, 10) == []
    assert ids[7] not in bench.vectors.generations(ids), "the sweep brings it back, not the refresh"


@pytest.mark.parametrize("archived", [True, False], ids=["to the cold collection", "back from it"])
def test_points_that_move_while_they_are_erased_do_not_stay(
    bench: Bench, archived: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = embedded(bench)
    if not archived:
        bench.graph.archive(ids[:2])
        bench.refresh().run(max_seconds=5)
        assert bench.vectors.count(Where(archived=True)) == 2
    bench.graph.archive(ids[:2], archived=archived)
    change = bench.vectors.change

    def erased_on_the_way(changes: Sequence[PointChange]) -> None:
        change(changes)
        erase(bench.graph, bench.vectors, episode_ids=ids[:1])
        # what another process had read before, and writes now
        bench.vectors.upsert([Point(ids[0], 0, 1, 1, "s", NOON, {CONTENT: unit}, archived=archived)])

    (unit,) = bench.embedder.embed_windows(["arrives late"])[0]
    monkeypatch.setattr(bench.vectors, "change", erased_on_the_way)
    bench.refresh()._payload(bench.graph.dirty(Dirty.PAYLOAD, 100))
    assert bench.vectors.generations(ids[:2]).keys() == {ids[1]}
    assert bench.verify().ok
