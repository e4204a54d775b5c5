"""Embeddings of a model folder as an evaluation makes them, without a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from config.configurations import composed, opened
from quarry.assembly.model_parts import build_model_parts
from quarry.config.instantiate import build
from quarry.config.settled_contract import settle
from quarry.models.building import build_bi_encoder
from quarry.retrieval.encoder import Encoder
from quarry.types import Document, Query


def embedded(
    folder: Path, queries: Sequence[Query], documents: Sequence[Document], *overrides: str
) -> tuple[list[Tensor], DictConfig]:
    """Queries' and documents' embeddings, and the configuration with what the folder has settled.

    Args:
        overrides: as on the command line of eval.py.
    """
    with opened():
        config = composed("eval", f"model.path={folder}", *overrides)
    explicit = ["model.path", *(override.partition("=")[0] for override in overrides)]
    settle(config, build(config.model), explicit=explicit, options={})
    parts = build_model_parts(config)
    model = build_bi_encoder(parts.spec, is_trained=False)
    encoder = Encoder(model=model, tokenizer=parts.tokenizer, max_tokens_per_batch=2048)
    return [encoder.encode(queries, "query"), encoder.encode(documents, "document")], config
