"""Every setting, with its unit, range and default, and where its value comes from.

Precedence: keyword or command-line option, ``T4DM_*`` environment variable, t4dm.yaml, preset, default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings. A key nobody knows is an error that names the nearest known one."""

    model_config = SettingsConfigDict(env_prefix="T4DM_", extra="forbid", frozen=True)

    # -- where things are
    data_dir: Path = Field(Path("~/.world-weaver"), description="directory of the embedded stores")
    namespace: str = Field(
        "ww", pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="separates deployments on shared servers"
    )
    preset: Literal["small", "medium", "large", "very-large"] | None = Field(
        None, description="scaling tier whose values replace the defaults"
    )
    redis_url: SecretStr | None = Field(None, description="Celery broker; unset: tasks run in this process")
    qdrant_url: SecretStr | None = Field(None, description="Qdrant server; unset: qdrant-edge in data_dir")
    qdrant_api_key: SecretStr | None = Field(None, description="API key of the Qdrant server")
    neo4j_uri: SecretStr | None = Field(None, description="Neo4j server; unset: SQLite in data_dir")
    neo4j_user: str = Field("neo4j", description="Neo4j user")
    neo4j_password: SecretStr | None = Field(None, description="Neo4j password")
    neo4j_database: str | None = Field(None, description="Neo4j database; unset: the user's home database")

    # -- embedding
    embedding_model: str = Field("all-MiniLM-L6-v2", description="sentence-transformers name or path")
    embedding_device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where the model runs")
    embedding_batch_size: int | None = Field(
        None, ge=1, le=4096, description="texts, upper bound of one forward pass; unset: 64 on cuda, 8 on cpu"
    )
    embedding_fp16: bool = Field(False, description="half precision (cuda and mps only)")
    embedding_threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of the model; unset: all cores")
    embedding_cache_size: int = Field(
        1000, ge=0, le=10_000_000, description="texts whose embedding is kept; 0 turns the cache off"
    )
    embedding_cache_ttl: float = Field(3600, gt=0, description="seconds an embedding is kept")
    embedding_claim_size: int = Field(512, ge=1, le=100_000, description="episodes leased at a time")
    embedding_mode: Literal["local", "remote"] = Field(
        "local", description="where queries are embedded: in this process, or by the query pool"
    )

    # -- Qdrant
    qdrant_timeout: float = Field(30, gt=0, le=3600, description="seconds")
    qdrant_grpc: bool = Field(True, description="open the gRPC channel")
    qdrant_prefer_grpc: bool = Field(True, description="use gRPC for data; needs qdrant_grpc")
    qdrant_pool_size: int = Field(10, ge=1, le=1000, description="connections")

    # -- Neo4j
    neo4j_pool_size: int = Field(50, ge=1, le=10_000, description="connections")
    neo4j_max_transaction_retry: int = Field(3, ge=0, le=100, description="retries of one transaction")
    neo4j_acquisition_timeout: float = Field(30, gt=0, le=3600, description="seconds to wait for a connection")

    # -- recall
    hierarchical_search: bool | Literal["auto"] = Field("auto", description="search clusters first")
    cluster_selection_k: int = Field(3, ge=1, le=1000, description="clusters searched by hierarchical search")

    # -- consolidation
    consolidation_min_cluster_size: int | Literal["auto"] = Field(
        "auto", description="smallest cluster, episodes (2 or more)"
    )
    consolidation_min_samples: int | Literal["auto"] = Field(
        "auto", description="HDBSCAN's density neighbourhood, episodes (1 or more)"
    )
    consolidation_max_samples: int = Field(
        2000, ge=10, le=1_000_000, description="episodes clustered by one run, the cap"
    )
    consolidation_interval: float = Field(3600, gt=0, description="seconds between runs")
    consolidation_batch_size: int = Field(500, ge=1, le=1_000_000, description="episodes assigned at a time")

    # -- buffers
    working_memory_size: int = Field(4, ge=1, description="episodes a session has in mind; 4 to 7")
    ca1_buffer_size: int = Field(50, ge=1, description="accepted, not yet embedded, findable at once; 25 to 100")
    episode_buffer_size: int = Field(100, ge=1, description="a session's latest; 50 to 200")
    error_history_size: int = Field(500, ge=1, description="failures kept; 100 to 1000")

    # -- work
    hooks: tuple[str, ...] = Field((), description="modules with hooks that workers import")
    task_max_attempts: int = Field(3, ge=1, le=100, description="failures of one text before it is dead")
    result_expires: float = Field(3600, gt=0, description="seconds task results are kept")
    log_format: Literal["text", "json"] = Field("text", description="how log lines look")
