"""Writes the table of public test collections into docs/evaluation.md, from the catalogue.

make docs
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from quarry.evaluation.benchmarks.catalogue import PublicSet
from quarry.evaluation.benchmarks.suite import PUBLIC_SETS
from quarry.runtime.files import write_text

PAGE = Path(__file__).resolve().parent / "evaluation.md"
BEGIN = "<!-- made by `make docs` from the catalogue: do not edit -->\n"
END = "<!-- end of what is made -->\n"

COLUMNS = (
    "set",
    "source",
    "split",
    "queries",
    "documents",
    "positives",
    "title",
    "self-match",
    "main measure",
    "license",
)
NUMBERS = ("queries", "documents", "positives")


def table(sets: Sequence[PublicSet] = PUBLIC_SETS) -> str:
    """Return the table and the notes below it, as Markdown."""
    notes = {one.group or one.name: one.note for one in sets if one.note}
    lines = "".join(f"{_wrapped(f'- `{name}`: {note}.')}\n" for name, note in notes.items())
    rule = ["---:" if column in NUMBERS else "---" for column in COLUMNS]
    rows = [_line(COLUMNS), f"|{'|'.join(rule)}|\n", *map(_row, sets)]
    return f"\n{''.join(rows)}\n{lines}\n"


def with_table(page: str) -> str:
    """Return the page with the table of the catalogue between its markers."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    made = f"{BEGIN}{table()}{END}"
    found, count = pattern.subn(lambda _: made, page)
    assert count == 1, f"{PAGE} needs the two marks once each"
    return found


def _row(one: PublicSet) -> str:
    sources = dict.fromkeys(
        f"`{part}`" for part in (one.tables.corpus, one.tables.queries, one.tables.qrels)
    )
    level = "" if one.relevance_level is None else f", level {one.relevance_level}"
    cells = [
        f"`{one.name}`",
        "<br>".join(sources),
        one.split,
        f"{one.num_queries:,}",
        f"{one.num_documents:,}",
        f"{one.num_positives:,}",
        "yes" if one.uses_title else "no",
        _self_match(one),
        f"{one.main_measure}{level}",
        one.licence or "not specified",
    ]
    return _line(cells)


def _self_match(one: PublicSet) -> str:
    if one.ids_may_collide:
        return "never"
    return "dropped" if one.remove_self_match else "kept"


def _wrapped(item: str) -> str:
    return fill(item, width=100, subsequent_indent="  ", break_on_hyphens=False)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
