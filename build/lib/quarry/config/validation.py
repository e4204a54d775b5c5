"""Everything that can be wrong with a configuration, found at once and before anything loads."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quarry.errors import UserError


def validate(config: DictConfig, *, primary: str) -> None:
    """Raises one UserError that lists every violation.

    Args:
        config: the composed configuration.
        primary: "train" or "eval".
    """
    violations = [*unresolved_values(config)] or [*signature_violations(config)]
    if not violations:
        violations += _rules(config)
        violations += _training_rules(config) if primary == "train" else []
    if violations:
        raise UserError(
            "The configuration cannot work:\n" + "\n".join(f"- {line}" for line in violations)
        )


def unresolved_values(node: Any, path: str = "") -> Iterator[str]:
    """Missing values (???) and interpolations that lead nowhere."""
    if not isinstance(node, DictConfig | ListConfig):
        return
    keys = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        where = f"{path}.{key}" if path else str(key)
        if OmegaConf.is_missing(node, key):
            yield f"{where} has no value"
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            yield f"{where}: {str(error).splitlines()[0]}"
            continue
        yield from unresolved_values(value, where)


def signature_violations(node: Any, path: str = "") -> Iterator[str]:
    """Nodes whose keys do not fit the signature of their `_target_`."""
    if isinstance(node, ListConfig):
        for index, item in enumerate(node):
            yield from signature_violations(item, f"{path}[{index}]")
    if not isinstance(node, DictConfig):
        return
    target = node.get("_target_")
    if target is not None:
        yield from _call_violations(node, str(target), path)
    for key, value in node.items():
        yield from signature_violations(value, f"{path}.{key}" if path else str(key))


def _call_violations(node: DictConfig, target: str, path: str) -> Iterator[str]:
    try:
        function = get_object(target)
    except Exception as error:  # noqa: BLE001 (whatever the import of a user's module raises)
        yield f"{path}._target_={target} cannot be imported: {error}"
        return
    keys = {str(key) for key in node if not str(key).startswith("_")}
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in sorted(keys - set(parameters)):
        yield f"{path}.{key}: {target} takes no such argument; it takes {', '.join(parameters)}"
    if not node.get("_partial_"):
        required = {n for n, p in parameters.items() if p.default is p.empty}
        for key in sorted(required - keys):
            yield f"{path}.{key} is needed by {target} and is not set"


def _rules(config: DictConfig) -> Iterator[str]:
    trainer = config.trainer
    if trainer.devices not in (1, "1", "auto") or trainer.get("num_nodes", 1) != 1:
        yield (
            f"trainer.devices={trainer.devices}: this version runs in one process on one device; "
            "set trainer.devices=1"
        )
    if config.evaluation.max_tokens_per_batch < 1:
        yield "evaluation.max_tokens_per_batch must be at least 1 (tokens in one forward pass)"
    if config.evaluation.every_n_steps < 0:
        yield "evaluation.every_n_steps must be 0 (only before and after training) or more"


def _training_rules(config: DictConfig) -> Iterator[str]:
    data, contrast = config.data, config.loss.get("num_contrast_queries")
    num_update = data.num_queries_per_update
    if num_update < 1 or (contrast is not None and contrast < 1):
        yield "data.num_queries_per_update and loss.num_contrast_queries must be at least 1"
    elif num_update % (contrast or num_update):
        yield (
            f"data.num_queries_per_update={num_update} is not a multiple of "
            f"loss.num_contrast_queries={contrast}: an update is made of whole contrast sets"
        )
    elif (contrast or num_update) * (1 + data.num_hard_negatives) < 2:
        yield (
            "one query and no hard negatives make a contrast set of one passage, whose loss is "
            "always 0: raise data.num_queries_per_update or data.num_hard_negatives"
        )
    if "path" in data.examples and data.path is None:
        yield "data.path is not set: where is the training data? data.path=FILE_OR_DIR"
    if data.num_hard_negatives < 0 or data.num_workers < 0:
        yield "data.num_hard_negatives and data.num_workers must be 0 or more"
    if config.trainer.get("accumulate_grad_batches", 1) != 1:
        yield (
            "trainer.accumulate_grad_batches follows from data.num_queries_per_update and "
            "loss.num_contrast_queries: set these instead"
        )
    if config.trainer.get("limit_train_batches") is not None:
        yield "trainer.limit_train_batches is not supported: set trainer.max_steps (updates)"
    if config.trainer.max_epochs in (None, -1) and config.trainer.max_steps == -1:
        yield "training would never end: set trainer.max_epochs or trainer.max_steps"
