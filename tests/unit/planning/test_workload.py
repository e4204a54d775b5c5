"""Examples, optimizer steps and tokens: counted where the data are here, stated, or bounded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.models import tiny_folder
from quarry.config.instantiate import build
from quarry.data.sampler import TrainBatchSampler
from quarry.errors import UserError
from quarry.planning.inputs import planned_step
from quarry.planning.setup import contrastive_batches
from quarry.planning.workload import Workload, planned_workload


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty pairs: three letters, and a passage of 4 or 6; with their end tokens 9 or 11."""
    file = tmp_path / "train.jsonl"
    lines = [{"query": "abc", "positive": "a" * (4 + 2 * (n % 2))} for n in range(20)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def config(data: Path, *overrides: str, model: str | None = None) -> DictConfig:
    folder = model or str(tiny_folder(data.parent / "model"))
    return composed(
        "train", "model=local", f"model.path={folder}", "data=jsonl", f"data.path={data}",
        "prompt=none", "data.global_batch_size=4", f"paths.cache_dir={data.parent}",
        *overrides,
    )  # fmt: skip


def workload(config: DictConfig, **more: Any) -> Workload:
    step = planned_step(config, build(config.model))
    return planned_workload(step, **({"num_examples": None, "tokens_per_query": None} | more))


def test_counted_in_the_data(data: Path) -> None:
    found = workload(config(data, "trainer.max_epochs=3", "loss.contrastive_batch_size=2"))
    assert (found.num_examples, found.num_steps) == (20, 15)
    assert found.num_batches_per_step == 2
    assert (found.tokens_per_query, found.deviation) == (10, 1)
    assert found.tokens_per_step == 40
    assert found.tokens_per_epoch == 200
    assert found.num_tokens == 600
    assert "20 examples, tokenized" in found.tokens_from
    assert not found.is_bound


def test_steps_end_a_run_before_epochs_do(data: Path) -> None:
    assert workload(config(data, "trainer.max_steps=7", "trainer.max_epochs=3")).num_steps == 7


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """Twenty queries of 4 tokens with 0 to 4 hard negatives, every passage of 6."""
    file = tmp_path / "ragged.jsonl"
    lines = [
        {"query": "abc", "positive": "aaaaa", "negatives": [c * 5 for c in "bcde"[: n % 5]]}
        for n in range(20)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def test_passages_of_all_examples_are_counted_where_the_number_is_null(
    ragged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quarry.planning.workload.NUM_SAMPLED", 3)
    settings = config(ragged, "trainer.max_epochs=2")
    found = workload(settings)
    assert found.group_sizes.mean == 3
    assert found.group_sizes.largest == 5
    assert not found.group_sizes.is_assumed
    # three examples are tokenized, and the mean is that of all
    assert found.tokens_per_query == pytest.approx(4 + 3 * 6)
    assert found.tokens_per_passage == pytest.approx(6)
    assert found.deviation == pytest.approx(0), "the number of passages explains all of it"
    assert found.tokens_per_step == pytest.approx(4 * 22)
    assert found.num_texts_per_step == 4 * 4
    assert not found.is_bound


def test_the_memory_is_that_of_the_largest_contrastive_batch_of_the_run(ragged: Path) -> None:
    settings = config(ragged, "trainer.max_epochs=2")
    found = workload(settings)
    sampler = TrainBatchSampler(
        num_examples=20, batch_size=4, num_batches_per_step=1, seed=settings.seed
    )
    totals = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        totals += [sum(1 + index % 5 for _, index in keys) for keys in sampler]
    assert len(set(totals)) > 1
    assert found.group_sizes.in_largest_batch == max(totals) / 4
    contrast = contrastive_batches(build(settings.prompt), found)
    assert contrast.largest_share(1) == 4 * 4 + 6 * max(totals)
    assert contrast.largest_share(4) >= 4 + 6 * 5
    assert contrast.tokens_per_query == found.tokens_per_query, "of which the time depends"


@pytest.mark.parametrize(("number", "mean"), [(0, 1), (2, 3)])
def test_with_a_number_all_queries_have_as_many_passages(
    data: Path, number: int, mean: int
) -> None:
    lines = [{"query": "abc", "positive": "a", "negatives": ["b", "c", "d"]}] * 8
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = config(data, f"data.num_hard_negatives={number}")
    found = workload(settings)
    assert (found.group_sizes.mean, found.group_sizes.in_largest_batch) == (mean, mean)
    assert found.tokens_per_query == 4 + mean * 2
    assert contrastive_batches(build(settings.prompt), found).more_tokens_per_query == 0


def test_the_stated_number_of_examples_may_differ_from_those_that_are_here(ragged: Path) -> None:
    found = workload(config(ragged, "data.global_batch_size=32"), num_examples=320)
    assert found.num_examples == 320
    assert 3 <= found.group_sizes.in_largest_batch <= 5


def test_a_plan_says_how_many_hard_negatives_it_assumes(ragged: Path) -> None:
    assumed = "assuming 15 hard negatives a query (data.num_hard_negatives=null"
    found = workload(config(ragged), num_examples=400, tokens_per_query=50)
    assert assumed in found.tokens_from
    assert found.group_sizes.mean == 16
    ragged.unlink()
    found = workload(config(ragged, "prompt.max_query_length=10", "prompt.max_document_length=30"))
    assert assumed in found.tokens_from
    assert (found.tokens_per_query, found.is_bound) == (10 + 16 * 30, True)
    stated = workload(config(ragged, "data.num_hard_negatives=2"))
    assert "assum" not in stated.tokens_from


def test_what_is_stated_is_not_read(data: Path) -> None:
    data.unlink()
    settings = config(data, "data.num_hard_negatives=1")
    found = workload(settings, num_examples=400, tokens_per_query=50)
    assert (found.num_examples, found.num_steps, found.tokens_per_query) == (400, 100, 50)
    assert found.tokens_from == found.examples_from == "stated"


def test_data_that_are_elsewhere_leave_a_bound(data: Path) -> None:
    data.unlink()
    lengths = ("prompt.max_query_length=10", "prompt.max_document_length=30")
    found = workload(config(data, *lengths, "data.num_hard_negatives=0"))
    assert (found.num_examples, found.num_steps, found.num_tokens) == (None, None, None)
    assert (found.tokens_per_query, found.is_bound) == (40, True)
    assert "not known" in found.examples_from
    assert workload(config(data, "trainer.max_steps=7")).num_steps == 7


def test_a_tokenizer_that_cannot_be_had_is_replaced_by_characters(data: Path) -> None:
    found = workload(config(data, model="nobody/no-model"))
    assert found.tokens_per_query == 1 + 2, "three letters, and four to six"
    assert "characters a token" in found.tokens_from


def test_a_folder_without_its_tokenizer_is_a_mistake(data: Path) -> None:
    folder = tiny_folder(data.parent / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer"):
        workload(config(data, model=str(folder)))


def test_a_public_set_that_is_not_downloaded_has_its_known_size(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    study = composed("train", "experiment=sft_msmarco", f"paths.cache_dir={tmp_path}")
    found = workload(study)
    assert found.num_examples == 491_007
    assert found.num_steps == 491_007 // 128
    assert found.num_missing_bytes == 2_155_342_997
    assert (found.tokens_per_query, found.is_bound) == (32 + 16 * 156, True)


@pytest.mark.parametrize("key", ["num_examples", "tokens_per_query"])
def test_nothing_is_no_number(data: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"task.{key}=0 must be above 0"):
        workload(config(data), **{key: 0})


def test_too_few_examples_for_an_optimizer_step(data: Path) -> None:
    with pytest.raises(UserError, match="20 examples and one optimizer step needs 32"):
        workload(config(data, "data.global_batch_size=32"))
