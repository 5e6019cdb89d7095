"""Word pieces of texts, long texts as overlapping windows, and windows as batches without padding waste."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ww_core.embedding.errors import TextRefused
from ww_core.errors import ModelUnavailable

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from ww_core.embedding.source import ModelSource

OVERLAP = 0.125  # share of a window that the next one repeats, so that no sentence is seen only in halves
_SENTENCE_MARKS = (".", "!", "?", '."', '!"', '?"', ".)")
_WIDE_SENTENCE_MARKS = ("。", "！", "？")  # no space follows these
# Of a text that does not fit the model. A sentence among 250 word pieces is too diluted to be found by a paraphrase:
# its cosine to it, measured over three kinds of prose, rises by a fifth with half of that and many rivals fall behind.
SLICE_PIECES = 126
_SENTENCE_REACH = 0.25  # share of a window that may be given up to end it between two sentences


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of one forward pass. ``ids`` and ``mask`` are int64 (b, t); ``rows`` are their places in the input."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    rows: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Word pieces without padding."""
        return int(self.mask.sum())


class WordPieces:
    """The model's own tokenizer, without its truncation and padding. Thread-safe."""

    def __init__(self, source: ModelSource, *, parallel: bool = False) -> None:
        self._tokenizer, pad = _load(source)
        self._specials: int = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._pad = pad
        self._parallel = parallel
        self.max_tokens = source.max_tokens
        self.window_tokens = max(1, source.max_tokens - self._specials)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Word piece ids of each text with special tokens, never truncated. Raises TextRefused."""
        if self._parallel and len(texts) > 1:
            try:
                return [e.ids for e in self._tokenizer.encode_batch_fast(list(texts))]
            except (TypeError, UnicodeError, ValueError):
                pass  # one text is at fault: the loop below says which
        return [self._ids(text, index) for index, text in enumerate(texts)]

    def _ids(self, text: str, index: int) -> list[int]:
        try:
            (encoding,) = self._tokenizer.encode_batch_fast([text])  # without places: a fifth less time
        except (TypeError, UnicodeError, ValueError) as error:
            raise _refused(error, index) from error
        ids: list[int] = encoding.ids
        return ids

    def _encode(self, text: str) -> Encoding:
        try:
            return self._tokenizer.encode(text)
        except (TypeError, UnicodeError, ValueError) as error:
            raise _refused(error, -1) from error

    def windows(self, text: str, *, limit: int | None = None) -> list[str]:
        """``[text]`` where it has at most ``limit`` word pieces (default ``window_tokens``), else overlapping slices.

        Slices have at most ``SLICE_PIECES`` word pieces, come in order and together hold every word of the text. They
        begin at words, and end between sentences where one ends near; the last one is short.
        """
        limit = limit or self.window_tokens
        encoding = self._encode(text)
        if len(encoding.ids) - self._specials <= limit:
            return [text]
        limit = min(limit, SLICE_PIECES)
        slices: list[str] = []
        for start, end in self._cuts(text, encoding, limit):
            part = text[start:end]
            # A cut inside a word can tokenise into more pieces than it had: then the slice is cut again.
            if len(self._encode(part).ids) - self._specials <= limit or len(part) < 2:
                slices.append(part)
            else:
                middle = len(part) // 2
                slices += self.windows(part[:middle], limit=limit) + self.windows(part[middle:], limit=limit)
        return slices

    def _cuts(self, text: str, encoding: Encoding, limit: int) -> Iterator[tuple[int, int]]:
        spans = [
            span for span, special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not special
        ]
        words = [w for w, special in zip(encoding.word_ids, encoding.special_tokens_mask, strict=True) if not special]
        opens = [True] + [a != b or a is None for a, b in pairwise(words)]  # whether a token begins a word
        overlap = max(1, int(limit * OVERLAP))
        start = 0
        while True:
            left = spans[start][0] if start else 0
            if len(spans) - start <= limit // 2:
                yield left, len(text)
                return
            # What is left for the last slice is at most half of one: an ending is no less findable than the rest.
            end = _word_start(opens, min(start + limit, len(spans) - limit // 4), lowest=start + limit // 4)
            end = _sentence_start(text, spans, opens, end, lowest=end - int(limit * _SENTENCE_REACH))
            end = max(end, start + overlap + 1)
            yield left, spans[end][0]
            start = max(start + 1, _word_start(opens, end - overlap, lowest=start + 1))

    def batches(
        self, ids: Sequence[Sequence[int]], *, rows: int, tokens: int, padding: int | None = None, step: int = 1
    ) -> Iterator[Batch]:
        """Batches of like length, longest first: at most ``rows`` texts and ``tokens`` padded word pieces each.

        ``padding``: how many of a batch's word pieces may be padding; None for any number. Widths are multiples of
        ``step``, or the model's window. Texts beyond that window are cut to it.
        """
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        taken = 0
        while taken < len(order):
            width = min(-(-len(ids[order[taken]]) // step) * step, self.max_tokens)
            most = min(max(1, min(rows, tokens // max(1, width))), len(order) - taken)
            count, padded = 1, 0
            while count < most and (padding is None or padded <= padding):
                padded += max(0, width - len(ids[order[taken + count]]))
                if padding is None or padded <= padding:
                    count += 1
            yield self._batch(ids, tuple(order[taken : taken + count]), width)
            taken += count

    def _batch(self, ids: Sequence[Sequence[int]], rows: tuple[int, ...], width: int) -> Batch:
        matrix = np.full((len(rows), width), self._pad, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for line, row in enumerate(rows):
            pieces = self._cut(ids[row])
            matrix[line, : len(pieces)] = pieces
            mask[line, : len(pieces)] = 1
        return Batch(matrix, mask, rows)

    def _cut(self, pieces: Sequence[int]) -> Sequence[int]:
        if len(pieces) <= self.max_tokens:
            return pieces
        # keep the closing special token, as the model saw it in training
        tail = 1 if self._specials > 1 else 0
        return [*pieces[: self.max_tokens - tail], *pieces[len(pieces) - tail :]]


def _refused(error: Exception, index: int) -> TextRefused:
    return TextRefused(f"text {index} cannot be tokenised: {error}", hint="text must be valid Unicode", index=index)


def _load(source: ModelSource) -> tuple[Tokenizer, int]:
    """The tokenizer, and the id it pads with."""
    from tokenizers import Tokenizer, normalizers

    file = source.transformer / "tokenizer.json"
    if file.exists():
        tokenizer = Tokenizer.from_file(str(file))
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(source.transformer), local_files_only=True).backend_tokenizer
        except (OSError, ValueError, AttributeError) as error:
            raise ModelUnavailable(f"{source.transformer} has no usable tokenizer: {error}") from error
    pad = tokenizer.token_to_id(source.pad_token) if source.pad_token else None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if source.lowercase:
        own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return tokenizer, pad or 0


def _word_start(opens: Sequence[bool], token: int, *, lowest: int) -> int:
    """The nearest token at or before ``token`` that begins a word, or ``token`` where the word is too long to leave."""
    for candidate in range(token, max(lowest, 0) - 1, -1):
        if candidate < len(opens) and opens[candidate]:
            return candidate
    return token


def _sentence_start(
    text: str, spans: Sequence[tuple[int, int]], opens: Sequence[bool], token: int, *, lowest: int
) -> int:
    for candidate in range(token, max(lowest, 1) - 1, -1):
        if opens[candidate] and _ends_sentence(text[spans[max(candidate - 2, 0)][0] : spans[candidate][0]]):
            return candidate
    return token


def _ends_sentence(before: str) -> bool:
    """Whether a sentence ends with this text, which includes the white space that follows."""
    closed = before.rstrip()
    if "\n" in before[len(closed) :] or closed.endswith(_WIDE_SENTENCE_MARKS):
        return True
    return closed != before and closed.endswith(_SENTENCE_MARKS)


__all__ = ["OVERLAP", "SLICE_PIECES", "Batch", "WordPieces"]
