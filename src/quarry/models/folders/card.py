"""Read `model.card`: settings from a published model's card that its files do not state."""

from __future__ import annotations

from collections.abc import Mapping

from quarry.errors import UserError
from quarry.models.folders.pooling_modes import BY_OPTION, pooling_node
from quarry.models.folders.stated import Fact

KEYS = {
    "query": "prompt.query",
    "document": "prompt.document",
    "max_query_length": "prompt.max_query_length",
    "max_document_length": "prompt.max_document_length",
    "end_token": "prompt.end_token",
    "pooling": "model.pooling",
    "normalize": "model.normalize",
}
"""Key of `model.card` -> configuration key."""


def card_facts(card: Mapping[str, object] | None) -> dict[str, Fact]:
    """Return the facts that `model.card` states, by configuration key.

    Raises:
        UserError: it has an unknown key or pooling, or a value of the wrong type.
    """
    if card is None:
        return {}
    unknown = sorted(set(card) - set(KEYS) - {"source"})
    if unknown:
        raise UserError(
            f"model.card.{unknown[0]}: there is no such key (source, {', '.join(KEYS)}). Fix: "
            "leave it out"
        )
    _check_kinds(card)
    source = f"model card, {card.get('source', 'no source')}"
    facts = {KEYS[k]: Fact(value=v, source=source) for k, v in card.items() if k in KEYS}
    if "pooling" in card:
        pooling = BY_OPTION.get(str(card["pooling"]))
        if pooling is None:
            raise UserError(
                f"model.card.pooling={card['pooling']}: no such pooling ({', '.join(BY_OPTION)}). "
                "Fix: name one of them"
            )
        facts["model.pooling"] = Fact(value=pooling_node(pooling), source=source)
    return facts


def _check_kinds(card: Mapping[str, object]) -> None:
    for key, value in card.items():
        if key in ("query", "document"):
            is_allowed, rule = isinstance(value, str), "a template"
        elif key in ("max_query_length", "max_document_length"):
            is_allowed = type(value) is int and value >= 1
            rule = "an integer of 1 or more"
        elif key == "end_token":
            is_allowed, rule = value is None or isinstance(value, str), "a token, or null"
        elif key == "normalize":
            is_allowed, rule = isinstance(value, bool), "true or false"
        else:
            continue
        if not is_allowed:
            raise UserError(f"model.card.{key}={value!r}: must be {rule}. Fix: correct the value")
