"""A shard searches with one thread, whoever made it."""

from __future__ import annotations

import json
from pathlib import Path

from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import Fingerprint


def test_a_new_shard_and_an_older_one_search_with_one_thread(tmp_path: Path) -> None:
    shard = Shard(tmp_path, namespace="ww")
    shard.ensure(Fingerprint("m", "1", 4, "mean", True))
    shard.close()
    (file,) = tmp_path.rglob("edge_config.json")
    made = json.loads(file.read_text("utf-8"))
    assert made.pop("max_search_threads") == 1
    file.write_text(json.dumps(made), "utf-8")
    Shard(tmp_path, namespace="ww").close()
    opened = json.loads(file.read_text("utf-8"))
    assert opened["max_search_threads"] == 1
    assert {key: opened[key] for key in made} == made, "nothing else is changed"
