"""Locate and read a model's files: weights or adapter, tokenizer, and how texts are fed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from quarry.errors import MissingPathError, UserError
from quarry.models.adapters.adapter_config import AdapterConfig, read_adapter_config
from quarry.models.backbones.huggingface import (
    VOCABULARY_FILES,
    load_config,
    load_tokenizer,
    resolve_source,
    resolve_tokenizer,
)
from quarry.models.backbones.model_files import model_file, read_json
from quarry.models.folders.sentence_transformers import (
    read_sentence_transformers,
    transformer_path,
)
from quarry.models.folders.stated import Statement
from quarry.models.limits import check_width
from quarry.models.projections import Dense, check_weights
from quarry.models.remedies import CannotLoadError, remedies
from quarry.models.saved import CONTRACT_FILE, read_contract, stored_projections

logger = logging.getLogger(__name__)


class Replica(Protocol):
    """A model folder that is generated on demand."""

    def folder(self) -> Path: ...


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model folder, a repository on the hub, or a replica that is generated on demand.

    Attributes:
        path: a run directory, a Hugging Face or peft folder, or a hub id; None: `hub_id`, else
            `replica`.
        revision: of a hub id: branch, tag or commit. Of an adapter on the hub it is the adapter's,
            whose adapter_config.json may name its base's.
        hub_id: the hub id of `size`; None for "tiny".
        replica: makes the folder where neither `path` nor `hub_id` is set.
        base_path: folder or hub id of a peft adapter's base; None: as the adapter's file says.
        tokenizer_path: folder or hub id of a tokenizer; None: the one beside the weights.
        card: how texts are fed by the model card, see `folders.card`; used where the model's files
            say nothing.
        size, hub_ids: a size of a model family, and the hub ids of its published sizes.
        trust_remote_code: run a repository's own Python code.
    """

    path: str | None = None
    revision: str | None = None
    hub_id: str | None = None
    replica: Replica | None = None
    base_path: str | None = None
    tokenizer_path: str | None = None
    card: Mapping[str, object] | None = None
    size: str | None = None
    hub_ids: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False

    def home(self) -> str:
        """Return the folder or hub id whose files say how texts are fed.

        The replica is generated where neither is configured.
        """
        if self.path is not None:
            return resolve_source(self.path)
        if self.hub_id is not None:
            return self.hub_id
        if self.replica is not None:
            return str(self.replica.folder())
        raise MissingPathError(
            "model.path is not set. Give a run directory, a Hugging Face folder or a hub id: "
            "model.path=DIR; or choose a model: model=qwen-tiny."
        )

    def location(self) -> str:
        """Return the folder or hub id that holds weights (or an adapter) and tokenizer."""
        return _transformer(self.home(), revision=self.revision)

    def statement(self) -> Statement:
        """Return how texts are fed by the model's files, or by its base's for a silent adapter.

        Raises:
            UserError: see `read_sentence_transformers`.
        """
        for home, revision in self._homes():
            if _has_contract(home, revision=revision):
                return Statement()
            found = read_sentence_transformers(home, revision=revision)
            if found is not None:
                return found
        return Statement()

    def contract(self) -> dict[str, Any] | None:
        """Return the contract saved with the model, or with its base for an adapter without one."""
        for home, revision in self._homes():
            found = read_contract(home, revision=revision)
            if found is not None:
                return found
            if read_sentence_transformers(home, revision=revision) is not None:
                return None
        return None

    def projections(self) -> tuple[Dense, ...]:
        """Return the projections that follow the pooling."""
        for home, revision in self._homes():
            file = model_file(home, CONTRACT_FILE, revision=revision)
            if file is not None:
                return stored_projections(read_json(file), file)
            found = read_sentence_transformers(home, revision=revision)
            if found is not None:
                return found.projections
        return ()

    def embedding_dim(self, config: PretrainedConfig) -> int:
        """Return the embeddings' width: the last projection's, else the hidden size.

        Args:
            config: of the backbone.
        """
        projections = self.projections()
        if projections:
            return projections[-1].out_features
        return int(config.get_text_config().hidden_size)

    def _homes(self) -> list[tuple[str, str | None]]:
        homes = [(self.home(), self.revision)]
        if self.adapter_config() is None:
            return homes
        return [*homes, (self._base_home(), self.base_revision())]

    def base_location(self) -> str:
        """Return the folder or hub id of the backbone's weights (the base of an adapter)."""
        if self.adapter_config() is None:
            return self.location()
        return _transformer(self._base_home(), revision=self.base_revision())

    def _base_home(self) -> str:
        adapter = self.adapter_config()
        assert adapter is not None
        if self.base_path is not None:
            return resolve_source(self.base_path)
        if adapter.base is None:
            raise UserError(
                f"{adapter.file}: no base_model_name_or_path, so the weights that the adapter "
                "belongs to are unknown (expected: a folder or hub id). Fix: model.base_path=DIR"
            )
        return adapter.base

    def base_revision(self) -> str | None:
        """Return the branch, tag or commit of the backbone's weights, where they are on the hub.

        `revision` belongs to the path; for an adapter in a folder, which has none, to its base.
        """
        adapter = self.adapter_config()
        is_folder = adapter is None or Path(self.location()).is_dir()
        if adapter is None or (is_folder and self.revision is not None):
            return self.revision
        return adapter.base_revision if self.base_path is None else None

    def adapter_config(self) -> AdapterConfig | None:
        """Return the configuration of the adapter at `path`; None where it is no adapter."""
        return read_adapter_config(self.location(), revision=self.revision)

    def backbone_config(self) -> PretrainedConfig:
        """Return the config.json of the backbone.

        Raises:
            CannotLoadError: the hub cannot be reached.
        """
        location = self.base_location()
        try:
            return load_config(
                location,
                revision=self.base_revision(),
                trust_remote_code=self.trust_remote_code,
            )
        except UserError as error:
            if Path(location).exists():
                raise
            raise CannotLoadError(str(error), remedies=self.remedies(share=None)) from error

    def check_widths(self) -> None:
        """Refuse a pooling or projections whose widths do not fit each other or the backbone.

        Raises:
            UserError: with the stated width and the backbone's.
            CannotLoadError: the hub cannot be reached.
        """
        config, projections = self.backbone_config(), self.projections()
        statement = self.statement()
        if statement.width is not None:
            where = f"{self.home()}: {statement.facts['model.pooling'].source}"
            check_width(config, statement.width, where=where)
        for dense in projections[:1]:
            check_width(config, dense.in_features, where=f"{dense.weights.parent}: in_features")
        check_weights(projections)

    def remedies(self, *, share: float | None) -> dict[str, str]:
        """Return commands that would run instead, see `models.remedies`."""
        return remedies(
            size=self.size,
            hub_id=self.hub_id,
            hub_ids=self.hub_ids,
            has_replica=self.replica is not None,
            share=share,
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer beside the weights; of an adapter without one, its base's."""
        is_replica = self.path is None and self.hub_id is None  # it has its own tokenizer
        source, revision = self.location(), self.revision
        if self.tokenizer_path is not None and not is_replica:
            source, revision = resolve_tokenizer(self.tokenizer_path), None
        elif self.adapter_config() is not None and not _has_tokenizer(source, revision=revision):
            source, revision = self.base_location(), self.base_revision()
        statement = Statement() if is_replica else self.statement()
        lower_case = statement.lower_case is not None
        tokenizer = load_tokenizer(source, revision=revision, lower_case=lower_case)
        if tokenizer.truncation_side != "right" and not statement.facts:
            logger.warning(
                "%s: truncation_side=%r of the tokenizer is not followed: texts are cut at their "
                "end",
                source, tokenizer.truncation_side,
            )  # fmt: skip
        elif tokenizer.truncation_side != "right":
            raise UserError(
                f"{source}: the tokenizer cuts texts at their beginning (truncation_side="
                f"{tokenizer.truncation_side!r} in tokenizer_config.json, or the direction of "
                "truncation in tokenizer.json), which is not supported; what is, is 'right'."
            )
        return tokenizer


def _has_tokenizer(source: str, *, revision: str | None) -> bool:
    names = ("tokenizer.json", *VOCABULARY_FILES)
    return any(model_file(source, name, revision=revision) is not None for name in names)


def _transformer(home: str, *, revision: str | None) -> str:
    """Return the transformer's folder in a sentence-transformers model; else `home` itself."""
    if _has_contract(home, revision=revision):  # ours: modules.json may name our exported module
        return home
    path = transformer_path(home, revision=revision)
    if not path:
        return home
    if not Path(home).is_dir():
        raise UserError(
            f"model.path={home}: the transformer lies in the subfolder {path}, which is supported "
            "of local folders alone. Fix: download the model, and give model.path=DIR"
        )
    return str(Path(home) / path)


def _has_contract(home: str, *, revision: str | None) -> bool:
    return model_file(home, CONTRACT_FILE, revision=revision) is not None
