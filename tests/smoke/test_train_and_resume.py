"""`python train.py`: what a run leaves, and that a stopped run ends as if it had never stopped."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers import wandb_files
from helpers.commands import ROOT, SMALL, Result

MEASURES = {"nDCG@10", "Recall@100", "MRR@10"}
STEPS = (
    *SMALL,
    "trainer.max_steps=6",
    "evaluation.every_n_steps=2",
    "callbacks.last_checkpoint.every_n_steps=2",
)


def test_a_run_leaves_exactly_what_the_documentation_lists(trained: tuple[Path, Result]) -> None:
    run, _ = trained
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.yaml", "config_resolved.yaml", "provenance.json", "run.log", "metrics.json",
        "report.md", "per_query", "runs", "plots", "checkpoints", "model", "wandb",
        "learning_curve.json", "summary.json", "wandb_run.json", ".lock",
    }  # fmt: skip
    assert {path.name for path in (run / "plots").iterdir()} == {
        "learning_curve.png",
        "queries.png",
        "results.png",
    }
    retrievers = {"bm25", "untrained", "trained", "hybrid"}
    assert {p.name.split(".")[1] for p in (run / "runs").iterdir()} == retrievers
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["sets"]["stdlib_code"]) == retrievers
    assert all(set(values) == MEASURES for values in metrics["sets"]["stdlib_code"].values())


def test_the_last_line_is_for_programs_and_agrees_with_metrics(
    trained: tuple[Path, Result],
) -> None:
    run, result = trained
    number = r"0\.\d{4}"
    pattern = rf"nDCG@10 bm25={number} untrained={number} trained={number} hybrid={number}"
    assert re.fullmatch(pattern, result.last_line)
    metrics = json.loads((run / "metrics.json").read_text())["sets"]["stdlib_code"]
    for entry in result.last_line.split()[1:]:
        name, value = entry.split("=")
        assert float(value) == round(metrics[name]["nDCG@10"], 4)


def test_without_a_terminal_there_are_no_progress_bars(trained: tuple[Path, Result]) -> None:
    _, result = trained
    assert "\r" not in result.err
    assert "it/s" not in result.err


def test_on_a_cpu_auto_is_stored_as_nothing_computed_twice(trained: tuple[Path, Result]) -> None:
    run, _ = trained
    for name in ("config.yaml", "config_resolved.yaml"):
        stored = yaml.safe_load((run / name).read_text())
        assert stored["model"]["gradient_checkpointing"] is False
        assert stored["data"]["grad_cache_chunk_tokens"] is None
    told = wandb_files.config(run)
    for section in ("model", "data"):
        assert told[section] == stored[section], "no section lost what it had"
    record = json.loads((run / "provenance.json").read_text())["memory_choice"]
    assert record["estimated_bytes"] is None
    assert (run / "run.log").read_text().count(" auto: ") == 1


def test_an_old_key_is_refused_with_its_new_name_before_anything_is_made(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    run = tmp_path / "old"
    result = command("train.py", "data.num_tokens_per_chunk=64", f"hydra.run.dir={run}")
    assert result.code == 2
    assert "Fix: data.grad_cache_chunk_tokens=64" in result.err
    assert "Traceback" not in result.err
    assert not run.exists()


def test_the_checkpoint_holds_nothing_that_could_run_code(trained: tuple[Path, Result]) -> None:
    run, _ = trained
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 6


def test_the_saved_model_carries_its_golden_texts_tokens_and_vectors(
    trained: tuple[Path, Result],
) -> None:
    run, _ = trained
    contract = json.loads((run / "model" / "quarry_contract.json").read_text())
    golden = contract["golden"]
    vectors = load_file(run / "model" / "quarry_golden.safetensors")["embeddings"]
    assert len(golden["texts"]) == len(golden["token_ids"]) == len(vectors) == 8
    assert {entry["role"] for entry in golden["texts"]} == {"query", "document"}
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(8))
    assert contract["temperature"] == 0.05
    assert contract["dtype"] == "float32"


def test_wandb_is_offline_and_holds_one_run(trained: tuple[Path, Result]) -> None:
    run, _ = trained
    assert len(list((run / "wandb").glob("offline-run-*/run-*.wandb"))) == 1


def test_wandb_has_numbers_over_the_trainers_step_and_tables_of_each_evaluation(
    trained: tuple[Path, Result],
) -> None:
    run, _ = trained
    key = "val/mean/ndcg_at_10"
    logged = [row for row in wandb_files.history(run) if key in row]
    assert [row["trainer/global_step"] for row in logged] == [0, 2, 4, 6]
    assert wandb_files.metric_axes(run)["*"] == "trainer/global_step"
    results = wandb_files.tables(run, "val/results")
    assert len(results) == 4
    rows = {(row["set"], row["metric"]): row for row in results[-1]}
    assert set(rows) == {(name, m) for name in ("stdlib_code", "mean") for m in MEASURES}
    metrics = json.loads((run / "metrics.json").read_text())["sets"]["stdlib_code"]
    main = rows["stdlib_code", "nDCG@10"]
    assert main["value"] == metrics["trained"]["nDCG@10"] == logged[-1][key]
    assert main["bm25"] == metrics["bm25"]["nDCG@10"]
    assert main["delta"] == main["value"] - main["bm25"]
    examples = wandb_files.tables(run, "val/examples")
    assert [len(rows) for rows in examples] == [5] * 4
    assert [row["query_id"] for row in examples[0]] == [row["query_id"] for row in examples[-1]]
    for row in examples[-1]:
        assert row["set"] == "stdlib_code"
        assert row["query"]
        assert row["text_1"]
        assert row["score_1"] >= row["score_2"] >= row["score_3"]
        assert row["is_relevant_1"] is (row["first_relevant_rank"] == 1)


def test_wandb_has_the_results_and_files_of_the_run_where_dashboards_look(
    trained: tuple[Path, Result],
) -> None:
    run, _ = trained
    found = wandb_files.identity(run)
    assert found.id == json.loads((run / "wandb_run.json").read_text())["id"]
    assert (found.group, found.name, found.job_type) == ("", "trained", "train")
    assert found.tags == ["qwen-tiny", "mean", "short", "stdlib_code"]
    assert wandb_files.config(run)["optimizer"]["lr"] > 0
    stored = json.loads((run / "summary.json").read_text())
    assert stored["cost"]["num_trained_tokens"] > 1000
    flat = {
        f"{part}/{name}": value for part, of in stored.items() for name, value in of.items()
        if value is not None
    }  # fmt: skip
    assert flat["results/mean/ndcg_at_10"] > 0
    summary = wandb_files.summary(run)
    assert flat.items() <= summary.items()
    (rows,) = wandb_files.tables(run, "results_by_set")
    metrics = json.loads((run / "metrics.json").read_text())["sets"]["stdlib_code"]
    assert {row["retriever"]: row["nDCG@10"] for row in rows} == {
        name: values["nDCG@10"] for name, values in metrics.items()
    }
    artifacts = wandb_files.artifacts(run)
    assert artifacts.keys() == {f"results-{found.id}", f"model-{found.id}"}
    results, model = artifacts[f"results-{found.id}"], artifacts[f"model-{found.id}"]
    assert "runs/stdlib_code.trained.trec" in results
    assert results["config_resolved.yaml"] == run / "config_resolved.yaml"  # not a copy
    assert {"model.safetensors", "quarry_contract.json"} <= model.keys()
    assert all(path.is_file() for files in (results, model) for path in files.values())


def start(environment: dict[str, str], run: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={run}"],
        cwd=environment["HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the run did not get that far in time"
        time.sleep(0.02)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_bits(first: Path, second: Path) -> None:
    expected, found = weights(first), weights(second)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(
    trained: tuple[Path, Result],
    command: Callable[..., Result],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    whole, _ = trained
    run = tmp_path / "killed"
    process = start(environment, run, *STEPS)
    wait_until((run / "checkpoints" / "last.ckpt").exists)
    process.kill()
    process.wait()
    assert not (run / "model").exists(), "killed too late to show anything"
    result = command("train.py", "task=resume", f"run={run}")
    assert result.code == 0, result.err
    assert_same_bits(whole, run)
    first = json.loads((whole / "metrics.json").read_text())["sets"]
    assert json.loads((run / "metrics.json").read_text())["sets"] == first
    assert result.last_line.startswith("nDCG@10 bm25=")
    provenance = json.loads((run / "provenance.json").read_text())
    assert len(provenance["resumed"]) == 1
    costs = [json.loads((each / "summary.json").read_text())["cost"] for each in (whole, run)]
    assert costs[0]["num_trained_tokens"] == costs[1]["num_trained_tokens"]
    wandb_id = json.loads((run / "wandb_run.json").read_text())["id"]
    parts = list((run / "wandb").glob("offline-run-*"))
    assert [part.name.rsplit("-", 1)[1] for part in parts] == [wandb_id] * 2, "one run of W&B"


def test_ctrl_c_saves_says_where_and_resumes_to_the_same_bits(
    trained: tuple[Path, Result],
    command: Callable[..., Result],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    whole, _ = trained
    run = tmp_path / "interrupted"
    process = start(
        environment, run, *STEPS, "evaluation.before_training=false",
        "evaluation.corpus_on_disk=true",
    )  # fmt: skip
    log = run / "run.log"
    wait_until(lambda: log.exists() and "step 2 on" in log.read_text())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"python train.py task=resume run={run}" in output
    assert "Traceback" not in output
    assert f"embeddings on disk, in {run}: evaluation.corpus_on_disk=true" in log.read_text()
    on_disk = "evaluation.corpus_on_disk=false"
    result = command("train.py", "task=resume", f"run={run}", on_disk)
    assert result.code == 0, result.err
    assert f"embeddings in memory: {on_disk}" in log.read_text()
    assert_same_bits(whole, run)
    metrics = [json.loads((each / "metrics.json").read_text())["sets"] for each in (whole, run)]
    del metrics[0]["stdlib_code"]["untrained"]
    assert metrics[1] == metrics[0]
    assert [path.name for path in run.glob(".*")] == [".lock"]
    assert not list(run.glob("tmp*"))
    first_part, second_part = wandb_files.identities(run)
    assert first_part == second_part, "both parts are one run of W&B"
    assert (first_part.name, first_part.tags[0]) == ("interrupted", "qwen-tiny")


def loss_curve(run: Path) -> list[tuple[int, float]]:
    callbacks = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    (points,) = (state["points"] for state in callbacks.values() if "points" in state)
    return points


def test_chunks_of_tokens_leave_the_loss_curve_as_it_is(
    trained: tuple[Path, Result], command: Callable[..., Result], tmp_path: Path
) -> None:
    run, _ = trained
    result = command(
        "train.py", *STEPS, "evaluation.every_n_steps=0", "data.grad_cache_chunk_tokens=200",
        "evaluation.before_training=false", "evaluation.corpus_dtype=float16",
        "logger=none", f"hydra.run.dir={tmp_path / 'chunks'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    names = ("bm25", "trained", "hybrid")
    pattern = " ".join(["nDCG@10", *(rf"{name}=0\.\d{{4}}" for name in names)])
    assert re.fullmatch(pattern, result.last_line)
    found_metrics = json.loads((tmp_path / "chunks" / "metrics.json").read_text())
    dtypes = {"trained": "float16", "hybrid": "float16"}
    assert found_metrics["corpus_dtype"] == {"stdlib_code": dtypes}
    assert (
        "in float16, scores summed in float32: trained, hybrid."
        in (tmp_path / "chunks" / "report.md").read_text()
    )
    expected, found = loss_curve(run), loss_curve(tmp_path / "chunks")
    assert len(expected) == 6
    assert found != expected  # the sums are made in another order
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], rel=1e-5)


def test_resume_refuses_what_would_change_the_result(
    trained: tuple[Path, Result], command: Callable[..., Result]
) -> None:
    run, _ = trained
    result = command("train.py", "task=resume", f"run={run}", "loss.temperature=1.0")
    assert result.code == 2
    assert "loss.temperature would change the result" in result.err


def test_a_run_directory_is_not_used_twice(
    trained: tuple[Path, Result], command: Callable[..., Result]
) -> None:
    run, _ = trained
    before = (run / "metrics.json").read_bytes()
    result = command("train.py", *STEPS, f"hydra.run.dir={run}")
    assert result.code == 2
    assert "holds a run already" in result.err
    assert (run / "metrics.json").read_bytes() == before


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    run = tmp_path / "diverged"
    result = command(
        "train.py", *SMALL, "logger=none", "trainer.max_steps=9", "evaluation.every_n_steps=0",
        "callbacks.last_checkpoint.every_n_steps=1", "optimizer.lr=1e35",
        "trainer.gradient_clip_val=null", "scheduler.num_warmup_steps=0", f"hydra.run.dir={run}",
    )  # fmt: skip
    assert result.code == 2
    stopped = re.search(r"The (?:loss|gradient norm) is (?:nan|inf) at step (\d+)", result.err)
    assert stopped, result.err
    assert str(run / "checkpoints" / "last.ckpt") in result.err
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] < int(stopped[1])


def test_a_finished_run_that_was_moved_reports_again_where_it_lies_now(
    trained: tuple[Path, Result], command: Callable[..., Result], tmp_path: Path
) -> None:
    run, first = trained
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    shutil.rmtree(moved / "model")
    before = (run / "metrics.json").stat().st_mtime_ns
    result = command("train.py", "task=resume", f"run={moved}", "logger=none")
    assert result.code == 0, result.err
    assert result.last_line == first.last_line
    assert_same_bits(run, moved)
    assert (run / "metrics.json").stat().st_mtime_ns == before


def test_training_goes_on_from_a_saved_model_under_its_contract(
    trained: tuple[Path, Result], command: Callable[..., Result], tmp_path: Path
) -> None:
    run, first = trained
    result = command(
        "train.py", "model=local", f"model.path={run}", "data.global_batch_size=16",
        "benchmark.split=dev", "trainer.max_steps=1", "evaluation.every_n_steps=0", "logger=none",
        f"hydra.run.dir={tmp_path / 'on'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    old, new = (
        json.loads((folder / "model" / "quarry_contract.json").read_text())["settings"]
        for folder in (run, tmp_path / "on")
    )
    assert new == old  # mean pooling and short texts, not the defaults of model=local
    trained_before = dict(e.split("=") for e in first.last_line.split()[1:])["trained"]
    assert f"untrained={trained_before}" in result.last_line


def test_without_a_benchmark_a_run_trains_and_says_its_last_loss(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    run = tmp_path / "unmeasured"
    small = [override for override in SMALL if not override.startswith("benchmark.")]
    result = command(
        "train.py", *small, "benchmark=none", "logger=none", "trainer.max_steps=2",
        "evaluation.before_training=false", f"hydra.run.dir={run}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.err.count("evaluation.before_training: no effect with benchmark=none") == 1
    assert re.fullmatch(r"loss=\d\.\d{4}", result.last_line)
    assert (run / "model" / "quarry_contract.json").exists()
    assert not (run / "metrics.json").exists()
