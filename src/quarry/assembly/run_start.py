"""Begin a run directory: agree on it among ranks, write its configuration and provenance."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.config.contract import chosen_options
from quarry.config.dry_run import dry_run_of
from quarry.config.settled_contract import SettledContract
from quarry.distributed.launch import agreed_with_first
from quarry.runtime.files import write_json, write_text
from quarry.runtime.provenance import collect_provenance
from quarry.runtime.renamed_keys import with_renamed_keys
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.secret_values import remember_secrets, scrub

logger = logging.getLogger(__name__)


def record_start(
    config: DictConfig, run: RunDirectory, *, contract: SettledContract | None
) -> dict[str, Any]:
    """Write configuration and provenance; return the resolved configuration, secrets hidden.

    What came from an environment variable stays its interpolation, also in what is resolved.

    Args:
        contract: how texts are fed to the model; None: the run has no model.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    remember_secrets(plain)
    composed = scrub(plain)
    resolved: dict[str, Any] = scrub(OmegaConf.to_container(config, resolve=True))
    write_text(run.config, OmegaConf.to_yaml(OmegaConf.create(composed)))
    write_text(run.resolved_config, OmegaConf.to_yaml(OmegaConf.create(resolved)))
    more: dict[str, Any] = {
        "options": chosen_options(),
        "tags": list(config.get("tags") or []),
        "dry_run": dry_run_of(config),
        "contract_differences": {},
    }
    if contract is not None:
        more |= {"contract": contract.as_data(), "contract_differences": contract.differences}
    write_json(run.provenance, scrub({**collect_provenance(), **more}))
    logger.info("Run directory: %s", run.path)
    return resolved


def recorded_contract(run: RunDirectory) -> dict[str, Any]:
    """Return the contract that the start of the run recorded; empty if there is none."""
    if not run.provenance.exists():  # rank 0 may not have written it yet
        return {}
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    return with_renamed_keys(provenance.get("contract", {}))


def stored_hyperparameters(run: RunDirectory) -> dict[str, Any]:
    """Return the stored configuration, which loggers show, and the `options` of its groups."""
    stored = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
    assert isinstance(stored, dict)
    options = json.loads(run.provenance.read_text(encoding="utf-8")).get("options", {})
    groups = {group: option for group, option in options.items() if group.isidentifier()}
    return {**{str(key): value for key, value in stored.items()}, "options": groups}


def record_resume(run: RunDirectory, *, accepted_changes: Sequence[str]) -> None:
    """Append the current process to the provenance of a resumed run.

    Args:
        accepted_changes: what is not as it was when the run began ("training data").
    """
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    resumed = {**collect_provenance(), "accepted_changes": list(accepted_changes)}
    provenance.setdefault("resumed", []).append(resumed)
    write_json(run.provenance, provenance)


def share_run_directory(config: DictConfig) -> None:
    """Set rank 0's run directory on all ranks.

    A launcher starts each rank separately, and each would name a directory after its own start.
    """
    own = config.paths.run_dir
    config.paths.run_dir = agreed_with_first(own)
    if config.paths.run_dir != own:
        with contextlib.suppress(OSError):
            Path(own).rmdir()
