"""BM25 weights are what the formula says, for documents and queries alike."""

from __future__ import annotations

import numpy as np
import pytest

from ww_core.embedding.sparse import K1, B, SparseEncoder, _rounded
from ww_core.errors import ConfigurationError

TEXT = "The deploys failed: deploying api-7 failed, out of disk failed"  # deploy 2, fail 3, api, 7, disk


def expected(frequency: int, length: int, average: float) -> float:
    return frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length / average))


def test_document_weights_follow_bm25() -> None:
    sparse = SparseEncoder()
    vector = sparse.document(TEXT, average_length=8.0)
    weights = sorted(vector.values.tolist())
    assert len(weights) == 5
    assert weights[-1] == pytest.approx(expected(3, 8, 8.0), rel=0.03)
    assert weights[-2] == pytest.approx(expected(2, 8, 8.0), rel=0.03)
    assert weights[0] == pytest.approx(expected(1, 8, 8.0), rel=0.03)


def test_several_average_lengths_of_one_reading_are_what_the_engine_computes() -> None:
    import qdrant_edge

    text = TEXT + " disk" * 40
    averages = (16.0, 120.0)
    (found,) = SparseEncoder().documents([text], averages)
    for average, vector in zip(averages, found, strict=True):
        config = qdrant_edge.Bm25Config(k=K1, b=B, avg_len=_rounded(average), language="english")
        made = qdrant_edge.Bm25(config).embed_document(text)
        assert dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True)) == pytest.approx(
            dict(zip(made.indices, made.values, strict=True)), rel=1e-6
        )


def test_many_texts_at_once_are_the_same_as_one_by_one() -> None:
    texts = ["disk full on api-7", "the of and", "", "a disk, a disk and words in no order: zeta alpha mu", TEXT]
    sparse = SparseEncoder()
    together = sparse.documents(texts, (None, 80.0))
    assert len(together) == len(texts)
    for text, vectors in zip(texts, together, strict=True):
        for average, vector in zip((None, 80.0), vectors, strict=True):
            alone = sparse.document(text, average_length=average)
            assert vector.indices.tolist() == alone.indices.tolist()
            assert vector.values.tolist() == alone.values.tolist()
    assert sparse.documents([], (None,)) == []


def test_longer_collections_weigh_a_text_higher() -> None:
    sparse = SparseEncoder()
    assert sparse.document(TEXT, average_length=64).values.sum() > sparse.document(TEXT, average_length=4).values.sum()


def test_a_query_meets_the_document_it_is_about() -> None:
    sparse = SparseEncoder()
    document, query = sparse.document(TEXT), sparse.query("why did the deployment fail? fail!")
    assert query.values.tolist() == [1.0] * len(query.values)
    assert set(query.indices.tolist()) & set(document.indices.tolist())


def test_indices_ascend() -> None:
    vector = SparseEncoder().document(" ".join(f"word{i}" for i in range(200)))
    assert np.all(np.diff(vector.indices.astype(np.int64)) > 0)
    assert (vector.indices.dtype, vector.values.dtype) == (np.uint32, np.float32)


def test_stop_words_alone_give_an_empty_vector() -> None:
    assert len(SparseEncoder().query("the of and").indices) == 0


def test_length_counts_terms_after_stop_words() -> None:
    assert SparseEncoder().length(TEXT) == 8.0
    assert SparseEncoder().length("the") == 0.0
    assert SparseEncoder().length("disk " * 300) == 300.0


def test_the_language_sets_stop_words_and_stems() -> None:
    german = SparseEncoder("german")
    assert len(german.query("der die das").indices) == 0
    assert german.query("Häuser").indices.tolist() == german.query("Häusern").indices.tolist()


def test_an_unknown_language_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="klingon"):
        SparseEncoder("klingon")
