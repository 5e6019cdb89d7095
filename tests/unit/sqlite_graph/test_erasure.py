"""No byte of an erased episode is left in any file of a SQLite graph store."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

from tests.contract.graphs import Clock, claimed, episodes
from tests.unit.sqlite_graph.files import LEASE
from ww_core.models import Cluster
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.ports import Membership
from ww_core.stores.texts import first_digest


class TestErasure:
    def test_no_byte_of_an_erased_episode_is_left(self, graph: SqliteGraphStore, path: Path) -> None:
        """Contents, contexts, errors, labels and phrases of any size, rewritten, died, published and rolled back."""
        marker = "XQZZYMARKER"
        batch = [
            replace(e, content=f"{marker}{i}END " + "filler " * (i * 13 % 50), context={"key": f"{marker}{i}END"})
            for i, e in enumerate(episodes(600))
        ]
        graph.add(batch)
        for i in range(0, 600, 4):
            graph.update(batch[i].episode_id, content=f"{marker}{i}END " + "longer " * (i * 31 % 400))
        rows = claimed(graph.claim(600, token="t", lease_seconds=LEASE))
        for i, name in enumerate(rows[:40]):
            graph.fail("t", name, error=f"E: {marker}{i}END", traceback="tail " * i, max_attempts=1, delay_seconds=0)
        graph.replay(rows[:20])
        graph.mark_embedded("t", dict.fromkeys(rows[40:], 1))
        for turn in range(4):
            run = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds=LEASE)
            members = [Membership(name, f"c{i % 5}", None, turn / 8) for i, name in enumerate(rows[40:])]
            graph.stage(run.run_id, token="t", memberships=members)
            clusters = tuple(
                Cluster(f"c{i}", "s", f"{marker}{40 + i}END {turn}", 112, ("other", f"{marker}{45 + i}END"))
                for i in range(5)
            )
            graph.publish(replace(run, clusters=clusters), token="t")
        graph.rollback_run(run.run_id)
        assert _found(path, marker) == {str(i) for i in range(600)}
        replaced = {str(i): first_digest(batch[i].episode_id, batch[i].content) for i in range(0, 600, 4) if i % 400}
        assert _holding(path, replaced) == set(replaced)

        some = random.Random(1).sample(range(600), 300)
        graph.tombstone(episode_ids=[batch[i].episode_id for i in some])

        assert _found(path, marker) == {str(i) for i in range(600)} - {str(i) for i in some}
        assert _holding(path, replaced) == set(replaced) - {str(i) for i in some}
        graph.tombstone(session_id="s")
        assert _found(path, marker) == _holding(path, replaced) == set()
        assert graph.counts().balanced

    def test_the_log_is_emptied_later_where_a_reader_is_in_the_way(self, graph: SqliteGraphStore, path: Path) -> None:
        graph.add([replace(episodes(1)[0], content="XQZZYMARKER1END")])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM episode").fetchone()
        assert graph.tombstone(episode_ids=["e00000"])[0] == ["e00000"]
        assert _found(path, "XQZZYMARKER") == {"1"}
        reader.execute("ROLLBACK")
        reader.close()

        assert graph.unfinished_tombstones(9) == ["e00000"]

        assert _found(path, "XQZZYMARKER") == set()

    def test_a_stopped_reader_in_the_way_of_an_erasure_holds_nobody_up(
        self, graph: SqliteGraphStore, path: Path
    ) -> None:
        graph.add(episodes(1))
        other = SqliteGraphStore(path, clock=Clock())
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM episode").fetchone()
        erasing = threading.Thread(target=lambda: graph.tombstone(episode_ids=["e00000"]))
        slowest, number = 0.0, 1
        erasing.start()
        while erasing.is_alive():
            started = time.monotonic()
            other.add(episodes(1, start=number))
            slowest, number = max(slowest, time.monotonic() - started), number + 1
        reader.close()
        other.close()
        assert slowest < 5, "waiting for the reader took the lock that writers need"


def _found(path: Path, marker: str) -> set[str]:
    """The numbers whose marker is in any file of the store, in any case of letters."""
    return {line[len(marker) : -len("END")] for line in _matches(path, f"{marker}[0-9]*END")}


def _holding(path: Path, texts: dict[str, str]) -> set[str]:
    """The names of those texts, which are no patterns, that are in any file of the store."""
    found = _matches(path, "\n".join(texts.values()))
    return {name for name, text in texts.items() if text in found}


def _matches(path: Path, patterns: str) -> set[str]:
    """Read by another process: closing a file here would drop our locks on it."""
    command = ["grep", "-a", "-o", "-h", "-i", patterns, *map(str, sorted(path.parent.iterdir()))]
    return set(subprocess.run(command, capture_output=True, check=False).stdout.decode().split())
