"""Show caveats of sets in reports: a section, and a mark for sets with many missing documents."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.data.caveats import missing_share
from quarry.evaluation.tables import escaped
from quarry.types import Report

MARK = "(!)"

TRAINING_DATA = "training data"
"""Name, among those of sets, for the data that a model was trained on."""

MARKED_SHARE = 0.05
"""A set is marked if more than this share of its judged documents are not in its corpus."""


def caveats_of(reports: Sequence[Report]) -> dict[str, tuple[str, ...]]:
    """Return set (or "training data") -> its caveats, each once; sets without any are absent."""
    found: dict[str, dict[str, None]] = {}
    for report in reports:
        if report.training_caveats:
            found.setdefault(TRAINING_DATA, {}).update(dict.fromkeys(report.training_caveats))
        for result in report.results:
            if result.caveats:
                found.setdefault(result.name, {}).update(dict.fromkeys(result.caveats))
    return {name: tuple(sentences) for name, sentences in found.items()}


def marked_sets(reports: Sequence[Report]) -> list[str]:
    """Return the names of the sets to mark, those with many missing documents."""
    found = caveats_of(reports)
    return [name for name, each in found.items() if missing_share(each) > MARKED_SHARE]


def marked(label: str, sets: Sequence[str], among: Sequence[str]) -> str:
    """Return the label of a row or column, with the mark if one of its sets is in `among`."""
    return f"{label} {MARK}" if any(name in among for name in sets) else label


def mark_explained(reports: Sequence[Report]) -> list[str]:
    """Return the sentence below a table that explains the mark; none if nothing is marked."""
    caveats, names = caveats_of(reports), marked_sets(reports)
    if not names:
        return []
    shares = [f"{name} {missing_share(caveats[name]):.0%}".replace("%", " %") for name in names]
    return [
        f"{MARK} More than 5 % of the judged documents are not in the corpus, and no retriever can "
        f"find them: {', '.join(shares)}."
    ]


def caveat_section(reports: Sequence[Report]) -> list[str]:
    """Return a Markdown section with the caveats, set by set; empty without any."""
    lines = [
        f"- {escaped(name)}: {escaped(sentence)}."
        for name, sentences in caveats_of(reports).items()
        for sentence in sentences
    ]
    return ["## Caveats", "\n".join(lines)] if lines else []
