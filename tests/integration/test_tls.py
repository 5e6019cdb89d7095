"""Encrypted connections to real servers, and certificates that nobody vouches for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.graphs import embed, episodes, ids, neo4j_settings
from tests.integration.test_qdrant_settings import Listener
from tests.processes import BOUND, RedisServer, Worker
from tests.support.certificates import make_certificate, skip_without_openssl
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from ww_core.stores.ports import Queue, Where
from ww_core.stores.servers.neo4j import Neo4jGraphStore
from ww_core.stores.servers.qdrant import QdrantVectorStore
from ww_workers.inspection import queue_lengths
from ww_workers.producer import embed_bell, producer


@pytest.fixture
def encrypted_redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    skip_without_openssl()
    directory = tmp_path / "tls"
    directory.mkdir()
    server = RedisServer(directory, certificate=make_certificate(directory))
    server.ensure()
    yield server
    server.close()


class TestRedis:
    def test_bells_workers_and_results_are_encrypted(self, encrypted_redis: RedisServer, tmp_path: Path) -> None:
        settings = Settings(redis_url=encrypted_redis.url, data_dir=tmp_path / "data")
        bell = embed_bell(settings)
        bell.ring()
        bell.close()
        assert queue_lengths(settings)[Queue.EMBED.value] == 1
        worker = Worker(encrypted_redis.url, tmp_path / "data", tmp_path, "-Q", "ww", "-c", "1")
        try:
            sent = producer(settings).send_task("ww.store", kwargs={"content": "over a wire nobody reads"}, queue="ww")
            stored = sent.get(timeout=BOUND)
        finally:
            worker.close()
        deployment = Deployment(settings)
        assert list(deployment.graph.get([stored["episode_id"]])) == [stored["episode_id"]]
        deployment.board.read()
        deployment.close()

    def test_a_certificate_that_nobody_vouches_for_is_refused_in_one_line(self, encrypted_redis: RedisServer) -> None:
        stranger = Settings(redis_url=encrypted_redis.url.partition("?")[0])
        with pytest.raises(BrokerUnavailable, match=r"(?i)certificate.verify.failed") as caught:
            queue_lengths(stranger)
        assert "\n" not in str(caught.value)
        trusting = Settings(redis_url=encrypted_redis.url.partition("?")[0] + "?ssl_cert_reqs=CERT_NONE")
        assert queue_lengths(trusting)[Queue.EMBED.value] == 0


class TestNeo4j:
    def open(self, server: tuple[str, str], scheme: str, **more: object) -> Neo4jGraphStore:
        uri, password = server
        location = f"{uri.replace('bolt://', f'{scheme}://')} {password} t{uuid4().hex[:12]}"
        return Neo4jGraphStore(neo4j_settings(location, **more))

    @pytest.mark.parametrize("scheme", ["bolt+s", "bolt+ssc", "neo4j+s", "neo4j+ssc", "neo4j"])
    def test_every_scheme_reaches_the_server(
        self, neo4j_server: tuple[str, str], neo4j_certificate: Path, scheme: str
    ) -> None:
        more = {"neo4j_ca_certs": neo4j_certificate} if scheme.endswith("+s") else {}
        graph = self.open(neo4j_server, scheme, **more)
        graph.add(episodes(5))
        assert embed(graph) == ids(episodes(5))
        assert ids(graph.page(Where())) == ids(episodes(5))
        assert graph.counts().embedded == 5
        graph.close()

    def test_routing_reads_what_another_thread_has_just_written(
        self, neo4j_server: tuple[str, str], neo4j_certificate: Path
    ) -> None:
        graph = self.open(neo4j_server, "neo4j")

        def store(start: int) -> None:
            for number in range(10):
                (episode,) = episodes(1, start=100 * start + number)
                graph.add([episode])
                assert list(graph.get([episode.episode_id])) == [episode.episode_id]

        threads = [threading.Thread(target=store, args=(start,)) for start in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (graph.counts().acknowledged, graph.counts().balanced) == (30, True)
        graph.close()

    @pytest.mark.parametrize("scheme", ["bolt+s", "neo4j+s"])
    def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, neo4j_server: tuple[str, str], neo4j_certificate: Path, scheme: str
    ) -> None:
        graph = self.open(neo4j_server, scheme)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="certificate") as caught:
            graph.ping()
        assert time.monotonic() - started < 20
        assert "\n" not in str(caught.value)
        graph.close()

    def test_authorities_that_cannot_be_read_are_named(self, tmp_path: Path) -> None:
        for content in (None, "no certificate"):
            file = tmp_path / "ca.pem"
            if content is not None:
                file.write_text(content)
            graph = self.open(("bolt://127.0.0.1:1", "secret"), "bolt+s", neo4j_ca_certs=file)
            with pytest.raises(ConfigurationError, match=r"ca\.pem cannot be used"):
                graph.ping()

    def test_authorities_that_nothing_is_checked_by_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"bolt://.*checks no certificate"):
            Settings(neo4j_uri="bolt://graph", neo4j_ca_certs=tmp_path / "ca.pem")


class TestQdrant:
    """Over HTTP; a real server with a certificate of its own is for those who have one."""

    def test_https_reaches_the_server_and_a_stranger_is_refused_in_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        skip_without_openssl()
        key, certificate = make_certificate(tmp_path)
        listener = Listener(certificate=(key, certificate))
        url = listener.url.replace("//", "//user:hunter2@")
        try:
            stranger = QdrantVectorStore(Settings(qdrant_url=url, qdrant_grpc=False))
            with pytest.raises(StoreUnavailable, match=r"(?i)certificate.verify.failed") as caught:
                stranger.ping()
            stranger.close()
            assert "\n" not in str(caught.value)
            assert "hunter2" not in str(caught.value)
            assert listener.requests == []
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            store = QdrantVectorStore(Settings(qdrant_url=url, qdrant_grpc=False))
            store.ping()
            store.close()
            assert listener.requests[-1][:2] == ("GET", "/collections")
        finally:
            listener.close()
