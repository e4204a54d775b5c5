"""`bench/run.py` end to end: figures where there are some, reasons where there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Result
from helpers.tokenizers import chat_tokenizer
from random_model import write_model
from result_line import results_in
from texts import write_texts


def parts_of(results: Path) -> dict[str, Any]:
    (file,) = results.glob("*_tiny.json")
    parts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["parts"]
    assert file.with_suffix(".md").read_text(encoding="utf-8").startswith("| what | ours |")
    return parts


def test_a_figure_a_reason_and_the_end_of_the_budget(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    arguments = ("--scale", "tiny", "--results", str(tmp_path / "results"))
    result = command("bench/run.py", *arguments, "--only", "train_7b_fp8,search_on_cpu")
    assert result.code == 0, result.err
    parts = parts_of(tmp_path / "results")
    assert "needs a CUDA device" in parts["train_7b_fp8"]["ours_fp8"]["not_run"]
    assert parts["search_on_cpu"]["ours"]["search_s"] > 0
    command("bench/run.py", *arguments, "--only", "train_7b,search_on_cpu", "--budget-s", "0")
    parts = parts_of(tmp_path / "results")
    assert "budget of time was used" in parts["train_7b"]["ours"]["not_run"]
    assert parts["search_on_cpu"]["ours"]["search_s"] > 0, "what was measured before is kept"


def test_a_name_that_there_is_not(command: Callable[..., Result], tmp_path: Path) -> None:
    result = command("bench/run.py", "--only", "train_8b", "--results", str(tmp_path))
    assert result.code == 1
    assert "train_8b: no such measurement; there are train_7b, encode_7b" in result.err


def test_the_study_as_a_user_types_it(command: Callable[..., Result], tmp_path: Path) -> None:
    write_model(tmp_path / "model_tiny", "tiny")
    (tmp_path / ".model_tiny.random_model.py.done").touch()
    folders = ("--results", str(tmp_path), "--work", str(tmp_path))
    result = command(
        "bench/study.py", "--scale", "tiny", *folders, "--only", "recipe,recipe_40_gib"
    )
    assert result.code == 0, result.err
    (file,) = tmp_path.glob("study_*_tiny.json")
    rows = json.loads(file.read_text(encoding="utf-8"))["parts"]["study"]
    recipe = rows["recipe"]
    assert recipe["tokens_per_s"] > 0
    assert recipe["command"].startswith(
        "python train.py experiment=sft_msmarco model=qwen-instruct"
    )
    assert str(tmp_path) not in recipe["command"]
    assert "model.gradient_checkpointing" in recipe["chosen"]
    assert {"commit", "date", "device", "torch"} <= recipe.keys()
    assert rows["recipe_40_gib"]["not_run"] == "needs a CUDA device"


def test_encoding_in_turns_and_the_same_strings_for_others(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    tokenizer = chat_tokenizer()
    tokenizer._set_processor_class("PreTrainedTokenizerFast")  # as `random_model.write_tokenizer`
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    write_model(tmp_path / "model", "tiny", tokenizer_folder=tmp_path / "tokenizer")
    write_texts(tmp_path, num_examples=1, num_documents=40, words=["fox", "query", "the", "text"])
    common = ("--model", str(tmp_path / "model"), "--corpus", str(tmp_path / "corpus.jsonl"))
    result = command(
        "bench/encode_prefix.py", *common, "--work", str(tmp_path), "--num-passes", "2"
    )
    assert result.code == 0, result.err
    found = results_in(result.out)
    assert found["promptreps_instruct"]["num_shared_tokens"] > 8
    assert set(found["last_token"]["tokens_per_s"]) == {"plain", "pooled"}
    for name in ("promptreps_base", "promptreps_instruct", "last_token"):
        assert min(found[name]["smallest_cosine"].values()) > 1 - 1e-5
        assert min(found[name]["tokens_per_s"].values()) > 0
    result = command(
        "bench/encode_sentence_transformers.py", *common, "--prompt", "promptreps_instruct",
        "--embeddings", str(tmp_path / "embeddings_promptreps_instruct.npy"), "--num-passes", "1",
    )  # fmt: skip
    assert result.code == 0, result.err
    peer = results_in(result.out)
    assert peer["num_tokens"] == found["promptreps_instruct"]["num_tokens"]
    assert peer["smallest_cosine"] > 1 - 1e-5


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "names", ["train_7b", "encode_7b", "train_7b_same_memory,grad_cache_memory,train_7b_16x16"]
)
def test_everything_else_runs(command: Callable[..., Result], tmp_path: Path, names: str) -> None:
    result = command("bench/run.py", "--scale", "tiny", "--results", str(tmp_path), "--only", names)
    assert result.code == 0, result.err
    for measurement in parts_of(tmp_path).values():
        for name, part in measurement.items():
            if name != "ours_fp8":
                assert part["tokens_per_s"] > 0
                assert part.get("smallest_cosine", 1.0) > 0.999
