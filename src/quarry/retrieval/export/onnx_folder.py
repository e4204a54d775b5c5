"""Export a model as a folder with an ONNX file, proven by onnxruntime before it exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.adapters.lora import merge_adapter
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.saved import CONTRACT_FILE, GOLDEN_FILE
from quarry.retrieval.export.card_facts import CardFacts
from quarry.retrieval.export.export_folder import pooling_mode
from quarry.retrieval.export.loading import EXPORT_FILE, Export
from quarry.retrieval.export.onnx_graph import (
    EmbeddingGraph,
    check_window,
    onnx_mode,
    write_graph,
)
from quarry.retrieval.export.onnx_readme import onnx_card
from quarry.retrieval.export.onnx_session import OnnxSession
from quarry.retrieval.export.tokenizer import exported_tokenizer, needs_code
from quarry.retrieval.golden_texts import (
    GOLDEN,
    MIN_COSINE,
    golden_cosines,
    golden_embeddings,
    name_of,
    role_of,
)
from quarry.runtime.files import remove, sync, sync_folder, write_json, write_text
from quarry.runtime.leftovers import scratch_folder
from quarry.types import ROLES

MAX_PADDED = 1024
"""Tokens of a text in the padded batch: scores take the square of its length."""


def check_onnx(model: BiEncoder, tokenizer: TextTokenizer) -> str:
    """Return the pooling's name in the graph.

    Raises:
        UserError: the model has a pooling or a window that the ONNX file could not have.
    """
    mode = onnx_mode(model.pooling, mode=pooling_mode(model.pooling))
    longest = max(tokenizer.longest(role) for role in ROLES)
    check_window(text_model(model.backbone), longest=longest)
    return mode


def export_onnx(
    folder: Path,
    *,
    model: BiEncoder,
    tokenizer: TextTokenizer,
    contract: Mapping[str, Any],
    facts: CardFacts | None = None,
) -> Export:
    """Write an ONNX file, the tokenizer, the contract and golden vectors to `folder`, or nothing.

    The weights are float32, those of an adapter merged. Pooling, projections and normalization are
    in the graph; its batch and length are dynamic.

    Args:
        folder: must not exist.
        model: converted to float32 and merged with its adapter in place; not usable afterwards.
        contract: of the folder.
        facts: of the run, for the model card.

    Raises:
        UserError: the model cannot be exported, or onnxruntime computes other embeddings.
    """
    mode = check_onnx(model, tokenizer)
    model.float()
    reference = golden_embeddings(model, tokenizer)
    backbone = text_model(merge_adapter(model.backbone))
    with scratch_folder(folder) as scratch:
        bare, target = scratch / "bare", scratch / folder.name
        target.mkdir()
        backbone.save_pretrained(bare)
        loaded = type(backbone).from_pretrained(
            bare, attn_implementation="eager", dtype=torch.float32
        )
        write_graph(
            EmbeddingGraph(backbone=loaded.eval(), model=model, mode=mode).eval(),
            target / "model.onnx",
        )
        remove(bare)
        vectors = onnx_golden(target, tokenizer)
        export = Export(
            dtype="float32",
            has_code=needs_code(tokenizer),
            cosines=tuple(_least(reference, vectors)),
        )
        _check(export)
        exported_tokenizer(tokenizer).save_pretrained(target)
        write_json(target / CONTRACT_FILE, contract)
        save_file({"embeddings": vectors[0].contiguous()}, target / GOLDEN_FILE)
        write_json(target / EXPORT_FILE, {"format": 1, "is_onnx": True, **asdict(export)})
        card = onnx_card(
            export,
            name=folder.name,
            tokenizer=tokenizer,
            embedding_dim=model.embedding_dim,
            is_normalized=model.is_normalized,
            is_causal=model.is_causal,
            mode=mode,
            facts=facts or CardFacts(),
        )
        write_text(target / "README.md", card)
        for file in target.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        sync(target)
        target.replace(folder)
        sync_folder(folder.parent)
    return export


def onnx_golden(folder: Path, tokenizer: TextTokenizer) -> list[Tensor]:
    """Return the golden embeddings by onnxruntime in three ways, each [8, dim] fp32.

    Every text alone; in one batch, padded on the right; the same padded on the left. Texts of more
    than `MAX_PADDED` tokens are alone in all of them.
    """
    session = OnnxSession(folder)
    rows = [tokenizer([item], role_of(item))[0].ids for item in GOLDEN]
    alone = torch.cat([session.embed([row]) for row in rows])
    found = [alone]
    places = [place for place, row in enumerate(rows) if len(row) <= MAX_PADDED]
    for pads_left in (False, True):
        padded = alone.clone()
        padded[places] = session.embed(
            [rows[place] for place in places],
            pads_left=pads_left,
            pad_id=tokenizer.tokenizer.pad_token_id or 0,
        )
        found.append(padded)
    return found


def _least(reference: Tensor, vectors: list[Tensor]) -> list[float]:
    """Return the smallest cosine of each text, NaN for invalid numbers."""
    cosines = torch.stack([golden_cosines(reference, one) for one in vectors])
    least: list[float] = cosines.amin(dim=0).tolist()
    return least


def _check(export: Export) -> None:
    for item, cosine in zip(GOLDEN, export.cosines, strict=True):
        if not cosine >= MIN_COSINE:  # NaN, too
            raise UserError(
                f"task.format=onnx: the golden text {name_of(item)!r} has a cosine of "
                f"{cosine:.6f} between this model and its ONNX file in onnxruntime, so nothing was "
                "written. Fix: task.format=sentence_transformers"
            )
