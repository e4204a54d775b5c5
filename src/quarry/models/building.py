"""Build a bi-encoder from its spec: load weights, add the adapter, choose kernels, compile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PreTrainedModel

from quarry.models.adapters.base import TrainedPart
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.fp8_gradients import check_fp8_gradients
from quarry.models.adapters.lora import merge_adapter
from quarry.models.adapters.lora_dropout import checkpoint_contexts
from quarry.models.adapters.stored_adapter import (
    StoredAdapter,
    check_adapter_fits,
    load_adapter,
    read_adapter,
    stored_part,
)
from quarry.models.backbones.huggingface import load_backbone
from quarry.models.backbones.text_model import base_model, text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers, repays_compilation
from quarry.models.fp8 import use_fp8
from quarry.models.fp8_gated import fuse_gated_layers
from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.models.memory import Spread, check_fits, memory_need, outline
from quarry.models.model_options import AUTO
from quarry.models.model_source import ModelSource
from quarry.models.model_spec import ModelSpec
from quarry.models.projections import load_projections
from quarry.models.saved import check_base

logger = logging.getLogger(__name__)

Sharding = Callable[[torch.dtype], AbstractContextManager[None]]
"""The dtype of weights -> a context in which each rank loads its shard of them."""


def check_model(
    spec: ModelSpec, *, is_trained: bool, on_cpu: bool = False, spread: Spread | None = None
) -> None:
    """Refuse, before anything is loaded, a model that cannot be loaded here or would not fit.

    Args:
        is_trained: as in `build_bi_encoder`.
        on_cpu: the model stays on the CPU, even if there is a GPU.
        spread: how ZeRO divides the model over ranks; None: each rank has the complete model.

    Raises:
        CannotLoadError: the hub cannot be reached, or the memory is too small.
    """
    source, dtype = spec.source, spec.options.torch_dtype(is_trained=is_trained)
    _check_adapter(source)
    source.check_widths()
    need = memory_need(
        source.backbone_config(),
        dtype=dtype,
        trained_part=(lambda backbone: trained_part(spec, backbone)) if is_trained else None,
        spread=spread,
    )
    check_fits(need, source.base_location(), dtype=dtype, on_cpu=on_cpu, remedies=source.remedies)


def trained_part(spec: ModelSpec, backbone: PreTrainedModel) -> TrainedPart:
    """Return what `build_bi_encoder` would train of a backbone, which may be on the meta device."""
    if spec.source.adapter_config() is None:
        return spec.options.adapter.trained_part(backbone)
    return stored_part(_stored_adapter(spec.source), backbone)


def build_bi_encoder(
    spec: ModelSpec,
    *,
    is_trained: bool = True,
    device: torch.device | None = None,
    sharding: Sharding | None = None,
    gradient_checkpointing: bool | str | None = None,
    num_texts: int = 0,
) -> BiEncoder:
    """Load the weights and assemble the model.

    A peft adapter is loaded onto its base and trained further; `options.adapter` then has no
    effect.

    Args:
        is_trained: False: for evaluation only; no adapter is added and nothing is trainable.
        device: for the model; None: it stays on the CPU.
        sharding: under ZeRO 3, the context in which weights are loaded; called with their dtype.
        gradient_checkpointing: replaces the option, where that is "auto".
        num_texts: texts that the run encodes; `compile=auto` depends on it.
    """
    options = spec.options
    assert callable(options.pooling), "the contract is settled before a model is built"
    _check_adapter(spec.source)
    dtype = options.torch_dtype(is_trained=is_trained)
    with nullcontext() if sharding is None else sharding(dtype):
        backbone = _load(spec, is_trained=is_trained)
    projections = load_projections(spec.source.projections())
    if not is_trained:
        backbone.requires_grad_(False)
        projections.requires_grad_(False)
    if device is not None:
        backbone.to(device)
        projections.to(device)
    backbone = _with_fast_products(
        backbone, spec, is_trained=is_trained, is_sharded=sharding is not None
    )
    if gradient_checkpointing is None:
        gradient_checkpointing = options.gradient_checkpointing
    model = BiEncoder(
        backbone=backbone,
        pooling=options.pooling,
        projections=projections,
        is_causal=options.is_causal,
        normalize=options.normalize,
        embedding_dim=options.embedding_dim,
        allows_kernel=options.attention == AUTO,
    )
    is_compiled = options.compile is True or (
        options.compile == AUTO
        and sharding is None
        and repays_compilation(num_texts, device=next(model.parameters()).device)
    )
    is_checkpointed = is_trained and gradient_checkpointing in (True, SELECTIVE)
    set_layer_modes(
        model.backbone,
        gradient_checkpointing=gradient_checkpointing if is_checkpointed else False,
        is_compiled=is_compiled,
    )
    return model


def set_layer_modes(
    backbone: PreTrainedModel, *, gradient_checkpointing: bool | str, is_compiled: bool
) -> None:
    """Enable gradient checkpointing, and compile the layers at their first call.

    Call it last: after adapters, their fast path, and fp8.

    Args:
        gradient_checkpointing: False, True or "selective", which needs compiled layers: others are
            checkpointed in full, with a warning.

    Raises:
        UserError: the installed torch would compute wrong gradients, see `check_fp8_gradients`.
    """
    text = text_model(backbone)
    if gradient_checkpointing:
        contexts = checkpoint_contexts(backbone)
        text.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    if is_compiled:
        check_fp8_gradients(backbone)
        compile_layers(text, gradient_checkpointing=gradient_checkpointing)
    elif gradient_checkpointing == SELECTIVE:
        logger.warning(
            "model.gradient_checkpointing=selective: the layers are not compiled, and are "
            "checkpointed in full (selective checkpointing is the compiler's). Fix: "
            "model.compile=true, or model.gradient_checkpointing=true"
        )


def _stored_adapter(source: ModelSource) -> StoredAdapter:
    return read_adapter(source.location(), revision=source.revision)


def _check_adapter(source: ModelSource) -> None:
    """Refuse an adapter that does not fit its base, before the base's weights are read."""
    if (
        source.adapter_config() is None or source.trust_remote_code
    ):  # remote code: shapes are unknown
        return
    backbone = outline(source.backbone_config())
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # as in `load_backbone`
    check_adapter_fits(_stored_adapter(source), backbone)


