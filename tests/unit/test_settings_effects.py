"""Every setting changes what happens: here, or in the test that is named for it."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.test_qdrant_settings import Listener
from tests.processes import ROOT
from tests.unit.maintenance.conftest import Bench
from ww_core.config import Settings
from ww_core.consolidation.clustering import cluster
from ww_core.deployment import Deployment
from ww_core.models import Episode, State
from ww_core.observability.logs import configure
from ww_core.observability.metrics import process_metrics
from ww_core.presets import PRESETS
from ww_core.stores.ports import CONTENT, Claim, Point
from ww_core.stores.servers.qdrant import QdrantVectorStore
from ww_workers.runtimes import runtime_of

HERE = "tests/unit/test_settings_effects.py"
QDRANT = "tests/integration/test_qdrant_settings.py"
EMBEDDING = "tests/unit/embedding/test_embedding_service.py"
RECALL_SIGNALS = "tests/integration/test_recall_signals.py"
RECALL_CLUSTERS = "tests/integration/test_recall_clusters.py"
CLUSTERS = "tests/integration/test_consolidation_clusters.py"
CONSOLIDATION_RUNS = "tests/integration/test_consolidation_runs.py"
MEMORY = "tests/integration/test_memory.py"
WORKERS = "tests/unit/workers/test_settings.py"
SETTINGS = "tests/unit/test_settings.py"
TLS = "tests/integration/test_tls.py"
NEO4J = "tests/integration/test_neo4j_settings.py"
NEO4J_FAULTS = "tests/integration/test_neo4j_faults.py"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PROMETHEUS = "tests/unit/observability/test_prometheus.py"
ALERTS = "tests/unit/observability/test_alerts.py"
WEBHOOK = "tests/unit/observability/test_webhook.py"

OBSERVED = {
    "data_dir": (HERE, "test_the_data_directory_holds_the_stores"),
    "namespace": (HERE, "test_namespaces_hold_their_own_episodes_and_vectors"),
    "preset": (SETTINGS, "test_every_switch_of_a_preset_is_in_force"),
    "redis_url": (HERE, "test_a_broker_decides_who_does_the_work"),
    "qdrant_url": (HERE, "test_a_server_decides_where_vectors_are"),
    "qdrant_api_key": (QDRANT, "test_api_key_is_sent_and_its_refusal_is_a_configuration_error"),
    "embedding_model": (EMBEDDING, "test_a_missing_model_says_so_and_what_to_do"),
    "embedding_device": (EMBEDDING, "test_a_device_that_is_not_there_is_refused"),
    "embedding_batch_size": (EMBEDDING, "test_the_batch_size_bounds_one_forward_pass"),
    "embedding_fp16": (EMBEDDING, "test_half_precision_on_a_cpu_is_refused_at_once"),
    "embedding_threads": (EMBEDDING, "test_the_thread_setting_reaches_the_model"),
    "embedding_cache_size": (EMBEDDING, "test_the_cache_settings_bound_and_age_it"),
    "embedding_cache_ttl": (EMBEDDING, "test_the_cache_settings_bound_and_age_it"),
    "embedding_claim_size": (HERE, "test_a_drain_claims_no_more_at_a_time_than_the_setting"),
    "embedding_lease": (HERE, "test_a_lease_ends_after_the_setting"),
    "qdrant_timeout": (QDRANT, "test_timeout_bounds_a_request"),
    "qdrant_grpc": (QDRANT, "test_timeout_bounds_a_request"),
    "qdrant_prefer_grpc": (HERE, "test_data_goes_over_http_where_grpc_is_open_but_not_preferred"),
    "qdrant_pool_size": (QDRANT, "test_pool_size_bounds_the_connections"),
    "qdrant_grpc_port": (QDRANT, "test_grpc_port"),
    "qdrant_shard_number": (QDRANT, "test_layout_of_a_new_collection"),
    "qdrant_replication_factor": (QDRANT, "test_layout_of_a_new_collection"),
    "qdrant_write_consistency": (QDRANT, "test_layout_of_a_new_collection"),
    "qdrant_on_disk": (QDRANT, "test_layout_of_a_new_collection"),
    "qdrant_quantization": (QDRANT, "test_quantization"),
    "qdrant_session_sharding": (QDRANT, "test_session_sharding_keeps_each_session_in_one_shard"),
    "archive_cold": (QDRANT, "test_archived_vectors_get_a_collection_that_stays_on_disk"),
    "hierarchical_search": (RECALL_CLUSTERS, "test_hierarchical_search_looks_into_the_nearest_clusters_only"),
    "cluster_selection_k": (RECALL_CLUSTERS, "test_more_clusters_find_more"),
    "hierarchical_min_episodes": (RECALL_CLUSTERS, "test_auto_routes_only_where_it_pays"),
    "hierarchical_gap_sample": (RECALL_CLUSTERS, "test_the_gap_is_measured_and_auto_goes_back_to_flat"),
    "hierarchical_gap_limit": (RECALL_CLUSTERS, "test_the_gap_is_measured_and_auto_goes_back_to_flat"),
    "recall_candidates": (RECALL_SIGNALS, "test_the_number_of_candidates_bounds_what_is_read"),
    "rerank_candidates": (RECALL_SIGNALS, "test_the_number_of_candidates_bounds_what_is_read"),
    "consolidation_min_cluster_size": (HERE, "test_the_smallest_cluster_and_the_density_follow_the_settings"),
    "consolidation_min_samples": (HERE, "test_the_smallest_cluster_and_the_density_follow_the_settings"),
    "consolidation_max_samples": (CLUSTERS, "test_the_cap_bounds_the_sample_and_the_rest_is_assigned"),
    "consolidation_interval": (WORKERS, "test_the_schedule_follows_the_interval_and_its_messages_expire_within_it"),
    "consolidation_batch_size": (CLUSTERS, "test_the_cap_bounds_the_sample_and_the_rest_is_assigned"),
    "consolidation_time_limit": (CONSOLIDATION_RUNS, "test_a_run_over_its_time_limit_fails_and_says_so"),
    "consolidation_keep_runs": (CONSOLIDATION_RUNS, "test_old_centroids_are_kept_for_as_long_as_their_runs"),
    "consolidation_seed": (CLUSTERS, "test_the_seed_decides_which_episodes_are_sampled"),
    "duplicate_threshold": (CLUSTERS, "test_the_threshold_decides_what_is_a_near_duplicate"),
    "working_memory_size": (MEMORY, "test_buffers_hold_what_was_stored_and_recalled"),
    "ca1_buffer_size": (HERE, "test_the_ca1_buffer_holds_no_more_than_the_setting"),
    "episode_buffer_size": (MEMORY, "test_buffers_hold_what_was_stored_and_recalled"),
    "error_history_size": (HERE, "test_the_error_history_keeps_no_more_than_the_setting"),
    "hooks": (MEMORY, "test_an_embedded_process_loads_the_hooks_that_the_setting_lists"),
    "task_max_attempts": (HERE, "test_a_text_is_dead_after_the_attempts_of_the_setting"),
    "result_expires": (WORKERS, "test_results_are_kept_as_long_as_the_setting_says"),
    "neo4j_pool_size": (NEO4J, "test_no_more_transactions_run_at_once_than_the_pool_has_connections"),
    "neo4j_acquisition_timeout": (NEO4J, "test_waiting_for_a_connection_ends_after_the_acquisition_timeout"),
    "neo4j_max_transaction_retry": (NEO4J, "test_a_transaction_is_repeated_as_often_as_set"),
    "neo4j_user": (NEO4J_FAULTS, "test_another_user_is_another_login"),
    "neo4j_database": (NEO4J_FAULTS, "test_a_missing_database_is_named"),
    "flower_basic_auth": ("tests/integration/test_flower.py", "test_pages_ask_for_the_password_that_is_set"),
    "embedding_mode": ("tests/unit/test_remote_queries.py", "test_recall_goes_by_words_where_no_worker_answers"),
    "neo4j_ca_certs": (TLS, "test_every_scheme_reaches_the_server"),
    "log_format": (HERE, "test_the_log_format_makes_lines_for_people_or_machines"),
    "metrics_port": (PROMETHEUS, "test_the_settings_say_where_figures_are_served"),
    "metrics_address": (PROMETHEUS, "test_the_settings_say_where_figures_are_served"),
    "trace_sample": ("tests/integration/test_tracing.py", "test_the_setting_trace_sample_turns_tracing_on"),
    "alert_interval": (WORKERS, "test_alerts_are_checked_as_often_as_the_setting_says"),
    "alert_min_samples": (ALERTS, "test_too_few_samples_and_nothing_measured_are_unknown"),
    "alert_hysteresis": (ALERTS, "test_a_raised_alert_falls_only_when_the_figure_is_clearly_better"),
    "alert_webhook": (WEBHOOK, "test_the_settings_say_who_is_told_and_how_long_that_may_take"),
    "alert_webhook_timeout": (WEBHOOK, "test_the_settings_say_who_is_told_and_how_long_that_may_take"),
    **{
        f"alert_{name}_{level}": (ALERTS, "test_settings_move_the_thresholds")
        for name in ("recall_p95", "cache_hit_rate", "pool_utilization", "error_rate")
        for level in ("warning", "critical")
    },
    **{
        f"recall_weight_{part}": (RECALL_SIGNALS, "test_each_weight_has_a_part_that_it_turns_on_and_off")
        for part in (
            "content",
            "context",
            "bm25",
            "bm25_context",
            "neighbours",
            "speaker",
            "date",
            "recency",
            "outcome",
            "importance",
            "cluster",
        )
    },
}
"""Setting -> the file and the test that observes its effect."""

VALUES_ONLY = ("tests/unit/test_settings.py", HERE, "tests/unit/test_cli.py")
"""Tests that look at values, not at what they do."""


def test_every_setting_is_observed_by_a_test_that_exists() -> None:
    for key, (path, name) in OBSERVED.items():
        assert key in Settings.model_fields, key
        source = (ROOT / path).read_text(encoding="utf-8")
        defined = {one.name for one in ast.walk(ast.parse(source)) if isinstance(one, FUNCTIONS)}
        assert name in defined, f"{path} has no {name}"
        assert key in source or key == "preset", f"{path} does not mention {key}"


def test_every_switch_of_a_preset_is_a_setting_whose_effect_is_observed() -> None:
    switched = {switch.key for preset in PRESETS.values() for switch in preset}
    assert switched <= OBSERVED.keys()


def test_no_setting_is_without_a_test() -> None:
    others = [path for path in (ROOT / "tests").rglob("*.py") if path.relative_to(ROOT).as_posix() not in VALUES_ONLY]
    text = "\n".join(path.read_text(encoding="utf-8") for path in others)
    missing = {key for key in Settings.model_fields if key not in OBSERVED and not re.search(rf"\b{key}\b", text)}
    assert not missing, f"no test sees what these do: {sorted(missing)}"


@pytest.fixture
def bench(quick_path: Path) -> Iterator[Bench]:
    made = Bench(quick_path)
    yield made
    made.close()


def test_the_data_directory_holds_the_stores(tmp_path: Path) -> None:
    for name in ("a", "b"):
        deployment = Deployment(Settings(data_dir=tmp_path / name))
        deployment.ingest.store(f"kept in {name}")
        deployment.close()
    counts = []
    for name in ("a", "b"):
        assert list((tmp_path / name).glob("*.sqlite3"))
        deployment = Deployment(Settings(data_dir=tmp_path / name))
        counts.append(deployment.graph.counts().acknowledged)
        deployment.close()
    assert counts == [1, 1]


def test_namespaces_hold_their_own_episodes_and_vectors(bench: Bench, quick_path: Path) -> None:
    row = np.eye(8, dtype=np.float32)[0]
    when = datetime(2024, 5, 1, tzinfo=UTC)
    counts = {}
    for namespace, ids in (("one", ["a", "b"]), ("two", ["a"])):
        deployment = Deployment(Settings(data_dir=quick_path / "shared", namespace=namespace))
        deployment.vectors.ensure(bench.embedder.fingerprint)
        deployment.vectors.upsert(
            [Point(one, 0, 1, generation=1, session_id="s", timestamp=when, dense={CONTENT: row}) for one in ids]
        )
        deployment.graph.add([Episode("text", episode_id=one, session_id="s") for one in ids])
        counts[namespace] = (deployment.graph.counts().acknowledged, deployment.vectors.count())
        deployment.close()
    assert counts == {"one": (2, 2), "two": (1, 1)}


def test_a_broker_decides_who_does_the_work(tmp_path: Path) -> None:
    kinds = set()
    for url in (None, "redis://127.0.0.1:1/0"):
        deployment = Deployment(Settings(data_dir=tmp_path, redis_url=url))
        runtime = runtime_of(deployment)
        kinds.add(type(runtime).__name__)
        runtime.close()
        deployment.close()
    assert kinds == {"LocalRuntime", "CeleryRuntime"}


def test_a_server_decides_where_vectors_are(tmp_path: Path) -> None:
    deployment = Deployment(Settings(data_dir=tmp_path / "d", qdrant_url=":memory:"))
    deployment.vectors.ping()
    deployment.close()
    assert not (tmp_path / "d").exists(), "nothing is kept on this disk"


def test_data_goes_over_http_where_grpc_is_open_but_not_preferred() -> None:
    listener = Listener()
    try:
        store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_prefer_grpc=False))
        store.ping()
        store.close()
        assert listener.requests
    finally:
        listener.close()


def test_a_drain_claims_no_more_at_a_time_than_the_setting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.store(*(f"text {n}" for n in range(50)))
    bench.settings = bench.settings.replace(embedding_claim_size=7)
    claimed: list[int] = []
    claim = bench.graph.claim

    def counted(limit: int, **lease: Any) -> list[Claim]:
        claims = claim(limit, **lease)
        claimed.append(len(claims))
        return claims

    monkeypatch.setattr(bench.graph, "claim", counted)
    assert bench.drain().run(max_seconds=30).embedded == 50
    assert max(claimed) == 7


def test_a_lease_ends_after_the_setting(bench: Bench) -> None:
    bench.store("text")
    bench.settings = bench.settings.replace(embedding_lease=20)
    freed: list[int] = []

    def late(texts: object) -> None:
        if texts:
            bench.seconds += 19
            freed.append(bench.graph.expire_leases(max_attempts=3))
            bench.seconds += 2
            freed.append(bench.graph.expire_leases(max_attempts=3))
            bench.embedder.before = lambda _: None

    bench.embedder.before = late
    bench.drain().run(max_seconds=60)
    assert freed == [0, 1]


def test_a_text_is_dead_after_the_attempts_of_the_setting(bench: Bench) -> None:
    def poison(texts: object) -> None:
        if "poison" in texts:  # type: ignore[operator]  # a sequence of texts
            raise ValueError("this text cannot be embedded")

    bench.embedder.before = poison
    bench.store("fine", "poison")
    bench.settings = bench.settings.replace(task_max_attempts=4)
    for _ in range(4):
        bench.drain().run(max_seconds=30)
        bench.seconds += 3600
    (letter,) = bench.graph.dead_letters()
    assert (letter.episode_id, letter.attempts) == ("e1", 4)
    assert bench.graph.get(["e0"])["e0"].state is State.EMBEDDED


def test_the_smallest_cluster_and_the_density_follow_the_settings() -> None:
    random = np.random.default_rng(1)
    centres = random.standard_normal((3, 32))
    rows = np.repeat(centres, (30, 30, 12), axis=0) + 0.25 * random.standard_normal((72, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def clusters(size: int, samples: int) -> int:
        labels = cluster(rows, min_cluster_size=size, min_samples=samples).labels
        return len(set(labels.tolist()) - {-1})

    assert clusters(10, 3) == 3
    assert clusters(20, 3) == 2, "twelve rows are no cluster any more"
    assert clusters(10, 40) < 3, "neighbourhoods larger than a cluster blur it"


def test_the_ca1_buffer_holds_no_more_than_the_setting(tmp_path: Path) -> None:
    deployment = Deployment(Settings(data_dir=tmp_path, ca1_buffer_size=30))
    deployment.ingest.store_batch(f"text {n}" for n in range(40))
    assert len(deployment.buffers.ca1.episodes()) == 30
    deployment.close()


def test_the_error_history_keeps_no_more_than_the_setting(tmp_path: Path) -> None:
    before = process_metrics().errors.size
    try:
        deployment = Deployment(Settings(data_dir=tmp_path, error_history_size=120))
        for n in range(200):
            deployment.metrics.errors.add("test", ValueError(str(n)))
        assert len(deployment.metrics.errors.latest()) == 120
    finally:
        process_metrics().reset()
        process_metrics().errors.resize(before)


def test_the_log_format_makes_lines_for_people_or_machines() -> None:
    logger = logging.getLogger("ww_core.test")
    lines = {}
    ours = [logging.getLogger(name) for name in ("ww", "ww_core", "ww_workers")]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in ours]
    try:
        for log_format in ("text", "json"):
            stream = StringIO()
            settings = Settings(log_format=log_format)
            configure(log_format=settings.log_format, level=logging.INFO, stream=stream)
            logger.info("stored in redis://:hunter2@cache", extra={"action": "store", "n": 3})
            lines[log_format] = stream.getvalue()
    finally:
        for one, handlers, level, propagate in before:
            one.handlers[:], one.propagate = handlers, propagate
            one.setLevel(level)
    assert lines["text"] == "info: stored in redis://:***@cache action=store n=3\n"
    line = json.loads(lines["json"])
    assert (line["level"], line["action"], line["n"]) == ("info", "store", 3)
    assert "hunter2" not in lines["json"]
