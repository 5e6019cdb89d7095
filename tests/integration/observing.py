"""All that a reader can see of a session's clusters: the bytes of ``ww clusters --json``, and answers of recall."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from contextlib import redirect_stdout

from tests.integration.consolidating import SESSION, World
from ww.bench.corpus import ByNumber
from ww.cli.run import run
from ww_core.models import Vector
from ww_core.recall.request import RecallRequest
from ww_core.recall.service import Recaller
from ww_core.stores.ports import Where

LIMIT = 10


def observed(world: World, queries: Vector) -> dict[str, str]:
    """What is visible now; the answers to the queries (q, d) with their scores, in both modes."""
    settings = world.settings.replace(hierarchical_gap_sample=0, recall_strengthens=False)
    recaller = Recaller(
        world.graph,
        world.vectors,
        ByNumber(queries),
        settings,
        world.hooks,
        world.metrics,
        clock=lambda: world.now,
    )
    answers = {
        mode: [
            [(r.episode_id, r.score, r.cluster and r.cluster.cluster_id) for r in recaller.recall(request)]
            for request in (
                RecallRequest(f"number {i}", Where(sessions=(SESSION,)), limit=LIMIT, mode=mode)
                for i in range(len(queries))
            )
        ]
        for mode in ("flat", "hierarchical")
    }
    return {"clusters": clusters_as_json(world), **{mode: json.dumps(found) for mode, found in answers.items()}}


def clusters_as_json(world: World) -> str:
    """What ``ww clusters --json --members`` prints."""
    arguments = ["--data-dir", str(world.settings.data_dir), "--session", SESSION, "--json", "clusters", "--members"]
    printed = io.StringIO()
    before = dict(os.environ)
    os.environ.update(_environment(world.address))
    try:
        with redirect_stdout(printed):
            code = run(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert code == 0, printed.getvalue()
    return printed.getvalue()


def _environment(address: str | None) -> Mapping[str, str]:
    if address is None:
        return {}
    uri, password, namespace = address.split(" ")
    return {"T4DM_NEO4J_URI": uri, "T4DM_NEO4J_PASSWORD": password, "T4DM_NAMESPACE": namespace}
