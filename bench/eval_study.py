"""Time `eval.py` as a user types it on a BEIR folder, with its scores and dtype comparison.

    python bench/eval_study.py --model FOLDER --data BEIR_DIR --work FOLDER [KEY=VALUE ...]

The results are those of its run directory: summary.json and, with `evaluation.compare_dtype`,
dtype_comparison.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from measuring import read_documents
from quarry.assembly.model_parts import build_model_parts
from quarry.data.jsonl import find_file, read_jsonl
from quarry.types import Query
from result_line import Result, hand_over
from study_command import run_command, study_command


def result_of(run: Path) -> Result:
    """Return the cost of a run, its scores, and its agreement with the compared dtype.

    `rankings` are the SHA-256 of its TREC run files.
    """
    summary = read(run / "summary.json")
    cost = summary["cost"]
    found: Result = {"results": summary["results"], "encoding_s": cost["encoding_s"]}
    if cost["peak_device_memory_gib"] is not None:
        found["peak_gib"] = cost["peak_device_memory_gib"]
    if summary["beside"]:
        found["beside"] = summary["beside"]
    found["searching_s"] = cost["searching_s"]
    found["rankings"] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((run / "runs").iterdir())
    }
    comparison = run / "dtype_comparison.json"
    if comparison.exists():
        found["agreement"] = read(comparison)["sets"]
    return found


def encoded(run: Path, data: Path) -> Result:
    """Return the numbers of texts and tokens of a BEIR folder that the run has encoded."""
    config = OmegaConf.load(run / "config_resolved.yaml")
    assert isinstance(config, DictConfig)
    tokenizer = build_model_parts(config).tokenizer
    documents = read_documents(find_file(data / "corpus.jsonl"))
    lines = read_jsonl(find_file(data / "queries.jsonl"))
    queries = [Query(query_id=str(line["_id"]), text=str(line["text"])) for _, line in lines]
    rows = [*tokenizer(documents, "document"), *tokenizer(queries, "query")]
    return {"num_texts": len(rows), "num_tokens": sum(len(row) for row in rows)}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for runs and the cache")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    run = Path(tempfile.mkdtemp(prefix="study_", dir=arguments.work)) / "run"
    command = study_command(
        "eval.py",
        *arguments.overrides,
        "benchmark=folder",
        f"benchmark.path={arguments.data}",
        model=arguments.model,
        run=run,
    )
    start = time.perf_counter()
    run_command(command, work=arguments.work, run=run)
    result: Result = {"command_s": time.perf_counter() - start} | result_of(run)
    hand_over({"model": arguments.model.name, "data": arguments.data.name} | result)
    if "agreement" not in result:  # otherwise the time includes a second model's pass
        counts = encoded(run, arguments.data)
        hand_over(counts | {"tokens_per_s": counts["num_tokens"] / result["encoding_s"]})


if __name__ == "__main__":
    main()
