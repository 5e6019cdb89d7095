"""Packed files are read as if they were not, and damaged ones up to the damage."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest

from ww_core.errors import InvalidInput
from ww_core.ingest import records
from ww_core.ingest.files import Found, Place, Refused, read_files, reads
from ww_core.ingest.gunzip import packed

PLAIN = {
    "a.jsonl": b'{"content": "one"}\n{"content": "one"}\n\n{"content": "two"}\n',
    "a.ndjson": b'\xef\xbb\xbf{"content": "three"}',
    "a.csv": b'content,tool\n"four\nlines",x\n',
    "a.txt": b"five\nsix\n\nseven\n",
    "a.md": b"eight\n\n```\na\n\nb\n```\n",
}


def read(*paths: Path | str, stdin: bytes = b"") -> list[Found | Refused]:
    source = io.BufferedReader(io.BytesIO(stdin))  # type: ignore[arg-type]
    return list(read_files([str(path) for path in paths], session_id="s", stdin=source))


def told(*paths: Path | str, stdin: bytes = b"") -> list[tuple[int, str, str]]:
    """Line, id and content of every episode."""
    found = read(*paths, stdin=stdin)
    assert all(isinstance(one, Found) for one in found), found
    return [(one.place.line, one.episode.episode_id, one.episode.content) for one in found if isinstance(one, Found)]


def noise(lines: int) -> bytes:
    """Lines that do not pack to nothing."""
    return b"".join(b'{"content": "%d %x"}\n' % (n, n**40) for n in range(lines))


@pytest.mark.parametrize("name", PLAIN)
def test_a_packed_file_gives_what_the_plain_one_does(tmp_path: Path, name: str) -> None:
    plain = tmp_path / name
    plain.write_bytes(PLAIN[name])
    wanted = told(plain)
    half = len(PLAIN[name]) // 2
    members = gzip.compress(PLAIN[name][:half]) + gzip.compress(PLAIN[name][half:]) + bytes(512)
    for other in (tmp_path / f"{name}.gz", tmp_path / f"{name}.GZ", tmp_path / "packed" / name):
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(members)
        assert told(other) == wanted, "known by its content, whatever its name"
    unpacked = tmp_path / "named" / f"{name}.gz"
    unpacked.parent.mkdir()
    unpacked.write_bytes(PLAIN[name])
    assert told(unpacked) == wanted


def test_standard_input_may_be_packed() -> None:
    for name in ("a.jsonl", "a.txt"):
        assert told("-", stdin=gzip.compress(PLAIN[name])) == told("-", stdin=PLAIN[name])
    (refused,) = read("-", stdin=gzip.compress(PLAIN["a.jsonl"])[:6])
    assert isinstance(refused, Refused)
    assert "standard input:1" in str(refused.place)


def test_directories_give_packed_files_and_names_that_tell_no_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(PLAIN["a.jsonl"]))
    (tmp_path / "b.gz").write_bytes(gzip.compress(PLAIN["a.jsonl"]))
    assert [content for *_, content in told(tmp_path)] == ["one", "one", "two"]
    with pytest.raises(InvalidInput, match=r"b\.gz' is of no known kind .*each also with \.gz"):
        read(tmp_path / "b.gz")
    assert reads([str(tmp_path)], tmp_path / "new.csv.gz")
    assert not reads([str(tmp_path)], tmp_path / "new.gz")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt"])
def test_what_stands_before_the_end_of_a_cut_file_is_read(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}.gz"
    start = b"content\n" if suffix == ".csv" else b""
    between = b"\n\n" if suffix == ".txt" else b"\n"
    body = noise(5000) if suffix == ".jsonl" else b"".join(b"%x%b" % (n**40, between) for n in range(1, 5000))
    whole.write_bytes(start + body)
    packing = gzip.compress(start + body)
    cut.write_bytes(packing[: len(packing) // 2])
    wanted = told(whole)

    *found, refused = read(cut)

    assert isinstance(refused, Refused)
    places = [(one.place.line, one.episode.episode_id) for one in found if isinstance(one, Found)]
    assert len(places) == len(found) > 1000
    assert places == [one[:2] for one in wanted[: len(places)]], "with the ids of the whole file"
    last, first_left = wanted[len(places) - 1][0], wanted[len(places)][0]
    assert last <= refused.place.line <= first_left, (
        "the first that is left out is the one that is named, or ends there"
    )
    assert str(refused.error).startswith("the gzip file is cut off in this line (what ended before it is taken; give")
    assert list(refused.raw) == []


def test_damage_is_named_with_the_line_that_it_was_met_in(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    packing = bytearray(gzip.compress(noise(40_000), 0))
    block = 10
    while block < 1 << 19:  # further than any version of the library reads at a time
        block += 5 + int.from_bytes(packing[block + 1 : block + 3], "little")
    packing[block] = 0xFF  # no kind of block
    path.write_bytes(packing)
    *found, refused = read(path)
    assert isinstance(refused, Refused)
    assert "the gzip file is damaged here or before: Error -3" in str(refused.error)
    assert "a line before it may be wrong; give the whole file again" in str(refused.error)
    assert refused.place.line == len(found) + 1 > 10
    wrong_sum = gzip.compress(b'{"content": "a"}\n')
    path.write_bytes(wrong_sum[:-8] + b"\0" * 8)
    found_first, refused = read(path)
    assert isinstance(found_first, Found)
    assert isinstance(refused, Refused)
    assert (refused.place, "CRC" in str(refused.error)) == (Place(str(path), 2), True)
    (tmp_path / "b.jsonl").write_bytes(b'{"content": "b"}\n')
    assert len(read(path, tmp_path / "b.jsonl")) == 3, "other files are read all the same"


def test_what_unpacks_to_very_much_takes_neither_memory_nor_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "KEPT_BYTES", 5_000_000)
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as out:
        for _ in range(60):
            out.write(b"x" * 1_000_000)
        out.write(b'\n{"content": "after"}\n')
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    refused, found = read_files([str(path)], session_id="s", stdin=io.BytesIO())
    assert isinstance(refused, Refused)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "60000001 bytes are more than a line may have" in str(refused.error)
    assert isinstance(found, Found)
    assert found.place.line == 2
    assert peak < 5 * records.MAX_RECORD_BYTES


def test_what_is_kept_of_a_very_long_line_is_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "KEPT_BYTES", 3_000_000)
    (record,) = records.lines(io.BytesIO(b"abc" * 2_000_000))
    assert record.overlong is not None
    assert b"".join(record.overlong) == b"abc" * 1_000_000
    record.overlong.close()


def test_packing_goes_by_the_name_and_is_the_same_each_time(tmp_path: Path) -> None:
    def written(name: str) -> bytes:
        out = io.BytesIO()
        with packed(out, name) as stream:
            stream.write(json.dumps({"content": "a"}).encode())
        return out.getvalue()

    assert written("a.jsonl") == b'{"content": "a"}'
    assert gzip.decompress(written("a.jsonl.gz")) == written("a.jsonl")
    assert written("a.jsonl.gz") == written("b.jsonl.GZ")
