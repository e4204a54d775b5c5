"""A real pretrained decoder, SmolLM2-135M, fine-tuned and evaluated by the real commands."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from transformers import AutoModel, AutoTokenizer

from cut_sets import cut_set
from helpers.commands import Result, quiet_environment, run_command
from helpers.real_models import cached_model
from quarry.data.packing import pack
from quarry.models.adapters.full import FullFineTuning
from quarry.models.building import build_bi_encoder
from quarry.models.model_spec import model_spec
from quarry.models.pooling.last_token import LastToken
from quarry.models.saved import read_contract

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_QUERIES, NUM_DOCUMENTS = 100, 200
LENGTHS = ("prompt.max_query_length=32", "prompt.max_document_length=64")
QUICK = ("logger=none", "evaluation.max_tokens_per_batch=2048")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return cached_model("smollm2-135m", target="smollm2")


@pytest.fixture(scope="module")
def small_cosqa(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_set(
        shared_data / "cosqa",
        tmp_path_factory.mktemp("sets") / "cosqa",
        num_queries=NUM_QUERIES,
        num_documents=NUM_DOCUMENTS,
    )


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Any:
    environment = quiet_environment(tmp_path_factory.mktemp("smollm2"))
    return partial(run_command, environment=environment, timeout_s=1200)


@pytest.fixture(scope="module")
def tuned(
    command: Any, smollm2: Path, shared_data: Path, small_cosqa: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Result]:  # fmt: skip
    """The run directory of a few updates on other queries of cosqa, and its output."""
    run = tmp_path_factory.mktemp("runs") / "tuned"
    result = command(
        "train.py", "model=local", f"model.path={smollm2}", "model/adapter=lora", "prompt=repllama",
        "data=folder", f"data.path={shared_data / 'cosqa'}", "data.split=dev",
        "data.global_batch_size=16", "trainer.max_steps=10", "optimizer.lr=1e-3",
        "scheduler.num_warmup_steps=0", "loss.temperature=0.05", "callbacks=none",
        "benchmark=folder", f"benchmark.path={small_cosqa}", "benchmark.content=code",
        "evaluation.every_n_steps=0", *LENGTHS, *QUICK, f"hydra.run.dir={run}",
    )  # fmt: skip
    assert result.code == 0, result.err
    return run, result


def test_a_few_steps_teach_it_to_retrieve(tuned: tuple[Path, Result]) -> None:
    run, result = tuned
    metrics = json.loads((run / "metrics.json").read_text())["sets"]["cosqa"]
    before, after = (metrics[name]["nDCG@10"] for name in ("untrained", "trained"))
    assert f"trained={after:.4f}" in result.last_line
    assert after > before + 0.3  # 0.03 and 0.66 when this was written


def test_the_saved_run_is_evaluated_to_the_numbers_of_its_training(
    tuned: tuple[Path, Result], command: Any, small_cosqa: Path, tmp_path: Path
) -> None:
    run, _ = tuned
    result = command(
        "eval.py", f"model.path={run}", "benchmark=folder", f"benchmark.path={small_cosqa}",
        *QUICK, f"hydra.run.dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    trained = json.loads((run / "metrics.json").read_text())["sets"]["cosqa"]["trained"]
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())["sets"]["cosqa"]["dense"]
    assert found == pytest.approx(trained, abs=1e-6)


def test_peft_alone_gives_the_same_embeddings(tuned: tuple[Path, Result], smollm2: Path) -> None:
    folder = tuned[0] / "model"
    contract = read_contract(folder)
    assert contract is not None
    texts = ["Query:reverse a list in python", "Passage:def rev(xs): return xs[::-1]", "Query:x"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [[*tokenizer.encode(text), contract["eos_token_id"]] for text in texts]

    base = AutoModel.from_pretrained(smollm2, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder).eval()
    spec = model_spec(
        path=str(folder), revision=None, replica=None, pooling=LastToken(),
        adapter=FullFineTuning(), is_causal=True, normalize=True, dtype="float32",
        attention="auto", linear_precision=None, compile=False, gradient_checkpointing=False,
        trust_remote_code=False,
    )  # fmt: skip
    with torch.inference_mode():
        ours = build_bi_encoder(spec).eval()(pack(rows))
        theirs = torch.cat([last_state(adapted, row) for row in rows])
        with adapted.disable_adapter():
            without = torch.cat([last_state(adapted, row) for row in rows])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)  # 30 layers of fp32
    assert cosine_similarity(ours, without).max() < 0.99  # the adapter is not idle


def last_state(model: torch.nn.Module, row: list[int]) -> Tensor:
    states: Tensor = model(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state
    return normalize(states[:, -1], dim=-1)
