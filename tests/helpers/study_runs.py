"""Run directories as runs leave them, with values that are made up but written by the real code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from quarry.evaluation.report import write_report
from quarry.evaluation.run_cost import RunCost
from quarry.evaluation.significance_test import SignificanceTest
from quarry.runtime.run_directory import RunDirectory
from quarry.study_report.entries import Entry, entries_of
from quarry.study_report.measured import measured_in
from quarry.study_report.run_record import read_record
from quarry.study_report.table import StudyTable, study_tables
from quarry.types import Report, SetResult

CONVENTION: dict[str, Any] = {
    "name": "beir",
    "title": "joined",
    "self_match": "kept",
    "ties": "document id descending",
    "missing_queries": "zero",
    "recall": "plain",
    "relevance_level": 1,
    "top_k": 100,
}
BM25_SETTINGS = {"_target_": "quarry.retrieval.bm25.BM25Retriever", "k1": 0.9, "b": 0.4}
DENSE_SETTINGS = {"_target_": "quarry.retrieval.dense.DenseRetriever"}


def values_of(quality: float, *, num_queries: int, seed: int) -> np.ndarray:
    """[num_queries] values from 0 to 1 around `quality`; the same queries are hard for every seed
    that differs in its last digit alone."""
    hardness = np.random.default_rng(seed // 10).normal(0, 0.25, num_queries)
    own = np.random.default_rng(seed).normal(0, 0.08, num_queries)
    return np.clip(quality + hardness + own, 0, 1)


def a_set(
    name: str,
    values: Sequence[float] | np.ndarray,
    *,
    measure: str = "nDCG@10",
    num_queries: int | None = None,
    num_documents: int = 100,
    group: str | None = None,
    source: str | None = None,
    convention: Mapping[str, Any] | None = None,
    more: Mapping[str, float] | None = None,
) -> SetResult:
    """A result whose queries are q0, q1, ...

    Args:
        convention: what differs from `CONVENTION`.
        more: further measures, the same for each query.
    """
    per_query = {measure: {f"q{i}": float(value) for i, value in enumerate(values)}}
    for other, value in (more or {}).items():
        per_query[other] = dict.fromkeys(per_query[measure], value)
    return SetResult(
        name=name,
        metrics={m: float(np.mean(list(found.values()))) for m, found in per_query.items()},
        per_query=per_query,
        run={"q0": {"d": 1.0}},
        num_queries=len(values) if num_queries is None else num_queries,
        num_documents=num_documents,
        convention={**CONVENTION, **(convention or {})},
        group=group,
        source=source,
    )


def write_run_directory(
    directory: Path,
    reports: Sequence[Report],
    *,
    model: str = "qwen-base",
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, str] | None = None,
    is_training: bool = False,
    seed: int = 42,
    curve: Sequence[tuple[int, float]] = (),
    training_s: float | None = None,
    device: str = "NVIDIA H100 80GB HBM3",
) -> Path:
    """A run directory; without reports one that was stopped before it had any.

    Args:
        settings: dotted keys of the resolved configuration.
    """
    run = RunDirectory(directory)
    run.path.mkdir(parents=True)
    chosen = {"model": model, "prompt": "promptreps", "model/pooling": "last_token"}
    own = {
        "seed": seed,
        "model.size": "7B",
        "model.path": None,
        "model.pooling._target_": "quarry.models.pooling.last_token.LastToken",
        "prompt.query": "Query: {text}",
        "benchmark.sets": None,
        "convention.name": "beir",
        "evaluation.measures": ["nDCG@10", "MRR@10"],
        "trainer.precision": "32-true",
        "paths.run_dir": str(directory),
        "retriever": DENSE_SETTINGS,
        "baseline": BM25_SETTINGS,
    }
    if is_training:
        own |= {"optimizer.lr": 1e-4, "data.num_hard_negatives": 15, "loss.temperature": 0.01}
    run.resolved_config.write_text(yaml.safe_dump(nested({**own, **(settings or {})})))
    provenance = {"options": {**chosen, **(options or {})}}
    run.provenance.write_text(json.dumps(provenance))
    if reports:
        write_report(reports, directory, measures=list(reports[0].results[0].metrics))
    if curve:
        document = {"measure": "nDCG@10", "sets": ["alpha"], "evaluations": curve, "losses": []}
        run.learning_curve.write_text(json.dumps(document))
    if training_s is not None:
        cost = RunCost(
            wall_hours=training_s / 1800,
            training_s=training_s,
            encoding_s=10.0,
            searching_s=1.0,
            num_devices=8,
            device=device,
            num_trained_tokens=1000,
            peak_device_memory_gib=60.0,
            peak_host_memory_gib=4.0,
        )
        run.summary.write_text(json.dumps({"results": {}, "beside": {}, "cost": cost.as_json()}))
    return directory


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *folders, leaf = key.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def entries_in(
    directories: Sequence[Path], *, labels: Mapping[str, str] | None = None, **more: Any
) -> list[Entry]:
    """The rows of run directories; a name with "bm25_alone" says that the run needed no model."""
    measured = [
        each
        for path in directories
        for each in measured_in(read_record(path), uses_encoder="bm25_alone" not in path.name)
    ]
    return entries_of(measured, labels=labels or {}, **more)


def tables_of(entries: Sequence[Entry], **more: Any) -> list[StudyTable]:
    """With few permutations and nothing published, unless `more` says otherwise."""
    given = {
        "published": [],
        "base": None,
        "measures": None,
        "sets": None,
        "test": SignificanceTest(num_permutations=2000, seed=1),
    }
    return study_tables(entries, **{**given, **more})
