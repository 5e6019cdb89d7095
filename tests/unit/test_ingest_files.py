"""What a file's lines become, and what they are refused for."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ww_core.errors import InvalidInput
from ww_core.ingest.feed import CHUNK_EPISODES, Ingested, feed
from ww_core.ingest.files import Found, Place, Refused, read_files, reads
from ww_core.ingest.records import MAX_RECORD_BYTES
from ww_core.models import BatchReceipt, Episode, Receipt, State


def read(*paths: Path | str, session: str = "s", stdin: bytes = b"") -> list[Found | Refused]:
    return list(
        read_files([str(path) for path in paths], session_id=session, stdin=io.BufferedReader(io.BytesIO(stdin)))
    )


def episodes(*paths: Path | str, session: str = "s", stdin: bytes = b"") -> list[Episode]:
    found = read(*paths, session=session, stdin=stdin)
    assert all(isinstance(one, Found) for one in found), found
    return [one.episode for one in found if isinstance(one, Found)]


def ids(*paths: Path, session: str = "s") -> list[str]:
    return [item.episode_id for item in episodes(*paths, session=session)]


def jsonl(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_jsonl_line_keeps_its_keywords_and_its_number(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"content": "one", "outcome": "success"}, {"role": "user", "content": "two"})
    first, second = episodes(path)
    assert first.content == "one"
    assert first.outcome == "success"
    assert (first.session_id, first.position, second.position, second.context) == ("s", 1, 2, {"role": "user"})


def test_a_line_may_name_its_session_and_id(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"content": "one", "session_id": "own", "episode_id": "e1"})
    assert [(item.session_id, item.episode_id) for item in episodes(path)] == [("own", "e1")]


def test_a_second_reading_gives_the_same_ids_and_a_grown_file_adds_to_them(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *({"content": f"line {n % 3}"} for n in range(9)))
    first = ids(path)
    assert len(set(first)) == 9
    assert ids(path) == first
    with path.open("a") as stream:
        stream.write('{"content": "line 0"}\n{"content": "new"}\n')
    assert ids(path)[:9] == first
    assert len(set(ids(path))) == 11


def test_ids_depend_on_session_written_timestamp_and_content_alone(tmp_path: Path) -> None:
    line = {"content": "same", "timestamp": "2024-05-01T10:00:00Z"}
    base = ids(jsonl(tmp_path / "a.jsonl", line))
    assert ids(jsonl(tmp_path / "b.jsonl", {**line, "importance": 0.9, "context": {"a": 1}})) == base
    assert ids(jsonl(tmp_path / "c.jsonl", {"content": "  same "}, line))[1:] == base, (
        "where the line stands is nothing"
    )
    for other in ({"content": "same"}, {**line, "timestamp": "2024-05-01T10:00:01Z"}, {**line, "content": "other"}):
        assert ids(jsonl(tmp_path / "d.jsonl", other)) != base
    assert ids(tmp_path / "a.jsonl", session="t") != base


def test_broken_lines_are_named_and_the_good_ones_go_in(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = {
        2: b"{not json\n",
        3: b'{"content": "caf\xe9"}\n',
        5: b'["a list"]\n',
        6: b"[" * 100_000 + b"\n",
        7: b'{"content": "a", "importance": ' + b"9" * 5000 + b"}\n",
    }
    good = b'{"content": "good"}\n'
    path.write_bytes(b"".join(bad.get(n, good if n != 4 else b"\n") for n in range(1, 10)))
    found = read(path)
    assert [one.place.line for one in found if isinstance(one, Found)] == [1, 8, 9]
    refused = [one for one in found if isinstance(one, Refused)]
    assert {one.place.line: b"".join(one.raw) for one in refused} == bad
    assert "0xe9" in str(refused[1].error)
    assert all("\n" not in str(one.error) and len(str(one.error)) < 200 for one in refused)


def test_an_overlong_line_is_refused_and_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    long = b'{"content": "' + b"x" * (MAX_RECORD_BYTES + 100_000) + b'"}\n'
    path.write_bytes(b'{"content": "a"}\n' + long + b'{"content": "b"}\n')
    kept: list[bytes] = []
    lines: list[int] = []
    for one in read_files([str(path)], session_id="s", stdin=io.BytesIO()):
        lines.append(one.place.line)
        if isinstance(one, Refused):
            kept.append(b"".join(one.raw))
    assert lines == [1, 2, 3]
    assert kept == [long]


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"content": "a"}\n')
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfcontent\nb\n")
    assert [item.content for item in episodes(tmp_path)] == ["b", "a"]


def test_paragraphs_of_text_are_episodes(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_bytes(b"\n# Title\n\nfirst line\r\nsecond line\r\n\r\n \t\nlast\n\nbad \xff\n")
    found = read(path)
    assert [(one.place.line, one.episode.content) for one in found if isinstance(one, Found)] == [
        (2, "# Title"),
        (4, "first line\r\nsecond line"),
        (8, "last"),
    ]
    assert [one.place.line for one in found if isinstance(one, Refused)] == [10]


def test_an_overlong_paragraph_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    with path.open("wb") as stream:
        for _ in range(300):
            stream.write(b"x" * 99_999 + b"\n")
        stream.write(b"\nshort\n")
    tracemalloc.start()
    sizes = []
    for one in read_files([str(path)], session_id="s", stdin=io.BytesIO()):
        if isinstance(one, Refused):
            sizes.append(sum(len(part) for part in one.raw))
        else:
            assert one.episode.content == "short"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [30_000_000]
    assert peak < 10 * MAX_RECORD_BYTES


def test_csv_columns_are_keywords_and_the_rest_is_context(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "text,timestamp,importance,tool,context,outcome\n"
        '"two\nlines",2024-05-01T10:00:00Z,0.8,kubectl,"{""k"": 1}",failure\n'
        "plain,,,,,\n",
        encoding="utf-8",
    )
    first, second = episodes(path)
    assert first.content == "two\nlines"
    assert first.timestamp == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert (first.importance, first.outcome) == (0.8, "failure")
    assert first.context == {"tool": "kubectl", "k": 1}
    assert (first.position, second.position) == (2, 4)
    assert second.context == {}
    assert second.timestamp is not None


def test_bad_csv_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [b"content,importance\n", b"a,much\n", b"b,0.5,more\n", b"c\xff,0.1\n", b"d,0.1\n"]
    path.write_bytes(b"".join(rows))
    found = read(path)
    assert {one.place.line: b"".join(one.raw) for one in found if isinstance(one, Refused)} == {
        2: rows[1],
        3: rows[2],
        4: rows[3],
    }
    assert [one.episode.content for one in found if isinstance(one, Found)] == ["d"]


def test_an_open_quote_does_not_swallow_the_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('content\n"open\n' + "".join(f"line {n} of the rest\n" for n in range(20_000)))
    found = read(path)
    assert isinstance(found[0], Refused)
    assert sum(isinstance(one, Found) for one in found) > 5_000


def test_a_csv_file_that_was_cut_off_in_a_quote_does_not_store_half_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('content\n"whole"\n"half of\nthe te')
    whole, half = read(path)
    assert isinstance(whole, Found)
    assert isinstance(half, Refused)
    assert "open at the end" in str(half.error)
    assert (half.place.line, b"".join(half.raw)) == (3, b'"half of\nthe te')


@pytest.mark.parametrize("header", ["title,body", "content,content"])
def test_a_csv_without_a_content_column_is_refused_at_its_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\na,b\n")
    (refused,) = read(path)
    assert isinstance(refused, Refused)
    assert "content or text column" in str(refused.error)


def test_a_directory_gives_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    jsonl(tmp_path / "b" / "2.jsonl", {"content": "two"})
    jsonl(tmp_path / "a.jsonl", {"content": "one"})
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("no")
    assert [item.content for item in episodes(tmp_path)] == ["one", "two"]


@pytest.mark.parametrize(("stdin", "contents"), [(b'{"content": "a"}\n', ["a"]), (b"one\n\ntwo", ["one", "two"])])
def test_standard_input_is_json_lines_or_paragraphs(stdin: bytes, contents: list[str]) -> None:
    found = episodes("-", stdin=stdin)
    assert [item.content for item in found] == contents
    assert str(Place("-", 3)) == "standard input:3"


def test_nothing_is_read_where_a_path_is_wrong(tmp_path: Path) -> None:
    good = jsonl(tmp_path / "a.jsonl", {"content": "one"})
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "empty").mkdir()
    for wrong in ("gone.jsonl", "a.pdf", "empty"):
        reading = read_files([str(good), str(tmp_path / wrong)], session_id="s", stdin=io.BytesIO())
        with pytest.raises(InvalidInput, match=wrong):
            next(reading)


def test_reading_a_long_file_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as stream:
        for n in range(20_000):
            stream.write(f'{{"content": "line {n} {"y" * 200}"}}\n')
    tracemalloc.start()
    count = sum(1 for _ in read_files([str(path)], session_id="s", stdin=io.BytesIO()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_000_000


class Shelf:
    """A stand-in for nothing: the smallest thing that stores by id and refuses what says so."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.calls: list[int] = []

    def store(self, batch: Sequence[Episode]) -> BatchReceipt:
        self.calls.append(len(batch))
        accepted, rejected = [], []
        for index, item in enumerate(batch):
            if item.content == "bad":
                rejected.append((index, InvalidInput("content is bad")))
                continue
            accepted.append(Receipt(item.episode_id, State.PENDING, item.episode_id in self.held))
            self.held[item.episode_id] = item.content
        return BatchReceipt(tuple(accepted), tuple(rejected))


