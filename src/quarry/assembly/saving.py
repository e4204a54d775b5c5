"""Save a trained model with its contract and golden vectors, read back from what was written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from quarry.assembly.model_parts import ModelParts, build_model_parts
from quarry.config.contract import ContractTerms, contract_of, contract_terms
from quarry.config.stored import read_stored_config
from quarry.config.world_size import foreign_checkpoint
from quarry.distributed import world
from quarry.errors import UserError
from quarry.models.adapters.lora import check_adapter_file
from quarry.models.backbones.text_model import base_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import build_bi_encoder
from quarry.models.memory import memory_need
from quarry.models.saved import GOLDEN_FILE, describe_base, save_model
from quarry.retrieval.golden_texts import golden_embeddings, golden_texts, golden_token_ids
from quarry.runtime.ownership import owned
from quarry.runtime.run_directory import RunDirectory
from quarry.training.checkpoint_files import CheckpointFiles
from quarry.training.trained_state import (
    check_checkpoint,
    full_state,
    is_spread,
    read_trained,
)

logger = logging.getLogger(__name__)

LEAST_COSINE = 0.95
"""Smallest cosine between embeddings of the model in memory and of the saved one.

Only precision may differ.
"""


@dataclass(frozen=True, kw_only=True)
class ModelSaver:
    """Write the model folder that `eval.py model.path=RUN` and `task=verify` read.

    Args:
        parts: the spec that the model was built from, and its tokenizer.
        terms: the configuration's part of the contract.
    """

    parts: ModelParts
    terms: ContractTerms

    def save(self, folder: Path, *, model: BiEncoder) -> None:
        """Save a model in memory.

        A collective operation, since ranks may hold shards of the model; rank 0 writes.
        """
        has_adapter = model.backbone is not base_model(model.backbone)
        state = projections = None
        if is_spread(model):
            state = full_state(model.backbone, is_trained_only=has_adapter)
            projections = full_state(model.projections, is_trained_only=False)
        saving = partial(
            self._write,
            folder,
            model=model,
            state=state,
            projections=projections,
            embeddings=golden_embeddings(model, self.parts.tokenizer),
        )
        world.first_does(saving)

    def save_checkpoint(self, run: RunDirectory) -> None:
        """Save the model of a run's checkpoint, on the CPU of one process.

        Raises:
            UserError: the checkpoint does not hold exactly what the run trains.
        """
        model = build_bi_encoder(self.parts.spec.in_plain_products())
        of_all = read_trained(run.checkpoint)  # with the loss's parameters
        state = {name: value for name, value in of_all.items() if name.startswith("model.")}
        module = torch.nn.ModuleDict({"model": model})  # for the checkpoint's names, "model.*"
        check_checkpoint({"state_dict": state}, module)
        module.load_state_dict(state, strict=False)
        self._write(
            run.model,
            model=model,
            state=None,
            projections=None,
            embeddings=golden_embeddings(model, self.parts.tokenizer),
        )

    def _write(
        self,
        folder: Path,
        *,
        model: BiEncoder,
        state: Mapping[str, Tensor] | None,
        projections: Mapping[str, Tensor] | None,
        embeddings: Tensor,
    ) -> None:
        spec, tokenizer = self.parts.spec, self.parts.tokenizer
        base = spec.source.base_location()
        contract = contract_of(
            self.terms,
            model=model,
            tokenizer=tokenizer,
            base=describe_base(base, revision=spec.source.base_revision(), commit=model.commit),
            projections=spec.source.projections(),
        )
        dtype = _golden_dtype(model)
        contract["golden"] = {
            "dtype": dtype,
            "texts": golden_texts(),
            "token_ids": golden_token_ids(tokenizer),
        }

        def add_golden(scratch: Path) -> None:
            check_adapter_file(scratch, model.backbone, state=state)
            saved = build_bi_encoder(spec.saved_as(scratch, dtype=dtype), is_trained=False)
            vectors = golden_embeddings(saved, tokenizer)
            _check_embeddings(vectors, embeddings)
            save_file({"embeddings": vectors.contiguous()}, scratch / GOLDEN_FILE)

        save_model(
            folder,
            model=model,
            tokenizer=tokenizer.tokenizer,
            contract=contract,
            state=state,
            projections=projections,
            add_golden=add_golden,
        )


def consolidate_if_unfinished(path: str | None, *, trusted: Sequence[str]) -> None:
    """Write `model/` of a run that has a checkpoint and no model yet, on one CPU.

    ZeRO's shards are consolidated. Other folders are left alone. A run that is resumed later
    replaces the model at its end.

    Args:
        trusted: packages whose classes the stored configuration may name.

    Raises:
        UserError: the configuration or the checkpoint is not what a run writes.
    """
    if path is None:
        return
    run = RunDirectory.shared(Path(path).expanduser())
    if run.model.exists() or not (run.has_checkpoint and run.config.exists()):
        return
    with owned(run.path):
        CheckpointFiles(run.checkpoint).recover()
        logger.warning(
            "%s was stopped before its end: the model is that of its checkpoint", run.path
        )
        stored = read_stored_config(run.config, trusted=trusted)
        stored.paths.run_dir = str(run.path)
        if (problem := foreign_checkpoint(stored, run.checkpoint)) is not None:
            raise UserError(problem)
        parts = build_model_parts(stored)
        ModelSaver(parts=parts, terms=contract_terms(stored)).save_checkpoint(run)


def _check_embeddings(saved: Tensor, in_memory: Tensor) -> None:
    least = cosine_similarity(saved, in_memory).min().item()
    if not in_memory.isfinite().all():
        raise UserError(
            "The embeddings of the trained model are not finite, so it is not saved: training "
            "diverged. Fix: lower optimizer.lr, and start again"
        )
    if not least > LEAST_COSINE:
        raise RuntimeError(
            f"The model as it was saved gives other embeddings than the one in memory (cosine "
            f"{least:.4f}): nothing was replaced, and the checkpoint holds the training state."
        )


def _golden_dtype(model: BiEncoder) -> str:
    """Return float32, or the model's own dtype where memory is too small for float32."""
    import psutil

    need = memory_need(model.backbone.config, dtype=torch.float32)
    if need.num_bytes <= psutil.virtual_memory().available:
        return "float32"
    dtype = str(next(model.backbone.parameters()).dtype).removeprefix("torch.")
    logger.warning(
        "The golden vectors are computed in %s: float32 needs more memory than is free", dtype
    )
    return dtype
