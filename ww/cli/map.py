"""A session's episodes as a page to look at: one file that needs no network and runs nothing but its own script."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ww.cli.output import harmless
from ww_core.models import Cluster, Episode, State
from ww_core.stores.pages import episodes
from ww_core.stores.ports import Where

if TYPE_CHECKING:
    from ww_core.memory import MemoryCore

MOST_POINTS = 50_000
"""Drawn; of a larger session a random part is."""
SIDE = 10_000
"""Coordinates are whole numbers from -SIDE to SIDE."""
TEXT_CHARS = 240
PAGE = 2000


def write_map(core: MemoryCore, session_id: str, path: Path) -> int:
    """Write the page; how many episodes are on it. Raises OSError where the file cannot be written."""
    clusters = sorted(core.clusters(session_id), key=lambda one: (-one.size, one.cluster_id))
    drawn, total, loose = _drawn(core, session_id)
    episodes, data = _placed(core, drawn, clusters)
    data |= {"name": session_id, "episodes": total, "loose": loose}
    template = resources.files("ww.cli").joinpath("map.html").read_text(encoding="utf-8")
    path.write_text(template.replace("__DATA__", _embedded(data)), encoding="utf-8")
    return len(episodes)


def _drawn(core: MemoryCore, session_id: str) -> tuple[list[Episode], int, int]:
    """At most MOST_POINTS embedded episodes, how many there are, and how many of them are in no cluster."""
    draw = random.Random(0)  # the same session gives the same map
    kept: list[Episode] = []
    total = loose = 0
    every = episodes(core.deployment.graph, Where(sessions=(session_id,)), size=PAGE, states=(State.EMBEDDED,))
    for episode in chain.from_iterable(every):
        total += 1
        loose += episode.cluster_id is None
        if len(kept) < MOST_POINTS:
            kept.append(episode)
        elif (place := draw.randrange(total)) < MOST_POINTS:
            kept[place] = episode
    return kept, total, loose


def _placed(
    core: MemoryCore, drawn: Sequence[Episode], clusters: Sequence[Cluster]
) -> tuple[list[Episode], dict[str, Any]]:
    """The episodes that have vectors, and what the page says of them."""
    import numpy as np

    from ww_core.consolidation.layout import layout

    by_id = {one.episode_id: one for one in drawn}
    names = list(by_id)
    stored = [
        vector
        for start in range(0, len(names), PAGE)
        for vector in core.deployment.vectors.vectors(names[start : start + PAGE])
    ]
    episodes = [by_id[one.episode_id] for one in stored]
    held = {one.cluster_id for one in episodes if one.cluster_id}
    shown = [one for one in clusters if one.cluster_id in held]
    number = {one.cluster_id: i for i, one in enumerate(shown)}
    labels = np.array([number.get(one.cluster_id or "", -1) for one in episodes], np.int64)
    vectors = np.stack([one.vector for one in stored]) if stored else np.zeros((0, 2), np.float32)
    positions = np.round(layout(vectors, labels) * SIDE).astype(int)
    data = {
        "x": positions[:, 0].tolist(),
        "y": positions[:, 1].tolist(),
        "cluster": labels.tolist(),
        "text": [harmless(_short(one.content)) for one in episodes],
        "time": [one.timestamp.strftime("%Y-%m-%d %H:%M") if one.timestamp else "" for one in episodes],
        "clusters": [
            {"label": harmless(one.label), "size": one.size, "keyphrases": [harmless(k) for k in one.keyphrases[:5]]}
            for one in shown
        ],
    }
    return episodes, data


def _short(content: str) -> str:
    return content if len(content) <= TEXT_CHARS else content[: TEXT_CHARS - 1] + "…"


def _embedded(data: dict[str, Any]) -> str:
    """JSON that no text can end the script element of, or open a comment in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
