"""Calls a loss on plain tensors, as if a single rank had them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from quarry.losses.base import Loss
from quarry.losses.cosent import CoSENT
from quarry.losses.hardness_weighted_info_nce import HardnessWeightedInfoNCE
from quarry.losses.info_nce import InfoNCE
from quarry.losses.kl_distillation import KLDistillation
from quarry.losses.loss_inputs import LossInputs
from quarry.losses.margin_mse import MarginMSE
from quarry.losses.masked_info_nce import MaskedInfoNCE
from quarry.losses.matryoshka import Matryoshka
from quarry.losses.weighted_sum import WeightedSum
from quarry.types import LossOutput, TextHashes


def output_of(
    loss: Loss,
    queries: Tensor,
    passages: Tensor,
    positive_index: Tensor,
    hashes: TextHashes | None = None,
    **more: Any,
) -> LossOutput:
    """The output for one contrastive batch; further inputs by their names."""
    inputs = LossInputs(
        queries=queries, passages=passages, positive_index=positive_index, hashes=hashes, **more
    )
    output: LossOutput = loss(inputs)
    return output


GROUPS = (3, 1, 2, 4, 1)
"""Passages of each query of `ragged_inputs`."""


def ragged_inputs(*, groups: Sequence[int] = GROUPS, dim: int = 8, **more: Any) -> LossInputs:
    """Return seeded fp64 embeddings of length 1 that require grad, scores and hashes.

    Two queries have the same text, and two passages of different queries.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    sizes = torch.tensor(groups)
    positive_index = sizes.cumsum(0) - sizes
    queries = torch.arange(1, len(groups) + 1)
    queries[-1] = queries[0]
    passages = torch.arange(1, int(sizes.sum()) + 1)
    passages[-1] = passages[0]
    answered = torch.zeros(int(sizes.sum()), dtype=torch.int64)
    answered[positive_index] = queries
    given: dict[str, Any] = {
        "queries": normalize(random(len(groups), dim), dim=1).requires_grad_(),
        "passages": normalize(random(int(sizes.sum()), dim), dim=1).requires_grad_(),
        "positive_index": positive_index,
        "hashes": TextHashes(queries=queries, passages=passages, answered=answered),
        "scores": random(int(sizes.sum())).float() * 3,
    }
    return LossInputs(**(given | more))


def assert_equal_with_gradients(loss: Loss, inputs: LossInputs, expected: Tensor) -> None:
    """The loss and its gradients equal those of a plain formula of the same embeddings, in fp64."""
    leaves = [inputs.queries, inputs.passages]
    found: LossOutput = loss(inputs)
    assert found.loss.shape == ()
    assert found.loss.dtype == torch.float64
    torch.testing.assert_close(found.loss, expected, rtol=1e-10, atol=1e-12)
    ours = torch.autograd.grad(3 * found.loss, leaves, allow_unused=True)
    theirs = torch.autograd.grad(3 * expected, leaves, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert not any(value.requires_grad for value in found.metrics.values())


class LearnedTemperature(Loss):
    """A cross entropy whose temperature is learned, and a matrix between queries and passages.

    Args:
        dim: of the embeddings.
    """

    optimizer_group = MappingProxyType({"name": "temperature", "lr": 2e-2, "weight_decay": 0.0})

    def __init__(self, *, dim: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.full([1], -3.0, dtype=dtype))
        self.between = nn.Parameter(torch.eye(dim, dtype=dtype))
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: LossInputs) -> LossOutput:
        self.num_calls += 1
        temperature = self.log_temperature.to(inputs.queries.dtype).exp()
        queries = inputs.queries @ self.between.to(inputs.queries.dtype)
        logits = queries @ inputs.all_passages.T / temperature
        losses = cross_entropy(logits, inputs.positive_index_in_all, reduction="none")
        return LossOutput(
            loss=inputs.mean(losses),
            metrics={
                "accuracy": inputs.mean(
                    (logits.argmax(dim=1) == inputs.positive_index_in_all).float()
                ),
                "temperature": temperature[0],
            },
        )


LOSSES: dict[str, Callable[[], Loss]] = {
    "info_nce terms": lambda: InfoNCE(
        temperature=0.05, query_to_query=True, document_to_document=True, symmetric=True,
        masks_same_query=True, masks_same_passage=True,
    ),
    "masked_info_nce": lambda: MaskedInfoNCE(temperature=0.05, margin=0.02, masks_same_query=True),
    "hardness": lambda: HardnessWeightedInfoNCE(temperature=0.05, hardness=9.0),
    "kl_distillation": lambda: KLDistillation(temperature=0.05),
    "margin_mse": lambda: MarginMSE(temperature=0.1),
    "cosent": lambda: CoSENT(temperature=0.05),
    "matryoshka of a sum": lambda: Matryoshka(
        dims=[32, 16, 8],
        dim_weights=[1.0, 0.5, 2.0],
        loss=WeightedSum(
            losses={
                "a": InfoNCE(temperature=0.05, symmetric=True), "b": KLDistillation(temperature=0.1)
            },
            weights={"a": 0.3, "b": 2.0},
        ),
    ),
}  # fmt: skip
"""Losses that two ranks compute as one does, for embeddings of width 32."""
