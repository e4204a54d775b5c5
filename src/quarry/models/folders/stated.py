"""Define the settings for encoding texts that a model's files or card state, with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quarry.models.projections import Dense


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A value, and the file (or card) that states it."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Settings that a model's files or card state; the configuration supplies the others.

    Attributes:
        facts: configuration key ("prompt.query", "model.pooling") -> value, in the
            configuration's form.
        width: width of the pooled states; None: not stated.
        projections: the Dense layers after the pooling, in order.
        transformer: subfolder of the transformer and its tokenizer; "": the folder itself.
        lower_case: texts are lowercased, whatever the tokenizer does; None: not stated.
        notes: notes for readers of the results.
        refusals: configuration key -> why its value is unknown, and how to set it.
    """

    facts: Mapping[str, Fact] = field(default_factory=dict)
    width: int | None = None
    projections: tuple[Dense, ...] = ()
    transformer: str = ""
    lower_case: Fact | None = None
    notes: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)
