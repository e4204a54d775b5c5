"""Answer what Hydra refuses on the command line with the key, group or option that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from quarry.config.lightning_rules import INSTEAD
from quarry.config.name_rules import PATH_KEYS
from quarry.config.options import options_of_groups, suite_with
from quarry.runtime.shipped_files import conf_dir

OF_LIGHTNING = (
    "limit_train_batches",
    "overfit_batches",
    "limit_val_batches",
    "limit_test_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "accumulate_grad_batches",
)
"""Arguments of Lightning's Trainer that people write without `trainer.`."""

ANSWERS = {
    "ckpt_path": "task=resume run=DIR continues a run, model.path=DIR loads its model",
    "resume_from_checkpoint": "task=resume run=DIR",
    "hparams_search": "study=temperature_lr, or hydra/sweeper=optuna_tpe",
    "output_dir": "hydra.run.dir=DIR",
    "model_name_or_path": "model=local model.path=DIR",
    "batch_size": "data.global_batch_size",
    "per_device_train_batch_size": "data.global_batch_size",
    "gradient_accumulation_steps": "data.global_batch_size with loss.contrastive_batch_size",
    "learning_rate": "optimizer.lr",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "warmup_steps": "scheduler.num_warmup_steps",
    "gpus": "trainer.devices",
    "max_seq_length": "prompt.max_query_length and prompt.max_document_length",
} | {name: INSTEAD[name] for name in OF_LIGHTNING}
"""Last part of a key that other tools have -> what it is here."""

OTHER_OPTIONS = {
    ("trainer", "cpu"): "trainer.accelerator=cpu",
    ("trainer", "gpu"): "trainer.accelerator=gpu",
    ("trainer", "mps"): "trainer.accelerator=mps",
    ("trainer", "ddp"): "strategy=ddp",
    ("debug", "default"): "debug=fast",
    ("debug", "fdr"): "trainer.fast_dev_run=true",
    ("debug", "profiler"): "debug=profile",
}
"""Options of the Lightning-Hydra template -> what they are here."""


@contextmanager
def notes_near_misses(arguments: Sequence[str], *, primary: str) -> Iterator[None]:
    """Add to an error of Hydra what was probably meant, as notes of the exception."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if not isinstance(error, InstantiationException):
            for hint in near_misses(arguments, primary=primary):
                error.add_note(hint)
        raise


def near_misses(arguments: Sequence[str], *, primary: str) -> list[str]:
    """Return a line for each override that names nothing and is close to something.

    Args:
        arguments: the command line.
        primary: the configuration that it is for, train or eval.
    """
    overrides = [one for one in map(_parsed, arguments) if one is not None]
    groups = options_of_groups()
    is_option = {id(one): one.key_or_group in groups and not one.package for one in overrides}
    chosen = [
        f"{one.key_or_group}={one.value()!s}"
        for one in overrides
        if is_option[id(one)]
        and not one.is_sweep_override()
        and str(one.value()) in groups[one.key_or_group]
    ]
    hints: list[str] = []
    known: list[str] | None = None
    for one in overrides:
        if is_option[id(one)]:
            hints += [hint for value in _values(one) if (hint := _option_hint(one, value))]
        elif "@" not in str(one.input_line) and not one.key_or_group.startswith("hydra"):
            known = _known_keys(primary, chosen) if known is None else known
            hint = nearest_key(one.key_or_group, known)
            hints += [] if hint is None else [f"{one.input_line}: did you mean {hint}?"]
    return hints


def nearest_key(key: str, known: Sequence[str]) -> str | None:
    """Return the key, group or command that `key` was probably meant to be.

    Args:
        key: a dotted key.
        known: the keys that there are; one of them needs no answer, and the result is None.
    """
    leaf = key.rpartition(".")[2]
    if key in known:
        return None
    if leaf in ANSWERS:
        return ANSWERS[leaf]
    groups = list(options_of_groups())
    same = [f"{group}=OPTION" for group in groups if key == group.rpartition("/")[2]]
    same += [
        other
        for other in known
        if other.rpartition(".")[2] == leaf and other.replace(".", "/") not in groups
    ]
    if same:
        return " or ".join(same[:3])
    parent = key.rpartition(".")[0]
    beside = [other for other in known if other.rpartition(".")[0] == parent]
    leaves = {other.rpartition(".")[2]: other for other in beside}
    close = [leaves[one] for one in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)]
    close = close or difflib.get_close_matches(key, known, n=1, cutoff=0.85)
    if close and close[0].replace(".", "/") not in groups:
        return close[0]
    if "." not in key:
        close = difflib.get_close_matches(key, groups, n=1, cutoff=0.75)
        return f"{close[0]}=OPTION" if close else None
    return None


def _option_hint(override: Override, value: str) -> str | None:
    group, groups = override.key_or_group, options_of_groups()
    if value in groups[group] or value.lower() in ("null", "none"):
        return None
    written = f"{group}={value}"
    if (group, value) in OTHER_OPTIONS:
        return f"{written}: did you mean {OTHER_OPTIONS[group, value]}?"
    if group in PATH_KEYS and ("/" in value or Path(value).exists()):
        key, reader = PATH_KEYS[group]
        fix = f"{group}={reader} {key}={value}"
        return f"{written}: this group takes an option's name, no path. Fix: {fix}"
    if group == "benchmark" and (suite := suite_with(value)) is not None:
        return f"{written}: this is a set. Fix: benchmark={suite} benchmark.sets=[{value}]"
    close = difflib.get_close_matches(value, groups[group], n=1)
    if close:
        return f"{written}: did you mean {group}={close[0]}?"
    elsewhere = [f"{other}={value}" for other, options in groups.items() if value in options]
    return f"{written}: did you mean {' or '.join(elsewhere)}?" if elsewhere else None


def _parsed(argument: str) -> Override | None:
    if argument.startswith(("-", "+", "~")) or "=" not in argument:
        return None
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.value())]
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        return []
    return [str(value) for value in override.sweep_string_iterator()]


def _known_keys(primary: str, chosen: Sequence[str]) -> list[str]:
    """Return the keys of a primary with the chosen options, or else with its defaults."""
    initialized, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        for overrides in (list(chosen), []):
            try:
                with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
                    return list(_keys(compose(config_name=primary, overrides=overrides)))
            except (HydraException, OmegaConfBaseException):
                continue
        return []
    finally:
        GlobalHydra.instance().hydra = initialized


def _keys(node: DictConfig, path: str = "") -> Iterator[str]:
    for key in map(str, node):
        where = f"{path}.{key}" if path else key
        yield where
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_interpolation():
            yield from _keys(value, where)
