"""How gradients that are made chunk by chunk become those of all processes: once an update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import Strategy
from torch import Tensor
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from quarry.distributed import world
from quarry.distributed.zero import ZeroStrategy

MAX_ELEMENTS = 2**26
"""Gradient elements that are reduced at a time."""

Backward = Callable[[Tensor, Tensor, bool], None]
"""(embeddings, their gradient, is_last): adds up the parameters' gradients. Processes that reduce
theirs do so when `is_last`, which is true once a contrast set."""


def backward_alone(embeddings: Tensor, gradient: Tensor, is_last: bool) -> None:
    """The `Backward` of a single process."""
    del is_last
    embeddings.backward(gradient)


class Reduction(Protocol):
    """What GradCache's chunks are propagated by, from the start of training to its end.

    `begin` comes before the backward pass of each contrast set. All gradients stay with their
    process until the last chunk of an update.
    """

    @property
    def backward(self) -> Backward: ...

    def begin(self) -> None: ...

    def close(self) -> None: ...


class NoReduction:
    """In one process, and where whole contrast sets let DDP or DeepSpeed do it by themselves."""

    backward = staticmethod(backward_alone)

    def begin(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class MeanOfGradients:
    """For whole models side by side (DDP): the mean over processes, after the last chunk.

    DDP's own reducer sends a gradient off as soon as it has come once, so it is silenced. Its
    public `no_sync` does that for as long as it is open.

    Args:
        model: the wrapped model, until `close`.
        parameters: those that are trained.
        is_update_due: whether an update follows the contrast set that is being propagated.
    """

    def __init__(
        self,
        model: DistributedDataParallel,
        *,
        parameters: Sequence[Parameter],
        is_update_due: Callable[[], bool],
    ) -> None:
        self._parameters = parameters
        self._is_update_due = is_update_due
        self._silence = ExitStack()
        self._silence.enter_context(model.no_sync())

    def begin(self) -> None:
        """Nothing."""

    def backward(self, embeddings: Tensor, gradient: Tensor, is_last: bool) -> None:
        embeddings.backward(gradient)
        if is_last and self._is_update_due():
            mean_gradients(self._parameters)

    def close(self) -> None:
        """Gives the reducer its voice back."""
        self._silence.close()


class ZeroReduction:
    """For ZeRO 1, 2 and 3: DeepSpeed's own reduction, put off until the last chunk of an update.

    Without it every chunk would be taken for the last: ZeRO 2 and 3 would keep the gradient of the
    last chunk alone, without a word.

    Args:
        engine: DeepSpeed's.
        is_update_due: whether an update follows the contrast set that is being propagated.
    """

    def __init__(self, engine: Any, *, is_update_due: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_update_due = is_update_due
        self._open = ExitStack()
        self._is_open = False

    def begin(self) -> None:
        if not self._is_open:
            self._open.enter_context(self._engine.coalesce_grad_reduction())
            self._is_open = True

    def backward(self, embeddings: Tensor, gradient: Tensor, is_last: bool) -> None:
        # a sum whose gradient is `gradient`: the engine takes scalars
        self._engine.backward((embeddings * gradient).sum(), scale_wrt_gas=False)
        if is_last and self._is_update_due():
            self._is_open = False
            self._open.close()
            # the context has put back what was so when it began: "no update follows"
            self._engine.set_gradient_accumulation_boundary(True)

    def close(self) -> None:
        """Nothing: an update that was begun is not ended without its step."""


def mean_gradients(parameters: Sequence[Parameter]) -> None:
    """Replaces each gradient by its mean over all processes; one that is missing counts as 0."""
    for group in _buckets(parameters):
        for parameter in group:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in group if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world.size()
        means = flat.split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))


def _buckets(parameters: Sequence[Parameter]) -> Iterator[list[Parameter]]:
    """Parameters of one dtype, a limited number of elements at a time."""
    for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
        bucket: list[Parameter] = []
        num_elements = 0
        for parameter in (p for p in parameters if p.dtype == dtype):
            if bucket and num_elements + parameter.numel() > MAX_ELEMENTS:
                yield bucket
                bucket, num_elements = [], 0
            bucket.append(parameter)
            num_elements += parameter.numel()
        yield bucket


def reduction_of(
    strategy: Strategy,
    *,
    parameters: Sequence[Parameter],
    is_update_due: Callable[[], bool],
    is_chunked: bool,
) -> Reduction:
    """What fits the strategy, which is set up.

    Args:
        parameters: those that are trained.
        is_update_due: whether an update follows the contrast set that is being propagated.
        is_chunked: contrast sets go through the model in chunks.
    """
    if is_chunked and isinstance(strategy, ZeroStrategy):
        return ZeroReduction(strategy.deepspeed_engine, is_update_due=is_update_due)
    if is_chunked and isinstance(strategy.model, DistributedDataParallel):
        return MeanOfGradients(strategy.model, parameters=parameters, is_update_due=is_update_due)
    return NoReduction()
