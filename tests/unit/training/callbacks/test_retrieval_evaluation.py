"""When training is evaluated, under which names it is logged, and what is remembered."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers.logger import DummyLogger

from helpers.conventions import convention
from helpers.training import OneNumber, loader_of, quiet_trainer
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.encoder import Encoder
from quarry.training.callbacks.best_model import BestModel
from quarry.training.callbacks.last_checkpoint import LastCheckpoint
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation
from quarry.types import Document, Query, Report, RetrievalSet, Run


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
    assert notes.values == [
        (step, {"val/tiny/mrr_at_2": v, "val/mean/mrr_at_2": v}) for step, v in callback.history
    ]
    # only the first and the last are reported
    assert [(r.retriever, r.mean("MRR@2")) for r in reports] == [("untrained", 0.5), ("trained", 1)]
    assert trainer.callback_metrics["val/tiny/mrr_at_2"].item() == 1
    assert trainer.callback_metrics["val/mean/mrr_at_2"].item() == 1


@pytest.mark.parametrize(("every", "steps"), [(0, [0, 5]), (2, [0, 2, 4, 5]), (5, [0, 5])])
def test_how_often(every: int, steps: list[int]) -> None:
    callback = evaluation([], every_n_steps=every)
    train(callback, num_steps=5)
    assert [step for step, _ in callback.history] == steps


def test_without_the_evaluation_before_training_all_else_is_as_with_it(tmp_path: Path) -> None:
    reports: list[Report] = []
    callback = evaluation(reports, every_n_steps=1, before_training=False)
    stopping = early_stopping()
    callback.retriever = InAdvance(0.0, 0.5, 0.5, 0.5, 1.0, 1.0)
    saved: list[int] = []
    best = BestModel(
        monitor="val/mean/mrr_at_2",
        folder=tmp_path,
        save_model=lambda folder, facts: saved.append(facts["step"]),
    )
    notes = Notes()
    trainer = quiet_trainer(callback, stopping, best, logger=notes)
    trainer.fit(Module(), loader_of([torch.tensor(0.0)] * 6))
    assert trainer.global_step == 4  # steps 3 and 4 were not better than step 2
    assert saved == [1, 2]
    assert callback.history == [(1, 0.0), (2, 0.5), (3, 0.5), (4, 0.5)]
    assert [step for step, _ in notes.values] == [1, 2, 3, 4]
    assert [report.retriever for report in reports] == ["trained"]


def test_an_accumulated_step_is_evaluated_once() -> None:
    callback = evaluation([], every_n_steps=1)
    train(callback, num_steps=6, accumulate_grad_batches=2)
    assert [step for step, _ in callback.history] == [0, 1, 2, 3]


def test_the_history_survives_a_checkpoint() -> None:
    callback, restored = evaluation([]), evaluation([])
    train(callback, num_steps=2)
    state = callback.state_dict()
    restored.load_state_dict(state | {"history": [list(point) for point in state["history"]]})
    assert restored.history == callback.history == [(0, 0.5), (2, 1.0)]
    assert restored.state_dict() == state


@pytest.mark.parametrize(("name", "expected"), [(None, "by_weight"), ("mine", "mine")])
def test_in_a_test_run(name: str | None, expected: str) -> None:
    reports: list[Report] = []
    callback = evaluation(reports, name=name)
    quiet_trainer(callback).test(Module(), loader_of([torch.tensor(0.0)]), verbose=False)
    assert [report.retriever for report in reports] == [expected]
    assert callback.history == []


class InAdvance(ByWeight):
    """A retriever of values made in advance, one an evaluation."""

    def __init__(self, *values: float) -> None:
        self.values = iter(values)
        self.num_calls = 0

    def retrieve(self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None) -> Run:
        self.num_calls += 1
        value = next(self.values)
        # MRR@2 of 1, 0.5 or 0
        return {"q": {1.0: {"d": 1.0}, 0.5: {"e": 1.0, "d": 0.5}, 0.0: {"e": 1.0}}[value]}


def test_an_evaluation_at_the_last_step_is_made_once() -> None:
    reports: list[Report] = []
    callback = evaluation(reports, every_n_steps=2)
    callback.retriever = retriever = InAdvance(0.0, 0.5, 1.0)
    train(callback, num_steps=4)
    assert retriever.num_calls == 3
    assert [(r.retriever, r.mean("MRR@2")) for r in reports] == [("untrained", 0.0), ("trained", 1)]


def early_stopping(**more: Any) -> EarlyStopping:
    """As conf/callbacks/early_stopping.yaml has it."""
    settings: dict[str, Any] = {"monitor": "val/mean/mrr_at_2", "mode": "max", "patience": 2}
    return EarlyStopping(**settings, check_on_train_epoch_end=False, strict=False, **more)


@pytest.mark.parametrize("comes_first", [True, False])
def test_lightnings_early_stopping_counts_evaluations(
    comes_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Best at step 2; two more without a better one, whatever the order of the callbacks."""
    callback, stopping = evaluation([], every_n_steps=1), early_stopping()
    callback.retriever = InAdvance(1.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0)
    order = (stopping, callback) if comes_first else (callback, stopping)
    notes = Notes()
    trainer = quiet_trainer(*order, logger=notes)
    with caplog.at_level(logging.INFO):
        trainer.fit(Module(), loader_of([torch.tensor(0.0)] * 6))
    assert trainer.global_step == 4
    assert caplog.text.count("EarlyStopping ends training after 4 optimizer steps") == 1
    assert stopping.wait_count == 2
    assert [step for step, _ in callback.history] == [0, 1, 2, 3, 4]


