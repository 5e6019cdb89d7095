"""A consolidation that is killed when its centroids are written and nothing is published yet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.integration.consolidating import SESSION, World
from tests.processes import ROOT, clean_environment
from ww_core.maintenance.erase import erase
from ww_core.maintenance.sweep import repair, sweep

WORKER = """
import sys
from pathlib import Path
import numpy as np
from tests.integration.consolidating import World
from tests.unit.consolidation.blobs import blobs

world = World(Path(sys.argv[1]))
rows, _ = blobs(3, 20)
world.store([f"text {i}" for i in range(len(rows))], rows)

def publish(run, *, token):
    print(run.run_id, flush=True)
    sys.stdin.read()

world.graph.publish = publish
world.consolidate()
"""


@contextmanager
def about_to_publish(directory: Path) -> Iterator[str]:
    """The run of a worker that stands there, and is killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory)],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_what_it_wrote_of_a_session_that_was_erased_meanwhile_is_swept_away(tmp_path: Path) -> None:
    with about_to_publish(tmp_path):
        world = World(tmp_path)
        (ours,) = set(world.vectors.walk_centroids()[0])
        assert sweep(world.graph, world.vectors, max_attempts=3).orphans == 0, "a run under way keeps its centroids"
        # the erasure saw no centroids yet: the worker writes them just behind it
        centroids = world.vectors.centroids(SESSION, ours)
        erase(world.graph, world.vectors, session_id=SESSION)
        world.vectors.put_centroids(centroids)
    assert world.vectors.walk_centroids()[0] == [ours] * len(centroids)
    assert sweep(world.graph, world.vectors, max_attempts=3).orphans == 1
    assert world.vectors.walk_centroids() == ([], None)
    world.vectors.put_centroids(centroids)
    assert repair(world.graph, world.vectors) == (0, 1)
    assert world.vectors.walk_centroids() == ([], None)
    world.close()


def test_whoever_takes_it_over_starts_with_no_centroids_of_its(tmp_path: Path) -> None:
    with about_to_publish(tmp_path) as run_id:
        world = World(tmp_path)
        assert world.vectors.centroids(SESSION, run_id)
    world.graph.expire_leases(max_attempts=3)
    run = world.consolidator.run(run_id, token=uuid4().hex)
    assert run.status == "done"
    assert [c.cluster_id for c in world.vectors.centroids(SESSION, run_id)] == sorted(
        c.cluster_id for c in run.clusters
    )
    world.close()
