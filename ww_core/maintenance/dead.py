"""Dead letters: reading them all, giving them another chance, or erasing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ww_core.errors import NotFound
from ww_core.ingest import validate
from ww_core.maintenance.erase import erase
from ww_core.models import DeadLetter, Erased, State
from ww_core.stores.ports import Doorbell, GraphStore, VectorStore

PAGE = 500


def dead_letters(graph: GraphStore) -> Iterator[DeadLetter]:
    """Every dead letter, by episode id."""
    after: str | None = None
    while page := graph.dead_letters(limit=PAGE, after=after):
        yield from page
        after = page[-1].episode_id


def replay(graph: GraphStore, doorbell: Doorbell, episode_ids: Sequence[str] = ()) -> int:
    """Let dead episodes be embedded again, with fresh attempts: these, or all; how many. Raises NotFound."""
    _expect_dead(graph, episode_ids)
    revived = graph.replay(list(episode_ids) or None)
    if revived:
        doorbell.ring()
    return revived


def purge(graph: GraphStore, vectors: VectorStore, episode_ids: Sequence[str] = ()) -> Erased:
    """Erase dead episodes for good: these, or all. It counts as an erasure. Raises NotFound."""
    _expect_dead(graph, episode_ids)
    ids = list(episode_ids) or [letter.episode_id for letter in dead_letters(graph)]
    if not ids:
        return Erased(episodes=0, vectors=0, memberships=0)
    return erase(graph, vectors, episode_ids=ids)


def _expect_dead(graph: GraphStore, episode_ids: Sequence[str]) -> None:
    known = graph.get([validate.identifier("episode_id", name) for name in episode_ids])
    for name in episode_ids:
        if name not in known or known[name].state is not State.DEAD:
            state = known[name].state if name in known else "not there"
            raise NotFound(f"no dead letter {validate.shown(name)}: it is {state}", hint="`ww dead list` shows them")
