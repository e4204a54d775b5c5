"""Embeddings beside embeddings, by hand."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from quarry.tasks.dtype_comparison import agreement_lines, agreements, in_plain_dtype


def test_agreement_by_hand() -> None:
    reference = {"one": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    found = agreements({"one": torch.tensor([[3.0, 0.0], [1.0, 1.0]])}, reference)
    assert (found[0].name, found[0].num_texts) == ("one", 2)
    assert found[0].smallest == pytest.approx(0.5**0.5)
    assert found[0].mean == pytest.approx((1 + 0.5**0.5) / 2)
    expected = "one: cosine to bf16 mean 0.85355, smallest 0.70711 (2 texts)"
    assert agreement_lines(found, "bf16") == expected


def test_the_other_model_is_plain_and_the_first_configuration_stays() -> None:
    config = OmegaConf.create({"model": {"linear": "fp8", "dtype": "auto", "size": "7B"}})
    other = in_plain_dtype(config, "bf16")
    assert other.model == {"linear": "plain", "dtype": "bf16", "size": "7B"}
    assert config.model.linear == "fp8"
