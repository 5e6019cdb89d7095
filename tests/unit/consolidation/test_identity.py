"""Clusters keep their identity over runs."""

from __future__ import annotations

import numpy as np

from ww_core.consolidation.identity import Matching, match
from ww_core.models import Vector


def directions(*angles: float) -> Vector:
    return np.array([[np.cos(a), np.sin(a)] for a in angles], dtype=np.float32)


def matched(found: list[int], known: list[int], found_at: Vector, known_at: Vector) -> Matching:
    return match(
        np.array(found, dtype=np.int32),
        np.array(known, dtype=np.int32),
        found_centroids=found_at,
        known_centroids=known_at,
    )


def test_the_same_clusters_are_kept_whatever_their_numbers() -> None:
    result = matched([1] * 5 + [0] * 5, [0] * 5 + [1] * 5, directions(1.5, 0), directions(0, 1.5))
    assert [m.known for m in result.found] == [1, 0]
    assert {m.change for m in result.found} == {"kept"}
    assert result.gone == ()


def test_a_cluster_without_known_members_is_new() -> None:
    result = matched([0] * 5 + [1] * 5, [0] * 5 + [-1] * 5, directions(0, 1.5), directions(0))
    assert result.found[1].known is None
    assert result.found[1].change == "new"


def test_two_that_become_one_are_merged_under_the_larger_ones_id() -> None:
    result = matched([0] * 10, [0] * 7 + [1] * 3, directions(0), directions(0, 0.3))
    assert result.found[0].known == 0
    assert result.found[0].change == "merged"
    assert result.found[0].parents == (0, 1)
    assert result.gone == (1,)


def test_one_that_becomes_two_is_split_and_the_larger_part_keeps_the_id() -> None:
    result = matched([0] * 4 + [1] * 6, [0] * 10, directions(0, 0.4), directions(0.2))
    assert [m.known for m in result.found] == [None, 0]
    assert [m.change for m in result.found] == ["split", "split"]
    assert [m.parents for m in result.found] == [(0,), (0,)]


def test_a_cluster_whose_members_are_scattered_is_gone() -> None:
    result = matched([-1] * 5 + [0] * 5, [0] * 5 + [1] * 5, directions(1.5), directions(0, 1.5))
    assert result.found[0].known == 1
    assert result.gone == (0,)


def test_the_matching_is_optimal_rather_than_greedy() -> None:
    # Taking the largest overlap first (0 with 0) would leave found 1 without its only candidate.
    found = [0] * 10 + [0] * 8 + [1] * 9
    known = [0] * 10 + [1] * 8 + [0] * 9
    result = matched(found, known, directions(0, 0), directions(0, 0))
    assert [m.known for m in result.found] == [1, 0]


def test_alike_centroids_carry_a_cluster_without_sampled_members() -> None:
    result = matched([0] * 5, [-1] * 5, directions(0.01), directions(0.0))
    assert result.found[0].known == 0
    assert matched([0] * 5, [-1] * 5, directions(1.0), directions(0.0)).found[0].known is None


def test_nothing_known_makes_everything_new_and_nothing_found_everything_gone() -> None:
    assert matched([0] * 3, [-1] * 3, directions(0), np.empty((0, 2), np.float32)).found[0].change == "new"
    assert matched([-1] * 3, [0] * 3, np.empty((0, 2), np.float32), directions(0)).gone == (0,)


def test_rows_that_stand_for_many_weigh_more() -> None:
    found, known = np.array([0, 0, 0, 1], np.int32), np.array([0, 0, 0, 0], np.int32)
    weights = np.array([1, 1, 1, 100], np.float32)
    result = match(found, known, found_centroids=directions(0, 0.1), known_centroids=directions(0), weights=weights)
    assert [m.known for m in result.found] == [None, 0]
