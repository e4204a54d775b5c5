"""Settle how texts are fed to a model, and record where each part comes from.

In order of precedence: the command line, the contract that was saved with the model, the
sentence-transformers files, the model card, the configuration, a default.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.config.contract import EMBEDDING_DIM, NODES, apply_contract, apply_settings
from quarry.config.contract_files import check_files
from quarry.config.stored_targets import trusted_packages
from quarry.data.prompts import AUTO_END, EOS, Prompt
from quarry.errors import UserError
from quarry.models.backbones.model_files import is_unknown
from quarry.models.folders.card import card_facts
from quarry.models.folders.modules import MODULES_FILE
from quarry.models.folders.pooling_modes import pooling_node
from quarry.models.folders.stated import Fact, Statement
from quarry.models.limits import is_decoder, num_positions
from quarry.models.model_spec import ModelSpec
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.models.remedies import CannotLoadError
from quarry.models.saved import CONTRACT_FILE
from quarry.types import ROLES

logger = logging.getLogger(__name__)

PROMPT = "quarry.data.prompts.Prompt"
PROMPT_DEFAULTS = {entry.name: entry.default for entry in fields(Prompt)}
COMMAND_LINE = "command line"
NO_PROMPT = Fact(value="{text}", source="default")
AUTO = Fact(value=AUTO_END, source="default")


@dataclass(frozen=True, kw_only=True)
class SettledContract:
    """How texts are fed to a model, and where each part comes from.

    Attributes:
        facts: part ("prompt.query", "model.pooling") -> value and its source.
        differences: parts that the command line changed, see `apply_settings`.
        notes: caveats for readers of the results.
    """

    facts: Mapping[str, Fact]
    differences: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return the data that provenance.json and metrics.json store."""
        parts = {k: {"value": f.value, "source": f.source} for k, f in self.facts.items()}
        return {"parts": parts, "notes": list(self.notes)}


def settle(
    config: DictConfig,
    spec: ModelSpec,
    *,
    explicit: Sequence[str],
    options: Mapping[str, str],
) -> SettledContract:
    """Put the model's settings, or defaults, into `config`; command-line overrides stay.

    Args:
        config: changed in place.
        spec: of `config.model`.
        explicit: keys that the command line overrides, see `contract.explicit_keys`.
        options: see `contract.chosen_options`.

    Raises:
        UserError: the model's files cannot be followed, or lack a setting that they should have.
    """
    if config.model.pooling == {}:  # auto on the command line counts as not given
        explicit = [key for key in explicit if key not in ("model/pooling", "model.pooling")]
    contract = spec.source.contract()
    if contract is not None:
        check_files(spec.source.home(), contract, revision=spec.source.revision)
        differences = apply_contract(
            config, contract, explicit=explicit, trusted=trusted_packages(config)
        )
        stated = dict.fromkeys(_leaves(config), CONTRACT_FILE)
        notes: tuple[str, ...] = ()
    else:
        statement = spec.source.statement()
        facts = _stated(spec, statement)
        _refuse_open(statement, facts, explicit)
        facts |= _defaults(config, spec, facts)
        differences = apply_settings(config, _settings(facts), explicit=explicit)
        lengths = _lengths_that_fit(config, spec, facts, explicit)
        for key, fact in lengths.items():
            OmegaConf.update(config, key, fact.value)
        stated = {key: fact.source for key, fact in (facts | lengths).items()}
        notes = (*statement.notes, *_notes_of_the_hub(spec, statement))
    used = _facts(config, stated, explicit, options)
    used |= _fixed_facts(spec, has_contract=contract is not None)
    settled = SettledContract(facts=used, differences=differences, notes=notes)
    _log_settled(settled, spec)
    return settled


