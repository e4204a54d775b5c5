"""Specify a model: its files and options. Nothing is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PretrainedConfig

from quarry.errors import UserError
from quarry.models.adapters.base import Adapter
from quarry.models.model_options import ModelOptions
from quarry.models.model_source import ModelSource, Replica
from quarry.models.pooling.base import Pooling


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The input of `build_bi_encoder`: the same for training, evaluation and every rank.

    Attributes:
        source: where weights and tokenizer are.
        options: pooling, adapter, dtype and further options.
    """

    source: ModelSource
    options: ModelOptions

    def embedding_dim(self, config: PretrainedConfig) -> int:
        """Return the width of the embeddings.

        Args:
            config: of the backbone.

        Raises:
            UserError: more entries are asked for than there are.
        """
        width, asked = self.source.embedding_dim(config), self.options.embedding_dim
        if asked is not None and asked > width:
            raise UserError(
                f"model.embedding_dim={asked}: above the width of the model's embeddings, {width}. "
                f"Fix: model.embedding_dim={width}, or null"
            )
        return asked or width

    def saved_as(self, folder: Path, *, dtype: str) -> ModelSpec:
        """Return the spec of the same model after saving it to `folder`, in another dtype."""
        plain = self.in_plain_products()
        source = replace(
            self.source,
            path=str(folder),
            tokenizer_path=None,
            revision=self.source.base_revision(),  # the folder itself has none
        )
        return ModelSpec(source=source, options=replace(plain.options, dtype=dtype))

    def in_plain_products(self) -> ModelSpec:
        """Return the spec of the same model, neither compiled nor in fp8."""
        return replace(self, options=replace(self.options, linear_precision=None, compile=False))


def model_spec(
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
    embedding_dim: int | None = None,
    size: str | None = None,
    hub_ids: Mapping[str, str] | None = None,
    hub_id: str | None = None,
    base_path: str | None = None,
    tokenizer_path: str | None = None,
    card: Mapping[str, object] | None = None,
) -> ModelSpec:
    """Return the spec of the configuration's `model`, whose keys are the arguments.

    Args:
        path, revision, replica, trust_remote_code, size, hub_ids, hub_id, base_path,
            tokenizer_path, card: see `ModelSource`.
        pooling, adapter, is_causal, normalize, dtype, attention, linear_precision, compile,
            gradient_checkpointing, embedding_dim: see `ModelOptions`.
    """
    return ModelSpec(
        source=ModelSource(
            path=path,
            revision=revision,
            hub_id=hub_id,
            replica=replica,
            base_path=base_path,
            tokenizer_path=tokenizer_path,
            card=card,
            size=size,
            hub_ids=hub_ids or {},
            trust_remote_code=trust_remote_code,
        ),
        options=ModelOptions(
            pooling=pooling,
            adapter=adapter,
            is_causal=is_causal,
            normalize=normalize,
            dtype=dtype,
            attention=attention,
            linear_precision=linear_precision,
            compile=compile,
            gradient_checkpointing=gradient_checkpointing,
            embedding_dim=embedding_dim,
        ),
    )
