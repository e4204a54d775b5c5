"""Everything needed to build a bi-encoder, as plain values; nothing is loaded until asked for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel

from quarry.errors import UserError
from quarry.models.adapters.base import Adapter, TrainedPart
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import merge_adapter
from quarry.models.adapters.lora_dropout import checkpoint_contexts
from quarry.models.adapters.stored_adapter import (
    StoredAdapter,
    check_adapter_fits,
    load_adapter,
    read_adapter,
    stored_part,
)
from quarry.models.backbones.huggingface import load_backbone, load_config
from quarry.models.backbones.text_model import base_model, text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import SELECTIVE
from quarry.models.dtypes import DTYPES
from quarry.models.fp8 import use_fp8
from quarry.models.fp8_gated import fuse_gated_layers
from quarry.models.limits import check_width
from quarry.models.memory import Spread, check_fits, memory_need, outline
from quarry.models.model_source import ModelSource, Replica
from quarry.models.pooling.base import Pooling
from quarry.models.projections import check_weights, load_projections
from quarry.models.remedies import CannotLoadError, remedies
from quarry.models.saved import check_base
from quarry.runtime.devices import has_gpu

logger = logging.getLogger(__name__)

AUTO = "auto"
ATTENTIONS = (AUTO, "grid")
LINEAR_PRECISIONS = (None, "fp8")

Sharding = Callable[[torch.dtype], AbstractContextManager[None]]
"""The dtype of weights -> a context in which they are loaded in shards, one a process."""


class BiEncoderFactory(ModelSource):
    """Where a bi-encoder's weights come from and how its parts fit together.

    The same factory serves training and evaluation on every rank: it is cheap until `build()`.

    Args:
        path: a run directory, a Hugging Face or peft folder, or a hub id; null: by `size`.
        size, hub_ids: the size of a family and the hub ids of those that were published.
        hub_id: the one that `size` means; null for "tiny".
        replica: makes the folder where neither `path` nor `hub_id` is set.
        base_path: of a path that is a peft adapter: where its base lies, if not where the adapter
            says.
        revision: of a hub id: branch, tag or commit. Of an adapter on the hub it is the adapter's,
            whose adapter_config.json may name its base's.
        tokenizer_path: folder or hub id of another tokenizer than the one beside the weights.
        pooling, normalize: see `BiEncoder`.
        is_causal: False lets every token see the whole text; null: as the trunk was built.
        adapter: which weights are trained.
        dtype: float32, bfloat16 or float16, of the trunk's weights; auto: float32 on a CPU and
            where the trunk is trained, else bfloat16.
        attention: auto: torch's variable-length kernel where it runs; grid: never.
        linear_precision: fp8: frozen weights and their products in fp8 (see `models.fp8`); null: in
            the dtype of the weights.
        compile: torch.compile the layers: true, false, or auto: on a GPU, for long runs.
        gradient_checkpointing: True: compute each layer again in the backward pass, for less
            memory; "selective": of compiled layers what is element-wise alone; "auto": left open
            (see `tasks.step_fit`), and until it is settled the same as False.
        trust_remote_code: lets a repository's own Python code run (off: never).
        card: what the model's card says of how texts are fed, see `folders.card`; it holds where
            the model's files say nothing.
    """

    def __init__(
        self,
        *,
        path: str | None,
        revision: str | None,
        replica: Replica | None,
        pooling: Pooling,
        adapter: Adapter,
        is_causal: bool | None,
        normalize: bool,
        dtype: str,
        attention: str,
        linear_precision: str | None,
        compile: bool | str,
        trust_remote_code: bool,
        gradient_checkpointing: bool | str = False,
        size: str | None = None,
        hub_ids: Mapping[str, str] | None = None,
        hub_id: str | None = None,
        base_path: str | None = None,
        tokenizer_path: str | None = None,
        card: Mapping[str, object] | None = None,
    ) -> None:
        for key, value, allowed in (
            ("dtype", dtype, (AUTO, *DTYPES)),
            ("attention", attention, ATTENTIONS),
            ("linear_precision", linear_precision, LINEAR_PRECISIONS),
            ("compile", compile, (AUTO, True, False)),
        ):
            if value not in allowed:
                names = ", ".join("null" if each is None else str(each).lower() for each in allowed)
                raise UserError(f"model.{key}={value} is not one of {names}.")
        super().__init__(
            path=path,
            revision=revision,
            hub_id=hub_id,
            replica=replica,
            base_path=base_path,
            tokenizer_path=tokenizer_path,
            card=card,
        )
        self.size = size
        self.hub_ids = dict(hub_ids or {})
        self.pooling = pooling
        self.adapter = adapter
        self.is_causal = is_causal
        self.is_normalized = normalize
        self.dtype = dtype
        self.attention = attention
        self.linear_precision = linear_precision
        self.compile = compile
        self.gradient_checkpointing = gradient_checkpointing
        self.trust_remote_code = trust_remote_code

    def torch_dtype(self, *, is_trained: bool) -> torch.dtype:
        """The dtype of the trunk's weights on this machine."""
        if self.dtype != AUTO:
            return DTYPES[self.dtype]
        trains_trunk = is_trained and self.adapter.trains_trunk
        is_half = has_gpu() and not trains_trunk
        return torch.bfloat16 if is_half else torch.float32

    def check(
        self, *, is_trained: bool, on_cpu: bool = False, spread: Spread | None = None
    ) -> None:
        """Refuses, before anything is loaded, what cannot be had here or would not fit.

        Args:
            is_trained: as in `build`.
            on_cpu: the model stays on the CPU, even if there is a GPU.
            spread: over several processes; None: each has the whole.

        Raises:
            CannotLoadError: the hub cannot be reached, or the memory is too small.
        """
        dtype = self.torch_dtype(is_trained=is_trained)
        self._check_adapter()
        self.check_widths()
        need = memory_need(
            self.trunk_config(),
            dtype=dtype,
            trained_part=self.trained_part if is_trained else None,
            spread=spread,
        )
        check_fits(need, self.base_source(), dtype=dtype, on_cpu=on_cpu, remedies=self.remedies)

    def check_widths(self) -> None:
        """Refuse a pooling or projections that fit neither each other nor the trunk.

        Raises:
            UserError: with what is stated, and what the trunk has.
            CannotLoadError: the hub cannot be reached.
        """
        config, projections, statement = self.trunk_config(), self.projections(), self.statement()
        if statement.width is not None:
            where = f"{self.home()}: {statement.facts['model.pooling'].source}"
            check_width(config, statement.width, where=where)
        for dense in projections[:1]:
            check_width(config, dense.in_features, where=f"{dense.weights.parent}: in_features")
        check_weights(projections)

    def trunk_config(self) -> PretrainedConfig:
        """The config.json of the trunk.

        Raises:
            CannotLoadError: the hub cannot be reached.
        """
        source = self.base_source()
        try:
            return load_config(
                source, revision=self.base_revision(), trust_remote_code=self.trust_remote_code
            )
        except UserError as error:
            if Path(source).exists():
                raise
            raise CannotLoadError(str(error), remedies=self.remedies(share=None)) from error

    def trained_part(self, trunk: PreTrainedModel) -> TrainedPart:
        """What `build` would train of a trunk, which may have no memory behind it."""
        if self.adapter_config() is None:
            return self.adapter.trained_part(trunk)
        return stored_part(self._stored_adapter(), trunk)

    def _stored_adapter(self) -> StoredAdapter:
        return read_adapter(self.source(), revision=self.revision)

    def build(
        self,
        *,
        is_trained: bool = True,
        device: torch.device | None = None,
        sharding: Sharding | None = None,
    ) -> BiEncoder:
        """Loads the weights and puts the parts together.

        A path that is a peft adapter is loaded onto its base and is what is trained further;
        `adapter` then has no say.

        Args:
            is_trained: False: for evaluation alone; no adapter is added and nothing is trainable.
            device: where the model is to be; null: left on the CPU.
            sharding: under ZeRO 3, what weights are loaded in; called with their dtype.
        """
        dtype = self.torch_dtype(is_trained=is_trained)
        assert callable(self.pooling), "the contract is settled before a model is built"
        self._check_adapter()
        with nullcontext() if sharding is None else sharding(dtype):
            backbone = self._load(is_trained=is_trained)
        projections = load_projections(self.projections())
        if not is_trained:
            backbone.requires_grad_(False)
            projections.requires_grad_(False)
        if device is not None:
            backbone.to(device)
            projections.to(device)
        backbone = self._made_fast(backbone, is_trained=is_trained, is_sharded=sharding is not None)
        checkpointing = is_trained and self.gradient_checkpointing in (True, SELECTIVE)
        if checkpointing:
            contexts = checkpoint_contexts(backbone)
            text_model(backbone).gradient_checkpointing_enable(
                {"use_reentrant": False, "context_fn": contexts}
            )
        return BiEncoder(
            backbone=backbone,
            pooling=self.pooling,
            projections=projections,
            is_causal=self.is_causal,
            normalize=self.is_normalized,
            allows_kernel=self.attention == AUTO,
            compiles=None if self.compile == AUTO and sharding is None else self.compile is True,
            gradient_checkpointing=self.gradient_checkpointing if checkpointing else False,
        )

    def _check_adapter(self) -> None:
        """Refuse an adapter of another base before the weights of that are read."""
        if self.adapter_config() is None or self.trust_remote_code:  # code has no shape yet
            return
        trunk = outline(self.trunk_config())
        if getattr(trunk, "pooler", None) is not None:
            trunk.pooler = None  # as in `load_backbone`
        check_adapter_fits(self._stored_adapter(), trunk)

    def _load(self, *, is_trained: bool) -> PreTrainedModel:
        """The trunk, with its adapter where there is one."""
        source, base = self.source(), self.base_source()
        backbone = load_backbone(
            base,
            dtype=self.torch_dtype(is_trained=is_trained),
            revision=self.base_revision(),
            trust_remote_code=self.trust_remote_code,
        )
        if self.adapter_config() is None:
            return self._with_new_adapter(backbone) if is_trained else backbone
        check_base(source, base, revision=self.base_revision(), adapter_revision=self.revision)
        if is_trained and not self.adapter.trains_trunk:
            logger.warning(
                "model/adapter has no effect: %s holds an adapter already, which is trained "
                "further",
                source,
            )
        return load_adapter(backbone, self._stored_adapter())

    def _with_new_adapter(self, backbone: PreTrainedModel) -> PreTrainedModel:
        """Return what is trained of a backbone; its adapter names the base's revision."""
        adapted = self.adapter(backbone)
        for config in getattr(adapted, "peft_config", {}).values():
            config.revision = self.revision
        return adapted

    def _made_fast(
        self, backbone: PreTrainedModel, *, is_trained: bool, is_sharded: bool
    ) -> PreTrainedModel:
        """With the products that were asked for, and the fast path of LoRA where it is exact."""
        has_adapter = backbone is not base_model(backbone)
        if self.linear_precision == "fp8" and not is_sharded:
            if has_adapter and not is_trained:  # one product instead of three
                backbone, has_adapter = merge_adapter(backbone), False
            use_fp8(text_model(backbone), is_trained_through=is_trained)
            if not is_trained:
                fuse_gated_layers(text_model(backbone))
        if has_adapter:
            logger.info("%s", use_fast_lora(backbone, is_sharded=is_sharded))
        return backbone

    def saved_as(self, folder: Path, *, dtype: str) -> BiEncoderFactory:
        """The same model as it was saved to `folder`, in another dtype."""
        other = self.in_plain_products()
        other.path, other.dtype, other.tokenizer_path = str(folder), dtype, None
        other.revision = self.base_revision()  # the folder itself has none
        return other

    def in_plain_products(self) -> BiEncoderFactory:
        """The same model, neither compiled nor in fp8."""
        other = copy.copy(self)
        other.linear_precision, other.compile = None, False
        return other

    def remedies(self, *, share: float | None) -> dict[str, str]:
        """See `models.remedies`."""
        has_replica, ids = self.replica is not None, self.hub_ids
        size, hub_id = self.size, self.hub_id
        return remedies(size=size, hub_id=hub_id, hub_ids=ids, has_replica=has_replica, share=share)
