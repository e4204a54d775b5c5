"""Texts in, ranked documents out: dense, and fused with BM25."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.indexes import made_index, unit_vectors
from quarry.errors import UserError
from quarry.search.searcher import Searcher
from quarry.types import Query


class RowEncoder:
    """Encodes "dN ..." as the vector of document N."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.vectors = torch.from_numpy(unit_vectors(50))

    def encode(self, items: Sequence[Query], role: str, *, label: str = "") -> torch.Tensor:
        assert role == "query"
        return self.vectors[[int(item.text.split()[0][1:]) for item in items]]


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return Searcher(made_index(tmp_path_factory.mktemp("index") / "own"), RowEncoder())


def test_each_text_has_its_documents(searcher: Searcher) -> None:
    found = searcher.search(["d7", "d30"], 3)
    assert [[hits[0].document.document_id, len(hits)] for hits in found] == [["d7", 3], ["d30", 3]]
    scores = [hit.score for hit in found[0]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1, abs=1e-3)
    assert isinstance(scores[0], float)
    assert searcher.search([], 3) == []
    assert len(searcher.search(["d1"], 1000)[0]) == 50


def test_hybrid_fuses_ranks(searcher: Searcher) -> None:
    """d7 is first by its vector, d30 by its word; each is somewhere in or out of the other."""
    (hits,) = searcher.search(["d7 word30"], 3, hybrid=True)
    ids = [hit.document.document_id for hit in hits]
    assert ids[0] == "d30"  # first by words, and in the list by vectors
    assert len(hits) == 3
    dense = [hit.document.document_id for hit in searcher.search(["d7"], 100)[0]]
    assert hits[0].score == pytest.approx(1 / 61 + 1 / (61 + dense.index("d30")), abs=1e-7)


def test_hybrid_without_a_common_word_is_the_dense_ranking(searcher: Searcher) -> None:
    (hits,) = searcher.search(["d7"], 5, hybrid=True)
    (dense,) = searcher.search(["d7"], 5)
    assert [hit.document for hit in hits] == [hit.document for hit in dense]


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_query_is_refused(searcher: Searcher, text: str) -> None:
    with pytest.raises(UserError, match="query 2 of 2: is empty"):
        searcher.search(["d1", text], 3)


def test_wrong_arguments_are_refused(searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="top_k=0"):
        searcher.search(["d1"], 0)
    with pytest.raises(UserError, match="a list of texts is needed"):
        searcher.search("d1")
    bare = Searcher(made_index(tmp_path / "bare", bm25=None), RowEncoder())
    with pytest.raises(UserError, match="has no BM25"):
        bare.search(["d1"], hybrid=True)


def test_embeddings_that_are_not_finite(searcher: Searcher) -> None:
    encoder = RowEncoder()
    encoder.vectors = encoder.vectors.clone()
    encoder.vectors[3] = float(np.nan)
    with pytest.raises(UserError, match="NaN"):
        Searcher(searcher.index, encoder).search(["d3"])
