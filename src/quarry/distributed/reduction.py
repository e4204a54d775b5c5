"""Reduce gradients across ranks once per optimizer step when GradCache runs chunk by chunk."""

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
"""Gradient elements in one all-reduce."""

Backward = Callable[[Tensor, Tensor, bool], None]
"""(embeddings, their gradient, is_last) -> None: accumulates the parameters' gradients. A rank may
reduce gradients only when `is_last`, which is true once per contrastive batch."""


def backward_alone(embeddings: Tensor, gradient: Tensor, is_last: bool) -> None:
    """Run the backward pass on a single rank."""
    del is_last
    embeddings.backward(gradient)


class Reduction(Protocol):
    """Backward pass for GradCache chunks, in use from the start of training to its end.

    `begin` precedes the backward pass of each contrastive batch. Gradients stay on their rank until
    the last chunk of an optimizer step.
    """

    @property
    def backward(self) -> Backward: ...

    def begin(self) -> None: ...

    def close(self) -> None: ...


class NoReduction:
    """No reduction here: there is one rank, or DDP or DeepSpeed reduces the gradients itself.

    They do so where contrastive batches are not cut into GradCache chunks.
    """

    backward = staticmethod(backward_alone)

    def begin(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class MeanOfGradients:
    """Mean of gradients over ranks for DDP, taken after the last chunk of an optimizer step.

    DDP's own reducer sends a gradient the first time it is computed, so it is disabled by DDP's
    public `no_sync` until `close`.

    Args:
        model: the wrapped model; its reducer is disabled until `close`.
        parameters: those that are trained.
        is_step_due: whether an optimizer step follows the current contrastive batch.
    """

    def __init__(
        self,
        model: DistributedDataParallel,
        *,
        parameters: Sequence[Parameter],
        is_step_due: Callable[[], bool],
    ) -> None:
        self._parameters = parameters
        self._is_step_due = is_step_due
        self._silence = ExitStack()
        self._silence.enter_context(model.no_sync())

    def begin(self) -> None:
        """Do nothing."""

    def backward(self, embeddings: Tensor, gradient: Tensor, is_last: bool) -> None:
        embeddings.backward(gradient)
        if is_last and self._is_step_due():
            mean_gradients(self._parameters)

    def close(self) -> None:
        """Leave DDP's `no_sync`."""
        self._silence.close()


class ZeroReduction:
    """DeepSpeed's reduction for ZeRO 1 to 3, delayed to the last chunk of an optimizer step.

    Without the delay DeepSpeed takes every chunk for the last: ZeRO 2 and 3 would silently keep
    the gradient of the last chunk alone.

    Args:
        engine: DeepSpeed's.
        is_step_due: whether an optimizer step follows the current contrastive batch.
    """

    def __init__(self, engine: Any, *, is_step_due: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_step_due = is_step_due
        self._open = ExitStack()
        self._is_open = False

    def begin(self) -> None:
        if not self._is_open:
            self._open.enter_context(self._engine.coalesce_grad_reduction())
            self._is_open = True

    def backward(self, embeddings: Tensor, gradient: Tensor, is_last: bool) -> None:
        # the engine takes scalars: the gradient of this sum is `gradient`
        self._engine.backward((embeddings * gradient).sum(), scale_wrt_gas=False)
        if is_last and self._is_step_due():
            self._is_open = False
            self._open.close()
            # the context restored the state of its start, in which no optimizer step follows
            self._engine.set_gradient_accumulation_boundary(True)

    def close(self) -> None:
        """Do nothing: an accumulation that has begun ends only with its optimizer step."""


def mean_gradients(parameters: Sequence[Parameter]) -> None:
    """Replace each gradient by its mean over all ranks; a missing gradient counts as 0."""
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
    """Yield parameters of one dtype, at most `MAX_ELEMENTS` elements at a time.

    A larger parameter forms a bucket by itself.
    """
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
    is_step_due: Callable[[], bool],
    is_chunked: bool,
) -> Reduction:
    """Return the reduction that a strategy needs; the strategy must be set up.

    Args:
        parameters: those that are trained.
        is_step_due: whether an optimizer step follows the current contrastive batch.
        is_chunked: contrastive batches run through the model in GradCache chunks.
    """
    if is_chunked and isinstance(strategy, ZeroStrategy):
        return ZeroReduction(strategy.deepspeed_engine, is_step_due=is_step_due)
    if is_chunked and isinstance(strategy.model, DistributedDataParallel):
        return MeanOfGradients(strategy.model, parameters=parameters, is_step_due=is_step_due)
    return NoReduction()
