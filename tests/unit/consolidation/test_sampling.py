"""Which episodes a run clusters."""

from __future__ import annotations

import numpy as np

from ww_core.consolidation.sampling import draw, share_out, split_budget, spread_over_time


def test_a_draw_over_time_takes_one_from_each_stretch() -> None:
    chosen = spread_over_time(10_000, 100, np.random.default_rng(3))
    assert len(set(chosen)) == 100
    assert np.array_equal(np.bincount(chosen // 100, minlength=100), np.ones(100))


def test_all_rows_are_taken_where_the_budget_admits_them() -> None:
    assert np.array_equal(spread_over_time(7, 10, np.random.default_rng(0)), np.arange(7))


def test_the_seed_alone_decides_the_draw() -> None:
    one, same, other = (spread_over_time(5000, 50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_budget_is_shared_out_fully_and_favours_no_giant() -> None:
    shares = share_out([100_000, 100, 100], 90)
    assert sum(shares) == 90
    assert all(0 < share <= 100 for share in shares[1:])
    assert shares[0] < 90


def test_no_stratum_gets_more_than_it_has() -> None:
    assert share_out([3, 5, 1000], 500)[:2] == [3, 5]
    assert share_out([3, 5], 500) == [3, 5]
    assert share_out([0, 4], 2) == [0, 2]


def test_exemplars_get_at_most_half_while_there_is_enough_that_is_new() -> None:
    assert split_budget(5000, 5000, 2000) == (1000, 1000)
    assert split_budget(100, 5000, 2000) == (100, 1900)
    assert split_budget(5000, 10, 2000) == (1990, 10)
    assert split_budget(5, 5, 2000) == (5, 5)


def test_drawing_keeps_the_order_and_repeats_nothing() -> None:
    items = [f"e{i:03}" for i in range(100)]
    drawn = draw(items, 20, np.random.default_rng(5))
    assert len(set(drawn)) == 20
    assert list(drawn) == sorted(drawn)
