"""Compute the numbers that decide what a training run takes, from its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from quarry.data.prompts import Prompt
from quarry.distributed.settings import BF16_WEIGHTS
from quarry.models.adapters.base import TrainedPart
from quarry.models.attention import is_causal_by_design
from quarry.models.backbones.text_model import text_model
from quarry.models.building import trained_part
from quarry.models.compilation import NUM_TEXTS_THAT_REPAY
from quarry.models.memory import FP32_BYTES, num_weights, outline
from quarry.models.model_options import AUTO
from quarry.models.model_spec import ModelSpec
from quarry.models.remedies import CannotLoadError
from quarry.models.shared_prefix import can_share_prefix
from quarry.planning.activations import Kept, LayerShape
from quarry.planning.inputs import PlannedStep
from quarry.planning.published_shapes import published_config
from quarry.planning.step_memory import ContrastiveBatches, TrainingSetup
from quarry.planning.workload import Workload
from quarry.runtime.devices import has_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedModel:
    """Describe a model whose weights were not read.

    Attributes:
        source: folder or hub id of the backbone.
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


def planned_model(spec: ModelSpec) -> PlannedModel:
    """Describe a model by its config.json, or by its published shape where the hub is out of reach.

    Raises:
        CannotLoadError: neither is known.
    """
    source, shape_from = spec.source.base_location(), "config.json"
    try:
        config = spec.source.backbone_config()
    except CannotLoadError:
        published = published_config(source)
        if published is None:
            raise
        config, shape_from = published, "its published shape; the hub cannot be reached"
    backbone = outline(config)
    return PlannedModel(
        source=source,
        config=config,
        shape_from=shape_from,
        num_parameters=num_weights(backbone),
        num_linear=_num_linear(backbone),
        num_projection=sum(dense.num_parameters for dense in spec.source.projections()),
        embedding_dim=spec.embedding_dim(config),
        part=trained_part(spec, backbone),
        shares_prefix=_shares_prefix(spec, backbone),
    )


def _shares_prefix(spec: ModelSpec, backbone: PreTrainedModel) -> bool:
    text, is_causal = text_model(backbone), spec.options.is_causal
    if is_causal is None:
        is_causal = is_causal_by_design(text)
    return can_share_prefix(text.config, pooling=spec.options.pooling, is_causal=is_causal)


def _num_linear(backbone: PreTrainedModel) -> int:
    layers = [module for module in text_model(backbone).modules() if isinstance(module, nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)


def training_setup(step: PlannedStep, model: PlannedModel, workload: Workload) -> TrainingSetup:
    """Return the setup of a training step, with `auto` not yet chosen (see `fitted_setup`)."""
    dtype, part = step.spec.options.torch_dtype(is_trained=True), model.part
    beside = dtype.itemsize if step.precision == BF16_WEIGHTS else FP32_BYTES
    return TrainingSetup(
        layers=LayerShape.of(model.config),
        embedding_dim=model.embedding_dim,
        num_frozen=model.num_parameters - (0 if part.is_beside else part.num_parameters),
        num_trained=part.num_parameters + model.num_projection,
        num_linear=model.num_linear,
        frozen_itemsize=dtype.itemsize,
        trained_itemsize=beside if part.is_beside else dtype.itemsize,
        kept=_kept(step, part, workload),
        grad_cache_chunk_tokens=step.asked.plain.grad_cache_chunk_tokens,
        world_size=step.ranks.world_size,
        zero=step.zero,
        offloads_parameters=step.ranks.offloads_parameters,
        offloads_optimizer=step.ranks.offloads_optimizer,
        contrast=contrastive_batches(step.prompt, workload),
    )


def _kept(step: PlannedStep, part: TrainedPart, workload: Workload) -> Kept:
    dtype = step.spec.options.torch_dtype(is_trained=True)
    return Kept(
        itemsize=2 if "16" in step.precision else dtype.itemsize,
        state_itemsize=dtype.itemsize,
        is_compiled=_is_compiled(step, workload),
        gradient_checkpointing=step.asked.plain.gradient_checkpointing,
        trains_backbone=not part.is_beside,
        num_inputs=part.num_inputs,
        num_low_rank=part.num_low_rank,
        has_dropout=part.dropout > 0,
        is_fp8=step.spec.options.linear_precision == "fp8",
    )


def _is_compiled(step: PlannedStep, workload: Workload) -> bool:
    if step.spec.options.compile != AUTO:
        return step.spec.options.compile is True
    if step.ranks.zero_stage == 3 or not has_gpu() or workload.num_steps is None:
        return False
    return workload.num_steps * workload.num_texts_per_step >= NUM_TEXTS_THAT_REPAY


def contrastive_batches(prompt: Prompt, workload: Workload) -> ContrastiveBatches:
    """Return the contrastive batches of a run, as far as memory depends on them."""
    num_batches = (workload.num_steps or 0) * workload.num_batches_per_step
    sizes, per_passage = workload.group_sizes, workload.tokens_per_passage
    above_mean = sizes.largest - sizes.mean
    return ContrastiveBatches(
        num_queries=workload.global_batch_size // workload.num_batches_per_step,
        num_passages_per_query=sizes.in_largest_batch,
        tokens_per_query=workload.tokens_per_query,
        more_tokens_per_query=per_passage * (sizes.in_largest_batch - sizes.mean),
        tokens_of_largest_group=workload.tokens_per_query + per_passage * above_mean
        if above_mean
        else 0.0,
        deviation=workload.deviation,
        longest_text=max(prompt.max_query_length, prompt.max_document_length),
        num_batches=num_batches,
    )
