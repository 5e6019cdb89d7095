"""An ingest that is killed again and again, and then repeated, stores every line exactly once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes import clean_environment, until
from ww_core.stores.embedded.graph import SqliteGraphStore

LINES = 800
KILLS = 5


HOUR = "3600"


def _command(data_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ww.cli", "--data-dir", str(data_dir), "--json", *arguments]


def _json(data_dir: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        _command(data_dir, *arguments), env=clean_environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _stored(data_dir: Path) -> int:
    graph = SqliteGraphStore(data_dir / "graph.sqlite3")
    try:
        return graph.counts().acknowledged
    finally:
        graph.close()


def test_an_ingest_killed_while_it_embeds_is_not_waited_for(tmp_path: Path) -> None:
    source, data_dir = tmp_path / "lines.jsonl", tmp_path / "memory"
    source.write_text("".join(json.dumps({"content": f"Ticket {n}: fan replaced"}) + "\n" for n in range(LINES)))
    process = subprocess.Popen(
        _command(data_dir, "ingest", str(source)),
        env=clean_environment(T4DM_EMBEDDING_LEASE=HOUR),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    graph = SqliteGraphStore(data_dir / "graph.sqlite3")
    until(lambda: graph.counts().leased, what="the ingest embeds")
    process.kill()
    process.wait()
    held = graph.counts()
    graph.close()
    assert held.leased > 0, "else it proves nothing"
    assert _json(data_dir, "ingest", str(source))["duplicates"] == held.acknowledged
    counts = _json(data_dir, "status")["episodes"]
    assert counts["acknowledged"] == counts["embedded"] == LINES


def test_an_ingest_killed_five_times_and_repeated_stores_every_line_once(tmp_path: Path) -> None:
    chance = random.Random(7)
    source, data_dir = tmp_path / "lines.jsonl", tmp_path / "memory"
    lines = [
        {"content": f"Ticket {n}: {chance.choice(['disk', 'fan', 'cable'])} replaced in rack {n % 37}"}
        for n in range(LINES)
    ]
    lines += lines[:10]  # the same line again is another episode: it has another occurrence number
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))

    killed_after: list[int] = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            _command(data_dir, "ingest", str(source)),
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        grace = chance.uniform(0.5, 5.0)
        try:
            process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed_after.append(_stored(data_dir))

    _json(data_dir, "ingest", str(source))

    again = _json(data_dir, "ingest", str(source))
    assert again["accepted"] == 0
    assert again["duplicates"] == len(lines)
    counts = _json(data_dir, "status")["episodes"]
    assert counts["acknowledged"] == counts["embedded"] == len(lines), (counts, killed_after)
    verified = _json(data_dir, "verify")
    assert verified["ok"], verified
    listed = _json(data_dir, "list", "--limit", "100000")["episodes"]
    assert len({row["episode_id"] for row in listed}) == len(lines)
    last = _json(data_dir, "recall", lines[LINES - 1]["content"])["results"]
    assert last[0]["content"] == lines[LINES - 1]["content"]
