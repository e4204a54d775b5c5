"""Layers in fp8 without LoRA's fast path are not compiled by a torch that loses their gradients."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from torch import nn

from helpers.models import tiny_qwen
from quarry.errors import UserError
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.fp8_gradients import check_fp8_gradients
from quarry.models.adapters.lora import LoRA
from quarry.models.building import set_layer_modes
from quarry.models.fp8 import replace_linear_layers

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def backbone(target_modules: list[str], *, is_trained_through: bool = True) -> PeftModel:
    adapter = LoRA(r=2, alpha=4, dropout=0.0, target_modules=target_modules)
    adapted = adapter(tiny_qwen(hidden_size=32, intermediate_size=64))
    replace_linear_layers(adapted, is_trained_through=is_trained_through)
    use_fast_lora(adapted)
    return adapted


def test_an_old_torch_is_refused_with_the_layers_and_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    adapted = backbone(["v_proj", "o_proj"])
    with pytest.raises(UserError) as error:
        set_layer_modes(adapted, gradient_checkpointing=False, is_compiled=True)
    message = str(error.value)
    assert "down_proj, gate_proj, k_proj, q_proj, up_proj" in message
    assert "torch 2.11.0+cu130" in message
    assert "model.compile=false" in message


def test_layers_that_take_peft_s_own_path_are_refused_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    adapted = backbone(ALL)
    adapted.base_model.model.layers[0].self_attn.o_proj.lora_dropout["default"] = nn.Dropout1d(0.1)
    with pytest.raises(UserError, match="wrong gradients at o_proj, which"):
        check_fp8_gradients(adapted)


@pytest.mark.parametrize("version", ["2.11.0", "2.12.1"])
def test_all_layers_under_lora_or_encoding_alone_are_right(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    check_fp8_gradients(backbone(ALL))
    check_fp8_gradients(backbone(["v_proj"], is_trained_through=False))
    check_fp8_gradients(tiny_qwen())


def test_a_later_torch_compiles_any_choice() -> None:
    check_fp8_gradients(backbone(["v_proj"]))
