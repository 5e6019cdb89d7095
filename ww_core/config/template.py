"""Write t4dm.yaml: every setting with its range, default and one line of why, commented out at its default."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from pydantic import SecretStr

from ww_core.config import Settings
from ww_core.config.errors import allowed
from ww_core.presets import PRESETS

HEADER = """\
# World Weaver's settings. Every line is commented out at its default: take the # away to change one.
#
# Looked for here: --config FILE, T4DM_CONFIG, ./t4dm.yaml, then world-weaver/t4dm.yaml in the user's config directory.
# Stronger than this file: a keyword or command-line option, then the variable T4DM_ and the name in capitals.
# Weaker: the preset, then the default. `ww config` shows each value in force and where it came from.
"""

GROUPS = {
    "data_dir": "Where things are",
    "embedding_model": "Embedding",
    "qdrant_timeout": "Qdrant",
    "neo4j_pool_size": "Neo4j",
    "hierarchical_search": "Recall",
    "consolidation_min_cluster_size": "Consolidation",
    "working_memory_size": "Buffers",
    "hooks": "Work in the background",
    "metrics_port": "Monitoring",
}
"""The first key of each group, in the order of the fields."""


def template() -> str:
    """The text of t4dm.yaml, made from the fields of Settings."""
    lines = [HEADER]
    for key, field in Settings.model_fields.items():
        if key in GROUPS:
            lines.append(f"\n# {'-' * 20} {GROUPS[key]}\n")
        lines.append(f"# {field.description}")
        lines.append(f"# Takes {allowed(field)}.")
        if key == "preset":
            lines += _presets()
        lines.append(f"#{key}: {_yaml(default(key))}\n")
    return "\n".join(lines)


def default(key: str) -> Any:
    """The default of a setting as YAML would give it, before any validation."""
    field = Settings.model_fields[key]
    return field.get_default(call_default_factory=True, validated_data={})


def _presets() -> list[str]:
    lines = ["# What each preset sets:"]
    for name, switches in PRESETS.items():
        lines.append(f"#   {name}" + ("" if switches else ": the defaults"))
        for switch in switches:
            needs = f" (where {switch.needs} is set)" if switch.needs else ""
            lines.append(f"#     {switch.key} {_yaml(switch.value)}{needs}: {switch.why}")
    return lines


def _yaml(value: Any) -> str:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, SecretStr):
        raise TypeError("a secret has no default that could be written down")
    if isinstance(value, str):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value)
