"""When training is evaluated, under which names it is logged, and what is remembered."""

from __future__ import annotations

from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger

from helpers.conventions import convention
from helpers.training import OneNumber, loader_of, quiet_trainer
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.encoder import Encoder
from quarry.training.callbacks.retrieval_evaluation import (
    RetrievalEvaluation,
    measure_key,
    metric_values,
)
from quarry.types import Document, Query, Report, RetrievalSet, Run, SetResult

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers


@pytest.mark.parametrize(
    ("measure", "key"),
    [("nDCG@10", "ndcg_at_10"), ("Recall@100", "recall_at_100"), ("MAP", "map"), ("P@1", "p_at_1")],
)
def test_measure_key(measure: str, key: str) -> None:
    assert measure_key(measure) == key


def test_metric_values() -> None:
    results = tuple(
        SetResult(
            name=name,
            metrics={"nDCG@10": value, "MAP": value / 2},
            per_query={},
            run={},
            num_queries=1,
            num_documents=1,
        )
        for name, value in (("scifact", 0.5), ("cosqa", 0.25))
    )
    assert metric_values(Report(retriever="dense", results=results)) == {
        "val/scifact/ndcg_at_10": 0.5,
        "val/scifact/map": 0.25,
        "val/cosqa/ndcg_at_10": 0.25,
        "val/cosqa/map": 0.125,
    }


class ByWeight:
    """A retriever that finds the document once the module's weight (the encoder here) is 0."""

    name = "by_weight"
    uses_encoder = True

    def retrieve(self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None) -> Run:
        weight = cast(torch.nn.Parameter, encoder).item()
        return {"q": {"d": 1.0, "e": 0.0} if weight <= 0 else {"e": 1.0, "d": 0.0}}


class Notes(DummyLogger):
    """Remembers what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(key.startswith("val/") for key in metrics):
            self.values.append((step, dict(metrics)))


class Module(OneNumber):
    """The weight falls by 0.5 each update: 1, 0.5, 0, -0.5, ..."""

    def __init__(self) -> None:
        super().__init__(lambda weight, _: weight * 1)
        self.model = self.weight

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


def evaluation(reports: list[Report], **more: Any) -> RetrievalEvaluation:
    data = RetrievalSet(
        name="tiny",
        queries=[Query(query_id="q", text="q")],
        corpus=[Document(document_id=name, text=name) for name in "de"],
        qrels={"q": {"d": 1}},
    )
    benchmark = Benchmark(name="b", sets=[BenchmarkSet(name="tiny", load=lambda: data)])
    return RetrievalEvaluation(
        evaluator=Evaluator(
            benchmark=benchmark, measures=["MRR@2"], top_k=2, convention=convention()
        ),
        retriever=ByWeight(),
        build_encoder=lambda model: cast(Encoder, model),
        on_report=reports.append,
        **more,
    )


def train(callback: pl.Callback, *, num_steps: int, **more: Any) -> tuple[pl.Trainer, Notes]:
    notes = Notes()
    trainer = quiet_trainer(callback, logger=notes, **more)
    trainer.fit(Module(), loader_of([torch.tensor(0.0)] * num_steps))
    return trainer, notes


def test_before_during_and_after_training() -> None:
    reports: list[Report] = []
    callback = evaluation(reports, every_n_steps=1)
    trainer, notes = train(callback, num_steps=3)
    assert callback.history == [(0, 0.5), (1, 0.5), (2, 1.0), (3, 1.0)]
    assert notes.values == [(step, {"val/tiny/mrr_at_2": v}) for step, v in callback.history]
    # only the first and the last are reported
    assert [(r.retriever, r.mean("MRR@2")) for r in reports] == [("untrained", 0.5), ("trained", 1)]
    assert trainer.callback_metrics["val/tiny/mrr_at_2"].item() == 1


@pytest.mark.parametrize(("every", "steps"), [(0, [0, 5]), (2, [0, 2, 4, 5]), (5, [0, 5])])
def test_how_often(every: int, steps: list[int]) -> None:
    callback = evaluation([], every_n_steps=every)
    train(callback, num_steps=5)
    assert [step for step, _ in callback.history] == steps


def test_an_accumulated_update_is_evaluated_once() -> None:
    callback = evaluation([], every_n_steps=1)
    train(callback, num_steps=6, accumulate_grad_batches=2)
    assert [step for step, _ in callback.history] == [0, 1, 2, 3]


def test_the_history_survives_a_checkpoint() -> None:
    callback, restored = evaluation([]), evaluation([])
    train(callback, num_steps=2)
    restored.load_state_dict({"history": [list(p) for p in callback.state_dict()["history"]]})
    assert restored.history == callback.history == [(0, 0.5), (2, 1.0)]


@pytest.mark.parametrize(("name", "expected"), [(None, "by_weight"), ("mine", "mine")])
def test_in_a_test_run(name: str | None, expected: str) -> None:
    reports: list[Report] = []
    callback = evaluation(reports, name=name)
    quiet_trainer(callback).test(Module(), loader_of([torch.tensor(0.0)]), verbose=False)
    assert [report.retriever for report in reports] == [expected]
    assert callback.history == []
