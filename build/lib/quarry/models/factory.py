"""Everything needed to build a bi-encoder, as plain values; nothing is loaded until asked for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedTokenizerBase

from quarry.errors import MissingPathError, UserError
from quarry.models.adapters.base import Adapter
from quarry.models.adapters.full import FullFineTuning
from quarry.models.backbones.huggingface import (
    adapter_base,
    load_backbone,
    load_tokenizer,
    resolve_source,
)
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Replica(Protocol):
    """A model folder that can be made on the spot."""

    def folder(self) -> Path: ...


class BiEncoderFactory:
    """Where a bi-encoder's weights come from and how its parts fit together.

    The same factory serves training and evaluation on every rank: it is cheap until `build()`.

    Args:
        path: a run directory, a Hugging Face or peft folder, or a hub id; null: `replica`.
        revision: of a hub id: branch, tag or commit.
        replica: makes the folder where `path` is null.
        pooling, is_causal, is_normalized: see `BiEncoder`.
        adapter: which weights are trained.
        dtype: float32, bfloat16 or float16, of the trunk's weights.
        has_trusted_code: lets a repository's own Python code run (off: never).
    """

    def __init__(
        self,
        *,
        path: str | None,
        revision: str | None,
        replica: Replica | None,
        pooling: Pooling,
        adapter: Adapter,
        is_causal: bool,
        is_normalized: bool,
        dtype: str,
        has_trusted_code: bool,
    ) -> None:
        if dtype not in DTYPES:
            raise UserError(f"model.dtype={dtype} is not one of {', '.join(DTYPES)}.")
        self.path = path
        self.revision = revision
        self.replica = replica
        self.pooling = pooling
        self.adapter = adapter
        self.is_causal = is_causal
        self.is_normalized = is_normalized
        self.dtype = DTYPES[dtype]
        self.has_trusted_code = has_trusted_code

    def source(self) -> str:
        """The folder or hub id to load from; makes the replica where there is no path."""
        if self.path is not None:
            return resolve_source(self.path)
        if self.replica is not None:
            return str(self.replica.folder())
        raise MissingPathError(
            "model.path is not set. Give a run directory, a Hugging Face folder or a hub id: "
            "model.path=DIR; or choose a model: model=qwen-tiny."
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer beside the weights; an adapter folder without one lends its base's."""
        source = self.source()
        base = adapter_base(source)
        if base is not None and not (Path(source) / "tokenizer.json").exists():
            source = base
        return load_tokenizer(source, revision=self.revision)

    def build(self) -> BiEncoder:
        """Loads the weights and puts the parts together.

        A path that is a peft adapter is loaded onto its base and is what is trained further;
        `adapter` then has no say.
        """
        source = self.source()
        base = adapter_base(source)
        backbone = load_backbone(
            base or source,
            dtype=self.dtype,
            revision=self.revision,
            has_trusted_code=self.has_trusted_code,
        )
        if base is None:
            backbone = self.adapter(backbone)
        else:
            from quarry.models.adapters.lora import load_adapter

            if not isinstance(self.adapter, FullFineTuning):
                logger.warning("model/adapter has no effect: %s holds an adapter already", source)
            backbone = load_adapter(backbone, source)
        return BiEncoder(
            backbone=backbone,
            pooling=self.pooling,
            is_causal=self.is_causal,
            is_normalized=self.is_normalized,
        )
