"""The settings of the Neo4j store are in force: connections, waiting, repetition, namespaces."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from uuid import uuid4

import pytest
from neo4j import Transaction

from tests.contract.graphs import embed, episodes, ids, neo4j_settings
from tests.integration.neo4j_graphs import Open, cypher, deadlock
from ww_core.deployment import Deployment
from ww_core.errors import StoreUnavailable
from ww_core.stores.servers.neo4j import Neo4jGraphStore, connection
from ww_core.stores.servers.neo4j.connection import Server


class TestSettings:
    def test_no_more_transactions_run_at_once_than_the_pool_has_connections(self, location: str) -> None:
        server = Server(neo4j_settings(location, neo4j_pool_size=2))
        inside, seen, guard, full = 0, [], threading.Condition(), threading.Event()

        def work(tx: Transaction) -> None:
            nonlocal inside
            tx.run("RETURN 1").consume()
            with guard:
                inside += 1
                seen.append(inside)
                if inside == 2:
                    full.set()
            assert full.wait(20)
            with guard:
                inside -= 1

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: server.read(work), range(12)))
        assert max(seen) == 2
        assert server.utilisation == 0
        server.close()

    def test_waiting_for_a_connection_ends_after_the_acquisition_timeout(self, location: str) -> None:
        server = Server(neo4j_settings(location, neo4j_pool_size=1, neo4j_acquisition_timeout=0.3))
        server.read(lambda tx: tx.run("RETURN 1").consume())
        held, done = threading.Event(), threading.Event()

        def hold(tx: Transaction) -> None:
            tx.run("RETURN 1").consume()
            held.set()
            assert done.wait(20)

        with ThreadPoolExecutor(1) as pool:
            holder = pool.submit(server.read, hold)
            assert held.wait(20)
            assert server.utilisation == 1.0
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match="became free in time"):
                server.read(lambda tx: tx.run("RETURN 1").consume())
            assert 0.25 < time.monotonic() - started < 5
            done.set()
            holder.result()
        assert server.utilisation == 0
        server.close()

    def test_a_store_waits_for_a_busy_pool_as_long_as_the_setting_says(
        self, open_graph: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        graph = open_graph(neo4j_pool_size=1, neo4j_acquisition_timeout=60)
        graph.add(episodes(1))  # its plan is made
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 1.0)
        held, done = threading.Event(), threading.Event()

        def hold(tx: Transaction) -> None:
            tx.run("RETURN 1").consume()
            held.set()
            assert done.wait(60)

        with ThreadPoolExecutor(2) as pool:
            holder = pool.submit(graph._server.read, hold)
            assert held.wait(20)
            adding = pool.submit(graph.add, episodes(1, start=1))
            with pytest.raises(FutureTimeout):
                adding.result(1.5)
            done.set()
            holder.result()
            assert [result.outcome.value for result in adding.result()] == ["created"]

    @pytest.mark.parametrize("retries", [0, 2])
    def test_a_transaction_is_repeated_as_often_as_set(self, location: str, retries: int) -> None:
        server = Server(neo4j_settings(location, neo4j_max_transaction_retry=retries))
        calls = 0

        def deadlocked(tx: Transaction) -> None:
            nonlocal calls
            calls += 1
            tx.run("CREATE (:Fact {ns: $ns, key: $key, value: 'x'})", ns="retried", key=uuid4().hex).consume()
            raise deadlock()

        with pytest.raises(StoreUnavailable, match="deadlock"):
            server.write(deadlocked)
        assert calls == retries + 1
        assert cypher(location, "MATCH (f:Fact {ns: 'retried'}) RETURN count(f)") == [[0]]
        server.close()

    def test_real_deadlocks_are_repeated_until_they_are_gone(self, open_graph: Open) -> None:
        graph = open_graph(neo4j_max_transaction_retry=20)
        graph.add(episodes(60))
        embed(graph)
        names = ids(episodes(60))
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(graph.update, name, importance=0.1 * i) for i in range(4) for name in names[i::4]]
            jobs += [pool.submit(graph.reopen, names[i::2]) for i in range(2)]  # type: ignore[misc]
            for job in jobs:
                job.result()
        assert graph.counts().balanced

    def test_whoever_asks_is_told_how_full_the_pool_is(self, location: str) -> None:
        told: list[float] = []
        graph = Neo4jGraphStore(neo4j_settings(location, neo4j_pool_size=4), on_use=told.append)
        graph.ping()
        graph.close()
        assert set(told) == {0.25}, "one of four"

    def test_the_metrics_have_the_most_of_the_pool_that_was_in_use(self, location: str, tmp_path: Path) -> None:
        deployment = Deployment(neo4j_settings(location, neo4j_pool_size=4, data_dir=tmp_path))
        deployment.graph.ping()
        assert deployment.metrics.snapshot().neo4j_pool_util >= 0.25
        deployment.close()

    def test_namespaces_do_not_see_each_other(self, location: str) -> None:
        uri, password, namespace = location.split(" ")
        ours = Neo4jGraphStore(neo4j_settings(location))
        theirs = Neo4jGraphStore(neo4j_settings(f"{uri} {password} {namespace}x"))
        ours.add(episodes(3))
        theirs.add(episodes(2))
        assert (ours.counts().acknowledged, theirs.counts().acknowledged) == (3, 2)
        assert len(theirs.claim(9, token="t", lease_seconds=9)) == 2
        theirs.tombstone(session_id="s")
        assert ours.counts().pending == 3
        assert theirs.sessions() == []
        ours.close()
        theirs.close()
