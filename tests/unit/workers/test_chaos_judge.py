"""The judge of a chaos trial finds what is lost, doubled or back: it would not pass a broken store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.maintenance.conftest import Bench, bench
from ww_core.config import Settings
from ww_core.errors import ConfigurationError, InvalidInput
from ww_core.maintenance.erase import erase
from ww_core.models import Episode
from ww_workers.chaos.ledger import Book, Ledger
from ww_workers.chaos.trial import Report, judge, scratch

__all__ = ["bench"]


def judged(bench: Bench, book: Book, *, quiet: bool = True) -> Report:
    return judge(bench.graph, bench.vectors, book, seed=1, faults={}, recovery_seconds=1.0, quiet=quiet)


def stored(bench: Bench, *names: str) -> Book:
    bench.graph.add([Episode(f"something happened [{name}]", name, "s", timestamp=None) for name in names])
    bench.drain().run()
    return Book(attempted=set(names), acknowledged=set(names))


def test_what_is_all_there_passes(bench: Bench) -> None:
    book = stored(bench, "p1-1", "p1-2", "p1-3")
    erase(bench.graph, bench.vectors, episode_ids=["p1-2"])
    book.forgetting.add("p1-2")
    book.erased.add("p1-2")
    report = judged(bench, book)
    assert (report.lost, report.doubled, report.returned, report.erased, report.embedded) == (0, 0, 0, 1, 2)
    assert report.whole
    assert not judged(bench, book, quiet=False).whole


def test_an_acknowledged_episode_without_a_row_is_lost(bench: Bench) -> None:
    book = stored(bench, "p1-1")
    book.attempted |= {"p1-2", "p1-3", "p1-4"}
    book.acknowledged |= {"p1-2", "p1-3"}
    book.forgetting.add("p1-3")  # begun, but there is no tombstone either
    report = judged(bench, book)
    assert report.lost == 2
    assert not report.whole


def test_a_second_row_of_one_text_is_doubled(bench: Bench) -> None:
    book = stored(bench, "p1-1")
    bench.graph.add([Episode("something happened [p1-1]", "another-id", "s", timestamp=None)])
    assert judged(bench, book).doubled == 1


def test_what_was_forgotten_and_is_there_again_is_seen(bench: Bench) -> None:
    book = stored(bench, "p1-1")
    book.forgetting.add("p1-1")
    book.erased.add("p1-1")
    report = judged(bench, book)
    assert report.returned == 1
    assert not report.whole


def test_a_line_that_was_torn_off_does_not_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "one")
    ledger.write("A", ["x-1", "x-2"])
    ledger.write("K", ["x-1"])
    ledger.close()
    with (tmp_path / "one").open("a") as out:
        out.write("K x-")
    book = Book.read([tmp_path / "one"])
    assert (book.attempted, book.acknowledged) == ({"x-1", "x-2"}, {"x-1"})


def test_a_deployment_of_somebody_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "graph.sqlite3").touch()
    with pytest.raises(InvalidInput, match="is not empty"):
        scratch(own, Settings(data_dir=tmp_path / "x"))
    with pytest.raises(ConfigurationError, match="redis_url names one of yours"):
        scratch(None, Settings(data_dir=tmp_path / "x", redis_url="redis://localhost:1/0"))
    made = scratch(tmp_path / "new", Settings(data_dir=tmp_path / "x"))
    assert made.parent == tmp_path / "new"
    assert not (tmp_path / "x").exists()
