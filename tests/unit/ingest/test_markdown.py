"""Code blocks of Markdown stay whole where an episode has room for them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww_core.ingest.files import Found, Refused, read_files
from ww_core.ingest.markdown import whole_fences
from ww_core.ingest.records import lines
from ww_core.models import MAX_CONTENT_CHARS


def read(tmp_path: Path, text: str, name: str = "a.md") -> list[tuple[int, str]]:
    """Line and content of every episode."""
    path = tmp_path / name
    path.write_bytes(text.encode())
    found = list(read_files([str(path)], session_id="s", stdin=io.BytesIO()))
    assert all(isinstance(one, Found) for one in found), found
    return [(one.place.line, one.episode.content) for one in found if isinstance(one, Found)]


def test_a_block_may_open_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeff```\na\n\nb\n```\n\none\n\ntwo\n\n```\nc\n\nd\n```\n"
    assert [content for _, content in read(tmp_path, text)] == ["```\na\n\nb\n```", "one", "two", "```\nc\n\nd\n```"]


@pytest.mark.parametrize(
    "block",
    [
        "```\na\n\nb\n```",
        "```python\na\n\n\n\nb\n```",
        "~~~~ `x`\na\n\n~~~\n\n```\n\nb\n~~~~~",
        "Like so:\n```\r\n\r\na\r\n```\r\nand not otherwise.",
        "- a list\n\t```sh\n\n\tls\n\n\t```  \n- more",
        "```\n\n# no comment\n\n``` not closed\n\n```",
        "```\n\n```\n~~~\n\n~~~",
    ],
)
def test_blank_lines_inside_a_block_end_no_episode(tmp_path: Path, block: str) -> None:
    assert read(tmp_path, f"before\n\n{block}\n\nafter\n") == [
        (1, "before"),
        (3, block),
        (4 + len(block.splitlines()), "after"),
    ]


@pytest.mark.parametrize(
    "text", ["```\na\n\nb\n\nc\n", "``\na\n\nb\n\n``", "``` a`b\na\n\nb\n\n```", "text ```\na\n\nb\n\n```"]
)
def test_what_is_no_whole_block_is_cut_at_its_blank_lines(tmp_path: Path, text: str) -> None:
    assert [content for _, content in read(tmp_path, text)] == text.strip().split("\n\n")


def test_a_block_that_is_too_long_for_an_episode_is_cut(tmp_path: Path) -> None:
    half = "é" * (MAX_CONTENT_CHARS // 2)
    assert read(tmp_path, f"a\n```\n\n{half}\n\n{half}\n\n```\n\n```\n\nb\n```") == [
        (1, "a\n```"),
        (4, half),
        (6, half),
        (8, "```"),
        (10, "```\n\nb\n```"),
    ]
    fits = f"```\n{half}\n\n{'é' * (MAX_CONTENT_CHARS // 2 - 10)}\n```"
    assert len(fits) == MAX_CONTENT_CHARS
    assert read(tmp_path, fits) == [(1, fits)]
    assert [line for line, _ in read(tmp_path, f"intro\n{fits}")] == [1, 5], "the paragraph would have no room for it"


@given(st.lists(st.sampled_from([b"```", b"~~~", b"~~~~", b"", b"  ", b"```x", b"a", b"b" * 30_000])))
def test_every_line_comes_through_in_its_order_and_only_blank_ones_end_anything(some: list[bytes]) -> None:
    stream = b"\n".join(some)
    marked = list(whole_fences(lines(io.BytesIO(stream))))
    assert b"".join(record.data for record, _ in marked) == stream
    assert all(not record.data.strip() for record, ends in marked if ends)


def test_plain_text_knows_no_blocks(tmp_path: Path) -> None:
    assert [content for _, content in read(tmp_path, "```\na\n\nb\n```", "a.txt")] == ["```\na", "b\n```"]


def test_a_block_with_an_overlong_line_is_cut_and_the_line_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"```\n\n" + b"x" * 3_000_000 + b"\n\nb\n```\n")
    first, refused, last = read_files([str(path)], session_id="s", stdin=io.BytesIO())
    assert isinstance(refused, Refused)
    assert isinstance(first, Found)
    assert isinstance(last, Found)
    assert (refused.place.line, first.episode.content, last.episode.content) == (3, "```", "b\n```")
