"""What an evaluation takes besides encoding, on SciFact; the limits are far above what it takes.

On two cores, with other work beside it: search, measures, report and plots 0.7 s; the callback's
share 1 % of encoding with the demo's model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import normalize

from cut_sets import cut_set
from helpers.conventions import convention
from helpers.models import letter_tokenizer, tiny_bi_encoder
from helpers.training import loader_of, quiet_trainer
from quarry.data.beir import read_beir
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars
from quarry.evaluation.report import write_report
from quarry.evaluation.scatter import plot_scatter
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation
from quarry.types import RetrievalSet, Run


@pytest.fixture(scope="module")
def scifact(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RetrievalSet:
    cache = tmp_path_factory.mktemp("cache")
    return read_beir(path=shared_data / "scifact", split="test", cache_dir=cache)


@pytest.fixture(scope="module")
def part_of_scifact(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RetrievalSet:
    """A fifth of it: encoding takes nearly all of the time at any size."""
    folder = tmp_path_factory.mktemp("sets")
    cut = cut_set(shared_data / "scifact", folder / "scifact", num_queries=60, num_documents=1000)
    return read_beir(path=cut, split="test", cache_dir=folder / "cache")


def an_evaluator(data: RetrievalSet) -> Evaluator:
    return Evaluator(
        benchmark=Benchmark(name="b", sets=[BenchmarkSet(name="scifact", load=lambda: data)]),
        measures=["nDCG@10", "Recall@100", "MRR@10"],
        top_k=100,
        convention=convention(),
    )


class GivenEmbeddings:
    """Searches random embeddings of the size of a 0.6B model's."""

    name = "given"
    uses_encoder = False

    def __init__(self, data: RetrievalSet) -> None:
        generator = torch.Generator().manual_seed(0)
        self.queries, self.documents = (
            normalize(torch.randn(len(texts), 1024, generator=generator), dim=1)
            for texts in (data.queries, data.corpus)
        )

    def retrieve(self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None) -> Run:
        return ExactIndex().search(
            query_ids=[query.query_id for query in dataset.queries],
            queries=self.queries,
            document_ids=[document.document_id for document in dataset.corpus],
            documents=self.documents,
            top_k=top_k,
        )


def test_search_measures_report_and_plots(scifact: RetrievalSet, tmp_path: Path) -> None:
    import matplotlib.figure  # noqa: F401 (imports do not count)
    import pytrec_eval  # noqa: F401

    evaluator, retriever = an_evaluator(scifact), GivenEmbeddings(scifact)
    start = time.perf_counter()
    report = evaluator.evaluate(retriever)
    known = write_report([report], tmp_path)
    plot_bars(known, tmp_path / "plots" / "results.png")
    plot_scatter(report, report, tmp_path / "plots" / "queries.png", measure="nDCG@10")
    assert time.perf_counter() - start < 5


class Timed(Encoder):
    """Adds up the seconds of encoding."""

    seconds = 0.0

    def encode(self, *args: Any, **more: Any) -> Any:
        start = time.perf_counter()
        encoded = super().encode(*args, **more)
        Timed.seconds += time.perf_counter() - start
        return encoded

    def encode_share(self, *args: Any, **more: Any) -> Any:
        start = time.perf_counter()
        encoded = super().encode_share(*args, **more)
        Timed.seconds += time.perf_counter() - start
        return encoded


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = tiny_bi_encoder()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


class Clock(pl.Callback):
    """Between the callbacks before it and those after it."""

    def __init__(self) -> None:
        self.time = 0.0

    def on_test_epoch_end(self, *_: Any) -> None:
        self.time = time.perf_counter()


def test_the_callback_costs_little_beside_encoding(part_of_scifact: RetrievalSet) -> None:
    prompt = Prompt(max_query_length=64, max_document_length=256)
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    evaluation = RetrievalEvaluation(
        evaluator=an_evaluator(part_of_scifact),
        retriever=DenseRetriever(index=ExactIndex()),
        build_encoder=lambda model: Timed(
            model=model,  # type: ignore[arg-type]
            tokenizer=tokenizer,
            max_tokens_per_batch=16_384,
        ),
        on_report=lambda report: None,
        num_examples=5,
    )
    before, after = Clock(), Clock()
    trainer = quiet_trainer(before, evaluation, after)
    trainer.test(Module(), loader_of([torch.tensor(0.0)]), verbose=False)
    assert after.time - before.time - Timed.seconds < 0.1 * Timed.seconds
