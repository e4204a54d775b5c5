"""Load the configured model as an encoder, outside of evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from quarry.assembly.evaluation_encoder import embedding_contract, stored_encoder_builder
from quarry.assembly.model_parts import ModelParts, build_model_parts, settle_contract
from quarry.assembly.preflight import preflight
from quarry.assembly.saving import consolidate_if_unfinished
from quarry.config.instantiate import build
from quarry.config.settled_contract import SettledContract
from quarry.config.stored_targets import trusted_packages
from quarry.models.building import build_bi_encoder
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.encoder import Encoder
from quarry.types import Role


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """A model on its device, with what feeds it.

    Attributes:
        encoder: holds embeddings in memory.
        parts: spec and tokenizer of the model.
        contract: how texts are fed to it, and where each part of that comes from.
    """

    encoder: Encoder
    parts: ModelParts
    contract: SettledContract

    def stored(self, config: DictConfig) -> TextEncoder:
        """Return an encoder with the embedding store behind it (`paths.store_dir`).

        Raises:
            UserError: the folder cannot be created.
        """
        return stored_encoder_builder(config, self.parts)(self.encoder.model)

    def embedding_contract(self, config: DictConfig) -> dict[Role, Any]:
        """Return everything that an embedding of each role depends on, as plain data."""
        return embedding_contract(config, self.parts, memo=_memo(config))


@dataclass(frozen=True, kw_only=True)
class PreparedEncoder:
    """A configured model, of which no weights are loaded; see `LoadedEncoder`."""

    parts: ModelParts
    contract: SettledContract

    def embedding_contract(self, config: DictConfig) -> dict[Role, Any]:
        """Return everything that an embedding of each role depends on, as plain data.

        Weights are read for their digest, once: it is remembered in the store.
        """
        return embedding_contract(config, self.parts, memo=_memo(config))

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings, by the model's files."""
        spec = self.parts.spec
        return spec.embedding_dim(spec.source.backbone_config())

    def load(
        self, config: DictConfig, *, device: str | torch.device | None = None
    ) -> LoadedEncoder:
        """Load the weights; arguments and errors as in `load_encoder`."""
        on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        preflight(build(config.model), is_trained=False, on_cpu=on.type == "cpu")
        model = build_bi_encoder(self.parts.spec, is_trained=False, device=on).eval()
        encoder = self.parts.encoder_builder(
            max_tokens_per_batch=config.evaluation.max_tokens_per_batch, compiles_long_passes=True
        )(model)
        return LoadedEncoder(encoder=encoder, parts=self.parts, contract=self.contract)


def prepare_encoder(config: DictConfig) -> PreparedEncoder:
    """Settle how texts are fed to `config.model`, and load its tokenizer.

    Raises:
        UserError: the path is no model, or an override cannot work.
    """
    if (path := config.model.get("path")) is not None:
        consolidate_if_unfinished(str(path), trusted=trusted_packages(config))
    contract = settle_contract(config)
    return PreparedEncoder(parts=build_model_parts(config), contract=contract)


def load_encoder(config: DictConfig, *, device: str | torch.device | None = None) -> LoadedEncoder:
    """Load `config.model` and settle how texts are fed to it.

    Of a run that was stopped before its end, this writes `model/` of the last checkpoint into the
    run directory, and warns.

    Args:
        device: None: a GPU where there is one.

    Raises:
        UserError: the path is no model, does not fit, or an override cannot work.
    """
    return prepare_encoder(config).load(config, device=device)


def _memo(config: DictConfig) -> Path:
    return Path(config.paths.store_dir).expanduser().absolute() / "weights"
