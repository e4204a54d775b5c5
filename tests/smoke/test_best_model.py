"""`callbacks=best_model` and `early_stopping`: what they leave, and what is refused at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import SMALL, Result

Run = Callable[..., Result]

# with so high a rate the model gets worse with each update: the first evaluation is the best
WORSENING = (
    *SMALL, "optimizer.lr=0.3", "scheduler.num_warmup_steps=0", "trainer.max_steps=8",
    "evaluation.every_n_steps=1", "logger=none", "callbacks=early_stopping",
    "callbacks.early_stopping.patience=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def stopped(command: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    run = tmp_path_factory.mktemp("best") / "run"
    result = command("train.py", *WORSENING, f"hydra.run.dir={run}")
    assert result.code == 0, result.err
    return run, result


def test_training_ends_when_evaluations_do_not_get_better(stopped: tuple[Path, Result]) -> None:
    run, result = stopped
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    values = [
        float(value)
        for value in re.findall(r"step \d+ on stdlib_code: nDCG@10 ([\d.]+)", result.err)
    ]
    assert len(values) == best["step"] + 2 < 8
    assert best["monitor"] == "val/mean/ndcg_at_10"
    assert round(best["value"], 4) == max(values) == values[best["step"] - 1]
    assert f"Best model: {run}/checkpoints/best (step {best['step']}, " in result.out
    assert re.search(r" trained=\d\.\d{4} best=\d\.\d{4} hybrid=", result.last_line)


def test_the_best_model_is_one_to_evaluate_and_gives_the_numbers_of_the_report(
    stopped: tuple[Path, Result], command: Run, tmp_path: Path
) -> None:
    run, _ = stopped
    result = command(
        "eval.py", f"model.path={run}/checkpoints/best", "benchmark.split=dev", "logger=none",
        "baseline=bm25", f"hydra.run.dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    known = json.loads((run / "metrics.json").read_text())["sets"]["stdlib_code"]
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())["sets"]["stdlib_code"]
    assert found["dense"] == pytest.approx(known["best"], abs=1e-6)
    assert known["best"]["nDCG@10"] > known["trained"]["nDCG@10"]
    # and the baseline beside it, whose ranking training had made
    assert found["bm25"] == known["bm25"]
    assert "the ranking of stdlib_code_dev is cached in" in result.err
    assert re.fullmatch(r"nDCG@10 bm25=0\.\d{4} dense=0\.\d{4}", result.last_line)
    plots = {path.name for path in (tmp_path / "eval" / "plots").iterdir()}
    assert plots == {"results.png", "queries.png"}


def test_a_stopped_run_that_is_resumed_reports_the_same(
    stopped: tuple[Path, Result], command: Run
) -> None:
    run, first = stopped
    before = json.loads((run / "metrics.json").read_text())
    result = command("train.py", "task=resume", f"run={run}")
    assert result.code == 0, result.err
    assert result.last_line == first.last_line
    assert json.loads((run / "metrics.json").read_text()) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["callbacks=best_model", "callbacks.best_model.monitor=val/stdlib/ndcg_at_10"],
            "BestModel monitors val/stdlib/ndcg_at_10, which nothing logs. Did you mean "
            "val/stdlib_code/ndcg_at_10? There is val/stdlib_code/ndcg_at_10, ",
        ),
        (["callbacks=early_stopping", "benchmark=none"], "With benchmark=none there is no"),
        (["callbacks=early_stopping", "evaluation.every_n_steps=0"], "evaluation.every_n_steps=0"),
        (["callbacks=top_checkpoints", "callbacks.top_checkpoints.mode=min"], "Fix: mode=max"),
    ],
)
def test_what_would_never_act_is_refused_before_there_is_a_directory(
    overrides: list[str], message: str, command: Run, tmp_path: Path
) -> None:
    result = command("train.py", "logger=none", *overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "run").exists()


def test_a_baseline_that_is_what_it_is_compared_with_is_refused(
    command: Run, tmp_path: Path
) -> None:
    result = command(
        "eval.py", "retriever=bm25", "baseline=bm25", "logger=none",
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert result.code == 2
    assert "baseline=bm25 would compare bm25 with itself" in result.err
    assert not (tmp_path / "run").exists()


def test_without_a_baseline_a_run_reports_the_model_alone(command: Run, tmp_path: Path) -> None:
    result = command(
        "train.py", *SMALL, "baseline=none", "logger=none", "trainer.max_steps=1",
        "evaluation.every_n_steps=0", f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert re.fullmatch(r"nDCG@10 untrained=0\.\d{4} trained=0\.\d{4}", result.last_line)
    assert (tmp_path / "run" / "plots" / "queries.png").exists()  # trained against untrained
