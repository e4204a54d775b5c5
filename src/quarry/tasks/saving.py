"""Saves a trained model with its contract and golden vectors, read back from what was written."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity

from quarry.config.contract import contract_of
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.factory import BiEncoderFactory
from quarry.models.memory import memory_need
from quarry.models.saved import GOLDEN_FILE, describe_base, save_model
from quarry.retrieval.golden import golden_embeddings, golden_texts, golden_token_ids

logger = logging.getLogger(__name__)

LEAST_COSINE = 0.95
"""Between the vectors of the model in memory and as it was saved: only precision may differ."""


def save_trained_model(
    config: DictConfig,
    folder: Path,
    *,
    factory: BiEncoderFactory,
    model: BiEncoder,
    tokenizer: TextTokenizer,
) -> None:
    """Writes the model folder that `eval.py model.path=RUN` and `task=verify` read."""
    base = factory.base_source()
    contract = contract_of(
        config,
        model=model,
        tokenizer=tokenizer,
        base=describe_base(base, revision=factory.revision, commit=model.commit),
    )
    dtype = _golden_dtype(model)
    contract["golden"] = {
        "dtype": dtype,
        "texts": golden_texts(),
        "token_ids": golden_token_ids(tokenizer),
    }

    def add_golden(scratch: Path) -> None:
        _write_golden(scratch, factory=factory, dtype=dtype, model=model, tokenizer=tokenizer)

    save_model(
        folder,
        model=model,
        tokenizer=tokenizer.tokenizer,
        contract=contract,
        add_golden=add_golden,
    )


def _write_golden(
    folder: Path,
    *,
    factory: BiEncoderFactory,
    dtype: str,
    model: BiEncoder,
    tokenizer: TextTokenizer,
) -> None:
    saved = factory.saved_as(folder, dtype=dtype).build(is_trained=False)
    vectors = golden_embeddings(saved, tokenizer)
    least = cosine_similarity(vectors, golden_embeddings(model, tokenizer).cpu()).min().item()
    if not least > LEAST_COSINE:
        raise RuntimeError(
            f"The model as it was saved gives other embeddings than the one in memory (cosine "
            f"{least:.4f}): nothing was replaced, and the checkpoint holds the training state."
        )
    save_file({"embeddings": vectors.contiguous()}, folder / GOLDEN_FILE)


def _golden_dtype(model: BiEncoder) -> str:
    """float32, unless the trunk would not fit beside what is in memory."""
    import psutil

    need = memory_need(model.backbone.config, dtype=torch.float32, trains_trunk=False)
    if need.num_bytes <= psutil.virtual_memory().available:
        return "float32"
    dtype = str(next(model.backbone.parameters()).dtype).removeprefix("torch.")
    logger.warning(
        "The golden vectors are computed in %s: float32 needs more memory than is free", dtype
    )
    return dtype
