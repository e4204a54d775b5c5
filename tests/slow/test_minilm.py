"""A real published retriever, all-MiniLM-L6-v2, measured as its folder says.

The numbers of `eval.py` are those of sentence-transformers' embeddings under mteb's own evaluator,
and so are the embeddings of variants of the folder that sentence-transformers has saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

from cut_sets import cut_set
from helpers.commands import quiet_environment, run_command
from helpers.embedding import embedded
from helpers.mteb_tasks import scores_of
from helpers.real_models import cached_model
from quarry.data.beir import read_beir
from quarry.metrics.run_files import read_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_QUERIES, NUM_DOCUMENTS = 30, 110
NUM_COMPARED = 10
"""Of queries and of documents whose embeddings are compared variant by variant."""

PROMPTS = {"query": "query: ", "document": "passage: "}
TOLERANCE = 1e-5
"""In fp32: packed here and padded there differ by summation order alone."""


@pytest.fixture(scope="session")
def minilm() -> Path:
    return cached_model("all-minilm-l6-v2", target="minilm")


@pytest.fixture(scope="module")
def small_scifact(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_set(
        shared_data / "scifact",
        tmp_path_factory.mktemp("sets") / "scifact",
        num_queries=NUM_QUERIES,
        num_documents=NUM_DOCUMENTS,
    )


class TheirEncoder:
    """The folder as sentence-transformers loads it, as mteb asks for it."""

    mteb_model_meta = mteb.models.ModelMeta.create_empty({"name": "test/minilm"})

    def __init__(self, folder: Path) -> None:
        self.model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Tensor:
        is_query = getattr(prompt_type, "value", prompt_type) == "query"
        encode = self.model.encode_query if is_query else self.model.encode_document
        texts = [text for batch in inputs for text in batch["text"]]
        return encode(texts, convert_to_tensor=True, show_progress_bar=False)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        return mteb.similarity_functions.cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        return mteb.similarity_functions.pairwise_cos_sim(embeddings1, embeddings2)


def test_numbers_are_those_of_sentence_transformers_and_mteb(
    minilm: Path, small_scifact: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = run_command(
        "eval.py", f"model.path={minilm}", "benchmark=folder", f"benchmark.path={small_scifact}",
        "convention=mteb", "logger=none", f"hydra.run.dir={run}",
        "evaluation.max_tokens_per_batch=2048",
        environment=quiet_environment(tmp_path), timeout_s=300,
    )  # fmt: skip
    assert result.code == 0, result.err
    metrics = json.loads((run / "metrics.json").read_text())
    data = read_beir(path=small_scifact, split="test", cache_dir=tmp_path / "cache")
    theirs = TheirEncoder(minilm)
    expected = scores_of(data, mteb.get_task("SciFact"), theirs)
    assert metrics["sets"]["scifact"]["dense"] == pytest.approx(expected, abs=TOLERANCE)
    queries = theirs.model.encode_query([q.text for q in data.queries], convert_to_tensor=True)
    texts = [f"{document.title} {document.text}".strip() for document in data.corpus]
    documents = theirs.model.encode_document(texts, convert_to_tensor=True)
    scores = (queries @ documents.T).tolist()
    place = {document.document_id: index for index, document in enumerate(data.corpus)}
    found = read_run(run / "runs" / "scifact.dense.trec")
    for query, row in zip(data.queries, scores, strict=True):
        ranked = found[query.query_id]
        assert len(ranked) == 100
        for document_id, score in ranked.items():
            assert score == pytest.approx(row[place[document_id]], abs=TOLERANCE)
    sources = {key: fact["source"] for key, fact in metrics["contract"]["dense"]["parts"].items()}
    assert sources["model.pooling"] == "1_Pooling/config.json"
    length = sources["prompt.max_document_length"]
    assert length == "sentence_bert_config.json (max_seq_length)"


def saved_with(minilm: Path, folder: Path, *modules: Any, **more: Any) -> Path:
    transformer = SentenceTransformer(str(minilm), device="cpu", local_files_only=True)[0]
    SentenceTransformer(modules=[transformer, *modules], device="cpu", **more).save(
        str(folder), create_model_card=False
    )
    return folder


def dense(minilm: Path, folder: Path) -> Path:
    torch.manual_seed(0)
    return saved_with(minilm, folder, Pooling(384), Dense(384, 128), Normalize())


VARIANTS: dict[str, Callable[[Path, Path], Path]] = {
    "dense": dense,
    "cls": lambda minilm, folder: saved_with(minilm, folder, Pooling(384, "cls"), Normalize()),
    "prompts": lambda minilm, folder: saved_with(
        minilm, folder, Pooling(384), Normalize(), prompts=PROMPTS
    ),
    "include_prompt=false": lambda minilm, folder: saved_with(
        minilm, folder, Pooling(384, "mean", include_prompt=False), Normalize(),
        prompts=PROMPTS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_that_sentence_transformers_saved(
    name: str, minilm: Path, small_scifact: Path, tmp_path: Path
) -> None:
    folder = VARIANTS[name](minilm, tmp_path / "folder")
    data = read_beir(path=small_scifact, split="test", cache_dir=tmp_path / "cache")
    queries, documents = data.queries[:NUM_COMPARED], list(data.corpus[:NUM_COMPARED])
    theirs = TheirEncoder(folder).model
    texts = [f"{document.title} {document.text}" for document in documents]
    expected = [
        theirs.encode_query([query.text for query in queries], convert_to_tensor=True),
        theirs.encode_document(texts, convert_to_tensor=True),
    ]
    for one, other in zip(embedded(folder, queries, documents)[0], expected, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)
