"""Recognize the form of a training file by its keys, and refuse to ignore keys that matter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quarry.data.judgements import GRADE_KEYS
from quarry.data.train_forms import (
    FORMS,
    NAMES_OF_NEGATIVES,
    NAMES_OF_POSITIVES,
    TEXTS,
    TrainColumns,
    TrainForm,
)
from quarry.data.train_values import holds_texts
from quarry.errors import UserError

_LABELS = frozenset(
    (*GRADE_KEYS, "labels", "scores", "similarity", "similarity_score", "is_duplicate")
)
"""Keys that grade how far a pair is a true one."""

_NEGATIVE = re.compile(r"(^|_)(neg|negs|negatives?|distractors?|irrelevant)(_|\d|$)")
_POSITIVE = re.compile(r"(^|_)(pos|positives?)(_|\d|$)")
_MEDIA = re.compile(r"(^|_)(images?|videos?|audios?)$")
_IDS = re.compile(r"_(doc|p|passage_|document_)?ids?$")
_ABOUT = re.compile(r"_(type|source|rank|method|count|lang|language|model)s?$")
"""Patterns of normalized names (`_plain`) that tell what a key holds."""

_OF_LABELS = (
    "grades the pairs, and every pair would be trained as a true one. Fix: keep those that are"
)
_OF_IDS = (
    "holds ids, which are not read here. Fix: positive_document_ids, negative_document_ids and "
    "data.corpus_path=FILE name passages by id"
)


def form_of_record(record: Mapping[str, Any], where: str, columns: TrainColumns) -> TrainForm:
    """Return the form of a file, recognized by its keys and the columns that the user named.

    Args:
        record: the keys of the first records, with the first value of each.
        where: place of the first of them, for messages.

    Raises:
        UserError: no form has such keys, or a named column does not exist.
    """
    chosen = columns.chosen()
    _check_chosen(chosen, record, where)
    found = next((form for form in FORMS if any(key in record for key in form.positive)), None)
    if "positive" in chosen and (found is None or not set(found.positive) & {*chosen["positive"]}):
        found = TEXTS
    if found is None:
        raise UserError(f"{where}: no training example{_advice(record)}")
    if not chosen:
        return found
    named = {key for keys in chosen.values() for key in keys}
    changes: dict[str, Any] = {
        **chosen,
        "name": "data.columns",
        "has_numbered": found.has_numbered and "negative" not in chosen,
        "known": {key: reason for key, reason in found.known.items() if key not in named},
    }
    return replace(found, **changes)


def _check_chosen(
    chosen: Mapping[str, Sequence[str]], record: Mapping[str, Any], where: str
) -> None:
    named = [key for keys in chosen.values() for key in keys]
    for key in named:
        if key not in record:
            raise UserError(
                f"{where}: neither it nor the records after it have {key!r}, which data.columns "
                f"names. Fix: name one of their keys: {', '.join(record)}"
            )
        if named.count(key) > 1:
            raise UserError(f"data.columns names {key!r} twice. Fix: name each column once")


def _advice(record: Mapping[str, Any]) -> str:
    """Return what is wrong with a record that has no known form, and the remedy."""
    keys = ", ".join(record)
    known = {*TEXTS.query, *NAMES_OF_POSITIVES, *NAMES_OF_NEGATIVES}
    wrapped = [
        key
        for key, value in record.items()
        if isinstance(value, list) and value and isinstance(value[0], dict) and key not in known
    ]
    if wrapped and len(record) < 4:
        return (
            f": the records stand in a list under {wrapped[0]!r}. Fix: write one a line: jq -c "
            f"'.{wrapped[0]}[]'"
        )
    alike = {_plain(key): key for key in record if _plain(key) in known}
    roles = {"query": TEXTS.query, "positive": NAMES_OF_POSITIVES, "negative": TEXTS.negative}
    fixes = [
        f"data.columns.{role}={key}"
        for role, names in roles.items()
        for name, key in alike.items()
        if name in names
    ]
    names = ", ".join(sorted(NAMES_OF_POSITIVES))
    remedy = " ".join(fixes) or (
        "data.columns.positive=KEY (and data.columns.query, data.columns.negative); the first line "
        "of .csv and .tsv has to name the columns"
    )
    return f": none of its keys ({keys}) is known to hold a positive ({names}). Fix: {remedy}"


def _plain(key: str) -> str:
    """Return a key in lower case with underscores: hardNegative becomes hard_negative."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)
    return re.sub(r"[\W_]+", "_", spaced).strip("_").lower()


def objection(form: TrainForm, key: str, value: Any) -> str | None:
    """Return why a key that is not read must not be ignored silently, and the remedy; or None.

    Args:
        key: a key that is not in `known`.
        value: its value, which is not empty.
    """
    name = _plain(key)
    if name in _LABELS:
        return _OF_LABELS
    if _MEDIA.search(name):
        return "holds images, videos or sounds; texts alone are read. Fix: remove these lines"
    if not isinstance(value, str | list | dict) or _ABOUT.search(name):
        return None
    if _IDS.search(name):
        is_passage = _NEGATIVE.search(name) or _POSITIVE.search(name)
        return _OF_IDS if is_passage else None
    meant = _taken_for(form, name)
    if meant is not None:
        return f"is not read; {meant!r} is. Fix: rename it, or name it in data.columns"
    is_list = holds_texts(value)
    return "is a list of texts that is not read. Fix: name it in data.columns" if is_list else None


def _taken_for(form: TrainForm, name: str) -> str | None:
    """Return the key of this form that a normalized name was meant to be, or None.

    A match is one edit away, a name of another form, or a name that says positive or negative.
    """
    near = [read for read in form.texts if _within_one_edit(name, read)]
    if name in form.texts or near:
        return name if name in form.texts else near[0]
    is_negative = name in NAMES_OF_NEGATIVES or _NEGATIVE.search(name)
    if is_negative or name in NAMES_OF_POSITIVES or _POSITIVE.search(name):
        return (form.negative if is_negative and form.negative else form.positive)[0]
    return None


def _within_one_edit(one: str, other: str) -> bool:
    """Return whether one insertion, deletion, substitution or swap turns one into the other."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    if len(one) > len(other):
        one, other = other, one
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) < len(other):
        return one[start:] == other[start + 1 :]
    swapped = one[start + 1 : start + 2] + one[start : start + 1] + one[start + 2 :]
    return one[start + 1 :] == other[start + 1 :] or swapped == other[start:]
