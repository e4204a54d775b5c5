"""Derive id, group, name, job type and tags of a run for Weights & Biases."""

from __future__ import annotations

import json
import logging
import os
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.loggers import WandbLogger

from quarry.errors import UserError
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.secret_values import as_shell_variables, scrub

logger = logging.getLogger(__name__)

MAX_LENGTH = 64
"""Characters of a tag, W&B's limit."""

NOT_SAID = ("none", "local", "auto")
"""Options that make no useful tag."""

SHOWN = ("group", "name", "job_type", "tags", "notes")
"""Arguments that W&B stores and shows, and that nothing else depends on."""

RUN_ID = "WANDB_RUN_ID"


@dataclass(frozen=True, kw_only=True)
class WandbIdentity:
    """The values that replace `null` in `logger.wandb`.

    Attributes:
        directory: of the run; it stores the id, so that a resumed run continues its W&B run.
        job_type, name, group, tags: as W&B shows them.
        is_job: the run is a job of a sweep.
    """

    directory: RunDirectory
    job_type: str
    name: str
    group: str | None = None
    tags: tuple[str, ...] = ()
    is_job: bool = False


def identity_of(
    config: DictConfig, run: RunDirectory, *, job_type: str, has_model: bool = True
) -> WandbIdentity:
    """Return the W&B identity of a run whose directory exists; the study is its group.

    Args:
        has_model: the run uses the configured model.
    """
    study, job = config.study.name, config.study.job
    return WandbIdentity(
        directory=run,
        job_type=job_type,
        name=run.path.name if job is None else job,
        group=study,
        tags=tags_of(config, _options(run), has_model=has_model),
        is_job=job is not None,
    )


def tags_of(
    config: DictConfig, options: Mapping[str, str], *, has_model: bool = True
) -> tuple[str, ...]:
    """Return the tags: model, size, adapter, pooling, prompt, data, benchmark and retriever.

    Configured `tags` follow. Options in `NOT_SAID` and the dense retriever are left out.

    Args:
        options: configuration group -> chosen option, of the command that started the run.
    """
    found: list[str | None] = []
    if has_model:
        path = OmegaConf.select(config, "model.path")
        found += [options.get("model") if path is None else Path(str(path)).name]
        found += [OmegaConf.select(config, "model.size")]
        found += [options.get(group) for group in ("model/adapter", "model/pooling", "prompt")]
        found += [options.get("data")]
    found += [options.get("benchmark")]
    retriever = options.get("retriever")
    found += [] if retriever == "dense" else [retriever]
    found = [tag for tag in found if tag not in NOT_SAID]
    found += config.get("tags") or []
    found += [] if config.get("debug") is None else ["debug"]
    shown = (as_shell_variables(scrub(str(tag))) for tag in found if tag is not None)
    return tuple(dict.fromkeys(tag[:MAX_LENGTH] for tag in shown))


def with_identity(loggers: DictConfig, identity: WandbIdentity) -> DictConfig:
    """Return a copy of the configured loggers with the identity in W&B's.

    Raises:
        UserError: one run id is given for all jobs of a sweep.
    """
    copied = OmegaConf.create(OmegaConf.to_container(loggers, resolve=True))
    assert isinstance(copied, DictConfig)
    for name, node in copied.items():
        if node is None or not _is_wandb(node):
            continue
        own: dict[str, Any] = {
            "group": identity.group,
            "name": identity.name,
            "job_type": identity.job_type,
            "tags": list(identity.tags),
            "id": _run_id(node, identity, key=f"logger.{name!s}"),
        }
        with open_dict(node):
            node.update({key: value for key, value in own.items() if node.get(key) is None})
            node.update({key: _shown(node[key]) for key in SHOWN if node.get(key)})
    return copied


def _run_id(node: DictConfig, identity: WandbIdentity, *, key: str) -> str:
    """Return the run id stored in the run directory, else store a new one there.

    `wandb.init` alone would take it from the environment, and all jobs of a sweep would be one
    run.
    """
    given = node.get("version") or node.get("id")
    if given is not None and identity.is_job:
        raise UserError(
            f"{key}.id={given}: all jobs of a sweep would be one W&B run (each job stores its own "
            f"id in {identity.directory.wandb_run.name}). Fix: leave it out."
        )
    kept = identity.directory.wandb_run
    if given is None and kept.is_file():
        return str(json.loads(kept.read_text(encoding="utf-8"))["id"])
    run_id = given or _from_environment(identity) or _new_id()
    write_json(kept, {"id": str(run_id), "project": str(node.get("project"))})
    return str(run_id)


def _from_environment(identity: WandbIdentity) -> str | None:
    found = os.environ.get(RUN_ID)
    if found is not None and identity.is_job:
        logger.warning(
            "%s=%s has no effect on a job of a sweep, each of which is a run of its own",
            RUN_ID,
            found,
        )
        return None
    return found


def _shown(value: Any) -> Any:
    """Return an argument with secrets hidden: `$NAME` for an environment variable.

    An interpolation would be followed again before W&B gets the argument.
    """
    plain = scrub(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    if isinstance(plain, list):
        return [as_shell_variables(str(one)) for one in plain]
    return as_shell_variables(str(plain))


def _new_id() -> str:
    """Return a random id in W&B's form."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _is_wandb(node: DictConfig) -> bool:
    found = get_object(node["_target_"])
    return isinstance(found, type) and issubclass(found, WandbLogger)


def _options(run: RunDirectory) -> dict[str, str]:
    if not run.provenance.is_file():
        return {}
    return dict(json.loads(run.provenance.read_text(encoding="utf-8")).get("options", {}))
