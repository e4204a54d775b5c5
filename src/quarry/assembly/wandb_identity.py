"""Which run of Weights & Biases a job is: its id, group, name, job type and tags."""

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

logger = logging.getLogger(__name__)

MAX_LENGTH = 64
"""Of a tag, by W&B's rule."""

NOT_SAID = ("none", "local", "auto")
"""Options that say nothing about a run."""

RUN_ID = "WANDB_RUN_ID"


@dataclass(frozen=True, kw_only=True)
class WandbIdentity:
    """What takes the place of `null` in `logger.wandb`.

    Attributes:
        directory: of the run; the id is kept there, so that a resumed run goes on with its own.
        job_type, name, group, tags: as W&B shows them.
        is_job: it is one of the jobs of a sweep.
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
    """Of a run that has its directory: a study's job has the study as its group.

    Args:
        has_model: what is evaluated needs the model of the configuration.
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
    """Model, size, adapter, pooling, prompt, training data, benchmark, and another retriever than
    the dense one, then the configured `tags`; what says nothing is left out.

    Args:
        options: group -> its option, of the command that began the run.
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
    return tuple(dict.fromkeys(str(tag)[:MAX_LENGTH] for tag in found if tag is not None))


def with_identity(loggers: DictConfig, identity: WandbIdentity) -> DictConfig:
    """A copy of the configured loggers in which W&B's knows which run it is.

    Raises:
        UserError: an id of a run is given for all jobs of a sweep.
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
    return copied


def _run_id(node: DictConfig, identity: WandbIdentity, *, key: str) -> str:
    """Of the file in the run directory, else a new one, which goes there.

    `wandb.init` would take it from the environment, and then all jobs of a sweep would be one run.
    """
    given = node.get("version") or node.get("id")
    if given is not None and identity.is_job:
        raise UserError(
            f"{key}.id={given} would make all jobs of a sweep one run of W&B. Leave it out: each "
            f"job has its own, and keeps it in {identity.directory.wandb_run.name}."
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


def _new_id() -> str:
    """Of the form that W&B gives."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _is_wandb(node: DictConfig) -> bool:
    found = get_object(node["_target_"])
    return isinstance(found, type) and issubclass(found, WandbLogger)


def _options(run: RunDirectory) -> dict[str, str]:
    if not run.provenance.is_file():
        return {}
    return dict(json.loads(run.provenance.read_text(encoding="utf-8")).get("options", {}))
