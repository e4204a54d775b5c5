"""Host memory of a job from its configuration: without data, weights and tokenizer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.sentence_folders import dense, sentence_folder
from quarry.assembly.model_parts import settle_contract
from quarry.assembly.strategy import settle_dtype
from quarry.planning.host import HostNeed
from quarry.planning.inputs import planned_job
from quarry.planning.job_host import job_host
from quarry.planning.machine import planned_machine
from quarry.planning.plan_task import make_plan
from quarry.runtime.devices import planned_for_gpu

WEIGHTS = 2 * 7_070_619_136


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def host(config: DictConfig) -> HostNeed | None:
    with planned_for_gpu():
        job = planned_job(config)
        return None if job is None else job_host(job, host_bytes=None, num_jobs=1)


@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=sft_msmarco", "strategy=ddp", "trainer.devices=8"),
        (
            "model=qwen-coder", "data=msmarco", "benchmark=msmarco", "strategy=zero3_offload",
            "model/adapter=none", "trainer.devices=2", "trainer.precision=bf16-true",
        ),
    ],
    ids=["ddp", "offload"],
)  # fmt: skip
def test_it_is_what_the_plan_says(overrides: tuple[str, ...]) -> None:
    own = host(composed("train", *overrides))
    machine = planned_machine(
        gpu_memory_gib=80, disk_gib=None, card=None, accelerator="gpu", num_devices=1, folder="."
    )
    config = composed("train", *overrides)
    with planned_for_gpu():
        settle_dtype(config)
        plan = make_plan(
            config, machine, num_examples=128_000, tokens_per_query=1000, tokens_per_s=None
        )
    assert own is not None
    assert own.total == pytest.approx(plan.host.total, rel=1e-6)
    assert own.corpus == 8_841_823 * 3584 * 4


def test_an_evaluation_with_a_store_holds_no_corpus() -> None:
    stored = host(composed("eval", "model=qwen-coder", "benchmark=msmarco", "trainer.devices=2"))
    assert stored is not None
    assert (stored.loading, stored.corpus, stored.corpus_on_disk) == (2 * WEIGHTS, 0, 0)
    kept = host(composed("eval", "model=qwen-coder", "benchmark=msmarco", "evaluation.store=false"))
    assert kept is not None
    assert kept.corpus == 8_841_823 * 3584 * 4


def test_embeddings_are_as_wide_as_the_last_projection(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "folder", denses=[dense(32, 12, torch.nn.Tanh())])
    named = ("model=local", f"model.path={folder}", "benchmark=msmarco")
    kept = host(composed("eval", *named, "evaluation.store=false"))
    assert kept is not None
    assert kept.corpus == 8_841_823 * 12 * 4
    config = composed("train", *named, "data=msmarco")
    settle_contract(config)
    in_training = host(config)
    machine = planned_machine(
        gpu_memory_gib=80, disk_gib=None, card=None, accelerator="gpu", num_devices=1, folder="."
    )
    with planned_for_gpu():
        plan = make_plan(
            config, machine, num_examples=128_000, tokens_per_query=1000, tokens_per_s=None
        )
    assert in_training is not None
    assert in_training.total == plan.host.total
    assert in_training.corpus == kept.corpus
    backbone = 4 * plan.model.num_parameters
    assert plan.memory.weights == backbone + 4 * (32 * 12 + 12)
    num_texts = 128 * (2 + 15)
    assert plan.memory.embeddings == 2 * 4 * 12 * num_texts


def test_what_is_not_known() -> None:
    assert host(composed("eval", "retriever=bm25", "benchmark=msmarco")) is None
    assert host(composed("train")) is None, "a replica is made on the spot"
    elsewhere = composed("eval", "model=local", "model.path=someone/model", "benchmark=msmarco")
    assert host(elsewhere) is None
