"""Whatever is wrong with the Neo4j server is named in time, and over as soon as the server is back."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from neo4j import Transaction

from tests.contract.graphs import episodes, neo4j_settings
from tests.integration.neo4j_graphs import Open, cypher, deadlock
from tests.processes import until
from tests.support.neo4j_fixture import skip_without_neo4j
from tests.support.neo4j_server import Neo4jServer
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.servers.neo4j import Neo4jGraphStore, connection, migrations
from ww_core.stores.servers.neo4j.connection import Server


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
        newest = len(migrations.scripts())
        monkeypatch.setattr(migrations, "scripts", tuple)
        with pytest.raises(
            ConfigurationError, match=f"schema version {newest}; this World Weaver knows versions up to 0"
        ):
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
    server = Neo4jServer(tmp_path, brief=True)
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
