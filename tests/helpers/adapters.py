"""Adapters as peft saves them, trained on tiny models with heads of any architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from helpers.models import letter_tokenizer
from quarry.models.adapters.stored_adapter import load_adapter, read_adapter
from quarry.models.backbones.huggingface import load_backbone
from quarry.models.backbones.text_model import base_model

HEADS: dict[str | None, Any] = {
    None: AutoModel,
    "FEATURE_EXTRACTION": AutoModel,
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_CLS": AutoModelForSequenceClassification,
    "VISION": AutoModelForImageTextToText,
}
"""A task type -> the class of the model that adapters of it are trained on."""

IDS = torch.tensor([[5, 6, 7, 8, 9, 3]])

_SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def base_folder(folder: Path, model_type: str = "qwen2", **more: Any) -> Path:
    """A language model with its head, and a tokenizer, seeded."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(_SHAPE | more))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder


def vision_folder(folder: Path) -> Path:
    """A vision-language model of Qwen2.5-VL's kind with its head."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = AutoConfig.for_model(
        "qwen2_5_vl",
        text_config=_SHAPE | {"rope_parameters": rope},
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "out_hidden_size": 32, "fullatt_block_indexes": [0],
        },
    )  # fmt: skip
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder


def adapter_folder(
    folder: Path, base: Path, *, head: str | None = "CAUSAL_LM", config: PeftConfig | None = None,
    **more: Any,
) -> Path:  # fmt: skip
    """An adapter, none of whose weights is zero, saved by peft alone."""
    task = None if head == "VISION" else head
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]} | more
    config = config or LoraConfig(task_type=task, **settings)
    adapted = get_peft_model(HEADS[head].from_pretrained(base), config)
    torch.manual_seed(1)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(folder)
    return folder


def states_of_peft(base: Path, adapter: Path, *, head: str | None = "CAUSAL_LM") -> torch.Tensor:
    """Last hidden states of `IDS` by peft on the model that the adapter was trained on."""
    adapted = PeftModel.from_pretrained(HEADS[head].from_pretrained(base), str(adapter)).eval()
    whole = adapted.get_base_model()
    backbone = whole.base_model if HEADS[head] is not AutoModel else whole
    with torch.inference_mode():
        states: torch.Tensor = backbone(input_ids=IDS, use_cache=False).last_hidden_state
    return states


def loaded(base: Path, adapter: Path) -> PreTrainedModel:
    """The adapter on the backbone, by our own code."""
    backbone = load_backbone(str(base), dtype=torch.float32)
    return load_adapter(backbone, read_adapter(str(adapter)))


def states_of(adapted: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        output = base_model(adapted).eval()(input_ids=IDS, use_cache=False)
    states: torch.Tensor = output.last_hidden_state
    return states


def change_weights(adapter: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replaces, adds or (None) removes weights of a saved adapter."""
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file) | {k: v for k, v in change.items() if v is not None}
    for name in [name for name, weight in change.items() if weight is None]:
        del weights[name]
    save_file(weights, file, metadata={"format": "pt"})


def rename_weights(adapter: Path, old: str, new: str) -> None:
    file = adapter / "adapter_model.safetensors"
    weights = {name.replace(old, new): weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
