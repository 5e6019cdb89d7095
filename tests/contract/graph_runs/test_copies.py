"""Exact copies of what runs have placed are found by their text, and of what was erased nothing is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from tests.contract.graph_runs.runs import publish, put, start
from tests.contract.graphs import embed, episodes
from ww_core.models import Episode, Fold
from ww_core.stores.ports import Fresh, GraphStore, ReadTexts
from ww_core.stores.texts import digest

OK, DONE = digest("ok"), digest("done")


def say(graph: GraphStore, text: str, number: int, *, session: str = "s", prefix: str = "x", start: int = 0) -> None:
    """``number`` episodes with that text: x00000, x00001 and so on."""
    made = episodes(number, session=session, prefix=prefix, start=start)
    graph.add([replace(episode, content=text) for episode in made])
    embed(graph)


def copies(graph: GraphStore, *texts: bytes, session: str = "s") -> dict[bytes, str]:
    """The answer once everything is gone through, in steps that are smaller than there are episodes."""
    for _ in range(100):
        if not graph.index_texts(session, limit=3):
            break
    else:
        raise AssertionError("it comes to no end")
    return graph.copies(session, texts or (OK, DONE))


def originals(graph: GraphStore, *names: str) -> list[str | None]:
    found: dict[str, Episode] = graph.get(names)
    return [found[name].duplicate_of for name in names]


def test_only_what_the_current_run_placed_is_found(graph: GraphStore) -> None:
    say(graph, "OK", 2)
    assert copies(graph) == {}, "no run"
    run = start(graph)
    graph.stage(run.run_id, token="t", memberships=[put("x00000", "c1"), put("e00000", None)])
    assert copies(graph) == {}, "not published"
    graph.publish(replace(run, status="done"), token="t")
    assert copies(graph) == {OK: "x00000"}
    assert copies(graph, digest(" Text 0\n of S"), digest("text 1 of s")) == {digest("text 0 of s"): "e00000"}
    assert copies(graph, session="t") == {}
    assert copies(graph, session="nowhere") == {}
    assert graph.copies("s", []) == {}

    second = publish(graph, [put("x00001", "c1", original="x00000"), put("e00001", "c1")])
    assert copies(graph, OK, digest("text 1 of s")) == {OK: "x00000", digest("text 1 of s"): "e00001"}
    graph.rollback_run(second.run_id)
    assert copies(graph, OK, digest("text 1 of s")) == {OK: "x00000"}
    publish(graph, [put("e00001", "c2")])
    assert copies(graph, OK, digest("text 1 of s")) == {OK: "x00000", digest("text 1 of s"): "e00001"}


def test_a_copy_leads_to_what_it_was_folded_into_archived_or_not(graph: GraphStore) -> None:
    say(graph, "ok", 3)
    say(graph, "done", 1, prefix="y")
    say(graph, "ok", 1, session="t", prefix="z")
    publish(graph, [put("x00001", "c1", original="y00000"), put("x00002", "c2"), put("y00000", "c1")])
    graph.archive(["x00001", "y00000"])
    assert copies(graph) == {OK: "y00000", DONE: "y00000"}
    assert copies(graph, session="t") == {}
    graph.tombstone(episode_ids=["y00000"])
    assert copies(graph) == {OK: "x00001"}
    assert originals(graph, "x00001", "x00002") == [None, None]


def test_of_what_is_erased_or_rewritten_nothing_is_found(graph: GraphStore) -> None:
    say(graph, "ok", 2)
    say(graph, "done", 1, prefix="y")
    publish(graph, [put("x00000", "c1"), put("y00000", "c1")])
    assert copies(graph) == {OK: "x00000", DONE: "y00000"}
    graph.update("x00000", context={"n": 1})
    assert copies(graph) == {OK: "x00000", DONE: "y00000"}
    graph.update("x00000", content="done")
    graph.tombstone(episode_ids=["y00000"])
    embed(graph)
    assert copies(graph) == {}
    publish(graph, [put("x00000", "c1"), put("x00001", "c1")])
    assert copies(graph) == {OK: "x00001", DONE: "x00000"}
    graph.tombstone(session_id="s")
    graph.finish_session("s")
    graph.scrub()
    assert copies(graph) == {}
    say(graph, "ok", 1, prefix="again")
    publish(graph, [put("again00000", "c1")])
    graph.scrub()
    assert copies(graph) == {OK: "again00000"}


def test_copies_that_lose_their_original_are_folded_into_the_first_of_them(graph: GraphStore) -> None:
    say(graph, "ok", 4)
    say(graph, "okay", 2, prefix="y")
    publish(graph, [put("x00000", "c"), *(put(f"x0000{i}", "c", original="x00000") for i in (3, 2))])
    publish(graph, [put("x00001", "c", original="x00000"), *(put(f"y0000{i}", "c", original="x00000") for i in (0, 1))])
    graph.tombstone(episode_ids=["x00000"])
    assert originals(graph, "x00001", "x00002", "x00003") == [None, "x00001", "x00001"]
    assert originals(graph, "y00000", "y00001") == [None, "y00000"]
    times = {name: e.timestamp for name, e in graph.get(["x00001", "x00003"]).items()}
    assert graph.folds(["x00001"]) == {"x00001": Fold(3, times["x00001"], times["x00003"])}
    assert copies(graph, OK, digest("okay")) == {OK: "x00001", digest("okay"): "y00000"}
    graph.update("x00001", content="nothing of the kind")
    assert originals(graph, "x00001", "x00002", "x00003") == [None, None, "x00002"]
    assert graph.counts().balanced


def test_copies_are_told_apart_whatever_is_in_a_text(graph: GraphStore) -> None:
    texts = ["Straße", "STRASSE", "a\u2003b", "x" * 50_000, "\0", "é", "e\u0301"]
    for i, text in enumerate(texts):
        say(graph, text, 1, start=i)
    publish(graph, [put(f"x0000{i}", "c") for i in range(len(texts))])
    found = copies(graph, *map(digest, texts))
    assert found == {
        digest("strasse"): "x00000",
        digest("A b"): "x00002",
        digest("X" * 50_000): "x00003",
        digest("\0"): "x00004",
        digest("É"): "x00005",
        digest("e\u0301"): "x00006",
    }


def test_texts_that_a_run_has_read_are_found_at_once_unless_they_changed(graph: GraphStore) -> None:
    say(graph, "OK", 2)
    say(graph, "done", 2, prefix="y")
    fresh = {e.episode_id: e for e in graph.unconsolidated("s", limit=9)}
    graph.update("y00000", content="changed")
    embed(graph)
    run = publish(graph, [put(name, "c1") for name in fresh])
    graph.index_read(run.run_id, iter(read(list(fresh.values()))))
    assert graph.copies("s", [OK, DONE]) == {OK: "x00000", DONE: "y00001"}
    found = copies(graph, OK, DONE, digest("changed"))
    assert found == {OK: "x00000", DONE: "y00001", digest("changed"): "y00000"}


def test_texts_that_were_not_all_read_are_gone_through_later(graph: GraphStore) -> None:
    say(graph, "OK", 1)
    say(graph, "done", 1, prefix="y")
    fresh = graph.unconsolidated("s", limit=9)
    run = publish(graph, [put(e.episode_id, "c1") for e in fresh])

    def broken_off() -> Iterator[ReadTexts]:
        yield from read(fresh[:1])
        raise KeyError("enough")

    with suppress(KeyError):  # a store that needs no texts reads none
        graph.index_read(run.run_id, broken_off())
    assert copies(graph) == {OK: "x00000", DONE: "y00000"}


def test_texts_of_a_run_that_was_taken_back_are_not_gone_through(graph: GraphStore) -> None:
    say(graph, "OK", 1)
    fresh = graph.unconsolidated("s", limit=9)
    first = publish(graph, [put("x00000", "c1")])
    graph.rollback_run(first.run_id)
    graph.index_read(first.run_id, iter(read(fresh)))
    publish(graph, [put("x00000", "c1")])
    assert copies(graph) == {OK: "x00000"}


def read(fresh: Sequence[Fresh]) -> list[ReadTexts]:
    return [ReadTexts([e.episode_id], digest(e.content), e.generation) for e in fresh]


def test_a_text_that_was_left_out_is_found_although_another_one_is_gone(graph: GraphStore) -> None:
    say(graph, "ok", 1)
    say(graph, "done", 1, start=1)
    fresh = [f for f in graph.unconsolidated("s", limit=9) if f.episode_id.startswith("x")]
    run = start(graph)
    graph.stage(run.run_id, token="t", memberships=[put(f.episode_id, "c1") for f in fresh])
    graph.reopen(["x00000"])  # its points were missing: the same text in another generation
    embed(graph)
    graph.publish(replace(run, status="done"), token="t")

    def parts() -> Iterator[ReadTexts]:
        yield ReadTexts([f.episode_id for f in fresh], b"".join(digest(f.content) for f in fresh), fresh[0].generation)
        graph.tombstone(episode_ids=["x00001"])

    graph.index_read(run.run_id, parts())
    graph.tombstone(episode_ids=["x00001"])  # a store that needs no texts has read none
    assert copies(graph) == {OK: "x00000"}
