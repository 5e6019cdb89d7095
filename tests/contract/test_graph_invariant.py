"""The accounting invariant, whatever happens in whatever order."""

from __future__ import annotations

import random

import pytest

from tests.contract.graphs import Clock, claimed, episodes, ids
from ww_core.models import Counts, State
from ww_core.stores.ports import Added, GraphStore

LEASE = 10.0


@pytest.mark.parametrize("seed", range(4))
def test_every_acknowledged_episode_is_somewhere(graph: GraphStore, clock: Clock, seed: int) -> None:
    """Random work against a dictionary of states: nothing is lost, nothing is counted twice, and no void token acts."""
    rng = random.Random(seed)
    pool = [*episodes(25, session="s"), *episodes(15, session="t", prefix="t")]
    states: dict[str, State] = {}
    held: dict[str, tuple[set[str], float]] = {}
    void: list[tuple[str, set[str]]] = []

    def drop(name: str) -> None:
        for rows, _ in held.values():
            rows.discard(name)

    for turn in range(150):
        some = rng.sample(ids(pool), rng.randint(1, 6))
        match rng.choice(
            ["add", "claim", "claim", "mark", "mark", "release", "fail", "expire", "erase", "update"] + ["rest"] * 2
        ):
            case "add":
                batch = rng.sample(pool, rng.randint(1, 10))
                for episode, result in zip(batch, graph.add(batch), strict=True):
                    known = states.get(episode.episode_id)
                    assert (result.outcome is Added.CREATED) == (known is None)
                    assert (result.outcome is Added.ERASED) == (known is State.ERASED)
                    states.setdefault(episode.episode_id, State.PENDING)
            case "claim":
                token = f"t{turn}"
                rows = set(claimed(graph.claim(rng.randint(1, 12), token=token, lease_seconds=LEASE)))
                assert {states[name] for name in rows} <= {State.PENDING}
                states.update(dict.fromkeys(rows, State.LEASED))
                held[token] = (rows, clock().timestamp() + LEASE)
            case "mark" if held:
                token, (rows, _) = rng.choice(list(held.items()))
                wanted = {name for name in rows if rng.random() < 0.7}
                assert graph.mark_embedded(token, dict.fromkeys([*wanted, *some], 2)) == wanted | (rows & set(some))
                for name in wanted | (rows & set(some)):
                    states[name] = State.EMBEDDED
                    rows.discard(name)
            case "release" if held:
                token, (rows, _) = rng.choice(list(held.items()))
                assert graph.release(token, [*rows, "nobody"], delay_seconds=rng.choice([0, 3])) == len(rows)
                states.update(dict.fromkeys(rows, State.PENDING))
                rows.clear()
            case "fail" if held:
                token, (rows, _) = rng.choice(list(held.items()))
                for name in sorted(rows)[:1]:
                    state = graph.fail(token, name, error="E", traceback="", max_attempts=2, delay_seconds=1)
                    assert state in (State.PENDING, State.DEAD)
                    states[name] = state
                    drop(name)
            case "expire":
                clock.advance(rng.choice([1, LEASE]))
                gone = {token for token, (_, until) in held.items() if until <= clock().timestamp()}
                freed = sorted(name for token in gone for name in held[token][0])
                assert graph.expire_leases(max_attempts=2) == len(freed)
                found = graph.get(freed)
                for name in freed:
                    state = found[name].state
                    assert state in (State.PENDING, State.DEAD)
                    states[name] = state
                void += [(token, held.pop(token)[0]) for token in gone]
            case "erase" if rng.random() < 0.3:
                living = {name for name in some if states.get(name, State.ERASED) is not State.ERASED}
                assert set(graph.tombstone(episode_ids=some)[0]) == living
                for name in living:
                    states[name] = State.ERASED
                    drop(name)
            case "update":
                name = some[0]
                if states.get(name, State.ERASED) is not State.ERASED:
                    graph.update(name, content=f"new {turn}")
                    states[name] = State.PENDING
                    drop(name)
                    pool = [e for e in pool if e.episode_id != name] or pool
            case "rest" if void:
                token, rows = rng.choice(void)
                assert graph.mark_embedded(token, dict.fromkeys(rows, 1)) == set()
                graph.replay([name for name in some if states.get(name) is State.DEAD])
                for name in some:
                    if states.get(name) is State.DEAD:
                        states[name] = State.PENDING
        values = list(states.values())
        expected = Counts(len(values), *(values.count(state) for state in State))
        assert graph.counts() == expected
        assert expected.balanced
        by_session = [graph.counts("s"), graph.counts("t")]
        assert sum(c.acknowledged for c in by_session) == len(values)
        assert all(c.balanced for c in by_session)
        found = graph.get(list(states))
        assert {name: e.state for name, e in found.items()} == {
            name: state for name, state in states.items() if state is not State.ERASED
        }
