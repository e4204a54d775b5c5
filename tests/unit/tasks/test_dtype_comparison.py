"""Embeddings beside embeddings, by hand."""

from __future__ import annotations

from typing import cast

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from helpers.conventions import convention
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.encoder import Encoder
from quarry.tasks.build_evaluation import in_plain_dtype
from quarry.tasks.dtype_comparison import (
    EmbeddingSample,
    agreement_lines,
    agreements,
)
from quarry.types import Report, RetrievalSet


def test_agreement_by_hand() -> None:
    reference = {"one": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    found = agreements({"one": torch.tensor([[3.0, 0.0], [1.0, 1.0]])}, reference)
    assert (found[0].name, found[0].num_texts) == ("one", 2)
    assert found[0].smallest == pytest.approx(0.5**0.5)
    assert found[0].mean == pytest.approx((1 + 0.5**0.5) / 2)
    expected = "one: cosine to bf16 mean 0.85355, smallest 0.70711 (2 texts)"
    assert agreement_lines(found, "bf16") == expected


def test_the_other_model_is_plain_and_the_first_configuration_stays() -> None:
    config = OmegaConf.create({"model": {"linear_precision": "fp8", "dtype": "auto", "size": "7B"}})
    other = in_plain_dtype(config, "bf16")
    assert other.model == {"linear_precision": None, "dtype": "bf16", "size": "7B"}
    assert config.model.linear_precision == "fp8"


def test_a_set_that_failed_is_not_compared() -> None:
    def load() -> RetrievalSet:
        raise AssertionError("it was read again")

    evaluator = Evaluator(
        benchmark=Benchmark(name="b", sets=[BenchmarkSet(name="bad", load=load)]),
        measures=["nDCG@10"],
        top_k=10,
        convention=convention(),
    )
    sample = EmbeddingSample(
        evaluator=evaluator,
        build_encoder=lambda model: cast(Encoder, model),
        reports=[Report(retriever="dense", results=(), failures={"bad": "cut off"})],
    )
    sample.on_test_epoch_end(cast(pl.Trainer, None), RetrievalModuleStub())
    assert sample.embeddings == {}
    assert agreements({}, {"bad": torch.ones(1, 2)}) == []


class RetrievalModuleStub(pl.LightningModule):
    """A module whose model nobody asks for anything."""

    model = None
