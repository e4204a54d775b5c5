"""The study's two protocols: what each value is, whichever of the eight models is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import yaml
from configurations import CONF, composed, opened
from omegaconf import OmegaConf

from quarry.config.validation import validate
from quarry.errors import UserError

HUB_IDS = {
    "qwen-base": "Qwen/Qwen2.5-7B",
    "qwen-instruct": "Qwen/Qwen2.5-7B-Instruct",
    "qwen-coder": "Qwen/Qwen2.5-Coder-7B",
    "qwen-coder-instruct": "Qwen/Qwen2.5-Coder-7B-Instruct",
    "qwen-math": "Qwen/Qwen2.5-Math-7B",
    "qwen-math-instruct": "Qwen/Qwen2.5-Math-7B-Instruct",
    "qwen-r1": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "qwen-vl": "Qwen/Qwen2.5-VL-7B-Instruct",
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

SFT = {
    "model.adapter.r": 32,
    "model.adapter.alpha": 64,
    "model.adapter.dropout": 0.1,
    "model.adapter.target_modules": PROJECTIONS,
    "model.pooling._target_": "quarry.models.pooling.last_token.LastToken",
    "model.is_causal": True,
    "model.normalize": True,
    "model.gradient_checkpointing": "auto",
    "loss.temperature": 0.01,
    "loss.contrastive_batch_size": 32,
    "data.global_batch_size": 128,
    "data.num_hard_negatives": 15,
    "optimizer._target_": "torch.optim.AdamW",
    "optimizer.lr": 1e-4,
    "optimizer.weight_decay": 0.0,
    "scheduler._target_": "quarry.training.optim.log_warmup_schedule",
    "scheduler.num_warmup_steps": 100,
    "trainer.max_epochs": 1,
    "trainer.precision": "bf16-mixed",
    "prompt.max_query_length": 32,
    "prompt.max_document_length": 156,
    "prompt.query": "Query:{text}",
    "prompt.document": "Passage:{title} {text}",
    "prompt.strip": True,
    "convention.name": "study",
    "benchmark.name": "msmarco_dl",
    "evaluation.measures": ["nDCG@10", "MRR@10", "Recall@1000", "MAP"],
    "evaluation.top_k": 1000,
}

ASK = "Use one word to represent the {} in a retrieval task. Make sure your word is in lowercase."
ZERO_SHOT = {
    "model.pooling._target_": "quarry.models.pooling.last_token.LastToken",
    "model.is_causal": True,
    "model.normalize": True,
    "model.dtype": "float16",
    "trainer.precision": "32-true",
    "evaluation.top_k": 100,
    "convention.name": "study",
    "benchmark.name": "small",
    "prompt.query": 'Query: "{text}". ' + ASK.format("query"),
    "prompt.document": 'Passage: "{title} {text}". ' + ASK.format("passage"),
    "prompt.is_chat": True,
    "prompt.assistant": 'The word is: "',
    "prompt.end_token": None,
    "prompt.max_query_length": 512,
    "prompt.max_document_length": 512,
    "prompt.length_counts": "text",
    "prompt.strip": False,
}


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocols are stated for a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def values(primary: str, *overrides: str, keys: dict[str, Any]) -> dict[str, Any]:
    config = composed(primary, *overrides)
    assert config.model.hub_id == HUB_IDS[overrides[-1].removeprefix("model=")]
    found = {key: OmegaConf.select(config, key) for key in keys}
    return {k: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for k, v in found.items()}


@pytest.mark.parametrize("model", HUB_IDS)
def test_fine_tuning(model: str) -> None:
    is_vl = model == "qwen-vl"
    own = {
        "prompt.is_chat": is_vl,
        "prompt.end_token": "<|endoftext|>" if is_vl else "auto",
        "prompt.length_counts": "turn" if is_vl else "all",
    }
    found = values("train", "experiment=sft_msmarco", f"model={model}", keys=SFT | own)
    assert found == SFT | own


LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("experiment", ["sft_msmarco", "tiny_sft"])
def test_an_experiment_takes_every_loss(experiment: str, loss: str) -> None:
    """And an InfoNCE's temperature reaches no loss in which it means something else."""
    chosen = [f"experiment={experiment}", f"loss={loss}", "trainer.accelerator=cpu"]
    config = composed("train", *chosen, *(["data.path=FILE"] if "msmarco" in experiment else []))
    validate(config, primary="train")
    own = yaml.safe_load((CONF / "loss" / f"{loss}.yaml").read_text("utf-8")).get("temperature")
    if isinstance(own, float):
        assert config.loss.temperature == own


@pytest.mark.parametrize("model", HUB_IDS)
def test_zero_shot(model: str) -> None:
    found = values("eval", "experiment=zero_shot", f"model={model}", keys=ZERO_SHOT)
    assert found == ZERO_SHOT


def test_the_benchmark_of_an_experiment_is_a_default() -> None:
    config = composed("train", "experiment=sft_msmarco", "benchmark=stdlib_code")
    assert "stdlib_code" in config.benchmark._target_
    assert config.evaluation.measures[0] == "nDCG@10"


def test_a_size_that_was_never_published_is_refused_in_plain_words() -> None:
    config = composed("eval", "model=qwen-math", "model.size=3B")
    with pytest.raises(UserError, match=r"model\.hub_id: model\.size=3B was never published"):
        validate(config, primary="eval")


@pytest.mark.parametrize(
    ("primary", "task"),
    [
        ("train", "resume"),
        ("train", "export"),
        ("train", "plan"),
        ("eval", "plan"),
        ("eval", "verify"),
        ("eval", "prompts"),
        ("eval", "rescore"),
    ],
)
def test_tasks_without_a_run_directory_make_none(primary: str, task: str) -> None:
    from hydra import compose

    config = compose(config_name=primary, overrides=[f"task={task}"], return_hydra_config=True)
    assert config.hydra.run.dir == "."
