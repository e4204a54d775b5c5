"""Validate a configuration before anything loads, and report all violations at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quarry.config.dry_run import dry_run_violations
from quarry.config.evaluation_rules import corpus_violations, effect_violations
from quarry.config.lightning_rules import trainer_violations, training_only_violations
from quarry.config.logger_rules import logger_violations
from quarry.config.lora_rules import lora_violations
from quarry.config.memory_rules import memory_violations
from quarry.config.name_rules import name_violations
from quarry.config.signature_rules import (
    dotted,
    fits,
    group_violations,
    signature_of,
    signature_violations,
    suggestion,
    written,
)
from quarry.config.world_size import device_violations, strategy_violations, world_size
from quarry.errors import UserError
from quarry.models.dtypes import DTYPES
from quarry.retrieval.store.shelf import DTYPES as STORE_DTYPES
from quarry.runtime.own_command import own_command
from quarry.runtime.renamed_keys import with_new_names

EVALUATION_COMPONENTS = (
    "model", "prompt", "trainer", "benchmark", "convention", "retriever", "baseline",
)  # fmt: skip
TRAINING_COMPONENTS = ("data.examples", "loss", "optimizer", "scheduler")

_RESOLVING = "ValueError raised while resolving interpolation: "
"""OmegaConf's prefix to the messages of our resolvers."""


def validate(config: DictConfig, *, primary: str, is_planned: bool = False) -> None:
    """Check a configuration; raise one UserError with all violations of a step.

    A step that finds some ends the check.

    Missing values are checked first, then keys and arguments, then rules between keys: each step
    relies on the ones before.

    Args:
        config: the composed configuration.
        primary: "train" or "eval".
        is_planned: the run is for a machine that need not be this one.
    """
    is_training = primary == "train"
    if is_training and OmegaConf.select(config, "data") is None:
        raise UserError(
            f"This task trains, and {own_command('eval')} has no data, loss or optimizer. Fix: "
            f"{own_command('train')}"
        )
    names = EVALUATION_COMPONENTS + (TRAINING_COMPONENTS if is_training else ())
    violations = [*unresolved_values(config)]
    if not violations:
        violations += [*unknown_keys(config), *component_violations(config, names)]
        violations += signature_violations(config)
    if not violations:
        violations += device_violations(config, is_planned=is_planned)
        violations += [*trainer_violations(config, primary=primary), *logger_violations(config)]
        violations += [*name_violations(config), *_rules(config)]
        violations += corpus_violations(config.evaluation)
        if is_training:
            violations += [*_training_rules(config), *training_only_violations(config)]
            violations += dry_run_violations(config)
        else:
            violations += effect_violations(config.evaluation)
    if violations:
        raise UserError(
            "The configuration cannot work:\n"
            + "\n".join(f"- {with_new_names(line)}" for line in violations)
        )


def unresolved_values(node: Any, path: str = "") -> Iterator[str]:
    """Yield a message for each missing value (???) and interpolation that cannot be resolved."""
    if not isinstance(node, DictConfig | ListConfig):
        return
    keys: Any = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        where = dotted(path, key)
        if OmegaConf.is_missing(node, key):
            yield f"{where} has no value"
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0].removeprefix(_RESOLVING)
            yield f"{where}: {reason}"
            continue
        yield from unresolved_values(value, where)


def unknown_keys(node: DictConfig, path: str = "") -> Iterator[str]:
    """Yield keys that `+key=value` added and the schema does not have: nothing would read them."""
    schema = OmegaConf.get_type(node)
    if not is_dataclass(schema):
        return
    known = [field.name for field in fields(schema)]
    for key, value in node.items():
        if key not in known:
            where = dotted(path, key)
            has = f"{path or 'the top level'} has {', '.join(known)}"
            meant = suggestion(where, [dotted(path, name) for name in known])
            yield f"{where}: there is no such key; {has}{meant}"
        elif isinstance(value, DictConfig):
            yield from unknown_keys(value, str(key))


def component_violations(config: DictConfig, names: Sequence[str]) -> Iterator[str]:
    """Yield nodes that need a `_target_` and hold something else, such as null."""
    for name in names:
        node = OmegaConf.select(config, name)
        if not isinstance(node, DictConfig) or node.get("_target_") is None:
            value = written(node)
            yield f"{name}={value} names no class: choose an option of its group, see --help"
    for name in ("logger", "callbacks"):
        if name in config:
            yield from group_violations(OmegaConf.select(config, name), name)


