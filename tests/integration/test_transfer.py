"""Episodes go out of one data directory and come into another exactly as they were."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.integration.command_line import Cli
from ww.memory.episodic import EpisodicMemory
from ww_core.ingest.feed import feed
from ww_core.ingest.files import Found
from ww_core.models import Episode
from ww_core.stores.ports import Fingerprint, StoredVectors, Strength, VectorStore, Where
from ww_core.transfer import export, read_export

START = datetime(2026, 3, 1, 8, tzinfo=UTC)
EPISODES = [
    Episode("  spaces around \u202e and \x1b[31mred\x1b[0m\n\ttab ", "plain", "s", START + timedelta(microseconds=7)),
    Episode("same moment, first", "b", "s", START, position=0),
    Episode("same moment, second", "a", "s", START, position=1),
    Episode(
        "with everything", "full", "s", START, {"n": 1.1, "deep": [1, None, "ü"], "": True}, "failure", 0.123456789
    ),
    Episode("recalled", "r", "s", START, archived=True, stability=2.5, last_recalled_at=START + timedelta(days=1)),
    Episode("in another session \U0001f9e0", "id/ü'\"", "other session", START),
]


def row(episode: Episode) -> Episode:
    """What must survive the way."""
    return replace(
        episode, state=None, stored_at=None, embedded_at=None, generation=0, windows=0, cluster_id=None, nearest=None
    )


def put(memory: EpisodicMemory) -> None:
    """The episodes as they are, by what an application and the upkeep do."""
    graph = memory.core.deployment.graph
    graph.add(EPISODES)
    graph.archive([e.episode_id for e in EPISODES if e.archived])
    graph.strengthen(
        [Strength(e.episode_id, e.stability, e.last_recalled_at) for e in EPISODES if e.last_recalled_at is not None]
    )


def everything(memory: EpisodicMemory) -> list[Episode]:
    return [row(episode) for episode in memory.core.deployment.graph.page(Where(archived=None))]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_round_trip_is_exact_and_repeats_harmlessly(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    with EpisodicMemory(data_dir=cli.data_dir) as memory:
        put(memory)
        before = everything(memory)
    assert cli("export", str(file)) == {"exported": 6}
    assert file.stat().st_mode & 0o077 == 0
    there = tmp_path / "elsewhere"
    fresh = Cli(there, cli.capsys)
    assert fresh("import", str(file)) == {"accepted": 6, "duplicates": 0, "changed": 0, "rejected": 0}
    assert fresh("import", str(file)) == {"accepted": 0, "duplicates": 6, "changed": 0, "rejected": 0}
    with EpisodicMemory(data_dir=there) as memory:
        assert everything(memory) == before
        assert memory.sync.counts().embedded == 6, "embedded mode embeds before it returns"
        assert memory.sync.verify().ok
    again = tmp_path / "again.jsonl"
    fresh("export", str(again))
    left_out = ("stored_at", "state")
    assert [{k: v for k, v in line.items() if k not in left_out} for line in lines_of(again)] == [
        {k: v for k, v in line.items() if k not in left_out} for line in lines_of(file)
    ]


def test_an_export_is_packed_where_its_name_says_so(cli: Cli, tmp_path: Path) -> None:
    plain, packed = tmp_path / "all.jsonl", tmp_path / "all.jsonl.gz"
    with EpisodicMemory(data_dir=cli.data_dir) as memory:
        put(memory)
    cli("export", str(plain))
    assert cli("export", str(packed)) == {"exported": 6}
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    fresh = Cli(tmp_path / "elsewhere", cli.capsys)
    assert fresh("import", str(packed), "--no-wait")["accepted"] == 6
    packed.write_bytes(packed.read_bytes()[:-9])
    answer = fresh("import", str(packed), "--no-wait")
    assert (answer["rejected"], fresh.code) == (1, 1)
    assert "the gzip file is cut off in this line" in fresh.err


def test_one_session_alone_goes_out_and_in(cli: Cli, tmp_path: Path) -> None:
    with EpisodicMemory(data_dir=cli.data_dir) as memory:
        put(memory)
    file = tmp_path / "part.jsonl"
    assert cli("export", str(file), "--session", "other session") == {"exported": 1}
    assert [line["episode_id"] for line in lines_of(file)] == ["id/ü'\""]
    cli("export", str(file))
    fresh = Cli(tmp_path / "elsewhere", cli.capsys)
    assert fresh("import", str(file), "--session", "other session", "--no-wait")["accepted"] == 1
    cli("export", str(file), "--session", "nowhere")
    assert cli.code == 1


def test_erased_ids_other_content_and_broken_lines_are_rejected_and_kept(cli: Cli, tmp_path: Path) -> None:
    file, rejects = tmp_path / "all.jsonl", tmp_path / "rejects"
    with EpisodicMemory(data_dir=cli.data_dir) as memory:
        put(memory)
    cli("export", str(file))
    cli("forget", "full")
    other = lines_of(file)[0] | {"content": "changed"}
    with file.open("a") as out:
        out.write(json.dumps(other) + "\n{broken\n\n" + '{"content": "no id"}\n')
    answer = cli("import", str(file), "--rejects", str(rejects), "--no-wait")
    assert (answer, cli.code) == ({"accepted": 0, "duplicates": 5, "changed": 0, "rejected": 4}, 1)
    assert "forgotten for good" in cli.err
    assert len(rejects.read_text("utf-8").splitlines()) == 4
    before = file.read_bytes()
    assert "would be emptied" in cli("import", str(file), "--rejects", str(file))["error"]["message"]
    assert (cli.code, file.read_bytes()) == (2, before)


def test_what_was_updated_here_since_an_import_is_kept(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    with EpisodicMemory(data_dir=cli.data_dir) as memory:
        put(memory)
    cli("export", str(file))
    fresh = Cli(tmp_path / "elsewhere", cli.capsys)
    fresh("import", str(file), "--no-wait")
    fresh("update", "full", "--content", "corrected")
    assert fresh("import", str(file), "--no-wait") == {"accepted": 0, "duplicates": 5, "changed": 1, "rejected": 0}
    assert fresh.code == 0
    assert fresh("get", "full")["episode"]["content"] == "corrected"


def test_vectors_that_come_along_are_used_where_they_are_this_models(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    own = rng.standard_normal(384).astype(np.float32)
    own /= np.linalg.norm(own)
    with EpisodicMemory(data_dir=tmp_path / "one") as memory:
        memory.core.deployment.graph.add(EPISODES[:2])
        memory.sync.flush(timeout=90)
        parts, out = memory.core.deployment, BytesIO()
        export(parts.graph, out, vectors=(parts.vectors, parts.embedding.fingerprint))
        model = parts.embedding.fingerprint
        stored = {found.episode_id: found.vector for found in parts.vectors.vectors(["plain", "b"])}
    given: dict[str, np.ndarray[Any, Any]] = {}
    assert len(list(read_export(BytesIO(out.getvalue()), "x", model=model, on_vector=given.__setitem__))) == 2
    assert all((given[episode.content] == stored[episode.episode_id]).all() for episode in EPISODES[:2])
    foreign = BytesIO(out.getvalue())
    others: dict[str, Any] = {}
    other_model = replace(model, revision="other")
    list(read_export(foreign, "x", model=other_model, on_vector=others.__setitem__))
    assert others == {}
    with EpisodicMemory(data_dir=tmp_path / "two") as memory:
        parts = memory.core.deployment
        parts.embedding.seed("same moment, first", own)
        total = feed(read_export(BytesIO(out.getvalue()), "x"), parts.ingest.restore)
        assert total.accepted == 2
        memory.sync.flush(timeout=90)
        (found,) = parts.vectors.vectors(["b"])
        assert np.allclose(found.vector, own, atol=1e-6), "the seeded vector, not one made anew"


@pytest.fixture(scope="module")
def with_vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fingerprint, list[dict[str, Any]]]:
    """The model, and the lines of an export with its vectors."""
    with EpisodicMemory(data_dir=tmp_path_factory.mktemp("vectors")) as memory:
        memory.sync.store("the kettle whistles when the water boils", episode_id="kettle")
        memory.sync.flush(timeout=90)
        parts, out = memory.core.deployment, BytesIO()
        export(parts.graph, out, vectors=(parts.vectors, parts.embedding.fingerprint))
        return parts.embedding.fingerprint, [json.loads(line) for line in out.getvalue().splitlines()]


def used(model: Fingerprint, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The vectors that an import of the lines would use, by text."""
    found: dict[str, Any] = {}
    stream = BytesIO("\n".join(json.dumps(line) for line in lines).encode())
    assert all(isinstance(one, Found) for one in read_export(stream, "x", model=model, on_vector=found.__setitem__))
    return found


