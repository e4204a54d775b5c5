"""From a configuration to the numbers that decide what a training run takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from quarry.config.world_size import num_processes, zero_stage
from quarry.distributed.zero import BF16_WEIGHTS
from quarry.models.adapters.base import TrainedPart
from quarry.models.attention import is_causal_by_design
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import NUM_TEXTS_THAT_REPAY
from quarry.models.factory import AUTO, BiEncoderFactory
from quarry.models.memory import FP32_BYTES, num_weights, outline
from quarry.models.remedies import CannotLoadError
from quarry.models.shared_prefix import can_share_prefix
from quarry.planning.activations import Kept, LayerShape
from quarry.planning.memory_fit import choices, thriftiest, with_choice
from quarry.planning.published_shapes import published_config
from quarry.planning.step_memory import ContrastSets, TrainingSetup
from quarry.planning.workload import Workload
from quarry.planning.zero_buffers import ZeroBuffers
from quarry.runtime.devices import has_gpu
from quarry.training.memory_choice import MemoryChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedModel:
    """A model whose weights were not looked at.

    Attributes:
        source: folder or hub id of the trunk.
        shape_from: where its shape comes from, for people.
        num_linear: weights in the linear layers that text goes through.
        num_projection: weights after the pooling.
        shares_prefix: see `can_share_prefix`.
    """

    source: str
    config: PretrainedConfig
    shape_from: str
    num_parameters: int
    num_linear: int
    num_projection: int
    embedding_dim: int
    part: TrainedPart
    shares_prefix: bool


def planned_model(factory: BiEncoderFactory) -> PlannedModel:
    """Its config.json, or, where the hub cannot be reached, the shape that its name stands for.

    Raises:
        CannotLoadError: neither is known.
    """
    source, shape_from = factory.base_source(), "config.json"
    try:
        config = factory.trunk_config()
    except CannotLoadError:
        published = published_config(source)
        if published is None:
            raise
        config, shape_from = published, "its published shape; the hub cannot be reached"
    trunk = outline(config)
    return PlannedModel(
        source=source,
        config=config,
        shape_from=shape_from,
        num_parameters=num_weights(trunk),
        num_linear=_num_linear(trunk),
        num_projection=sum(dense.num_parameters for dense in factory.projections()),
        embedding_dim=factory.embedding_dim(config),
        part=factory.trained_part(trunk),
        shares_prefix=_shares_prefix(factory, trunk),
    )


def _shares_prefix(factory: BiEncoderFactory, trunk: PreTrainedModel) -> bool:
    text, is_causal = text_model(trunk), factory.is_causal
    if is_causal is None:
        is_causal = is_causal_by_design(text)
    return can_share_prefix(text.config, pooling=factory.pooling, is_causal=is_causal)


def _num_linear(trunk: PreTrainedModel) -> int:
    layers = [module for module in text_model(trunk).modules() if isinstance(module, nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)


def fitted_setup(
    setup: TrainingSetup, config: DictConfig, *, limit_bytes: int | None
) -> tuple[TrainingSetup, MemoryChoice | None]:
    """Choose what the configuration leaves to `auto`: the fastest that fits, else the thriftiest.

    Args:
        setup: with anything in place of what is left open.
        limit_bytes: that a rank may take on its GPU; None: it runs on a CPU, where `auto` is plain.

    Returns:
        The setup, and what was chosen; None: nothing was left open.
    """
    asked = asked_choice(config)
    if AUTO not in asked.values():
        return setup, None
    if limit_bytes is None:
        choice = plain_choice(config)
    else:
        fitting = choices(setup, limit_bytes=limit_bytes, **asked)
        choice = fitting[0] if fitting else thriftiest(setup, **asked)
    return with_choice(setup, choice), choice


def fitting_choices(
    setup: TrainingSetup, config: DictConfig, *, limit_bytes: int | None
) -> tuple[MemoryChoice, ...]:
    """Return what `auto` chooses from, the fastest first; nothing where nothing is left open."""
    asked = asked_choice(config)
    if AUTO not in asked.values() or limit_bytes is None:
        return ()
    return tuple(choices(setup, limit_bytes=limit_bytes, **asked))


def asked_choice(config: DictConfig) -> dict[str, Any]:
    """Return what the configuration says of gradient checkpointing and chunks, `auto` included.

    What a configuration of an earlier version, or a model of another class, has no key for is off.
    """
    return {
        "gradient_checkpointing": config.model.get("gradient_checkpointing", False),
        "grad_cache_chunk_tokens": config.data.get("grad_cache_chunk_tokens"),
    }


def plain_choice(config: DictConfig) -> MemoryChoice:
    """Return what the configuration says, with nothing computed twice where it says `auto`."""
    checkpointing, chunk = asked_choice(config).values()
    return MemoryChoice(
        gradient_checkpointing=False if checkpointing == AUTO else checkpointing,
        grad_cache_chunk_tokens=None if chunk == AUTO else chunk,
    )


def training_setup(
    config: DictConfig, factory: BiEncoderFactory, model: PlannedModel, workload: Workload
) -> TrainingSetup:
    """Follow every default of the configuration but `auto`, see `fitted_setup`."""
    dtype, part = factory.torch_dtype(is_trained=True), model.part
    strategy, stage = config.trainer.get("strategy"), zero_stage(config)
    has_bf16_weights = config.trainer.precision == BF16_WEIGHTS
    beside = dtype.itemsize if has_bf16_weights else FP32_BYTES
    return TrainingSetup(
        layers=LayerShape.of(model.config),
        embedding_dim=model.embedding_dim,
        num_frozen=model.num_parameters - (0 if part.is_beside else part.num_parameters),
        num_trained=part.num_parameters + model.num_projection,
        num_linear=model.num_linear,
        frozen_itemsize=dtype.itemsize,
        trained_itemsize=beside if part.is_beside else dtype.itemsize,
        kept=_kept(config, factory, part, workload),
        grad_cache_chunk_tokens=plain_choice(config).grad_cache_chunk_tokens,
        num_processes=num_processes(config),
        zero=zero_buffers(config) if stage else None,
        offloads_parameters=stage > 0 and strategy.get("offload_parameters", False),
        offloads_optimizer=stage > 0 and strategy.get("offload_optimizer", False),
        contrast=_contrast(config, workload),
    )


def _kept(
    config: DictConfig, factory: BiEncoderFactory, part: TrainedPart, workload: Workload
) -> Kept:
    dtype = factory.torch_dtype(is_trained=True)
    itemsize = 2 if "16" in str(config.trainer.precision) else dtype.itemsize
    is_compiled = _is_compiled(config, factory, workload)
    return Kept(
        itemsize=itemsize,
        state_itemsize=dtype.itemsize,
        is_compiled=is_compiled,
        gradient_checkpointing=plain_choice(config).gradient_checkpointing,
        trains_trunk=not part.is_beside,
        num_inputs=part.num_inputs,
        num_low_rank=part.num_low_rank,
        has_dropout=part.dropout > 0,
        is_fp8=factory.linear_precision == "fp8",
    )


def _is_compiled(config: DictConfig, factory: BiEncoderFactory, workload: Workload) -> bool:
    if factory.compile != AUTO:
        return factory.compile is True
    if zero_stage(config) == 3 or not has_gpu() or workload.num_steps is None:
        return False
    return workload.num_steps * workload.num_texts_per_step >= NUM_TEXTS_THAT_REPAY


def _contrast(config: DictConfig, workload: Workload) -> ContrastSets:
    num_sets = (workload.num_steps or 0) * workload.num_batches_per_step
    sizes, per_passage = workload.group_sizes, workload.tokens_per_passage
    above_mean = sizes.largest - sizes.mean
    return ContrastSets(
        num_queries=workload.global_batch_size // workload.num_batches_per_step,
        num_passages_per_query=sizes.in_largest_batch,
        tokens_per_query=workload.tokens_per_query,
        more_tokens_per_query=per_passage * (sizes.in_largest_batch - sizes.mean),
        tokens_of_largest_group=workload.tokens_per_query + per_passage * above_mean
        if above_mean
        else 0.0,
        deviation=workload.deviation,
        longest_text=max(config.prompt.max_query_length, config.prompt.max_document_length),
        num_sets=num_sets,
    )


def zero_buffers(config: DictConfig) -> ZeroBuffers:
    """The settings of a strategy of ZeRO that cost memory."""
    return ZeroBuffers.of(config.trainer.strategy)
