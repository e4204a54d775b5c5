"""`quarry.train` and `quarry.evaluate`: a job from Python is the command's, with its directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import quarry
from helpers.beir_folders import write_beir_folder
from quarry.errors import UserError

QUIET = {"logger": "none", "baseline": "none"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_beir_folder(folder / "set")
    rows = [{"query": f"find {i}", "positive": f"this is {i}"} for i in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_trained_evaluated_and_used(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARRY_CACHE", str(data / "cache"))
    monkeypatch.setenv("QUARRY_RUNS", str(data / "runs"))
    sets = {"benchmark": "folder", "benchmark__path": data / "set"}
    trained = quarry.train(
        "data=file", f"data.path={data / 'rows.jsonl'}", model="qwen-tiny", trainer__max_steps=2,
        data__global_batch_size=4, **sets, **QUIET,
    )  # fmt: skip
    assert trained.run_dir.parent.parent == data / "runs"
    assert json.loads((trained.run_dir / "provenance.json").read_text())["options"]["model"] == (
        "qwen-tiny"
    )
    evaluated = quarry.evaluate(trained.run_dir, **sets, **QUIET)
    assert evaluated.run_dir != trained.run_dir
    assert (evaluated.run_dir / "report.md").exists()
    assert evaluated.metrics["set/ndcg_at_10"] == pytest.approx(
        trained.metrics["trained/set/ndcg_at_10"], abs=1e-6
    )
    (hits,) = trained.load().search(["find 3"], ["this is 3", "this is 4"], top_k=1)
    assert hits[0].document.text in ("this is 3", "this is 4")
    lexical = quarry.evaluate(None, retriever="bm25", **sets, **QUIET)
    assert 0 <= lexical.metrics["mean/ndcg_at_10"] <= 1


def test_several_ranks_need_the_command(data: Path) -> None:
    with pytest.raises(UserError, match="trainer.devices=2.*python -m quarry train"):
        quarry.train(model="qwen-tiny", trainer__devices=2, **QUIET)


def test_studies_and_other_tasks_need_the_command() -> None:
    with pytest.raises(UserError, match="study=negatives.*python -m quarry train"):
        quarry.train(study="negatives")
    with pytest.raises(UserError, match="report.*python -m quarry eval"):
        quarry.evaluate(None, task="report")
    with pytest.raises(UserError, match="zero_shot"):
        quarry.train("experiment=zero_shot")
