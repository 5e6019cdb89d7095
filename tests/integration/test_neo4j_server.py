"""The Neo4j store and its server: settings that bite, faults, restarts, forks, and plans that stay fast."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from uuid import uuid4

import pytest
from neo4j import GraphDatabase, Transaction
from neo4j.exceptions import Neo4jError

from tests.contract.graphs import claimed, embed, episodes, ids, neo4j_settings
from tests.processes import until
from tests.support.neo4j_fixture import skip_without_neo4j
from tests.support.neo4j_server import Neo4jServer
from ww_core.deployment import Deployment
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.ports import Dirty
from ww_core.stores.servers.neo4j import Neo4jGraphStore, connection, migrations, outbox
from ww_core.stores.servers.neo4j.connection import Server

Open = Callable[..., Neo4jGraphStore]


@pytest.fixture
def location(neo4j_server: tuple[str, str]) -> str:
    return f"{neo4j_server[0]} {neo4j_server[1]} t{uuid4().hex[:12]}"


@pytest.fixture
def open_graph(location: str) -> Iterator[Open]:
    """Opens stores of one namespace, with other settings."""
    opened: list[Neo4jGraphStore] = []

    def open_graph(**changes: object) -> Neo4jGraphStore:
        opened.append(Neo4jGraphStore(neo4j_settings(location, **changes)))
        return opened[-1]

    yield open_graph
    for graph in opened:
        graph.close()


def cypher(location: str, query: str, **parameters: object) -> list[list[object]]:
    uri, password, namespace = location.split(" ")
    with GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver:
        records, _, _ = driver.execute_query(query, {"ns": namespace, **parameters})  # type: ignore[arg-type]
        return [list(record.values()) for record in records]


def deadlock() -> Neo4jError:
    return Neo4jError._hydrate_neo4j(code="Neo.TransientError.Transaction.DeadlockDetected", message="deadlock")


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

    def test_the_metrics_show_how_full_the_pool_is(self, location: str, tmp_path: Path) -> None:
        deployment = Deployment(neo4j_settings(location, neo4j_pool_size=4, data_dir=tmp_path))
        deployment.graph.ping()
        assert deployment.metrics.snapshot().neo4j_pool_util == 0
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


class TestFaults:
    def test_a_wrong_password_is_said_without_showing_it(self, location: str) -> None:
        graph = Neo4jGraphStore(neo4j_settings(location, neo4j_password="not-this-one"))
        with pytest.raises(ConfigurationError, match="refuses user 'neo4j'") as caught:
            graph.ping()
        assert "not-this-one" not in str(caught.value)
        assert "\n" not in str(caught.value)
        graph.close()

    def test_another_user_is_another_login(self, location: str) -> None:
        graph = Neo4jGraphStore(neo4j_settings(location, neo4j_user="somebody"))
        with pytest.raises(ConfigurationError, match="refuses user 'somebody'"):
            graph.ping()
        graph.close()

    def test_user_and_password_may_stand_in_the_uri(self, location: str) -> None:
        uri, password, _ = location.split(" ")
        graph = Neo4jGraphStore(
            neo4j_settings(location, neo4j_uri=uri.replace("://", f"://neo4j:{password}@"), neo4j_password=None)
        )
        graph.ping()
        graph.close()

    def test_an_unreachable_server_is_said_at_once(self, location: str) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            uri = f"bolt://neo4j:hidden@127.0.0.1:{closed.getsockname()[1]}"
            graph = Neo4jGraphStore(neo4j_settings(location, neo4j_uri=uri))
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
                graph.add(episodes(1))
            assert time.monotonic() - started < 5
            assert "hidden" not in str(caught.value)
        graph.close()

    def test_a_server_that_accepts_and_says_nothing_is_given_up(self, location: str) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            uri = f"bolt://127.0.0.1:{silent.getsockname()[1]}"
            graph = Neo4jGraphStore(neo4j_settings(location, neo4j_uri=uri, neo4j_acquisition_timeout=1))
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                graph.ping()
            assert time.monotonic() - started < 20
        graph.close()

    def test_a_missing_database_is_named(self, location: str) -> None:
        graph = Neo4jGraphStore(neo4j_settings(location, neo4j_database="nowhere"))
        with pytest.raises(ConfigurationError, match="nowhere"):
            graph.ping()
        graph.close()

    def test_a_newer_schema_is_refused(self, open_graph: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        open_graph().ping()
        monkeypatch.setattr(migrations, "scripts", tuple)
        with pytest.raises(ConfigurationError, match="schema version 2; this World Weaver knows versions up to 0"):
            open_graph().ping()

    def test_a_server_that_is_too_old_is_refused(self, open_graph: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(migrations, "OLDEST", (2099, 1))
        with pytest.raises(ConfigurationError, match=r"is Neo4j/5\.26.*Neo4j 2099\.1 or newer is needed"):
            open_graph().ping()

    def test_a_query_that_takes_its_time_is_waited_for(self, open_graph: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        graph = open_graph()
        graph.ping()
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.1)
        started = time.monotonic()
        long = "UNWIND range(1, 20000000) AS number RETURN sum(number) AS total"
        assert graph._server.read(lambda tx: tx.run(long).single(strict=True)["total"]) == 200000010000000
        assert time.monotonic() - started > 0.2, "else it proves nothing"

    def test_a_write_that_was_reported_as_failed_does_not_happen_later(
        self, location: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = Server(neo4j_settings(location))
        server.read(lambda tx: tx.run("RETURN 1").consume())
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.2)
        slow = threading.Event()

        def work(tx: Transaction) -> None:
            tx.run("CREATE (:Fact {ns: 'late', key: $key, value: 'x'})", key=uuid4().hex).consume()
            assert slow.wait(60)

        with pytest.raises(StoreUnavailable, match=r"had not done it after.*nothing was written"):
            server.write(work, prompt=True)
        slow.set()
        until(lambda: server.utilisation == 0, what="the call that was left behind ends")
        assert cypher(location, "MATCH (f:Fact {ns: 'late'}) RETURN count(f)") == [[0]]
        server.close()

    def test_a_call_from_before_a_close_does_not_open_the_store_again(self, location: str) -> None:
        server = Server(neo4j_settings(location))

        def closing(tx: Transaction) -> None:
            tx.run("RETURN 1").consume()
            server.close()
            raise deadlock()

        with pytest.raises(StoreUnavailable, match="closed meanwhile"):
            server.write(closing)
        assert server._driver is None
        assert server.read(lambda tx: tx.run("RETURN 1").single(strict=True)[0]) == 1, "a later call does"
        server.close()

    def test_a_child_process_connects_by_itself(self, open_graph: Open) -> None:
        graph = open_graph()
        graph.add(episodes(2))
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(
            target=lambda: answers.put((os.getpid(), len(graph.claim(1, token="c", lease_seconds=9))))
        )
        child.start()
        pid, number = answers.get(timeout=30)
        child.join(30)
        assert (pid != os.getpid(), number, child.exitcode) == (True, 1, 0)
        # the parent's own connections are as they were
        assert len(graph.claim(9, token="p", lease_seconds=9)) == 1


def test_an_outage_fails_fast_and_ends_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_neo4j()
    server = Neo4jServer(tmp_path)
    server.start()
    location = f"{server.uri} {server.password} outage"
    graph = Neo4jGraphStore(neo4j_settings(location))
    try:
        # several processes may be the first ones on an empty server
        first = [Neo4jGraphStore(neo4j_settings(location)) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(Neo4jGraphStore.ping, first))
        for other in first:
            other.close()
        graph.add(episodes(3))
        server.kill()
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            graph.add(episodes(1, start=3))
        assert time.monotonic() - started < 10

        server.start()

        assert [r.outcome.value for r in graph.add(episodes(4))] == ["duplicate"] * 3 + ["created"]
        assert graph.counts().pending == 4

        # one that keeps its connections and says nothing
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 2.0)
        monkeypatch.setattr(connection, "CONNECT_SECONDS", 1.0)
        server.freeze()
        calls: list[Callable[[], object]] = [
            lambda: graph.add(episodes(1, start=4)),
            lambda: graph.get(["e00000"]),
            lambda: graph.claim(5, token="t", lease_seconds=60),
            lambda: graph.counts(),
        ]
        for call in (*calls, *calls):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match=r"did not answer within [12] s"):
                call()
            assert time.monotonic() - started < 5
        fresh = Neo4jGraphStore(neo4j_settings(location))
        with pytest.raises(StoreUnavailable, match=r"did not answer within 2 s|cannot be reached"):
            fresh.ping()
        started = time.monotonic()
        fresh.close()
        assert time.monotonic() - started < 5
        server.thaw()
        monkeypatch.undo()
        until(lambda: "ww-neo4j" not in {thread.name for thread in threading.enumerate()}, what="what was left ends")
        assert [r.outcome.value for r in graph.add(episodes(2, start=4))] == ["created"] * 2, "reported as failed"
        assert (graph.counts().pending, graph.counts().balanced) == (6, True)
    finally:
        graph.close()
        server.kill()


def test_next_leads_along_the_session_once_contexts_are_fresh(open_graph: Open, location: str) -> None:
    graph = open_graph()
    graph.add([*episodes(5), *episodes(2, session="t", prefix="t")])

    def chain() -> list[list[object]]:
        refresh(graph)
        return cypher(location, "MATCH (a:Episode {ns: $ns})-[:NEXT]->(b) RETURN a.id, b.id ORDER BY a.session, a.id")

    assert cypher(location, "MATCH (:Episode {ns: $ns})-[n:NEXT]->() RETURN count(n)") == [[0]]
    embed(graph)
    links = [["e00000", "e00001"], ["e00001", "e00002"], ["e00002", "e00003"], ["e00003", "e00004"]]
    assert chain() == [*links, ["t00000", "t00001"]]
    graph.tombstone(episode_ids=["e00002"])
    assert chain() == [links[0], ["e00001", "e00003"], links[3], ["t00000", "t00001"]]
    graph.update("e00004", timestamp=episodes(1)[0].timestamp)
    assert chain() == [["e00000", "e00004"], ["e00001", "e00003"], ["e00004", "e00001"], ["t00000", "t00001"]]


def refresh(graph: Neo4jGraphStore) -> None:
    while rows := graph.dirty(Dirty.CONTEXT, 100):
        graph.clear_dirty(Dirty.CONTEXT, {row.episode.episode_id: row.version for row in rows})


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
