"""Hold the options of a model besides its files: pooling, adapter, dtype, compilation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quarry.errors import UserError
from quarry.models.adapters.base import Adapter
from quarry.models.dtypes import DTYPES
from quarry.models.pooling.base import Pooling
from quarry.runtime.devices import has_gpu

AUTO = "auto"
ATTENTIONS = (AUTO, "grid")
PRECISIONS = (None, "fp8")
"""Precision of linear layers: the weights' own, or fp8."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of a bi-encoder, named as their configuration keys under `model`.

    Attributes:
        pooling: see `BiEncoder`; settled before the model is built, where its files decide it.
        adapter: which weights are trained.
        is_causal: False lets every token attend to the complete text; None: as the backbone was
            built.
        normalize: embeddings have length 1, so that an inner product is a cosine.
        embedding_dim: see `BiEncoder`.
        dtype: float32, bfloat16 or float16, of the backbone's weights; auto: float32 on a CPU and
            where the backbone is trained, else bfloat16.
        attention: auto: torch's variable-length kernel where it runs; grid: never.
        linear_precision: None: the weights'; fp8: frozen weights and their products in fp8 (see
            `models.fp8`).
        compile: torch.compile the layers: true, false, or auto: on a GPU, for long runs.
        gradient_checkpointing: True: recompute each layer in the backward pass, for less memory;
            "selective": only the element-wise operations of compiled layers; "auto": chosen by
            `planning.step_fit`, and until then the same as False.

    Raises:
        UserError: an unknown value.
    """

    pooling: Pooling
    adapter: Adapter
    is_causal: bool | None
    normalize: bool
    dtype: str
    attention: str
    linear_precision: str | None
    compile: bool | str
    gradient_checkpointing: bool | str = False
    embedding_dim: int | None = None

    def __post_init__(self) -> None:
        for key, value, allowed in (
            ("dtype", self.dtype, (AUTO, *DTYPES)),
            ("attention", self.attention, ATTENTIONS),
            ("linear_precision", self.linear_precision, PRECISIONS),
            ("compile", self.compile, (AUTO, True, False)),
        ):
            if value not in allowed:
                names = ", ".join(_shown(each) for each in allowed)
                raise UserError(f"model.{key}={_shown(value)} is not one of {names}.")
        if self.embedding_dim is not None and self.embedding_dim < 1:
            raise UserError(
                f"model.embedding_dim={self.embedding_dim}: must be 1 or more, or null for all "
                "entries of an embedding. Fix: model.embedding_dim=null"
            )

    def torch_dtype(self, *, is_trained: bool) -> torch.dtype:
        """Return the dtype of the backbone's weights on this machine."""
        if self.dtype != AUTO:
            return DTYPES[self.dtype]
        trains_backbone = is_trained and self.adapter.trains_backbone
        is_half = has_gpu() and not trains_backbone
        return torch.bfloat16 if is_half else torch.float32


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower()