def _stated(spec: ModelSpec, statement: Statement) -> dict[str, Fact]:
    """Return the settings in the model's files, completed by its model card."""
    card = card_facts(spec.source.card)
    facts = card | dict(statement.facts)
    for role in ROLES:  # an empty prompt is what versions 5 and 6 write where there is none
        key = f"prompt.{role}"
        if facts.get(key, NO_PROMPT).value == NO_PROMPT.value and key in card:
            facts[key] = card[key]
    if statement.facts and card.get("prompt.end_token", AUTO).value == EOS:
        source = "tokenizer.json; where it appends nothing its EOS, as the model card says"
        facts["prompt.end_token"] = Fact(value=AUTO_END, source=source)
    if statement.facts and spec.source.card is None:
        facts["model.is_causal"] = Fact(value=None, source="config.json")
    for role in ROLES:
        key = f"prompt.max_{role}_length"
        length = facts.get(key)
        if length is not None and length.source.startswith("config.json"):
            room = _room(spec)  # RoBERTa's position table has reserved entries
            facts[key] = Fact(value=min(length.value, room or length.value), source=length.source)
    return facts


def _refuse_open(statement: Statement, facts: Mapping[str, Fact], explicit: Sequence[str]) -> None:
    for key, reason in statement.refusals.items():
        if key not in facts and not _is_named(key, explicit):
            raise UserError(reason)


def _defaults(
    config: DictConfig,
    spec: ModelSpec,
    facts: Mapping[str, Fact],
) -> dict[str, Fact]:
    """Return a default pooling where neither the model nor the configuration has one."""
    found: dict[str, Fact] = {}
    if "model.pooling" not in facts and not config.model.pooling:
        is_causal = is_decoder(spec.source.backbone_config())
        node = pooling_node(LastToken if is_causal else Mean)
        of = "decoders" if is_causal else "encoders"
        found["model.pooling"] = Fact(value=node, source=f"default of {of}, nothing is stated")
        logger.warning(
            "model.pooling: nothing in %s says how it pools: %s is used, the default of %s. "
            "Fix: model/pooling=NAME, if it was trained with another one",
            spec.source.home(), _shown_pooling(node), of,
        )  # fmt: skip
    return found


def _lengths_that_fit(
    config: DictConfig,
    spec: ModelSpec,
    facts: Mapping[str, Fact],
    explicit: Sequence[str],
) -> dict[str, Fact]:
    """Return maximum lengths cut to the model's positions, for a model that states no prompt."""
    is_given = spec.source.path is not None or spec.source.hub_id is not None
    if not is_given or any(key.startswith("prompt.") for key in facts):
        return {}
    room = _room(spec)
    keys = [f"prompt.max_{role}_length" for role in ROLES]
    return {
        key: Fact(value=room, source="config.json (positions)")
        for key in keys
        if room and not _is_named(key, explicit) and OmegaConf.select(config, key) > room
    }


def _room(spec: ModelSpec) -> int | None:
    """Return the size of the position table; None without a table, or if the hub cannot say."""
    try:
        return num_positions(spec.source.backbone_config())
    except CannotLoadError:
        return None


def _settings(facts: Mapping[str, Fact]) -> dict[str, Any]:
    """Return the configuration nodes of the facts; other fields of a prompt get their defaults."""
    settings = {key: fact.value for key, fact in facts.items() if key in NODES}
    prompt = {
        key.removeprefix("prompt."): fact.value
        for key, fact in facts.items()
        if key.startswith("prompt.")
    }
    if prompt:
        settings["prompt"] = {"_target_": PROMPT} | PROMPT_DEFAULTS | prompt
    return settings


def _notes_of_the_hub(spec: ModelSpec, statement: Statement) -> Iterator[str]:
    """Yield a note where the model's statement is missing because the hub was not asked."""
    home = spec.source.home()
    if not statement.facts and is_unknown(home, MODULES_FILE, revision=spec.source.revision):
        yield (
            f"The hub could not be asked whether {home} has a {MODULES_FILE}, and its cache holds "
            "none: the model is taken for one that says nothing of how texts are fed"
        )


