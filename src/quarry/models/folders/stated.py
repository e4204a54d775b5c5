"""How texts are fed to a model, as far as its files or its card state it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quarry.models.projections import Dense


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A value, and where it stands."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is stated, part by part; the rest is left to the configuration.

    Attributes:
        facts: configuration key ("prompt.query", "model.pooling") -> value in the form that the
            configuration has it.
        width: of the states that are pooled; None: not stated.
        projections: the Dense layers after the pooling, in order.
        transformer: where in the folder the transformer and its tokenizer lie; "" in itself.
        lower_case: texts are turned into lower case, whatever the tokenizer does; None: not said.
        notes: what a reader of the results has to know.
        refusals: configuration key -> why its value is not known, and how to give it.
    """

    facts: Mapping[str, Fact] = field(default_factory=dict)
    width: int | None = None
    projections: tuple[Dense, ...] = ()
    transformer: str = ""
    lower_case: Fact | None = None
    notes: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)
