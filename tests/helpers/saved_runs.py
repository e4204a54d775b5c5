"""A run directory as training leaves it, its weights random, with contract and golden vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file

from quarry.config.contract import contract_of, contract_terms
from quarry.config.instantiate import build
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.adapters.base import Adapter
from quarry.models.adapters.full import FullFineTuning
from quarry.models.adapters.lora import LoRA
from quarry.models.building import build_bi_encoder
from quarry.models.model_spec import model_spec
from quarry.models.saved import GOLDEN_FILE, describe_base, save_model
from quarry.retrieval.golden_texts import golden_embeddings, golden_token_ids

PROMPTS = Path(__file__).resolve().parents[2] / "conf" / "prompt"
PROMPT_NAMES = sorted(file.stem for file in PROMPTS.glob("*.yaml"))
LAST_TOKEN = "quarry.models.pooling.last_token.LastToken"
LORA = LoRA(r=4, alpha=8, dropout=0.0, target_modules=["q_proj", "down_proj"])
FULL = FullFineTuning()


def prompt_settings(name: str) -> dict[str, Any]:
    """What conf/prompt says of a prompt, those it inherits from included."""
    settings: dict[str, Any] = {}
    while name:
        content = yaml.safe_load((PROMPTS / f"{name}.yaml").read_text(encoding="utf-8"))
        name = content.pop("defaults", [""])[0]
        settings = content | settings
    return settings


def saved_run(
    run: Path,
    *,
    base: Path,
    prompt: Mapping[str, Any],
    pooling: str = LAST_TOKEN,
    adapter: Adapter = FULL,
    is_causal: bool = True,
    is_normalized: bool = True,
) -> Path:
    """Save a changed `base` to `run`/model.

    Args:
        base: a model folder with its tokenizer.
        prompt: arguments of `Prompt`.
        pooling: the class by its name.
    """
    settings = {
        "prompt": {"_target_": "quarry.data.prompts.Prompt", **prompt},
        "model": {
            "pooling": {"_target_": pooling},
            "is_causal": is_causal,
            "normalize": is_normalized,
            "dtype": "float32",
            "base_path": None,
        },
        "loss": {},
    }
    config = OmegaConf.create(settings)
    spec = model_spec(
        path=str(base), revision=None, replica=None, pooling=build(config.model.pooling),
        adapter=adapter, is_causal=is_causal, normalize=is_normalized, dtype="float32",
        attention="auto", linear_precision=None, compile=False, gradient_checkpointing=False,
        trust_remote_code=False,
    )  # fmt: skip
    model = build_bi_encoder(spec)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    arguments = {key: value for key, value in prompt.items() if key != "_target_"}
    tokenizer = TextTokenizer(tokenizer=spec.source.load_tokenizer(), prompt=Prompt(**arguments))
    contract = contract_of(
        contract_terms(config),
        model=model,
        tokenizer=tokenizer,
        base=describe_base(str(base), revision=None, commit=None),
    )
    golden = {"dtype": "float32", "token_ids": golden_token_ids(tokenizer)}
    save_model(
        run / "model",
        model=model,
        tokenizer=tokenizer.tokenizer,
        contract=contract | {"golden": golden},
    )
    vectors = golden_embeddings(model, tokenizer)
    save_file({"embeddings": vectors}, run / "model" / GOLDEN_FILE)
    OmegaConf.save(config, run / "config_resolved.yaml")
    return run
