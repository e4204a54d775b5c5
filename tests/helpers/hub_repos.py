"""Small copies of data set repositories, in exactly the layouts that the hub has them in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, Any]]

CORPUS: Rows = [
    {"_id": "d1", "title": "One", "text": "first"},
    {"_id": "007", "title": "", "text": "second"},
    {"_id": "d3", "title": "Three", "text": ""},
]
QUERIES: Rows = [
    {"_id": "9", "text": "nobody judged this"},
    {"_id": "02", "text": "two?"},
    {"_id": "1", "text": "one?"},
]
QRELS: Rows = [
    {"query-id": "1", "corpus-id": "d1", "score": 2},
    {"query-id": "1", "corpus-id": "007", "score": 0},
    {"query-id": "02", "corpus-id": "007", "score": 1},
]
TRAIN_QRELS: Rows = [{"query-id": "9", "corpus-id": "d1", "score": 1}]

MTEB_CARD = """---
language:
- en
config_names:
- corpus
dataset_info:
- config_name: default
  features:
  - name: query-id
    dtype: string
  - name: corpus-id
    dtype: string
  - name: score
    dtype: float64
  splits:
  - name: test
    num_bytes: 1
    num_examples: 1
- config_name: corpus
  features:
  - name: _id
    dtype: string
  - name: title
    dtype: string
  - name: text
    dtype: string
configs:
- config_name: default
  data_files:
  - split: train
    path: qrels/train.jsonl
  - split: test
    path: qrels/test.jsonl
- config_name: corpus
  data_files:
  - split: corpus
    path: corpus.jsonl
- config_name: queries
  data_files:
  - split: queries
    path: queries.jsonl
---
"""

BEIR_CARD = """---
language:
- en
configs:
- config_name: corpus
  data_files:
  - split: corpus
    path: corpus/corpus-*
- config_name: queries
  data_files:
  - split: queries
    path: queries/queries-*
---
"""

QRELS_CARD = """---
language:
- en
license:
- cc-by-sa-4.0
---
"""


def write_lines(path: Path, rows: Rows) -> None:
    """JSONL, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_parquet(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_mteb(
    folder: Path, *, corpus: Rows = CORPUS, queries: Rows = QUERIES, qrels: Rows = QRELS
) -> Path:
    """mteb/NAME: a card with three configurations, JSONL, scores as floats."""
    write_text(folder / "README.md", MTEB_CARD)
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", queries)
    for split, rows in (("test", qrels), ("train", TRAIN_QRELS)):
        floats = [{**row, "score": float(row["score"])} for row in rows]
        write_lines(folder / "qrels" / f"{split}.jsonl", floats)
    return folder


def write_beir(folder: Path) -> tuple[Path, Path]:
    """BeIR/NAME (Parquet in shards, queries with an empty title) and BeIR/NAME-qrels (.tsv)."""
    texts, qrels = folder / "name", folder / "name-qrels"
    write_text(texts / "README.md", BEIR_CARD)
    write_parquet(texts / "corpus" / "corpus-00000-of-00002.parquet", CORPUS[:2])
    write_parquet(texts / "corpus" / "corpus-00001-of-00002.parquet", CORPUS[2:])
    titled = [{**row, "title": ""} for row in QUERIES]
    write_parquet(texts / "queries" / "queries-00000-of-00001.parquet", titled)
    write_text(qrels / "README.md", QRELS_CARD)
    for split, rows in (("test", QRELS), ("train", TRAIN_QRELS), ("dev", QRELS[2:])):
        lines = ["\t".join(str(value) for value in row.values()) + "\n" for row in rows]
        write_text(qrels / f"{split}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines))
    return texts, qrels


def coir_rows(rows: Rows) -> Rows:
    """With the columns that CoIR's corpora and queries have."""
    return [
        {
            "_id": row["_id"],
            "partition": "test",
            "text": row["text"],
            "title": row.get("title", ""),
            "language": "python",
            "meta_information": {"url": "x"},
        }
        for row in rows
    ]


def write_coir(folder: Path, *, subsets: Sequence[str] = ()) -> Path:
    """CoIR-Retrieval/NAME; with subsets as CodeSearchNet, a prefix for each configuration."""
    names = [f"{subset}-" for subset in subsets] or [""]
    configs = ""
    for prefix in names:
        qrels = f"{prefix}qrels" if prefix else "default"
        data = f"{prefix}qrels" if prefix else "data"
        write_parquet(
            folder / f"{prefix}corpus" / "corpus-00000-of-00001.parquet", coir_rows(CORPUS)
        )
        write_parquet(
            folder / f"{prefix}queries" / "queries-00000-of-00001.parquet", coir_rows(QUERIES)
        )
        for split, rows in (("train", TRAIN_QRELS), ("test", QRELS), ("valid", TRAIN_QRELS)):
            write_parquet(folder / data / f"{split}-00000-of-00001.parquet", rows)
        configs += f"""- config_name: {prefix}corpus
  data_files:
  - split: corpus
    path: {prefix}corpus/corpus-*
- config_name: {prefix}queries
  data_files:
  - split: queries
    path: {prefix}queries/queries-*
- config_name: {qrels}
  data_files:
  - split: train
    path: {data}/train-*
  - split: test
    path: {data}/test-*
  - split: valid
    path: {data}/valid-*
"""
    write_text(folder / "README.md", f"---\nconfigs:\n{configs}---\n")
    return folder


def write_coir_eval(folder: Path) -> tuple[Path, Path]:
    """CoIR-Retrieval/NAME-queries-corpus and NAME-qrels, which coir-eval reads."""
    texts, qrels = folder / "name-queries-corpus", folder / "name-qrels"
    splits = (
        "  - split: queries\n    path: data/queries-*\n  - split: corpus\n    path: data/corpus-*\n"
    )
    write_text(
        texts / "README.md", f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n"
    )
    write_parquet(texts / "data" / "queries-00000-of-00001-a.parquet", coir_rows(QUERIES))
    write_parquet(texts / "data" / "corpus-00000-of-00001-b.parquet", coir_rows(CORPUS))
    for split, rows in (("train", TRAIN_QRELS), ("test", QRELS), ("valid", TRAIN_QRELS)):
        renamed = [{key.replace("-", "_"): value for key, value in row.items()} for row in rows]
        write_parquet(qrels / "data" / f"{split}-00000-of-00001-c.parquet", renamed)
    return texts, qrels


def write_tevatron(folder: Path) -> tuple[Path, Path]:
    """Tevatron/msmarco-passage-corpus and Tevatron/msmarco-passage: files and a script, no card."""
    # below a commit, as in the hub's cache: `datasets` refuses a folder with a script of its name
    passages = folder / "msmarco-passage-corpus" / "5b250efb"
    queries = folder / "msmarco-passage" / "a8eec567"
    documents = [
        {"docid": row["_id"], "title": row["title"], "text": row["text"]} for row in CORPUS
    ]
    write_lines(passages / "corpus.jsonl.gz", documents)
    asked = [
        {
            "query_id": row["_id"],
            "query": row["text"],
            "positive_passages": [],
            "negative_passages": [],
        }
        for row in QUERIES
    ]
    write_lines(queries / "dev.jsonl.gz", asked)
    write_lines(queries / "dl19.jsonl.gz", [{"query_id": "19", "query": "of another split"}])
    write_lines(queries / "train.jsonl.gz", [{"query_id": "5", "query": "to train with"}])
    for repo in (passages, queries):
        write_text(repo / f"{repo.parent.name}.py", "raise RuntimeError('nothing may run this')\n")
        write_text(repo / ".gitattributes", "*.gz filter=lfs\n")
    return passages, queries
