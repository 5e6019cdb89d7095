"""The pure parts of recall: pool, fusion, signals, neighbours, folding, variety, filters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ww_core.models import Episode, State
from ww_core.recall import signals
from ww_core.recall.candidates import gather
from ww_core.recall.context import LEXICAL_REACH, context_vector, lexical_context_text, stretches, surroundings
from ww_core.recall.filters import findable, matches
from ww_core.recall.fusion import fuse, zscore
from ww_core.recall.hierarchy import Gap, Route, within
from ww_core.recall.query import read_query
from ww_core.recall.recent import on_scale, overlap
from ww_core.recall.rerank import accompanied, fold, maximal_marginal_relevance, neighbour_boost
from ww_core.stores.ports import Hit, SparseVector, Where

START = datetime(2024, 3, 1, 12, tzinfo=UTC)


def turn(i: int, content: str = "", *, minutes: float | None = None, **fields: object) -> Episode:
    at = START + timedelta(minutes=i if minutes is None else minutes)
    return Episode(content or f"turn {i}", episode_id=f"e{i}", session_id="s", timestamp=at, **fields)  # type: ignore[arg-type]


def test_zscores_have_mean_nought_and_spread_one() -> None:
    scaled = zscore(np.array([1.0, 2.0, 6.0], np.float32))
    assert scaled.dtype == np.float32
    assert scaled.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("values", [[], [3.0], [0.7, 0.7, 0.7]])
def test_a_part_that_tells_nothing_apart_adds_nothing(values: list[float]) -> None:
    assert not zscore(np.array(values, np.float32)).any()


def test_parts_add_up_to_the_total_and_weightless_ones_are_left_out() -> None:
    searched = {"content": np.array([0.9, 0.1], np.float32), "bm25": np.array([0.0, 9.0], np.float32)}
    fused = fuse(searched, {"importance": np.array([1, 0.5], np.float32)}, {"content": 1, "importance": 0.5}, size=2)
    assert set(fused.parts) == {"content", "importance"}
    assert np.allclose(fused.total, sum(fused.parts.values()))
    assert fused.total[0] == pytest.approx(1.5)


def test_a_candidate_that_a_full_list_lacks_scores_like_its_last() -> None:
    found = {"content": [Hit("a", 0, 0.9), Hit("b", 0, 0.4)], "bm25": [Hit("c", 0, 5.0)]}
    pool = gather(found, limit=2)
    assert pool.ids == ("a", "b", "c")
    assert pool.scores["content"].tolist() == pytest.approx([0.9, 0.4, 0.4])
    assert pool.scores["bm25"].tolist() == [0, 0, 5]


def test_true_scores_replace_the_guessed_ones() -> None:
    pool = gather({"content": [Hit("a", 0, 0.9), Hit("b", 0, 0.4)], "bm25": [Hit("c", 0, 5.0)]}, limit=2)
    better = pool.completed({"content": ("c",)}, {"content": [Hit("c", 0, 0.1)]})
    assert better.scores["content"].tolist() == pytest.approx([0.9, 0.4, 0.1])
    assert better.scores["bm25"].tolist() == [0, 0, 5]
    assert better.take([2, 0]).ids == ("c", "a")


def test_who_has_no_score_of_a_signal_scores_like_the_worst_and_0_in_words() -> None:
    pool = gather({"content": [Hit("a", 0, 0.9), Hit("b", 0, 0.4)]}, limit=9)
    asked = {"context": ("a", "b"), "bm25": ("a", "b")}
    better = pool.completed(asked, {"context": [Hit("b", 0, 0.3)], "bm25": [Hit("a", 0, 2.0)]})
    assert better.scores["context"].tolist() == pytest.approx([0.3, 0.3])
    assert better.scores["bm25"].tolist() == [2, 0]


def test_what_was_recalled_long_ago_fades() -> None:
    assert signals.retrievability(0, 10) == 1
    assert signals.retrievability(10, 10) == pytest.approx(0.9)
    assert signals.retrievability(100, 10) < signals.retrievability(100, 50) < 1
    now = START + timedelta(days=90)
    old, recalled = turn(0), turn(1, last_recalled_at=now - timedelta(days=1))
    values = signals.recency([old, recalled], now)
    assert values[0] < values[1] <= 1


def test_speaker_and_date_count_only_where_the_query_is_exact() -> None:
    turns = [turn(0, "Ann: hello"), turn(1, "Bo: hello")]
    assert signals.speaker(turns, read_query("what did Ann say", ["Ann", "Bo"])).tolist() == [1, 0]
    assert signals.speaker(turns, read_query("Ann and Bo", ["Ann", "Bo"])).tolist() == [0, 0]
    assert signals.date(turns, read_query("in March 2024")).tolist() == [1, 1]
    assert signals.date(turns, read_query("in April 2024")).tolist() == [0, 0]


def test_a_day_counts_for_more_than_its_month() -> None:
    turns = [turn(0), turn(1, minutes=8 * 24 * 60), turn(2, minutes=40 * 24 * 60)]
    days = [turn.timestamp for turn in turns]
    assert [(day.month, day.day) for day in days if day] == [(3, 1), (3, 9), (4, 10)]
    assert signals.date(turns, read_query("on March 9, 2024")).tolist() == [0.5, 1, 0]


def test_what_the_query_names_exactly_is_looked_for_letter_by_letter_in_any_case() -> None:
    turns = [turn(0, "paid inv-20448."), turn(1, "INV-204481 is late"), turn(2, "INV-20448 and INV-7777"), turn(3)]
    assert signals.named(turns, read_query("INV-20448")).tolist() == [1, 0, 1, 0]
    assert signals.named(turns, read_query("INV-20448 or INV-7777")).tolist() == [0.5, 0, 1, 0]


def test_outcome_and_importance_are_between_nought_and_one() -> None:
    turns = [turn(0, outcome="success"), turn(1), turn(2, outcome="failure", importance=0.9)]
    assert signals.outcome(turns).tolist() == [1, 0.5, 0]
    assert signals.importance(turns).tolist() == pytest.approx([0.5, 0.5, 0.9])


def around(turns: list[Episode], reach: int = 2) -> dict[str, tuple[str | None, ...]]:
    ids: list[str | None] = [*[None] * reach, *(t.episode_id for t in turns), *[None] * reach]
    return {t.episode_id: (*ids[i : i + reach], *ids[i + reach + 1 : i + 2 * reach + 1]) for i, t in enumerate(turns)}


def test_neighbours_of_a_good_candidate_gain_by_distance() -> None:
    turns = [turn(i) for i in range(9)]
    total = np.array([0, 0, 0, 0, 9, 0, 0, 0, 0], np.float32)
    boost = neighbour_boost(total, turns, around(turns))
    assert boost[3] == boost[5] == pytest.approx(1.8)
    assert boost[2] == boost[6] == pytest.approx(0.9)
    assert boost[4] == pytest.approx(0)


def test_neighbours_do_not_reach_over_a_long_gap() -> None:
    near = [turn(0), turn(1)]
    far = [turn(0), turn(1, minutes=600)]
    total = np.array([0, 4], np.float32)
    assert neighbour_boost(total, near, around(near))[0] > neighbour_boost(total, far, around(far))[0]


def test_who_stands_alone_among_the_candidates_needs_no_neighbours() -> None:
    alone, pair = turn(0, minutes=-600), [turn(1), turn(2, minutes=59)]
    elsewhere, undated = replace(turn(3), session_id="other"), replace(turn(4), timestamp=None)
    assert accompanied([pair[1], alone, elsewhere, pair[0]]) == [pair[1].episode_id, pair[0].episode_id]
    assert accompanied([alone, undated, elsewhere]) == [alone.episode_id, "e4"]


def test_looking_up_those_with_company_alone_changes_no_boost() -> None:
    turns = [turn(i, minutes=20 * (i % 4) + 300 * (i // 4)) for i in range(40)]
    chosen = [turns[i] for i in (0, 1, 5, 9, 11, 12, 14, 20, 27, 28, 39)]
    total = np.arange(len(chosen), dtype=np.float32)
    beside = around(turns)
    some = {name: beside[name] for name in accompanied(chosen)}
    assert 0 < len(some) < len(chosen)
    assert neighbour_boost(total, chosen, some).tolist() == neighbour_boost(total, chosen, beside).tolist()


def test_a_neighbour_that_is_no_candidate_neither_helps_nor_hurts() -> None:
    turns = [turn(0), turn(1), turn(2)]
    total = np.array([3, -1], np.float32)
    boost = neighbour_boost(total, [turns[0], turns[2]], around(turns))
    mean = total.mean()
    assert boost == pytest.approx([0.5 * mean + 0.1 * total[1], 0.5 * mean + 0.1 * total[0]])


def test_repeats_fold_within_a_session_and_under_their_original() -> None:
    episodes = [
        turn(0, "Same words!"),
        turn(1, "same  words"),
        Episode("Same words", episode_id="x", session_id="other", timestamp=START),
        turn(3, "a copy", duplicate_of="e0"),
        turn(4, "!!!"),
        turn(5, "???"),
    ]
    assert fold([0, 1, 2, 3, 4, 5], episodes) == [0, 2, 4, 5]
    assert fold([3, 0, 4], episodes) == [3, 4]


def test_variety_on_request() -> None:
    vectors = {row: np.array(v, np.float32) for row, v in enumerate([(1, 0), (1, 0), (0, 1)])}
    total = np.array([3, 2.9, 1], np.float32)
    assert maximal_marginal_relevance([0, 1, 2], total, vectors, trade=1, limit=3) == [0, 1, 2]
    assert maximal_marginal_relevance([0, 1, 2], total, vectors, trade=0.3, limit=2) == [0, 2]
    assert maximal_marginal_relevance([], total, {}, trade=0.5, limit=2) == []


def test_context_stays_within_a_stretch() -> None:
    turns = [turn(0), turn(1), turn(2), turn(3, minutes=300), turn(4, minutes=301)]
    assert stretches(turns) == [0, 0, 0, 1, 1]
    for i, expected in {2: "turn 0\nturn 1\nturn 2", 3: "turn 3\nturn 4"}.items():
        before, after = surroundings(turns[i], turns, reach=LEXICAL_REACH)
        assert lexical_context_text(before, turns[i], after) == expected
    assert surroundings(turn(9), [], reach=1) == ((), ())


def test_a_long_neighbour_lends_only_its_near_end() -> None:
    turns = [turn(0, "x" * 5000 + "END"), turn(1), turn(2, "START" + "y" * 5000)]
    text = lexical_context_text(turns[:1], turns[1], turns[2:])
    assert "END\nturn 1\nSTART" in text
    assert len(text) < 1500


def test_a_context_vector_leans_towards_the_neighbours() -> None:
    own, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    assert context_vector(own, [], []).tolist() == [1, 0]
    np.testing.assert_allclose(context_vector(own, [other], [other]), np.sqrt([0.5, 0.5]), rtol=1e-6)
    assert context_vector(own, [other], [])[1] > context_vector(own, [], [other])[1] > 0
    np.testing.assert_allclose(context_vector(own, [-own], [-own]), own, err_msg="nothing is left of the sum")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), True),
        (Where(sessions=("s", "t")), True),
        (Where(sessions=("t",)), False),
        (Where(since=START, until=START + timedelta(seconds=1)), True),
        (Where(until=START), False),
        (Where(outcomes=("success",)), False),
        (Where(context={"tool": "kubectl", "n": "1"}), True),
        (Where(context={"tool": "git"}), False),
        (Where(context={"list": "x"}), False),
        (Where(episode_ids=("e1",)), False),
        (Where(archived=True), False),
        (Where(archived=None), True),
        (Where(cells=("c1",)), True),
        (Where(cells=("c2",)), False),
    ],
)
def test_filters_by_the_record(where: Where, expected: bool) -> None:
    episode = turn(0, context={"tool": "kubectl", "n": 1, "list": ["x"]}, cluster_id="c1", nearest="c1")
    assert matches(episode, where) is expected


def test_the_dead_answer_no_query() -> None:
    assert findable(turn(0, state=State.PENDING))
    assert not findable(turn(0, state=State.DEAD))


def words(*indices: int) -> SparseVector:
    return SparseVector(np.array(indices, np.uint32), np.ones(len(indices), np.float32))


def test_rare_words_of_the_query_count_more() -> None:
    share = overlap(words(1, 2), [words(1, 5), words(2), words(2, 7), words(9)])
    assert share[0] > share[1] == share[2] > share[3] == 0
    assert overlap(words(), [words(1)]).tolist() == [0]


def test_shares_of_words_are_put_on_the_scale_of_the_stored() -> None:
    share, stored = np.array([0, 0.5, 1], np.float32), np.array([2, 4], np.float32)
    assert on_scale(share, stored, from_zero=False).tolist() == [2, 3, 4]
    assert on_scale(share, stored, from_zero=True).tolist() == [0, 2, 4]
    assert on_scale(share, stored[:1], from_zero=False).tolist() == [0, 1, 2]
    assert on_scale(share, stored[:0], from_zero=True).tolist() == [0, 0.5, 1]


def test_routing_takes_the_nearest_cells() -> None:
    route = Route(("r",), ("a", "b", "c"), np.eye(3, dtype=np.float32))
    assert route.nearest(np.array([0.1, 0.9, 0.5], np.float32), 2) == ("b", "c")
    assert route.nearest(np.array([0.1, 0.9, 0.5], np.float32), 9) == ("b", "c", "a")
    routed = within(Where(sessions=("s",)), ("b",))
    assert (routed.sessions, routed.cells, routed.uncelled) == (("s",), ("b",), True)


def test_the_gap_runs_along_and_says_nothing_too_early() -> None:
    gap = Gap()
    assert np.isnan(gap.value)
    assert gap.measure(["a"], ["a", "b"]) == 0.5
    assert not gap.exceeds(0.1)
    for _ in range(5):
        gap.measure(["a"], ["a", "b"])
    assert gap.exceeds(0.1)
    for _ in range(100):
        gap.measure(["a", "b"], ["a", "b"])
    assert not gap.exceeds(0.1)
