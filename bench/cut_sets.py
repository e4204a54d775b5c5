"""Cut a BEIR folder to a few queries and documents."""

from __future__ import annotations

import gzip
import json
from pathlib import Path


def cut_set(
    source: Path, target: Path, *, num_queries: int, num_documents: int, split: str = "test"
) -> Path:
    """Write the first queries of a split with their judged documents, then others of the corpus.

    Args:
        num_documents: of the new corpus.

    Raises:
        ValueError: that is too few for the judged documents.
    """
    (target / "qrels").mkdir(parents=True)
    header, *judgments = (source / "qrels" / f"{split}.tsv").read_text().splitlines()
    queries = list(dict.fromkeys(line.split("\t")[0] for line in judgments))[:num_queries]
    kept = [line for line in judgments if line.split("\t")[0] in queries]
    (target / "qrels" / f"{split}.tsv").write_text("\n".join([header, *kept]) + "\n")
    (target / "queries.jsonl").write_bytes((source / "queries.jsonl").read_bytes())
    judged = {line.split("\t")[1] for line in kept}
    if len(judged) > num_documents:
        raise ValueError(f"num_documents={num_documents}: {len(judged)} documents are judged")
    with gzip.open(source / "corpus.jsonl.gz", "rt", encoding="utf-8") as stream:
        documents = sorted(stream, key=lambda line: json.loads(line)["_id"] not in judged)
    (target / "corpus.jsonl").write_text("".join(documents[:num_documents]), encoding="utf-8")
    return target