def test_feeding_counts_keeps_and_names_what_became_of_each_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b'{"content": "%d"}\n' % n for n in range(CHUNK_EPISODES + 5)]
    lines[3], lines[CHUNK_EPISODES + 4] = b"broken\n", b'{"content": "bad"}'
    path.write_bytes(b"".join(lines))
    shelf, rejects, named, progress = Shelf(), io.BytesIO(), [], []

    def run() -> Ingested:
        return feed(
            read_files([str(path)], session_id="s", stdin=io.BytesIO()),
            shelf.store,
            rejects=rejects,
            on_rejected=lambda place, error: named.append((place.line, str(error))),
            on_progress=progress.append,
        )

    assert run() == Ingested(accepted=CHUNK_EPISODES + 3, duplicates=0, rejected=2)
    assert rejects.getvalue() == b'broken\n{"content": "bad"}\n'
    assert [line for line, _ in named] == [4, CHUNK_EPISODES + 5]
    assert max(shelf.calls) <= CHUNK_EPISODES
    assert [one.accepted for one in progress] == [CHUNK_EPISODES - 1, CHUNK_EPISODES + 3]
    assert run() == Ingested(accepted=0, duplicates=CHUNK_EPISODES + 3, rejected=2)


def test_what_is_read_is_known_before_anything_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    notes = jsonl(tmp_path / "notes" / "a.jsonl", {"content": "a"})
    link, other = tmp_path / "link", tmp_path / "other.jsonl"
    link.symlink_to(notes)
    other.write_bytes(b"")
    assert reads([str(notes)], notes)
    assert reads(["x", str(notes)], link)
    assert not reads([str(notes)], other)
    assert not reads([str(notes)], tmp_path / "none.jsonl")
    for inside, found in (("a.jsonl", True), ("new.jsonl", True), ("new.rejects", False), (".new.jsonl", False)):
        assert reads([str(tmp_path)], tmp_path / "notes" / inside) is found
    assert not reads([str(tmp_path / "notes")], other)
    with notes.open("rb") as stdin:
        assert reads(["-"], notes, stdin=stdin.fileno())
        assert not reads(["-"], other, stdin=stdin.fileno())
    with open("/dev/null", "rb") as stdin:
        assert not reads(["-"], Path("/dev/null"), stdin=stdin.fileno())