def test_between_evaluations_nothing_is_counted() -> None:
    callback, stopping = evaluation([], every_n_steps=3), early_stopping()
    callback.retriever = InAdvance(0.5, 0.5, 0.5, 0.5, 1.0)
    trainer = quiet_trainer(callback, stopping, logger=False)
    trainer.fit(Module(), loader_of([torch.tensor(0.0)] * 20))
    assert trainer.global_step == 9


def test_lightnings_checkpoints_are_of_the_best_evaluations_also_of_the_last(
    tmp_path: Path,
) -> None:
    callback = evaluation([], every_n_steps=2)
    callback.retriever = InAdvance(1.0, 0.5, 0.0, 0.5, 1.0)  # steps 0, 2, 4, 6 and the last, 7
    checkpoint = ModelCheckpoint(
        dirpath=tmp_path,
        filename="step_{step}",
        auto_insert_metric_name=False,
        monitor="val/tiny/mrr_at_2",
        mode="max",
        save_top_k=2,
        save_on_train_epoch_end=False,
    )
    trainer = quiet_trainer(callback, checkpoint, enable_checkpointing=True)
    trainer.fit(Module(), loader_of([torch.tensor(0.0)] * 7))
    assert checkpoint.best_model_path == str(tmp_path / "step_7.ckpt")
    kept = {Path(path).stem: score.item() for path, score in checkpoint.best_k_models.items()}
    assert kept["step_7"] == 1.0
    assert set(kept) <= {"step_2", "step_6", "step_7"}
    assert len(kept) == 2


def test_the_best_model_is_saved_when_it_is_that(tmp_path: Path) -> None:
    saved: list[dict[str, Any]] = []
    best = BestModel(
        monitor="val/tiny/mrr_at_2",
        folder=tmp_path / "best",
        save_model=lambda folder, facts: saved.append({"folder": folder.name} | facts),
    )
    assert best.summary is None
    callback = evaluation([], every_n_steps=2)
    callback.retriever = InAdvance(1.0, 0.0, 0.5, 0.5, 1.0)  # the untrained model does not count
    quiet_trainer(best, callback).fit(Module(), loader_of([torch.tensor(0.0)] * 7))
    assert [(each["step"], each["value"]) for each in saved] == [(2, 0.0), (4, 0.5), (7, 1.0)]
    assert saved[0]["folder"] == "best"
    assert saved[0]["monitor"] == "val/tiny/mrr_at_2"
    assert best.summary is not None
    assert best.summary.endswith("best (step 7, val/tiny/mrr_at_2=1.0000)")
    restored = BestModel(monitor="m", folder=tmp_path, save_model=lambda *_: None)
    restored.load_state_dict(best.state_dict())
    assert (restored.step, restored.value) == (7, 1.0)


def test_a_failed_set_has_no_value_and_is_no_reason_to_stop_or_save(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    saved: list[int] = []
    best = BestModel(
        monitor="val/mean/mrr_at_2",
        folder=tmp_path,
        save_model=lambda folder, facts: saved.append(facts["step"]),
    )
    callback, stopping = evaluation([], every_n_steps=1), early_stopping()
    callback.retriever = InAdvance(0.5, 1.0, 0.5, 0.5, 0.5, 0.5)
    whole = callback.evaluator.evaluate

    def evaluate(*args: Any, **more: Any) -> Report:
        report = whole(*args, **more)
        has_failed = report.retriever in ("step 2", "step 3")
        return replace(report, failures={"other": "no network"}) if has_failed else report

    callback.evaluator.evaluate = evaluate  # type: ignore[method-assign]
    notes = Notes()
    trainer = quiet_trainer(callback, stopping, best, logger=notes)
    trainer.fit(Module(), loader_of([torch.tensor(0.0)] * 9))
    assert trainer.global_step == 5  # steps 4 and 5 were not better than step 1
    assert saved == [1]
    assert "val/mean/mrr_at_2 has no value this time" in caplog.text
    assert [step for step, _ in callback.history] == [0, 1, 4, 5]
    assert [step for step, values in notes.values if "val/mean/mrr_at_2" in values] == [0, 1, 4, 5]


def test_a_run_that_was_stopped_early_stays_stopped_when_it_is_resumed(tmp_path: Path) -> None:
    def parts() -> tuple[RetrievalEvaluation, EarlyStopping, LastCheckpoint]:
        callback = evaluation([], every_n_steps=1)
        callback.retriever = InAdvance(0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0)
        last = LastCheckpoint(path=tmp_path / "last.ckpt", every_n_steps=100)
        return callback, early_stopping(), last

    first = quiet_trainer(*parts(), enable_checkpointing=True)
    first.fit(Module(), loader_of([torch.tensor(0.0)] * 9))
    assert first.global_step == 3
    callbacks = parts()
    second = quiet_trainer(*callbacks, enable_checkpointing=True)
    second.fit(
        Module(),
        loader_of([torch.tensor(0.0)] * 9),
        ckpt_path=tmp_path / "last.ckpt",
        weights_only=True,
    )
    assert second.global_step == 3
    assert [step for step, _ in callbacks[0].history] == [0, 1, 2, 3]
