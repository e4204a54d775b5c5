"""Scores of a bi-encoder are the inner products of its embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.rerankers import PAIRS
from helpers.stores import stored, tiny_encoder
from quarry.retrieval.rerankers import inner_products
from quarry.retrieval.rerankers.inner_products import InnerProducts


def test_scores_are_inner_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_products, "NUM_PAIRS_AT_A_TIME", 3)
    encoder = tiny_encoder()
    queries = encoder.encode([query for query, _ in PAIRS[:6]], "query")
    documents = encoder.encode([document for _, document in PAIRS[:6]], "document")
    wanted = (queries @ documents.T).diagonal().numpy()
    for each in (encoder, stored(tmp_path / "store", encoder=encoder)):
        found = InnerProducts(each).score(PAIRS[:6], label="pairs")
        np.testing.assert_allclose(found.scores, wanted, atol=1e-6)
        assert found.num_unique == 5
        assert len(set(found.scores.tolist())) == 5
