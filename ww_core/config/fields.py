"""Every setting, with its unit, range and default, and what its value is checked for by itself."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ww_core.redis_urls import with_checks

SCHEMES: Mapping[str, tuple[str, ...]] = {
    "redis_url": ("redis", "rediss"),
    "qdrant_url": ("http", "https"),
    "neo4j_uri": ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"),
}
WEBHOOK_SCHEMES = ("http", "https")
"""Of ``alert_webhook``, whose path is a secret too."""


class Fields(BaseSettings):
    """What ``Settings`` holds, group by group."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)

    # -- where things are
    data_dir: Path = Field(Path("~/.world-weaver"), description="directory of the embedded stores")
    namespace: str = Field(
        "ww", pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="separates deployments on shared servers"
    )
    preset: Literal["small", "medium", "large", "very-large"] | None = Field(
        None, description="scaling tier whose values replace the defaults: 10 000, 100 000, 1 000 000 episodes, or more"
    )
    redis_url: SecretStr | None = Field(None, description="Celery broker; unset: tasks run in this process")
    qdrant_url: SecretStr | None = Field(None, description="Qdrant server; unset: qdrant-edge in data_dir")
    qdrant_api_key: SecretStr | None = Field(None, description="API key of the Qdrant server")
    neo4j_uri: SecretStr | None = Field(None, description="Neo4j server; unset: SQLite in data_dir")
    neo4j_user: str = Field("neo4j", min_length=1, description="Neo4j user")
    neo4j_password: SecretStr | None = Field(None, description="Neo4j password")
    neo4j_database: str | None = Field(None, description="Neo4j database; unset: the user's home database")
    neo4j_ca_certs: Path | None = Field(
        None,
        description="file of the authorities that bolt+s:// and neo4j+s:// go by; unset: the system's",
    )

    # -- embedding
    embedding_model: str = Field("all-MiniLM-L6-v2", min_length=1, description="sentence-transformers name or path")
    embedding_device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where the model runs; auto: cuda, else mps, else cpu"
    )
    embedding_batch_size: int | None = Field(
        None, ge=1, le=4096, description="texts, upper bound of one forward pass; unset: 64 on cuda, 8 on cpu"
    )
    embedding_fp16: bool = Field(False, description="half precision, twice as fast on cuda and mps; an error on cpu")
    embedding_threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of the model; unset: all cores")
    embedding_cache_size: int = Field(
        1000, ge=0, le=10_000_000, description="texts whose embedding is kept, 1.5 kB each; 0 turns the cache off"
    )
    embedding_cache_ttl: float = Field(
        3600, gt=0, le=31_536_000, description="seconds an embedding is kept before it is computed again"
    )
    embedding_claim_size: int = Field(
        512,
        ge=1,
        le=100_000,
        description="episodes leased at a time; a killed worker leaves two or three such claims to others",
    )
    embedding_lease: float = Field(
        60, ge=1, le=3600, description="seconds without a sign of life until claimed episodes go to another worker"
    )
    embedding_mode: Literal["local", "remote"] = Field(
        "local", description="where queries are embedded: in this process, or by the query pool (needs redis_url)"
    )

    # -- Qdrant
    qdrant_timeout: float = Field(30, gt=0, le=3600, description="seconds until a request to the server fails")
    qdrant_grpc: bool = Field(True, description="open the gRPC channel, faster than HTTP")
    qdrant_prefer_grpc: bool = Field(
        default_factory=lambda data: bool(data.get("qdrant_grpc", True)),
        description="use gRPC for data; needs qdrant_grpc, and follows it where unset",
    )
    qdrant_pool_size: int = Field(10, ge=1, le=1000, description="connections kept to the server")
    qdrant_grpc_port: int | None = Field(
        None, ge=1, le=65_535, description="port of the gRPC channel; unset: the one after the port in qdrant_url"
    )
    qdrant_shard_number: int = Field(1, ge=1, le=1000, description="shards of a new collection")
    qdrant_replication_factor: int = Field(
        1, ge=1, le=100, description="copies of each shard of a new collection, on as many nodes"
    )
    qdrant_write_consistency: int = Field(
        1, ge=1, le=100, description="copies that confirm a write before it counts; of a new collection"
    )
    qdrant_on_disk: bool = Field(
        False, description="leave the vectors of a new collection on disk: less memory, slower search"
    )
    qdrant_quantization: Literal["none", "scalar", "binary"] = Field(
        "none", description="compress the vectors of a new collection in memory, to a quarter (scalar) or less (binary)"
    )
    qdrant_session_sharding: bool = Field(
        False, description="keep each session of a new collection in one of its shards (needs Qdrant in cluster mode)"
    )

    # -- Neo4j
    neo4j_pool_size: int = Field(50, ge=1, le=10_000, description="connections kept to the server")
    neo4j_max_transaction_retry: int = Field(
        3, ge=0, le=100, description="retries of one transaction that the server asks to repeat"
    )
    neo4j_acquisition_timeout: float = Field(
        30, gt=0, le=3600, description="seconds to wait for a free connection of the pool"
    )

    # -- recall
    hierarchical_search: bool | Literal["auto"] = Field(
        "auto", description="search the nearest clusters only; auto: where that pays"
    )
    cluster_selection_k: int = Field(
        3, ge=1, le=1000, description="clusters searched by hierarchical search; more find more and cost more"
    )
    hierarchical_min_episodes: int = Field(
        50_000, ge=0, le=1_000_000_000, description="episodes from which auto searches clusters first"
    )
    hierarchical_gap_sample: float = Field(
        0.01, ge=0, le=1, description="share of hierarchical queries that also run flat to measure what is missed"
    )
    hierarchical_gap_limit: float = Field(
        0.1, ge=0, le=1, description="share of results missed above which auto goes back to flat search"
    )
    recall_candidates: int = Field(
        64, ge=1, le=10_000, description="episodes that each signal proposes; more find more and cost more"
    )
    rerank_candidates: int = Field(
        64,
        ge=1,
        le=10_000,
        description="best candidates that are read and reranked; with late interaction at least as many as that reads",
    )
    recall_weight_content: float = Field(1.0, ge=0, le=10, description="weight of the text's meaning (dense)")
    recall_weight_context: float = Field(
        0.2, ge=0, le=10, description="weight of the meaning of the text with its neighbours (dense)"
    )
    recall_weight_bm25: float = Field(0.0, ge=0, le=10, description="weight of the text's words")
    recall_weight_bm25_context: float = Field(
        1.0, ge=0, le=10, description="weight of the words of the text with its neighbours"
    )
    recall_weight_neighbours: float = Field(
        1.0, ge=0, le=10, description="weight of what the neighbours in the session score (0.2 and 0.1 of it)"
    )
    recall_weight_speaker: float = Field(
        0.8, ge=0, le=10, description="weight of the query naming exactly this episode's speaker"
    )
    recall_weight_date: float = Field(
        1.0, ge=0, le=10, description="weight of the episode's month, year or day (twice) being those the query names"
    )
    recall_weight_named: float = Field(
        8.0, ge=0, le=10, description="weight of the episode holding the codes, numbers and names that the query names"
    )
    recall_weight_recency: float = Field(
        0.05, ge=0, le=10, description="weight of retrievability: how recently it happened or was recalled"
    )
    recall_weight_outcome: float = Field(0.0, ge=0, le=10, description="weight of success over failure")
    recall_weight_importance: float = Field(0.2, ge=0, le=10, description="weight of the stored importance")
    recall_weight_late: float = Field(
        0.0, ge=0, le=10, description="weight of late interaction; 1 finds most and encodes candidates word by word"
    )
    late_interaction_candidates: int = Field(
        100, ge=2, le=1000, description="best candidates that late interaction reads again"
    )
    late_interaction_kept: int = Field(
        20_000, ge=1, le=10_000_000, description="episodes whose word pieces stay in memory, about 1.5 KB each"
    )
    late_interaction_stored: bool = Field(
        True, description="where late interaction is on, keep word pieces with the vectors: about 2 KB an episode"
    )
    recall_weight_cluster: float = Field(
        0.0, ge=0, le=10, description="weight of the query's similarity to the episode's cluster"
    )

    recall_strengthens: bool = Field(
        True,
        description="what a recall brings to mind (working_memory_size) fades more slowly, and lives again if archived",
    )
    archive_below: float = Field(
        0.2, ge=0, lt=1, description="retrievability to archive at: after 3 to 25 years by importance; 0: never"
    )
    archive_cold: bool = Field(
        True, description="move the vectors of what was archived to a collection that stays on disk; memory for speed"
    )

    # -- consolidation
    consolidation_min_cluster_size: Annotated[int, Field(ge=2, le=100_000)] | Literal["auto"] = Field(
        "auto", description="episodes in the smallest cluster; auto: 5 for small samples, about 10 at 3 000"
    )
    consolidation_min_samples: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = Field(
        "auto", description="episodes, HDBSCAN's density neighbourhood; auto: 3 for small samples, about 5 at 3 000"
    )
    consolidation_max_samples: int = Field(
        2000, ge=10, le=1_000_000, description="episodes clustered by one run; the cap, as the cost is quadratic"
    )
    consolidation_interval: float = Field(
        3600, gt=0, le=31_536_000, description="seconds between the scheduled runs of a session"
    )
    consolidation_min_new: int = Field(
        5, ge=1, le=1_000_000, description="new episodes that make a session's scheduled run worthwhile"
    )
    consolidation_in_flight: int = Field(
        4, ge=1, le=10_000, description="scheduled runs handed to workers at a time; the others wait their turn"
    )
    consolidation_batch_size: int = Field(
        500, ge=1, le=1_000_000, description="episodes assigned to clusters at a time; bounds the memory of a run"
    )

    consolidation_time_limit: float = Field(
        1800, gt=0, le=86_400, description="seconds after which a run gives up and changes nothing"
    )
    consolidation_keep_runs: int = Field(
        10, ge=1, le=10_000, description="runs of a session that can be looked at and rolled back to"
    )
    consolidation_seed: int = Field(
        0, ge=0, le=2**32 - 1, description="of the draws of a run: the same input and seed give the same clusters"
    )
    duplicate_threshold: float = Field(
        0.97, ge=0.5, le=1, description="cosine from which episodes are folded into one; 1: exact copies only"
    )

    # -- buffers
    working_memory_size: int = Field(4, ge=1, le=10_000, description="episodes a session has in mind; 4 to 7")
    ca1_buffer_size: int = Field(
        50, ge=1, le=1_000_000, description="episodes accepted, not yet embedded, findable at once; 25 to 100"
    )
    episode_buffer_size: int = Field(
        100, ge=1, le=1_000_000, description="a session's latest episodes, for context and duplicates; 50 to 200"
    )
    error_history_size: int = Field(
        500, ge=1, le=1_000_000, description="recent failures kept, which feed the error rate; 100 to 1000"
    )

    # -- work
    hooks: tuple[str, ...] = Field((), description="modules with hooks that workers import; a list, or names by commas")
    task_max_attempts: int = Field(3, ge=1, le=100, description="failures of one text before it is dead")
    flower_basic_auth: SecretStr | None = Field(None, description="user:password of Flower's pages; unset: none")
    result_expires: float = Field(3600, gt=0, le=31_536_000, description="seconds the results of tasks are kept")
    log_format: Literal["text", "json"] = Field("text", description="log lines for people, or one JSON object each")

    # -- monitoring
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="port where a worker serves the deployment's figures to Prometheus; unset: none",
    )
    metrics_address: str = Field("127.0.0.1", min_length=1, description="address that metrics_port listens on")
    trace_sample: float = Field(
        0, ge=0, le=1, description="share of episodes traced with OpenTelemetry, from store to upsert (extra: trace)"
    )
    alert_interval: float = Field(60, ge=1, le=86_400, description="seconds between two checks of the alerts")
    alert_min_samples: int = Field(
        20, ge=1, le=1_000_000, description="measurements in the window below which an alert is unknown"
    )
    alert_hysteresis: float = Field(
        0.1, ge=0, le=0.9, description="share of a threshold that a figure must be better by until its alert falls"
    )
    alert_recall_p95_warning: float = Field(200, gt=0, le=3_600_000, description="milliseconds; slower is a warning")
    alert_recall_p95_critical: float = Field(500, gt=0, le=3_600_000, description="milliseconds; slower is critical")
    alert_cache_hit_rate_warning: float = Field(0.7, ge=0, le=1, description="share of hits; less is a warning")
    alert_cache_hit_rate_critical: float = Field(0.5, ge=0, le=1, description="share of hits; less is critical")
    alert_pool_utilization_warning: float = Field(
        0.8, ge=0, le=1, description="share of Neo4j connections in use; more is a warning"
    )
    alert_pool_utilization_critical: float = Field(
        0.95, ge=0, le=1, description="share of Neo4j connections in use; more is critical"
    )
    alert_error_rate_warning: float = Field(
        0.01, ge=0, le=1, description="share of stores, recalls and task attempts that failed; more is a warning"
    )
    alert_error_rate_critical: float = Field(
        0.05, ge=0, le=1, description="share of stores, recalls and task attempts that failed; more is critical"
    )
    alert_webhook: SecretStr | None = Field(
        None, description="URL that gets a JSON object when an alert is raised or falls; unset: the log alone"
    )
    alert_webhook_timeout: float = Field(3, gt=0, le=60, description="seconds that the webhook has to answer")

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[info.field_name].annotation):
            raise ValueError("must not be true or false")
        return value

    @field_validator("data_dir", mode="before")
    @classmethod
    def _not_blank(cls, value: Any) -> Any:
        # a shell variable that was never set would otherwise mean the current directory
        if isinstance(value, str) and not value.strip():
            raise ValueError("must name a directory")
        return value

    @field_validator("data_dir", "neo4j_ca_certs")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("hooks", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator(
        *("redis_url", "qdrant_url", "neo4j_uri", "qdrant_api_key", "neo4j_password"),
        *("alert_webhook", "flower_basic_auth"),
        mode="before",
    )
    @classmethod
    def _blank_is_unset(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("redis_url", "qdrant_url", "neo4j_uri", "alert_webhook")
    @classmethod
    def _known_scheme(cls, value: SecretStr | None, info: Any) -> SecretStr | None:
        schemes = SCHEMES.get(info.field_name, WEBHOOK_SCHEMES)
        if value is None or (info.field_name == "qdrant_url" and value.get_secret_value() == ":memory:"):
            return value
        scheme, separator, rest = value.get_secret_value().partition("://")
        if scheme.lower() not in schemes or not separator or not rest:
            raise ValueError(f"must be a URL that starts with {', '.join(f'{name}://' for name in schemes)}")
        return value

    @field_validator("flower_basic_auth")
    @classmethod
    def _name_and_password(cls, value: SecretStr | None) -> SecretStr | None:
        # with anything else Flower starts, and lets nobody in
        if value is not None and not all(map(str.strip, value.get_secret_value().partition(":"))):
            raise ValueError("must be user:password")
        return value

    @field_validator("metrics_address")
    @classmethod
    def _an_address(cls, value: str) -> str:
        try:
            ip_address(value)
        except ValueError:
            if value.replace(".", "").isdigit():
                raise ValueError("must be an address of this machine, such as 127.0.0.1 or 0.0.0.0") from None
        return value

    @field_validator("redis_url")
    @classmethod
    def _checked_certificate(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(with_checks(value.get_secret_value()))