def _facts(
    config: DictConfig,
    stated: Mapping[str, str],
    explicit: Sequence[str],
    options: Mapping[str, str],
) -> dict[str, Fact]:
    """Return each part with the value in use and its source."""
    facts = {}
    for key in _leaves(config):
        value = OmegaConf.select(config, key)
        name = key.partition(".")[2]
        if key.startswith("prompt.") and key not in stated and value == PROMPT_DEFAULTS.get(name):
            is_shown = name in ("query", "document", "end_token") or name.startswith("max_")
            if not is_shown:
                continue
        if _is_named(key, explicit):
            source = COMMAND_LINE
        else:
            source = stated.get(key) or _unstated(key, stated, options)
        shown = _shown_pooling(value) if key == "model.pooling" else value
        if key == "model.is_causal" and value is None:
            shown, source = "as the architecture is", "config.json"
        facts[key] = Fact(value=shown, source=source)
    return facts


def _fixed_facts(spec: ModelSpec, *, has_contract: bool) -> dict[str, Fact]:
    """Return the facts of the model's files that no configuration key changes."""
    facts = {}
    projections = spec.source.projections()
    if projections:
        names = (d.weights.name if has_contract else d.weights.parent.name for d in projections)
        source = ", ".join(dict.fromkeys(names))
        facts["projections"] = Fact(value="; ".join(map(str, projections)), source=source)
    lower_case = None if has_contract else spec.source.statement().lower_case
    if lower_case is not None:
        facts["lower_case"] = lower_case
    return facts


def _leaves(config: DictConfig) -> list[str]:
    prompt = [f"prompt.{key}" for key in config.prompt if not str(key).startswith("_")]
    is_cut = OmegaConf.select(config, EMBEDDING_DIM) is not None
    cut = [EMBEDDING_DIM] if is_cut else []
    return [*prompt, *(key for key in NODES if key != "prompt"), *cut]


def _is_named(key: str, explicit: Sequence[str]) -> bool:
    """Return whether the command line overrides this part, or the group that it belongs to."""
    wholes = ("prompt",) if key.startswith("prompt.") else ("model/pooling", "model.pooling")
    return key in explicit or (
        key.startswith(("prompt.", "model.pooling"))
        and any(name in wholes or name.startswith(f"{key}.") for name in explicit)
    )


def _unstated(key: str, stated: Mapping[str, str], options: Mapping[str, str]) -> str:
    """Return the source of a part that the model does not state."""
    has_own_prompt = not {"prompt.query", "prompt.document", "prompt.end_token"}.isdisjoint(stated)
    if key.startswith("prompt.") and has_own_prompt:
        return "default"  # the model's own prompt replaces the configuration's
    return f"configuration ({_option(key, options)})"


def _option(key: str, options: Mapping[str, str]) -> str:
    """Return the configuration option that a part comes from if nothing else states it."""
    group = {"prompt": "prompt", "model.pooling": "model/pooling"}.get(
        "prompt" if key.startswith("prompt.") else key, "model"
    )
    names = (f"{group}={name}" for found, name in options.items() if found.split("@")[0] == group)
    return next(names, "default")


def _shown_pooling(node: Mapping[str, Any] | DictConfig) -> str:
    name = str(node["_target_"]).split(".")[-2]
    return name if node.get("include_prompt", True) else f"{name}, without the prompt"


def _log_settled(settled: SettledContract, spec: ModelSpec) -> None:
    """Log every part by its source, and warn with the notes."""
    by_source: dict[str, list[str]] = {}
    for key, fact in settled.facts.items():
        by_source.setdefault(fact.source, []).append(f"{key}={fact.value!r}")
    shown = "; ".join(f"{', '.join(parts)} ({source})" for source, parts in by_source.items())
    logger.info("How texts are fed to %s: %s", spec.source.home(), shown)
    for note in settled.notes:
        logger.warning("%s", note)
