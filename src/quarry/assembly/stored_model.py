"""Open a saved model exactly as its contract states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from quarry.assembly.model_parts import ModelParts, build_model_parts
from quarry.assembly.preflight import preflight
from quarry.config.contract import apply_contract
from quarry.config.stored import read_unchecked_config
from quarry.errors import MissingPathError, UserError
from quarry.models.backbones.huggingface import resolve_source
from quarry.models.saved import CONTRACT_FILE, read_contract
from quarry.retrieval.export.loading import EXPORT_FILE
from quarry.runtime.run_directory import RunDirectory

_SPEC = {
    "_target_": "quarry.models.model_spec.model_spec",
    "replica": None,
    "revision": None,
    "pooling": {},
    "adapter": {"_target_": "quarry.models.adapters.full.FullFineTuning"},
    "is_causal": None,
    "normalize": None,
    "dtype": "float32",
    "attention": "auto",
    "linear_precision": None,
    "compile": False,
    "gradient_checkpointing": False,
    "trust_remote_code": False,
}


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A saved model that can be built.

    Attributes:
        home: the run directory, or the folder that was named.
        folder: where the weights are.
        contract: as it was saved.
        parts: spec and tokenizer, the weights in float32.
    """

    home: Path
    folder: Path
    contract: Mapping[str, Any]
    parts: ModelParts

    @property
    def export(self) -> Path:
        """Return the default place of the sentence-transformers export.

        That is `export` in the run directory; for an exported folder it is the folder itself.
        """
        return self.home if (self.home / EXPORT_FILE).is_file() else self.home / "export"


def open_stored_model(
    run: str | None, *, base_path: str | None, trusted: Sequence[str] = ()
) -> StoredModel:
    """Open the model of a run directory or model folder; check its tokenizer by the contract.

    Args:
        base_path: folder of an adapter's base model, if it was moved since training.
        trusted: packages whose poolings and prompts the contract may name, too.

    Raises:
        UserError: there is no model, it has no contract, or its tokenizer was changed.
    """
    if run is None:
        raise MissingPathError("run is not set: which run directory or model folder? run=DIR")
    home = Path(run).expanduser().absolute()
    if not home.is_dir():
        raise MissingPathError(f"run={run}: no such folder.")
    folder = Path(resolve_source(str(home)))
    contract = read_contract(folder)
    if contract is None:
        raise MissingPathError(
            f"{folder} has no {CONTRACT_FILE}, which says how text is fed to the model. Give the "
            "run directory of a training run, or the model folder in it."
        )
    settings = _SPEC | {"path": str(folder)} | _base(home)
    if base_path is not None:
        settings["base_path"] = base_path
    config = OmegaConf.create({"prompt": {}, "model": settings})
    apply_contract(config, contract, explicit=(), trusted=trusted)
    parts = build_model_parts(config)
    preflight(parts.spec, is_trained=False, on_cpu=True)
    return StoredModel(home=home, folder=folder, contract=contract, parts=parts)


def _base(home: Path) -> dict[str, Any]:
    """Return the base model and revision that the run's configuration names.

    Raises:
        UserError: one of them is no plain text, and could build something.
    """
    file = RunDirectory(home).resolved_config
    if not file.exists():
        return {}
    stored: Any = OmegaConf.to_container(read_unchecked_config(file))
    model = stored.get("model")
    found = {} if not isinstance(model, dict) else model
    named = {key: found[key] for key in ("base_path", "revision") if found.get(key) is not None}
    for key, value in named.items():
        if not isinstance(value, str) or "${" in value:
            raise UserError(
                f"{file}: model.{key}={value}: no plain text (a path, a name). Fix: restore the "
                "file"
            )
    return named
