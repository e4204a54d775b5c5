"""Describe what a reader of metrics must know of the data: test collections and training sets."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from unicodedata import normalize

import numpy as np
import pyarrow.compute as pc

from quarry.data.arrow_table import ArrowTable
from quarry.data.corpus import Corpus
from quarry.data.jsonl import shown
from quarry.data.train_forms import REASONS
from quarry.errors import UserError
from quarry.types import Qrels

logger = logging.getLogger(__name__)

_MISSING = "judged documents are not in the corpus"


def checked_caveats(*, name: str, qrels: Qrels, where: object, corpus: Corpus) -> tuple[str, ...]:
    """Return the caveats of a set, and log them in one warning.

    Args:
        name: name of the set.
        where: source of the judgements, for messages.

    Raises:
        UserError: no judged document is in the corpus.
    """
    judged = sorted({document_id for grades in qrels.values() for document_id in grades})
    is_missing = corpus.rows_of(judged) < 0
    missing = [judged[i] for i in np.flatnonzero(is_missing).tolist()]
    num_alike = _num_alike(missing, corpus)
    if len(missing) == len(judged):
        alike = f"; {num_alike} would be after Unicode normalization" if num_alike else ""
        raise UserError(
            f"{where}: none of its {len(judged)} judged documents is in the corpus, not even "
            f"{shown(judged[0])}{alike}; check that the corpus and the qrels belong together"
        )
    found = [
        *_missing_documents(len(missing), len(judged), num_alike),
        *_share(int(corpus.is_empty().sum()), len(corpus), "documents are empty"),
        *_unanswered(qrels),
    ]
    if found:
        logger.warning("%s: %s; kept as they are", name, "; ".join(found))
    return tuple(found)


def dropped_queries(*, name: str, judged: Qrels, kept: Qrels) -> tuple[str, ...]:
    """Return and log the caveat of the judged queries that are not in `kept`, if there are any."""
    dropped = [query_id for query_id in judged if query_id not in kept]
    if not dropped:
        return ()
    first = ", ".join(map(shown, dropped[:3])) + (", ..." if len(dropped) > 3 else "")
    (sentence,) = _share(
        len(dropped), len(judged), "judged queries were dropped, for their texts are not there"
    )
    logger.warning("%s: %s: %s", name, sentence, first)
    return (f"{sentence}: {first}",)


def training_caveats(table: ArrowTable) -> tuple[str, ...]:
    """Return the caveats of training data; `table` is one that `train_examples` describes."""
    num_lines = len(table)
    counts = {
        name: int(table.column(name).sum()) for name in ("num_empty", "num_absent", "num_repeated")
    }
    found = _share(
        int((table.column("num_positives") == 0).sum()),
        num_lines,
        "lines have no positive and are skipped",
    )
    for name, what in (
        ("num_empty", "passages are empty and left out"),
        ("num_absent", "passages are not in the corpus and left out"),
        (
            "num_repeated",
            "passages stand twice in their line, or as its positive and a negative, and count once",
        ),
    ):
        found += [f"{counts[name]} {what}"] if counts[name] else []
    unread = []
    for key, number in _unread_keys(table).items():
        reason = f": {REASONS[key]}" if key in REASONS else ""
        unread.append(f"{key} ({number} of {num_lines} lines{reason})")
    return tuple(found + ([f"keys that are not read: {', '.join(unread)}"] if unread else []))


def _unread_keys(table: ArrowTable) -> dict[str, int]:
    """Return each key that has a value and is not read -> number of lines that have it."""
    found: dict[str, int] = {}
    for cells in table.cells("unread"):
        for each in pc.value_counts(cells).to_pylist():
            for key in filter(None, each["values"].split("\n")):
                found[key] = found.get(key, 0) + each["counts"]
    return found


def missing_share(caveats: Iterable[str]) -> float:
    """Return the share of judged documents that is missing according to the caveats: 0 to 1."""
    for sentence in caveats:
        if match := re.match(rf"(\d+) of (\d+) {_MISSING}", sentence):
            return int(match[1]) / int(match[2])
    return 0.0


def _missing_documents(num_missing: int, num_judged: int, num_alike: int) -> list[str]:
    if not num_missing:
        return []
    alike = f"; {num_alike} would be after Unicode normalization" if num_alike else ""
    share = f"{num_missing / num_judged:.1%}".replace("%", " %")
    return [f"{num_missing} of {num_judged} {_MISSING}{alike} ({share} are missing)"]


def _num_alike(missing: Sequence[str], corpus: Corpus) -> int:
    """Count the ids that the corpus has in another Unicode normalization form."""
    is_found = np.zeros(len(missing), dtype=bool)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        is_found |= corpus.rows_of([normalize(form, each) for each in missing]) >= 0
    return int(is_found.sum())


def _unanswered(qrels: Qrels) -> list[str]:
    num_queries = sum(not any(g > 0 for g in grades.values()) for grades in qrels.values())
    return _share(num_queries, len(qrels), "judged queries have no judgement above 0 and count 0")


def _share(number: int, total: int, what: str) -> list[str]:
    share = f"{number / total:.1%}".replace("%", " %")
    return [f"{number} of {total} {what} ({share})"] if number else []
