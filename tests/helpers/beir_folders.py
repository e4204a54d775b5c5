"""A BEIR folder of three documents and two judged queries."""

from __future__ import annotations

from pathlib import Path

from helpers.hub_repos import CORPUS, QRELS, QUERIES, write_lines, write_text


def write_beir_folder(folder: Path, *, split: str = "test") -> Path:
    """corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv."""
    write_lines(folder / "corpus.jsonl", CORPUS)
    write_lines(folder / "queries.jsonl", QUERIES)
    lines = ["\t".join(str(value) for value in row.values()) + "\n" for row in QRELS]
    write_text(folder / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder
