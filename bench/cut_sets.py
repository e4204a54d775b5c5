"""Cut a BEIR folder to a few queries and documents."""

from __future__ import annotations

import json
from pathlib import Path

from quarry.data.jsonl import find_file, read_jsonl


def cut_set(
    source: Path, target: Path, *, num_queries: int, num_documents: int, split: str = "test"
) -> Path:
    """Write the first queries of a split with their judged documents, then others of the corpus.

    Args:
        num_documents: of the new corpus.

    Raises:
        MissingPathError: a file of the set is missing.
        ValueError: that is too few for the judged documents.
    """
    qrels = find_file(source / "qrels" / f"{split}.tsv")
    queries = find_file(source / "queries.jsonl")
    header, *judgments = qrels.read_text(encoding="utf-8").splitlines()
    used = set(list(dict.fromkeys(line.split("\t")[0] for line in judgments))[:num_queries])
    kept = [line for line in judgments if line.split("\t")[0] in used]
    judged = {line.split("\t")[1] for line in kept}
    if len(judged) > num_documents:
        raise ValueError(f"num_documents={num_documents}: {len(judged)} documents are judged")
    corpus = [record for _, record in read_jsonl(find_file(source / "corpus.jsonl"))]
    corpus.sort(key=lambda record: record["_id"] not in judged)
    (target / "qrels").mkdir(parents=True)
    (target / "qrels" / f"{split}.tsv").write_text("\n".join([header, *kept]) + "\n")
    (target / "queries.jsonl").write_bytes(queries.read_bytes())
    lines = "".join(json.dumps(record) + "\n" for record in corpus[:num_documents])
    (target / "corpus.jsonl").write_text(lines, encoding="utf-8")
    return target