def test_a_text_that_was_edited_keeps_no_vector(with_vectors: tuple[Fingerprint, list[dict[str, Any]]]) -> None:
    model, lines = with_vectors
    assert list(used(model, lines)) == ["the kettle whistles when the water boils"]
    assert used(model, [line | {"content": "the invoice is overdue"} for line in lines]) == {}


def test_a_vector_that_names_no_text_is_not_believed(with_vectors: tuple[Fingerprint, list[dict[str, Any]]]) -> None:
    model, lines = with_vectors
    older = [line | {"vector": {k: v for k, v in line["vector"].items() if k != "text"}} for line in lines]
    assert used(model, older) == {}


def test_a_text_that_changes_while_it_is_exported_goes_without_vector(tmp_path: Path) -> None:
    with EpisodicMemory(data_dir=tmp_path) as memory:
        memory.sync.store("the kettle whistles when the water boils", episode_id="kettle")
        memory.sync.flush(timeout=90)
        parts, out = memory.core.deployment, BytesIO()
        vectors = parts.vectors

        class Changing:
            def vectors(self, ids: list[str]) -> list[StoredVectors]:
                memory.sync.update("kettle", content="the invoice is overdue")
                return vectors.vectors(ids)

        export(parts.graph, out, vectors=(cast(VectorStore, Changing()), parts.embedding.fingerprint))
    assert "vector" not in json.loads(out.getvalue())


def test_standard_output_and_input(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EpisodicMemory(data_dir=cli.data_dir) as memory:
        put(memory)
    file = tmp_path / "all.jsonl"
    cli("export", str(file))
    assert cli.text("export", "-").encode() == file.read_bytes()
    assert cli.err.startswith("6 episodes exported; ")
    assert cli("export", "-")["error"]["type"] == "InvalidInput"

    class Stdin:
        buffer = BytesIO(file.read_bytes())

    monkeypatch.setattr("sys.stdin", Stdin)
    fresh = Cli(tmp_path / "elsewhere", cli.capsys)
    assert fresh("import", "-", "--no-wait")["accepted"] == 6
