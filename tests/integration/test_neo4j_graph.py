"""What the Neo4j store claims, links and erases in its server's graph, and with which plan."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from neo4j import GraphDatabase

from tests.contract.graph_runs.runs import cluster, publish, put
from tests.contract.graphs import claimed, clear, embed, episodes
from tests.integration.neo4j_graphs import Open, cypher
from ww_core.stores.ports import Dirty
from ww_core.stores.servers.neo4j import Neo4jGraphStore, copies, migrations, outbox, standing
from ww_core.stores.texts import digest, first_digest


class TestClaims:
    def test_the_plan_of_a_claim_reads_its_index_in_order(self, open_graph: Open, location: str) -> None:
        open_graph().add(episodes(100))
        uri, password, _ = location.split(" ")
        with (
            GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver,
            driver.session() as session,
        ):
            plan = session.run(f"EXPLAIN {outbox.TAKE}").consume().plan  # type: ignore[arg-type]
        operators = list(_operators(plan))
        names = [name for name, _ in operators]
        assert "Limit" in names
        assert not [name for name in names if name.startswith(("Sort", "Top", "PartialSort"))]
        (seek,) = [details for name, details in operators if name == "NodeIndexSeek"]
        assert "Episode(queue, t)" in seek
        assert not [name for name in names if name.endswith("Scan")]

    def test_only_the_second_look_keeps_claimers_apart(self, open_graph: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        assert _claim_at_once(open_graph(), rows=1500) == 1500
        monkeypatch.setattr(outbox, "TAKE", outbox.TAKE.replace(outbox.LOOK_AGAIN, "WITH e\n"))
        assert _claim_at_once(open_graph(), rows=1500, prefix="x") > 1500


def _operators(plan: dict[str, object]) -> Iterator[tuple[str, str]]:
    arguments = plan["args"]
    assert isinstance(arguments, dict)
    yield str(plan["operatorType"]).split("@")[0], str(arguments.get("Details", ""))
    children = plan.get("children", [])
    assert isinstance(children, list)
    for child in children:
        yield from _operators(child)


def _claim_at_once(graph: Neo4jGraphStore, *, rows: int, prefix: str = "e") -> int:
    """How many rows six threads get in sum, while there are some."""
    graph.add(episodes(rows, prefix=prefix))
    start = threading.Barrier(6)

    def claim(worker: int) -> int:
        start.wait(20)
        got = 0
        for turn in range(1000):
            found = graph.claim(50, token=f"{worker}-{turn}", lease_seconds=600)
            got += len(found)
            if not found and graph.counts().pending == 0:
                break
        return got

    with ThreadPoolExecutor(6) as pool:
        return sum(pool.map(claim, range(6)))


def test_next_leads_along_the_session_once_contexts_are_fresh(open_graph: Open, location: str) -> None:
    graph = open_graph()
    graph.add([*episodes(5), *episodes(2, session="t", prefix="t")])

    def chain() -> list[list[object]]:
        clear(graph, Dirty.CONTEXT)
        return cypher(location, "MATCH (a:Episode {ns: $ns})-[:NEXT]->(b) RETURN a.id, b.id ORDER BY a.session, a.id")

    assert cypher(location, "MATCH (:Episode {ns: $ns})-[n:NEXT]->() RETURN count(n)") == [[0]]
    embed(graph)
    links = [["e00000", "e00001"], ["e00001", "e00002"], ["e00002", "e00003"], ["e00003", "e00004"]]
    assert chain() == [*links, ["t00000", "t00001"]]
    graph.tombstone(episode_ids=["e00002"])
    assert chain() == [links[0], ["e00001", "e00003"], links[3], ["t00000", "t00001"]]
    graph.update("e00004", timestamp=episodes(1)[0].timestamp)
    assert chain() == [["e00000", "e00004"], ["e00001", "e00003"], ["e00004", "e00001"], ["t00000", "t00001"]]


def test_an_erased_text_is_in_no_property(open_graph: Open, location: str) -> None:
    graph = open_graph()
    graph.add(episodes(3))
    rows = claimed(graph.claim(2, token="t", lease_seconds=9))
    graph.fail("t", rows[0], error="E: text 0 of s", traceback="text 0 of s", max_attempts=1, delay_seconds=0)
    graph.mark_embedded("t", {rows[1]: 1})
    query = """MATCH (n {ns: $ns}) WHERE any(key IN keys(n) WHERE toString(n[key]) CONTAINS $text) RETURN count(n)"""
    assert cypher(location, query, text="text 0 of s") == [[1]]
    graph.tombstone(episode_ids=rows)
    assert cypher(location, query, text="text 0 of s") == [[0]]
    assert cypher(location, query, text="text 1 of s") == [[0]]


def test_no_property_tells_what_an_erased_text_was(open_graph: Open, location: str) -> None:
    graph = open_graph()
    graph.add(episodes(2))
    embed(graph)
    publish(graph, [put("e00000", "c"), put("e00001", "c")])
    query = "MATCH (n {ns: $ns}) WHERE any(key IN keys(n) WHERE n[key] = $text) RETURN count(n)"
    text = digest("text 0 of s").hex()
    assert cypher(location, query, text=text) == [[1]]
    graph.update("e00000", content="other")
    assert cypher(location, query, text=text) == [[0]]
    text = first_digest("e00000", "text 0 of s")
    assert cypher(location, query, text=text) == [[1]], "kept to know the text again, until the episode is forgotten"
    graph.tombstone(episode_ids=["e00000"])
    assert cypher(location, query, text=text) == [[0]]
    text = digest("text 1 of s").hex()
    assert cypher(location, query, text=text) == [[1]]
    graph.tombstone(episode_ids=["e00001"])
    assert cypher(location, query, text=text) == [[0]]


def test_texts_placed_by_an_older_version_are_gone_through_in_steps(
    open_graph: Open, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = open_graph()
    graph.add(episodes(25))
    embed(graph)
    publish(graph, [put(f"e{i:05d}", "c") for i in range(20)])
    cypher(location, "MATCH (e:Episode {ns: $ns}) REMOVE e.digest")
    migration = migrations.scripts()[2][-1]
    assert migration.startswith("MATCH")
    cypher(location, migration.replace("WHERE", "WHERE s.ns = $ns AND"))
    monkeypatch.setattr(copies, "STEP", 10)
    texts = [digest(f"text {i} of s") for i in range(25)]
    assert graph.copies("s", texts) == {}
    assert graph.index_texts("s", limit=10)
    assert len(graph.copies("s", texts)) == 10
    assert not graph.index_texts("s", limit=1000)
    assert graph.copies("s", texts) == {text: f"e{i:05d}" for i, text in enumerate(texts[:20])}
    assert not graph.index_texts("s", limit=10)


def test_copies_placed_by_an_older_version_keep_together_without_their_original(
    open_graph: Open, location: str
) -> None:
    graph = open_graph()
    graph.add([replace(episode, content="other" if i == 2 else "ok") for i, episode in enumerate(episodes(5))])
    embed(graph)
    publish(graph, [put("e00000", "c"), *(put(f"e{i:05d}", "c", original="e00000") for i in range(1, 5))])
    cypher(location, "MATCH (e:Episode {ns: $ns}) WHERE e.id <> 'e00003' REMOVE e.digest")
    graph.tombstone(episode_ids=["e00000"])
    found = graph.get([f"e{i:05d}" for i in range(1, 5)])
    assert [found[name].duplicate_of for name in sorted(found)] == [None, None, "e00001", "e00001"]


def test_the_plan_for_copies_reads_their_index_in_order(open_graph: Open, location: str) -> None:
    graph = open_graph()
    graph.add(episodes(100))
    embed(graph)
    publish(graph, [put(f"e{i:05d}", "c") for i in range(100)])  # an index that holds nothing is scanned
    uri, password, _ = location.split(" ")
    with (
        GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver,
        driver.session() as session,
    ):
        session.run("CALL db.prepareForReplanning(30)").consume()
        plan = session.run(f"EXPLAIN {copies.COPIES}").consume().plan  # type: ignore[arg-type]
    operators = list(_operators(plan))
    assert not [o for o in operators if o[0].startswith(("Sort", "Top", "PartialSort")) or o[0].endswith("Scan")]
    assert [details for name, details in operators if name == "NodeIndexSeek" and "digest" in details]


def test_what_stands_is_found_by_session_and_run(open_graph: Open, location: str) -> None:
    graph = open_graph()
    graph.add(episodes(3))
    embed(graph)
    publish(graph, [put("e00000", "c")], [cluster("c")])
    uri, password, _ = location.split(" ")
    with (
        GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver,
        driver.session() as session,
    ):
        session.run("CALL db.prepareForReplanning(30)").consume()
        for query, index in (
            (standing.RUNS, "Run(ns, session, version)"),
            (standing.LAST, "Run(ns, session, version)"),
            (standing.CLUSTERS, "FOUND(ns, session, version)"),
        ):
            plan = session.run(f"EXPLAIN {query}").consume().plan  # type: ignore[arg-type]
            operators = list(_operators(plan))
            assert not [name for name, _ in operators if name.endswith("Scan")], operators
            assert [details for name, details in operators if "IndexSeek" in name and index in details], operators