def _rules(config: DictConfig) -> Iterator[str]:
    yield from strategy_violations(config)
    if config.run is not None:
        yield f"run={config.run}: has no effect here. Fix: task=resume, or leave it out"
    if config.get("runs"):
        yield f"runs={list(config.runs)}: has no effect here. Fix: task=report, or leave it out"
    if config.evaluation.num_examples < 0:
        num_examples = config.evaluation.num_examples
        yield (
            f"evaluation.num_examples={num_examples}: too small (0 for none, or more). "
            "Fix: evaluation.num_examples=0"
        )
    if config.evaluation.max_tokens_per_batch < 1:
        yield (
            f"evaluation.max_tokens_per_batch={config.evaluation.max_tokens_per_batch}: too small "
            "(tokens in one forward pass, at least 1). Fix: leave it out"
        )
    if config.evaluation.compare_dtype not in (None, *DTYPES):
        yield (
            f"evaluation.compare_dtype={config.evaluation.compare_dtype}: unknown value "
            f"({', '.join(DTYPES)}). Fix: evaluation.compare_dtype=bf16"
        )
    if config.evaluation.store_dtype not in STORE_DTYPES:
        yield (
            f"evaluation.store_dtype={config.evaluation.store_dtype}: unknown value "
            f"({', '.join(STORE_DTYPES)}). Fix: evaluation.store_dtype=float32"
        )
    elif config.evaluation.store_dtype != "float32" and not config.evaluation.store:
        yield (
            f"evaluation.store_dtype={config.evaluation.store_dtype}: has no effect with "
            "evaluation.store=false. Fix: evaluation.corpus_dtype=DTYPE, or leave it out"
        )
    if config.evaluation.every_n_steps < 0:
        yield (
            f"evaluation.every_n_steps={config.evaluation.every_n_steps}: too small (0: only "
            "before and after training, or more). Fix: evaluation.every_n_steps=0"
        )


def _needs_path(examples: DictConfig) -> bool:
    """Return whether a training set is read from a path that the user must give."""
    parameter = signature_of(get_object(examples["_target_"])).parameters.get("path")
    return "path" in examples and parameter is not None and not fits(None, parameter.annotation)


def _training_rules(config: DictConfig) -> Iterator[str]:
    data, batch_size = config.data, config.loss.get("contrastive_batch_size")
    global_batch_size = data.global_batch_size
    num_hard = data.num_hard_negatives  # null: the examples say, see RetrievalDataModule
    if global_batch_size < 1 or (batch_size is not None and batch_size < 1):
        yield (
            f"data.global_batch_size={global_batch_size}, "
            f"loss.contrastive_batch_size={batch_size}: too small (at least 1 query). "
            "Fix: raise them"
        )
    elif (batch_size or global_batch_size) < world_size(config):
        yield (
            f"data.global_batch_size={global_batch_size}: {world_size(config)} ranks share a "
            f"contrastive batch, and it has {batch_size or global_batch_size} queries (at least "
            "one a rank). Fix: raise it (and loss.contrastive_batch_size), or lower "
            "trainer.devices"
        )
    elif global_batch_size % (batch_size or global_batch_size):
        yield (
            f"data.global_batch_size={global_batch_size}: not a multiple of "
            f"loss.contrastive_batch_size={batch_size} (an optimizer step takes full contrastive "
            f"batches). Fix: data.global_batch_size={batch_size}"
        )
    elif num_hard == 0 and (batch_size or global_batch_size) == 1:
        yield (
            f"data.num_hard_negatives=0: with data.global_batch_size={global_batch_size} a "
            "contrastive batch has one passage, and its loss is always 0. Fix: raise "
            "data.global_batch_size or data.num_hard_negatives"
        )
    if data.path is None and _needs_path(data.examples):
        yield "data.path is not set (the training data). Fix: data.path=FILE_OR_DIR"
    for key in ("path", "corpus_path", "split", "subset", "revision", "columns"):
        if data[key] is not None and key not in data.examples:
            yield (
                f"data.{key}={data[key]}: has no effect, this training set takes no {key}. "
                "Fix: leave it out"
            )
    if config.trainer.max_steps == 0:
        yield (
            f"trainer.max_steps=0: trains nothing. Fix: {own_command('eval')}, or -1 for no limit"
        )
    if (num_hard or 0) < 0 or data.num_workers < 0:
        yield (
            f"data.num_hard_negatives={num_hard}, data.num_workers={data.num_workers}: too small "
            "(0 or more; hard negatives: null for all that each example has). Fix: raise them"
        )
    yield from memory_violations(config)
    yield from lora_violations(config)
