"""Several processes and threads on one graph store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.contract.claimer import claim_at_once
from tests.contract.graphs import Clock, GraphAddress, claimed, episodes, ids
from ww_core.stores.ports import Added, GraphStore

ROWS = 6_000
CLAIMERS = 6
CLAIM_SIZE = 50


def test_six_processes_never_claim_a_row_twice(graph: GraphStore, graph_address: GraphAddress) -> None:
    graph.add(episodes(ROWS))
    answers, _ = claim_at_once(graph_address, claimers=CLAIMERS, size=CLAIM_SIZE)

    got = [name for answer in answers for name in answer]
    assert len(got) == len(set(got)) == ROWS
    assert sum(bool(answer) for answer in answers) > 1
    counts = graph.counts()
    assert (counts.leased, counts.balanced) == (ROWS, True)


def test_threads_store_claim_and_mark_at_once(graph: GraphStore) -> None:
    def store(worker: int) -> int:
        mine = episodes(300, session=f"s{worker}", prefix=f"w{worker}-")
        return sum(r.outcome is Added.CREATED for i in range(0, 300, 20) for r in graph.add(mine[i : i + 20]))

    def work(worker: int) -> list[str]:
        marked: list[str] = []
        for turn in range(25):
            token = f"{worker}-{turn}"
            rows = claimed(graph.claim(30, token=token, lease_seconds=600))
            marked += sorted(graph.mark_embedded(token, dict.fromkeys(rows, 1)))
            assert graph.counts().balanced
        return marked

    with ThreadPoolExecutor(8) as pool:
        stored = [pool.submit(store, i) for i in range(4)]
        worked = [pool.submit(work, i) for i in range(4)]
        assert sum(future.result() for future in stored) == 1200
        marked = [name for future in worked for name in future.result()]

    assert len(marked) == len(set(marked))
    counts = graph.counts()
    assert (counts.acknowledged, counts.embedded, counts.leased) == (1200, len(marked), 0)


def test_the_same_batch_from_several_threads_is_stored_once(graph: GraphStore) -> None:
    batch = episodes(200)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: graph.add(batch), range(4)))
    created = [sum(r.outcome is Added.CREATED for r in result) for result in results]
    assert sorted(created) == [0, 0, 0, 200]
    assert graph.counts().acknowledged == 200


def test_two_stores_of_one_place_see_each_other(graph: GraphStore, graph_address: GraphAddress, clock: Clock) -> None:
    other = graph_address.open(clock)
    graph.add(episodes(2))
    assert set(other.get(ids(episodes(2)))) == {"e00000", "e00001"}
    other.claim(1, token="o", lease_seconds=9)
    assert claimed(graph.claim(9, token="g", lease_seconds=9)) == ["e00001"]
    other.close()
    assert graph.counts().leased == 2
