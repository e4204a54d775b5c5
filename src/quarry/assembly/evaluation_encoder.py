"""Build the encoders of evaluation, with embeddings in memory or in the embedding store."""

from __future__ import annotations

import hashlib
import inspect
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig, OmegaConf

import quarry
from quarry.assembly.model_parts import ModelParts
from quarry.config.evaluation_rules import corpus_violations
from quarry.distributed import world
from quarry.errors import UserError
from quarry.models.backbones.fingerprint import file_digest, weights_digest
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.corpus_embeddings import CorpusStorage
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.store.shelf import Shelf
from quarry.retrieval.stored_encoder import StoredEncoder
from quarry.retrieval.unique_encoder import UniqueEncoder
from quarry.types import ROLES, Role

ENCODING_VERSION = 1
"""Raise it when a code change alters embeddings: it is part of the store's key."""


def unique_encoder_builder(
    config: DictConfig, parts: ModelParts, *, compiles_long_passes: bool = False
) -> Callable[[BiEncoder], TextEncoder]:
    """Return a builder of encoders for weights that change, as in training.

    Query embeddings stay in memory; a corpus may be a file in the run directory. None outlives
    its encoder.

    Args:
        compiles_long_passes: see `Encoder`; not for weights that are in training.

    Raises:
        UserError: `evaluation.corpus_on_disk` or `corpus_dtype` has an unknown value.
    """
    if violations := list(corpus_violations(config.evaluation)):  # a resumed run is not validated
        raise UserError("\n".join(violations))
    build_encoder = parts.encoder_builder(
        max_tokens_per_batch=config.evaluation.max_tokens_per_batch,
        compiles_long_passes=compiles_long_passes,
    )
    storage = CorpusStorage(
        folder=Path(config.paths.run_dir),
        on_disk=config.evaluation.corpus_on_disk,
        dtype=config.evaluation.corpus_dtype,
    )
    return lambda model: UniqueEncoder(encoder=build_encoder(model), storage=storage)


def stored_encoder_builder(
    config: DictConfig, parts: ModelParts
) -> Callable[[BiEncoder], TextEncoder]:
    """Return a builder of encoders for weights as loaded, with embeddings in `paths.store_dir`.

    Raises:
        UserError: the folder does not exist and cannot be created.
    """
    build_encoder = parts.encoder_builder(
        max_tokens_per_batch=config.evaluation.max_tokens_per_batch, compiles_long_passes=True
    )
    store = _opened(config.paths.store_dir)
    shelves: dict[Role, Shelf] = {}

    def build(model: BiEncoder) -> StoredEncoder:
        if not shelves:
            shelves.update(_shelves(config, parts, model, store=store))
        return StoredEncoder(encoder=build_encoder(model), shelves=shelves)

    return build


def embedding_contract(config: DictConfig, parts: ModelParts, *, memo: Path) -> dict[Role, Any]:
    """Return everything that an embedding of each role depends on, as plain data.

    Left out is what changes only the last bits: device, versions, batches, compiled layers.

    Args:
        memo: see `weights_digest`.
    """
    spec, tokenizer = parts.spec, parts.tokenizer
    prompt = tokenizer.prompt
    base = (spec.source.base_location(), spec.source.base_revision())
    own = (spec.source.location(), spec.source.revision)
    folders = dict.fromkeys([base, own])  # once if the same
    shared = {
        "version": ENCODING_VERSION,
        "weights": [
            weights_digest(folder, revision=revision, memo=memo) for folder, revision in folders
        ],
        "pooling": OmegaConf.to_container(config.model.pooling, resolve=True),
        "pooling_code": _code_digest(type(spec.options.pooling)),
        "is_causal": spec.options.is_causal,
        "is_normalized": spec.options.normalize,
        "dtype": str(spec.options.torch_dtype(is_trained=False)),
        "attention": spec.options.attention,
        # the first version's names and values: others would invalidate everything that is stored
        "linear": spec.options.linear_precision or "plain",
        "precision": str(config.trainer.precision),
        "tokenizer": tokenizer.digest(),
        "length_counts": prompt.length_counts,
    }
    projections = [
        dense.as_data() | {"weights": file_digest(dense.weights, memo=memo)}
        for dense in spec.source.projections()
    ]
    if projections:
        shared["projections"] = projections
    if spec.options.embedding_dim is not None:
        shared["embedding_dim"] = spec.options.embedding_dim
    return {
        role: {
            **shared,
            # strip is left out: the store holds stripped texts
            "frame": {k: v for k, v in asdict(tokenizer.frames[role]).items() if k != "strip"},
            "max_length": prompt.max_length(role),
        }
        for role in ROLES
    }


def _shelves(
    config: DictConfig, parts: ModelParts, model: BiEncoder, *, store: Path
) -> dict[Role, Shelf]:
    # rank 0 alone reads all weights for their digest
    contracts = world.first_does(partial(embedding_contract, config, parts, memo=store / "weights"))
    device = next(model.parameters()).device
    made_by = {
        "model": parts.spec.source.location(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "platform": platform.platform(),
        "compile": parts.spec.options.compile,
        "quarry": quarry.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return {
        role: Shelf(
            store=store,
            contract=contract,
            dim=model.embedding_dim,
            dtype=config.evaluation.store_dtype,
            made_by=made_by,
        )
        for role, contract in contracts.items()
    }


def _code_digest(cls: type) -> str:
    """Return the digest of the file that defines a class, so that new code misses old vectors."""
    return hashlib.sha256(inspect.getsource(sys.modules[cls.__module__]).encode()).hexdigest()


def _opened(store_dir: str) -> Path:
    store = Path(store_dir).expanduser().absolute()
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"paths.store_dir={store_dir}: cannot be created ({error.strerror}). Fix: "
            "paths.store_dir=DIR that can be written to, or evaluation.store=false."
        ) from error
    return store
