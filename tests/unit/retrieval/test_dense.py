"""Dense retrieval is encoding, an inner product and a sort."""

from __future__ import annotations

import pytest
import torch

from helpers.models import letter_tokenizer, tiny_bi_encoder
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.pooling.last_token import LastToken
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.types import Document, Query, RetrievalSet

DATASET = RetrievalSet(
    name="letters",
    queries=[Query(query_id=f"q{i}", text=text) for i, text in enumerate(["abc", "xyz", ""])],
    corpus=[
        Document(document_id=f"d{i}", text=text, title=title)
        for i, (title, text) in enumerate(
            [("", "abc"), ("ab", "c"), ("", "xyz"), ("", ""), ("m", "nop"), ("", "qrs")]
        )
    ],
    qrels={"q0": {"d0": 1}, "q1": {"d2": 1}, "q2": {"d3": 1}},
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """Queries and documents without a prompt, so that equal texts have equal embeddings."""
    return Encoder(
        model=tiny_bi_encoder(pooling=LastToken()),
        tokenizer=TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt()),
        max_tokens_per_batch=16,
    )


def test_a_text_finds_itself(encoder: Encoder) -> None:
    run = DenseRetriever(index=ExactIndex()).retrieve(DATASET, top_k=3, encoder=encoder)
    assert list(run) == ["q0", "q1", "q2"]
    assert all(len(scores) == 3 for scores in run.values())
    # "ab" and "c" joined are the tokens of "abc": both score 1, and the greater id is first
    assert list(run["q0"])[:2] == ["d1", "d0"]
    assert (next(iter(run["q1"])), next(iter(run["q2"]))) == ("d2", "d3")
    assert [max(scores.values()) for scores in run.values()] == pytest.approx([1, 1, 1], abs=1e-5)


def test_scores_are_inner_products_best_first(encoder: Encoder) -> None:
    run = DenseRetriever(index=ExactIndex(num_documents_per_chunk=2)).retrieve(
        DATASET, top_k=10, encoder=encoder
    )
    queries = encoder.encode(DATASET.queries, "query")
    documents = encoder.encode(DATASET.corpus, "document")
    for i, scores in enumerate(run.values()):
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        expected = {f"d{j}": torch.dot(queries[i], documents[j]).item() for j in range(6)}
        assert scores == pytest.approx(expected, abs=1e-6)


def test_without_an_encoder_is_our_own_mistake() -> None:
    retriever = DenseRetriever(index=ExactIndex())
    assert (retriever.name, retriever.uses_encoder) == ("dense", True)
    with pytest.raises(AssertionError, match="needs an encoder"):
        retriever.retrieve(DATASET, top_k=3)
