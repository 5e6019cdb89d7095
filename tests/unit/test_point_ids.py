"""Ids of points: the same for every writer, by whichever way they are made."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from ww_core.stores.points import first_window, first_windows, point_id

NAMES = st.text(st.characters(codec="utf-8"), max_size=40)


@given(NAMES, NAMES)
def test_the_short_way_to_a_first_window_gives_its_id(namespace: str, episode_id: str) -> None:
    assert UUID(int=first_window(namespace, episode_id)) == point_id(namespace, episode_id, 0)
    assert [UUID(one) for one in first_windows(namespace, [episode_id])] == [point_id(namespace, episode_id, 0)]


def test_ids_stay_what_is_stored() -> None:
    assert str(point_id("n", "e1", 0)) == "4c469d5c-9957-5615-bb40-593236d55256"
    assert point_id("n", "e1", 0).version == 5
    assert len({point_id("n", "e1", 0), point_id("n", "e1", 1), point_id("m", "e1", 0)}) == 3
