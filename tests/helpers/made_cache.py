"""A cache of twenty entries of all kinds, with known ages and sources, and no model."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import pyarrow as pa

from quarry.data.arrow_table import LINE, open_table
from quarry.retrieval.cached_rankings import CachedRankings
from quarry.types import Document, Query, RetrievalSet

DAY_S = 86_400
LEFTOVER = f".corpus-{'1' * 24}.arrow.77.ab12ab12.tmp"
"""Name of the file that a killed process has left."""
_SCHEMA = pa.schema([(LINE, pa.int64()), ("document_id", pa.large_string())])


def make_cache(folder: Path, data: Path) -> None:
    """Twenty entries in `folder`; sources below `data`: one was changed since, one is gone."""
    for number, name in enumerate(("scifact", "fiqa", "nfcorpus", "arguana")):
        _table(folder, data / name / "corpus.jsonl", kind="corpus", days=3 * number)
    for number, name in enumerate(("msmarco", "nq", "mine", "old")):
        _table(folder, data / "train" / f"{name}.jsonl", kind="examples", days=5 * number)
    (data / "fiqa" / "corpus.jsonl").write_text("other content")
    (data / "train" / "old.jsonl").unlink()
    for number in range(4):
        _ranking(folder, f"set-{number}", days=2 * number)
    for number in range(3):
        shelf = folder / "embeddings" / (str(number) * 32)
        _shelf(shelf, data / f"model-{number}", days=9 * number)
    (data / "model-2").mkdir()
    for number in range(3):
        model = folder / "models" / f"qwen-replica-{number:x}{'0' * 15}"
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(bytes(50_000))
        _age(model, 4 * number)
    stdlib = folder / f"stdlib_code-v1-py{platform.python_version()}-c473d17ac5b3.jsonl"
    stdlib.write_text("{}\n" * 9000)
    _age(stdlib, 1)
    left = folder / LEFTOVER
    left.write_bytes(bytes(9000))
    _age(left, 40)


def _table(folder: Path, source: Path, *, kind: str, days: float) -> None:
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(f"the content of {source.name} in {source.parent.name}")
    rows = [(line, f"document {line}") for line in range(1, 2000)]
    table = open_table(
        cache_dir=folder, kind=kind, sources=[source], schema=_SCHEMA, rows=iter(rows),
        id_column="document_id" if kind == "corpus" else None,
    )  # fmt: skip
    _age(table.path, days)


def _ranking(folder: Path, name: str, *, days: float) -> None:
    dataset = RetrievalSet(
        name=name, queries=[Query(query_id="q", text=name)], qrels={"q": {"d": 1}},
        corpus=[Document(document_id="d", text="text")], source=f"{name}, test",
    )  # fmt: skip
    before = set(folder.glob("rankings/*.json"))
    CachedRankings(folder / "rankings").get(
        lambda: {"q": {"d": 1.0}}, dataset=dataset, method="bm25", k1=0.9
    )
    (path,) = set(folder.glob("rankings/*.json")) - before
    _age(path, days)


def _shelf(folder: Path, model: Path, *, days: float) -> None:
    segment = folder / "abc"
    segment.mkdir(parents=True)
    (folder / "contract.json").write_text(json.dumps({"weights": ["x"]}))
    (segment / "manifest.json").write_text(json.dumps({"made_by": {"model": str(model)}}))
    (segment / "vectors-00000.bin").write_bytes(bytes(200_000))
    (segment / "lock").touch()
    _age(folder, days)


def _age(path: Path, days: float) -> None:
    then = time.time() - days * DAY_S - 1
    os.utime(path, (then, then))
