"""The map of a session."""

from __future__ import annotations

import numpy as np

from tests.unit.consolidation.blobs import blobs
from ww_core.consolidation.layout import layout


def test_clusters_lie_apart_and_their_members_together() -> None:
    rows, truth = blobs(8, 60, noise=40)
    places = layout(rows, truth.astype(np.int64))
    assert places.shape == (520, 2)
    assert np.abs(places).max() <= 1.0
    centres = np.array([places[truth == label].mean(axis=0) for label in range(8)])
    inside = truth >= 0
    nearest = np.linalg.norm(places[inside][:, None] - centres[None], axis=2).argmin(axis=1)
    assert (nearest == truth[inside]).mean() > 0.97


def test_the_same_input_gives_the_same_map() -> None:
    rows, truth = blobs(4, 30)
    labels = truth.astype(np.int64)
    np.testing.assert_array_equal(layout(rows, labels), layout(rows, labels))


def test_a_session_without_clusters_and_an_empty_one_have_maps() -> None:
    rows, _ = blobs(2, 20)
    nothing = np.full(len(rows), -1)
    assert np.ptp(layout(rows, nothing), axis=0).min() > 0.1
    assert layout(rows[:0], nothing[:0]).shape == (0, 2)
    assert layout(rows[:1], np.zeros(1, np.int64)).shape == (1, 2)
