"""A bi-encoder as a graph of padded batches, and its ONNX file: ids and mask in, embeddings out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from quarry.errors import UserError
from quarry.models.attention import first_position
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "sentence_embedding"

MAX_FILE_BYTES = 1_500_000_000
"""Weights up to which all is one file: a protobuf has at most 2 GiB."""

MODES = ("lasttoken", "cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean")
"""Poolings of a padded batch, by the names of sentence-transformers."""


class EmbeddingGraph(nn.Module):
    """A bi-encoder of padded batches in float32, padded on either side.

    Transformers' own mask code is left out: it is given the complete mask, [batch, 1, length,
    length].

    Args:
        backbone: with eager attention, its cache of keys is switched off.
        model: the rest is this bi-encoder's.
        mode: one of `MODES`.
    """

    def __init__(self, *, backbone: PreTrainedModel, model: BiEncoder, mode: str) -> None:
        super().__init__()
        backbone.config.use_cache = False
        self.backbone = backbone
        self.projections = model.projections
        self.kept_dim = model.kept_dim
        self.is_normalized = model.is_normalized
        self.is_causal = model.is_causal
        self.first_position = first_position(backbone)
        self.mode = mode

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the embeddings, [batch, dim] fp32.

        Args:
            input_ids, attention_mask: [batch, length] int64, the mask 1 for tokens and 0 for
                padding.
        """
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        states = self.backbone(
            input_ids=input_ids,
            attention_mask=self._mask(attention_mask),
            position_ids=positions + self.first_position,
        ).last_hidden_state
        projected: Tensor = self.projections(self._pooled(states, attention_mask, positions))
        if self.kept_dim is not None:
            projected = projected[:, : self.kept_dim]
        return normalize(projected, dim=-1) if self.is_normalized else projected

    def _mask(self, attention_mask: Tensor) -> Tensor:
        """Return what is added to the scores: 0 where a token sees another, else a huge negative
        number."""
        length = attention_mask.shape[1]
        seen = attention_mask.bool()[:, None, None, :].expand(-1, 1, length, -1)
        if self.is_causal:
            places = torch.arange(length, device=attention_mask.device)
            seen = seen & (places[None, :] <= places[:, None])
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)

    def _pooled(self, states: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
        """Return one vector a text, [batch, hidden]."""
        rows = torch.arange(states.shape[0], device=states.device)
        if self.mode == "cls":
            return states[rows, attention_mask.argmax(dim=1)]
        if self.mode == "lasttoken":
            places = torch.arange(1, states.shape[1] + 1, device=states.device)
            return states[rows, (attention_mask * places).argmax(dim=1)]
        is_token = attention_mask[:, :, None]
        if self.mode == "max":
            return states.masked_fill(is_token == 0, torch.finfo(states.dtype).min).amax(dim=1)
        weights = is_token.to(states.dtype)
        if self.mode == "weightedmean":
            weights = weights * (positions[:, :, None] + 1)
        total = weights.sum(dim=1)
        if self.mode == "mean_sqrt_len_tokens":
            total = total.sqrt()
        return (states * weights).sum(dim=1) / total


def onnx_mode(pooling: Pooling, *, mode: str) -> str:
    """Return the pooling's mode in a graph that receives ids and a mask, and nothing else.

    Raises:
        UserError: it begins behind the prompt, which these inputs do not show.
    """
    has_borders = getattr(pooling, "pools_last_copy", False)
    if has_borders or not getattr(pooling, "include_prompt", True) or mode not in MODES:
        raise UserError(
            f"task.format=onnx: {type(pooling).__name__} pools what stands behind the prompt, and "
            "an ONNX file receives ids and a mask alone. Fix: task.format=sentence_transformers"
        )
    return mode


def check_window(backbone: PreTrainedModel, *, longest: int) -> None:
    """Refuse layers with a sliding window that a text of the contract's length would notice.

    Raises:
        UserError: the window is shorter than the longest text.
    """
    config = backbone.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ()
    is_used = "sliding_attention" in kinds if kinds else window is not None
    if is_used and window is not None and window < longest:
        raise UserError(
            f"task.format=onnx: {type(backbone).__name__} has a sliding window of {window} tokens, "
            f"and texts have up to {longest}; the ONNX file would not have the window. Fix: "
            "task.format=sentence_transformers"
        )


def write_graph(graph: EmbeddingGraph, file: Path) -> None:
    """Write the ONNX file; weights of more than `MAX_FILE_BYTES` lie beside it (`.data`).

    Raises:
        UserError: torch cannot export the architecture.
    """
    ids = torch.arange(14).remainder(5).reshape(2, 7)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    num_bytes = sum(one.numel() * one.element_size() for one in graph.parameters())
    try:
        with _quiet(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own, about its own code
            program = torch.onnx.export(
                graph, (ids, mask), dynamo=True, verbose=False,
                input_names=list(INPUTS), output_names=[OUTPUT],
                dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            )  # fmt: skip
            assert program is not None
            program.save(str(file), external_data=num_bytes > MAX_FILE_BYTES)
    except (torch.onnx.errors.OnnxExporterError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"task.format=onnx: torch cannot export {type(graph.backbone).__name__} ({reason}). "
            "Fix: task.format=sentence_transformers"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter's libraries log about their own work."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
