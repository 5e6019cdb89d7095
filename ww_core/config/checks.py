"""What settings are checked for together: values that contradict each other, sizes that are not recommended."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from ww_core.config.fields import Fields
from ww_core.errors import ConfigurationError

GUIDE_RANGES: Mapping[str, tuple[int, int]] = {
    "working_memory_size": (4, 7),  # Cowan's limit
    "ca1_buffer_size": (25, 100),
    "episode_buffer_size": (50, 200),
    "error_history_size": (100, 1000),
}
"""The recommended sizes of the buffers, in entries; outside them a SettingsWarning is given."""

ALERTS: Mapping[str, bool] = {
    "recall_p95": False,
    "cache_hit_rate": True,
    "pool_utilization": False,
    "error_rate": False,
}
"""The alerts, and whether a low figure is the bad one."""


class SettingsWarning(UserWarning):
    """A setting is possible but outside what is recommended."""


def check_together(settings: Fields, where: Mapping[str, str]) -> None:
    """Raise ConfigurationError where settings contradict each other; ``where`` says where each came from."""
    scheme = "" if settings.neo4j_uri is None else settings.neo4j_uri.get_secret_value().partition("://")[0].lower()
    if settings.neo4j_ca_certs is not None and settings.neo4j_uri is not None and not scheme.endswith("+s"):
        raise ConfigurationError(
            f"neo4j_ca_certs ({where['neo4j_ca_certs']}) with {scheme}:// ({where['neo4j_uri']}), which checks no "
            "certificate",
            hint=f"write {scheme.partition('+')[0]}+s:// in neo4j_uri",
        )
    if settings.embedding_fp16 and settings.embedding_device == "cpu":
        raise ConfigurationError(
            f"embedding_fp16 = true ({where['embedding_fp16']}) with embedding_device = cpu "
            f"({where['embedding_device']}): half precision needs cuda or mps",
            hint="set embedding_fp16 to false, or another device",
        )
    if settings.qdrant_prefer_grpc and not settings.qdrant_grpc:
        raise ConfigurationError(
            f"qdrant_prefer_grpc = true ({where['qdrant_prefer_grpc']}) with qdrant_grpc = false "
            f"({where['qdrant_grpc']}): there is no gRPC channel to prefer",
            hint="set qdrant_grpc to true, or qdrant_prefer_grpc to false",
        )
    if settings.embedding_mode == "remote" and settings.redis_url is None:
        raise ConfigurationError(
            f"embedding_mode = remote ({where['embedding_mode']}) without redis_url: nobody could be asked",
            hint="set redis_url, or embedding_mode to local",
        )
    for name, low_is_bad in ALERTS.items():
        warning, critical = f"alert_{name}_warning", f"alert_{name}_critical"
        worst, least = (warning, critical) if low_is_bad else (critical, warning)
        if getattr(settings, worst) < getattr(settings, least):
            raise ConfigurationError(
                f"{warning} = {getattr(settings, warning):g} ({where[warning]}) is worse than {critical} = "
                f"{getattr(settings, critical):g} ({where[critical]}): critical would never come after a warning",
                hint=f"set {warning} to the milder of the two",
            )


def warn_of_sizes(settings: Fields, where: Mapping[str, str]) -> None:
    """Give a SettingsWarning for each buffer whose size is outside the recommended."""
    for key, (low, high) in GUIDE_RANGES.items():
        size = getattr(settings, key)
        if not low <= size <= high:
            message = f"{key} = {size} ({where[key]}) is outside the recommended {low} to {high}"
            warnings.warn(message, SettingsWarning, stacklevel=3)  # the line that makes the Settings
