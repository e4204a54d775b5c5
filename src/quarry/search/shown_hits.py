"""Show what a search has found: a table for people, JSON lines for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quarry.search.searcher import Hit
from quarry.types import Query

NUM_CHARACTERS = 240
MAX_SHOWN_QUERY = 200
MAX_SEARCHED = 100_000
"""Characters of a document in which the part to show is looked for."""

_WORD = re.compile(r"\w{3,}")


def write_json_lines(
    file: TextIO, queries: Sequence[Query], results: Sequence[Sequence[Hit]]
) -> None:
    """Write one line a query: query_id, query, and hits with document_id, score, title, text."""
    for query, hits in zip(queries, results, strict=True):
        line = {
            "query_id": query.query_id,
            "query": query.text,
            "hits": [
                {
                    "document_id": hit.document.document_id,
                    "score": hit.score,
                    "title": hit.document.title,
                    "text": hit.document.text,
                }
                for hit in hits
            ],
        }
        file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n")


def print_tables(file: TextIO, queries: Sequence[Query], results: Sequence[Sequence[Hit]]) -> None:
    """Print a table a query: rank, score, document id, and title with the part that fits best."""
    console = Console(file=file, highlight=False)
    for query, hits in zip(queries, results, strict=True):
        shown = _one_line(query.text[: 2 * MAX_SHOWN_QUERY])
        title = Text(shown if len(shown) <= MAX_SHOWN_QUERY else f"{shown[:MAX_SHOWN_QUERY]}...")
        table = Table(title=title, title_justify="left")
        table.add_column("", justify="right")
        table.add_column("score", justify="right")
        table.add_column("document", overflow="fold")
        table.add_column("text", overflow="fold", ratio=1)
        for rank, hit in enumerate(hits, start=1):
            document = hit.document
            text = Text(_one_line(document.title), style="bold")
            part = snippet(document.text, query.text)
            text.append(f"\n{part}" if text.plain and part else part, style="not bold")
            table.add_row(str(rank), f"{hit.score:.4f}", Text(document.document_id), text)
        console.print(table)


def snippet(text: str, query: str, *, num_characters: int = NUM_CHARACTERS) -> str:
    """Return the part of a text that has most different words of the query; else its beginning."""
    line = _one_line(text[:MAX_SEARCHED])
    if len(line) <= num_characters:
        return line
    wanted = set(_WORD.findall(query[:MAX_SEARCHED].lower()))
    found = [(m.start(), m[0]) for m in _WORD.finditer(line.lower()) if m[0] in wanted]
    best, most = 0, 0
    for first, (start, _) in enumerate(found):
        inside = {word for at, word in found[first:][:100] if at < start + num_characters // 2}
        if len(inside) > most:
            best, most = start, len(inside)
    start = max(best - num_characters // 4, 0)
    start = line.rfind(" ", 0, start) + 1 if start else 0
    end = start + num_characters
    return f"{'... ' * (start > 0)}{line[start:end].strip()}{' ...' * (end < len(line))}"


def _one_line(text: str) -> str:
    """Return a text without line breaks and what a terminal takes for a command."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
