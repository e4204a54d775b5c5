"""Estimate the peak memory of one rank in training, from numbers alone; nothing is loaded.

The parts and their errors against measurements: docs/distributed.md, "Planning".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from quarry.losses.chunked_cross_entropy import similarity_bytes
from quarry.models.memory import Spread, StateBytes, state_bytes
from quarry.planning.activations import Kept, LayerShape, activation_bytes, passing_bytes
from quarry.planning.zero_buffers import ZeroBuffers

FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveBatches:
    """Describe the contrastive batches of a run, as far as memory depends on them.

    Attributes:
        num_queries: in one.
        num_passages_per_query: the positive among them; where queries differ, a query's mean in the
            contrastive batch of the run that has the most passages.
        tokens_per_query: of a query with its passages, the mean over the run.
        deviation: from it, the standard deviation; 0 where the mean is a bound. Where queries
            differ in passages, of the tokens that their number does not explain.
        longest_text: in tokens.
        num_batches: that the run will see; 0: not known.
        more_tokens_per_query: than the mean over the run, in the contrastive batch that has the
            most passages.
        tokens_of_largest_group: of the query with the most passages, and those; 0: all queries have
            as many.
    """

    num_queries: int
    num_passages_per_query: float
    tokens_per_query: float
    deviation: float
    longest_text: int
    num_batches: int
    more_tokens_per_query: float = 0.0
    tokens_of_largest_group: float = 0.0

    def largest_share(self, world_size: int) -> int:
        """Return the tokens of one rank in the largest contrastive batch that is to be expected.

        Sums of many lengths are about normal, and the largest of n normal numbers is about
        sqrt(2 ln n) deviations above the mean. Where queries differ in passages, that is added to
        the contrastive batch that has the most. Shares are balanced in tokens; one query more than
        others is what a rank may have, or the query with the most passages alone (whose lengths
        deviate as a sum of its size).
        """
        num_own = math.ceil(self.num_queries / world_size)
        most = math.sqrt(2 * math.log(max(1, self.num_batches)))
        above = self.deviation * math.sqrt(self.num_queries) * most
        mean = self.tokens_per_query + self.more_tokens_per_query
        share = num_own * (mean + above / self.num_queries)
        largest = self.tokens_of_largest_group
        alone = largest + self.deviation * math.sqrt(largest / self.tokens_per_query) * most
        return math.ceil(max(share, alone if largest else 0.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSetup:
    """Hold what decides the memory of a training run.

    Attributes:
        layers: of the part of the backbone that text goes through.
        embedding_dim: width of an embedding, which a projection may have changed.
        num_frozen, num_trained: parameters.
        num_linear: those in its linear layers, frozen or not.
        frozen_itemsize, trained_itemsize: bytes of one.
        kept: how a step is run.
        grad_cache_chunk_tokens: None: a contrastive batch in one pass.
        world_size: ranks that share a contrastive batch.
        zero: None: DDP, or one process.
        offloads_parameters, offloads_optimizer: see `ZeroStrategy`.
        contrast: what a step is made of.
    """

    layers: LayerShape
    embedding_dim: int
    num_frozen: int
    num_trained: int
    num_linear: int
    frozen_itemsize: int
    trained_itemsize: int
    kept: Kept
    grad_cache_chunk_tokens: int | None
    world_size: int
    zero: ZeroBuffers | None
    offloads_parameters: bool
    offloads_optimizer: bool
    contrast: ContrastiveBatches

    @property
    def stage(self) -> int:
        """Return the stage of ZeRO; 0: none."""
        return 0 if self.zero is None else self.zero.stage

    @property
    def spread(self) -> Spread:
        return Spread.of_zero(
            stage=self.stage,
            world_size=self.world_size,
            is_chunked=self.grad_cache_chunk_tokens is not None,
            offloads_parameters=self.offloads_parameters,
            offloads_optimizer=self.offloads_optimizer,
        )

    @property
    def tokens_per_pass(self) -> int:
        """Return the tokens of the largest forward pass of one rank."""
        share = self.contrast.largest_share(self.world_size)
        if self.grad_cache_chunk_tokens is None:
            return share
        return min(share, max(self.grad_cache_chunk_tokens, self.contrast.longest_text))

    @property
    def is_cut(self) -> bool:
        """Return whether contrastive batches go through the model in several chunks."""
        return self.tokens_per_pass < self.contrast.largest_share(self.world_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """Hold the bytes of one rank at the peak of a step.

    Attributes:
        weights, gradients, optimizer: held from start to end.
        buffers: of ZeRO.
        activations: saved for the backward pass.
        passing: the largest temporary part: gradients inside a layer, similarities, or weights in
            half precision.
        embeddings: of its own texts and of everybody's passages, with their gradients.
        host: in the host's memory instead: what is offloaded.
    """

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int
    passing: int
    embeddings: int
    host: int

    @property
    def total(self) -> int:
        """Return the bytes on the device."""
        states = self.weights + self.gradients + self.optimizer + self.buffers
        return states + self.activations + self.passing + self.embeddings


def unmeasured(setup: TrainingSetup) -> tuple[str, ...]:
    """Return in what a setup differs from those whose peak was measured: LoRA in half precision on
    one GPU or under DDP and ZeRO 2, whose estimates are right to 5 %."""
    kept = setup.kept
    found = []
    if kept.trains_backbone and setup.stage != 3:
        found.append("all weights are trained")
    if kept.itemsize > 2:
        found.append("products in float32")
    if not kept.trains_backbone and setup.stage == 3:
        found.append("LoRA under ZeRO 3")
    if setup.offloads_parameters or setup.offloads_optimizer:
        found.append("states in the host's memory")
    if kept.is_fp8 and not kept.is_compiled:
        found.append("fp8, not compiled")
    return tuple(found)


def step_memory(setup: TrainingSetup) -> StepMemory:
    """Estimate the memory of the rank with the largest share."""
    states = _states(setup)
    num_tokens = setup.tokens_per_pass
    activations = activation_bytes(setup.layers, setup.kept, num_tokens=num_tokens)
    passing = max(
        passing_bytes(setup.layers, setup.kept, num_tokens=num_tokens), _similarities(setup)
    )
    casts = _casts(setup)
    if setup.kept.recomputes_layers and setup.kept.trains_backbone:
        passing = max(passing, casts)  # they are gone when the first layer runs again
    else:
        activations += casts
    return StepMemory(
        weights=states.weights,
        gradients=states.gradients,
        optimizer=states.optimizer,
        buffers=_buffers(setup),
        activations=activations,
        passing=passing,
        embeddings=_embeddings(setup),
        host=_host(setup),
    )


def _num_own_queries(setup: TrainingSetup) -> int:
    return math.ceil(setup.contrast.num_queries / setup.world_size)


def _num_passages(setup: TrainingSetup) -> int:
    return math.ceil(setup.contrast.num_queries * setup.contrast.num_passages_per_query)


def _similarities(setup: TrainingSetup) -> int:
    return similarity_bytes(_num_own_queries(setup), _num_passages(setup))


def _embeddings(setup: TrainingSetup) -> int:
    num_texts = math.ceil(_num_own_queries(setup) * (1 + setup.contrast.num_passages_per_query))
    if setup.world_size > 1:
        num_texts += _num_passages(setup)
    return 2 * FP32_BYTES * setup.embedding_dim * num_texts


def _casts(setup: TrainingSetup) -> int:
    """Return the bytes of half-precision copies of trained weights; frozen ones have none."""
    if setup.kept.itemsize >= setup.trained_itemsize:
        return 0
    num_cast = setup.num_linear if setup.kept.trains_backbone else setup.num_trained
    return num_cast * setup.kept.itemsize


def _buffers(setup: TrainingSetup) -> int:
    if setup.zero is None:
        return 0
    return setup.zero.num_bytes(
        num_parameters=setup.num_frozen + setup.num_trained,
        itemsize=setup.frozen_itemsize,
        trained_itemsize=setup.trained_itemsize,
    )


def _host(setup: TrainingSetup) -> int:
    """Return the bytes that offloading moves from the device to the host."""
    if not (setup.offloads_parameters or setup.offloads_optimizer):
        return 0
    without = replace(setup, offloads_parameters=False, offloads_optimizer=False)
    return _states(without).total - _states(setup).total


def _states(setup: TrainingSetup) -> StateBytes:
    return state_bytes(
        num_frozen=setup.num_frozen,
        num_trained=setup.num_trained,
        frozen_itemsize=setup.frozen_itemsize,
        trained_itemsize=setup.trained_itemsize,
        spread=setup.spread,
    )
