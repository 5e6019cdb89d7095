"""The queries in the documentation of the Neo4j graph answer what they promise."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import uuid4

from neo4j import GraphDatabase

from tests.contract.graphs import embed, episodes, neo4j_settings
from tests.processes import ROOT
from ww_core.models import Cluster
from ww_core.stores.ports import Dirty, Membership
from ww_core.stores.servers.neo4j import Neo4jGraphStore

PAGE = ROOT / "docs" / "neo4j.md"


def test_the_three_queries_answer(neo4j_server: tuple[str, str]) -> None:
    uri, password = neo4j_server
    namespace = f"t{uuid4().hex[:12]}"
    graph = Neo4jGraphStore(neo4j_settings(f"{uri} {password} {namespace}"))
    stored = episodes(5, session="default")
    stored[3] = replace(stored[3], outcome="failure")
    graph.add(stored)
    embed(graph)
    for row in graph.dirty(Dirty.CONTEXT, 9):
        graph.clear_dirty(Dirty.CONTEXT, {row.episode.episode_id: row.version})
    for token, name in (("a", "early"), ("b", "late")):
        run = graph.start_run(graph.request_run("default").run_id, token=token, lease_seconds=9)
        graph.stage(run.run_id, token=token, memberships=[Membership("e00001", name, name, 0.25)])
        clusters = (Cluster(name, "default", f"label {name}", 1, ("a phrase",)),)
        graph.publish(replace(run, clusters=clusters), token=token)

    clusters_query, failures_query, moves_query = re.findall(r"```cypher\n(.*?)```", PAGE.read_text(), re.DOTALL)

    def answer(query: str) -> list[list[object]]:
        query = query.replace("'ww'", f"'{namespace}'").replace("'e1'", "'e00001'")
        with GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver:
            return [list(record.values()) for record in driver.execute_query(query).records]  # type: ignore[arg-type]

    assert answer(clusters_query) == [["label late", 1, ["a phrase"]]]
    assert len(answer(failures_query)) == 3
    assert answer(moves_query) == [["label early", 1, 2, 0.25], ["label late", 2, None, 0.25]]
    graph.close()
