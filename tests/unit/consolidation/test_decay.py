"""How memory fades."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ww_core.consolidation.decay import (
    current_retrievability,
    days_until,
    initial_stability,
    retrievability,
    strengthened,
    to_archive,
)
from ww_core.models import Episode
from ww_core.recall.signals import DEFAULT_STABILITY

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def aged(days: float, **fields: object) -> Episode:
    return Episode("text", f"e{days}", timestamp=NOW - timedelta(days=days), **fields)  # type: ignore[arg-type]


def test_after_one_stability_nine_tenths_are_left() -> None:
    stability = np.array([0.5, 3.0, 100.0])
    np.testing.assert_allclose(retrievability(stability, stability), 0.9, atol=1e-9)
    np.testing.assert_allclose(retrievability(np.zeros(3), stability), 1.0)


def test_retrievability_follows_the_published_curve() -> None:
    assert float(retrievability(np.array([10.0]), np.array([2.0]))[0]) == pytest.approx((1 + 19 / 81 * 5) ** -0.5)


def test_a_recall_strengthens_and_more_so_the_more_was_forgotten() -> None:
    soon, late = strengthened(3.0, 0.1), strengthened(3.0, 10.0)
    assert 3.0 < soon < late


def test_stable_memories_gain_relatively_less() -> None:
    assert strengthened(1.0, 1.0) / 1.0 > strengthened(100.0, 100.0) / 100.0
    assert strengthened(36_500.0, 1e6) == 36_500.0


def test_what_matters_fades_more_slowly() -> None:
    assert initial_stability(0.0) == pytest.approx(10.0)
    assert initial_stability(0.5) == pytest.approx(30.0) == DEFAULT_STABILITY
    assert initial_stability(1.0) == pytest.approx(90.0)


def test_time_counts_from_the_last_recall() -> None:
    recalled = aged(100, stability=3.0, last_recalled_at=NOW - timedelta(days=3))
    assert current_retrievability(recalled, NOW) == pytest.approx(0.9)
    assert current_retrievability(aged(100, stability=3.0), NOW) < 0.5


def test_the_time_until_a_retrievability_is_its_inverse() -> None:
    days = days_until(0.2, 30.0)
    assert float(retrievability(np.array([days]), np.array([30.0]))[0]) == pytest.approx(0.2)


def test_what_was_stored_just_now_has_not_faded_however_old_it_is() -> None:
    assert to_archive([aged(5000, stored_at=NOW - timedelta(days=1))], now=NOW, threshold=0.9) == []
    assert to_archive([aged(5000, stored_at=NOW - timedelta(days=60))], now=NOW, threshold=0.9) == ["e5000"]


def test_only_faded_episodes_that_are_not_archived_yet_are_archived() -> None:
    episodes = [aged(1), aged(2000), aged(3000, archived=True)]
    assert to_archive(episodes, now=NOW, threshold=0.3) == ["e2000"]
    assert to_archive(episodes, now=NOW, threshold=0.0) == []
