"""Write a small collection in the form that a collection of your own would have.

    python examples/write_my_data.py my_data

Its texts are docstrings (queries) and code (documents) of Python's standard library, so nothing is
downloaded. docs/quickstart.md trains and evaluates a retriever on them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from quarry.stand_ins.stdlib_code import build_stdlib_code

CACHE = Path(os.environ.get("QUARRY_CACHE", "~/.cache/quarry")).expanduser()


def write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(json.dumps(line) + "\n")


def write_my_data(folder: Path) -> None:
    """Write training pairs, a corpus, queries, and which document answers which query."""
    code = build_stdlib_code(cache_dir=CACHE)
    write_lines(
        folder / "train.jsonl",
        ({"query": each.query.text, "positive": each.positives[0].text} for each in code.train),
    )
    write_lines(
        folder / "test" / "corpus.jsonl",
        ({"id": each.document_id, "text": each.text} for each in code.test.corpus),
    )
    write_lines(
        folder / "test" / "queries.jsonl",
        ({"id": each.query_id, "text": each.text} for each in code.test.queries),
    )
    write_lines(
        folder / "test" / "qrels" / "test.jsonl",
        (
            {"query-id": query_id, "corpus-id": document_id, "score": grade}
            for query_id, grades in code.test.qrels.items()
            for document_id, grade in grades.items()
        ),
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python examples/write_my_data.py FOLDER")
    write_my_data(Path(sys.argv[1]))
