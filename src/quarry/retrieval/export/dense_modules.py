"""Convert projections to modules of an exported folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from quarry.models.bi_encoder import BiEncoder
from quarry.models.projections import Projection

NUM_MODULES_BEFORE = 2
"""Transformer and pooling: sentence-transformers numbers the folders of modules."""


def dense_modules(model: BiEncoder, *, dtype: torch.dtype) -> Iterator[Any]:
    """Yield the projections as modules of sentence-transformers, with their weights.

    Where the model keeps the first entries of an embedding, the last module does so: the first rows
    of an identity matrix.
    """
    from sentence_transformers.base.modules import Dense

    yield from _projections(model.projections.to(dtype))
    if model.kept_dim is not None:
        cut = Dense(
            model.full_dim, model.kept_dim, bias=False, activation_function=nn.Identity()
        ).to(dtype)
        nn.init.eye_(cut.linear.weight)
        yield cut


def _projections(projections: nn.Sequential) -> Iterator[Any]:
    from sentence_transformers.base.modules import Dense

    for projection in projections:
        assert isinstance(projection, Projection)
        linear = projection.linear
        dense = Dense(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            activation_function=projection.activation,
            use_residual=projection.has_residual,
        )
        dense.to(linear.weight.dtype)
        state = {k: v for k, v in projection.state_dict().items() if not k.startswith("activation")}
        dense.load_state_dict(state)
        yield dense


def projections_of(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a contract that locates the projections in the exported folder."""
    return {
        "projections": [
            {**entry, "weights": f"{index}_Dense/model.safetensors", "prefix": ""}
            for index, entry in enumerate(contract.get("projections", []), start=NUM_MODULES_BEFORE)
        ]
    }