def _load(spec: ModelSpec, *, is_trained: bool) -> PreTrainedModel:
    """Load the backbone, with its adapter where there is one."""
    source, adapter = spec.source, spec.options.adapter
    location, base = source.location(), source.base_location()
    backbone = load_backbone(
        base,
        dtype=spec.options.torch_dtype(is_trained=is_trained),
        revision=source.base_revision(),
        trust_remote_code=source.trust_remote_code,
    )
    if source.adapter_config() is None:
        if not is_trained:
            return backbone
        adapted = adapter(backbone)
        for config in getattr(adapted, "peft_config", {}).values():
            config.revision = source.revision
        return adapted
    check_base(location, base, revision=source.base_revision(), adapter_revision=source.revision)
    if is_trained and not adapter.trains_backbone:
        logger.warning(
            "model/adapter has no effect: %s holds an adapter already, which is trained further",
            location,
        )
    return load_adapter(backbone, _stored_adapter(source))


def _with_fast_products(
    backbone: PreTrainedModel, spec: ModelSpec, *, is_trained: bool, is_sharded: bool
) -> PreTrainedModel:
    """Use fp8 where it is configured, and LoRA's fast path where it is exact."""
    has_adapter = backbone is not base_model(backbone)
    if spec.options.linear_precision == "fp8" and not is_sharded:
        if has_adapter and not is_trained:  # one product instead of three
            backbone, has_adapter = merge_adapter(backbone), False
        use_fp8(text_model(backbone), is_trained_through=is_trained)
        if not is_trained:
            fuse_gated_layers(text_model(backbone))
    if has_adapter:
        logger.info("%s", use_fast_lora(backbone, is_sharded=is_sharded))
    return backbone
