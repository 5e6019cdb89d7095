"""Long texts are cut into overlapping windows that lose nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ww_core.embedding import TextRefused
from ww_core.embedding.source import locate
from ww_core.embedding.tokens import SLICE_PIECES, WordPieces


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces(locate("all-MiniLM-L6-v2"))


PROSE = " ".join(f"Sentence {i} tells of thing{i}, and of nothing else whatsoever." for i in range(300))
HARD = {
    "prose": PROSE,
    "no space at all": "https://example.org/" + "".join(f"abc{i}/" for i in range(900)),
    "one endless word": "x" * 5000,
    "no spaces, wide characters": "".join(f"東京は日本の{i}首都です。" for i in range(200)),
    "white space": "\n\t " * 500 + PROSE + " " * 700,
    "emoji": "".join(f"🙂👩‍👩‍👧{i} " for i in range(800)),
    "combining": "".join(f"é̂{i}" for i in range(900)),
}


def places(text: str, windows: list[str]) -> list[tuple[int, int]]:
    """Where each window lies in ``text``, each searched from where the one before began."""
    found, start = [], 0
    for window in windows:
        start = text.index(window, start)
        found.append((start, start + len(window)))
    return found


@pytest.mark.parametrize("name", HARD)
def test_windows_cover_the_whole_text_and_fit(pieces: WordPieces, name: str) -> None:
    text = HARD[name]
    windows = pieces.windows(text)
    covered = 0
    for start, end in places(text, windows):
        assert start <= covered
        covered = max(covered, end)
    assert covered == len(text)
    assert all(len(ids) <= pieces.max_tokens for ids in pieces.ids(windows))


def test_windows_overlap_and_hold_every_word(pieces: WordPieces) -> None:
    windows = pieces.windows(PROSE)
    spans = places(PROSE, windows)
    assert len(spans) > 5
    assert all(after[0] < before[1] for before, after in pairwise(spans))
    held = {word for window in windows for word in window.split()}
    assert held >= set(PROSE.split())


def test_windows_end_between_sentences_where_one_ends_near(pieces: WordPieces) -> None:
    assert all(window.rstrip().endswith(".") for window in pieces.windows(PROSE))


def test_the_last_window_is_short_so_that_an_ending_is_found(pieces: WordPieces) -> None:
    for cut in range(0, 600, 40):
        *_, last = pieces.ids(pieces.windows(PROSE[cut:]))
        assert 20 <= len(last) <= SLICE_PIECES // 2 + 2


def test_a_text_that_fits_is_its_own_window(pieces: WordPieces) -> None:
    assert pieces.windows("short") == ["short"]
    assert pieces.windows("") == [""]


def test_batches_hold_like_lengths_within_both_bounds(pieces: WordPieces) -> None:
    ids = [[101, *range(1000, 1000 + n % 97), 102] for n in range(500)]
    batches = list(pieces.batches(ids, rows=16, tokens=512))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(500))
    assert all(len(batch.rows) <= 16 and batch.ids.size <= 512 for batch in batches)
    padded = sum(batch.ids.size for batch in batches)
    assert padded <= 1.05 * sum(map(len, ids))
    for batch in batches:
        for line, row in enumerate(batch.rows):
            assert batch.ids[line, : int(batch.mask[line].sum())].tolist() == ids[row]


def test_padding_is_bounded_where_another_pass_costs_less(pieces: WordPieces) -> None:
    ids = [[101, *range(1000, 1000 + n % 97), 102] for n in range(500)]
    batches = list(pieces.batches(ids, rows=16, tokens=512, padding=8))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(500))
    assert max(batch.ids.size - batch.tokens for batch in batches) <= 8
    assert sum(batch.ids.size for batch in batches) <= 1.02 * sum(map(len, ids))


def test_a_text_beyond_the_window_is_cut_with_its_closing_token(pieces: WordPieces) -> None:
    [ids] = pieces.ids([PROSE])
    [batch] = pieces.batches([ids], rows=1, tokens=10)
    assert batch.ids.shape == (1, pieces.max_tokens)
    assert batch.ids[0, -1] == ids[-1]


@pytest.mark.parametrize("parallel", [False, True])
def test_a_lone_surrogate_is_refused_by_place(parallel: bool) -> None:
    pieces = WordPieces(locate("all-MiniLM-L6-v2"), parallel=parallel)
    with pytest.raises(TextRefused, match="text 1") as refused:
        pieces.ids(["good", "bad \ud800"])
    assert refused.value.index == 1
