"""`bench/mined_negatives.py` end to end with a tiny model."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from helpers.commands import run_command
from helpers.models import tiny_folder

NUM_DOCUMENTS = 24


def write_set(folder: Path, split: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"{one} {letters[(3 * i + 1) % 26]} text" for i, one in enumerate(letters)]
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as lines:
        for number, text in enumerate(texts):
            record = {"_id": f"d{number}", "title": "", "text": text}
            lines.write(json.dumps(record) + "\n")
    queries = [{"_id": f"q{number}", "text": letters[number]} for number in range(12)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    judgments = "".join(f"q{number}\td{number}\t1\n" for number in range(12))
    (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judgments}")
    return folder


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_both_trainings_of_each_seed_are_compared(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = (
        "bench/mined_negatives.py", "--model", str(tiny_folder(tmp_path / "model")),
        "--train-set", str(write_set(tmp_path / "a", "train")),
        "--test-set", str(write_set(tmp_path / "b", "test")), "--work", str(tmp_path / "work"),
        "--num-queries", "8", "--num-documents", str(NUM_DOCUMENTS), "--max-steps", "5",
        "--batch-size", "4", "--seeds", "3", "4",
    )  # fmt: skip
    result = run_command(*command, environment=environment, timeout_s=580)
    assert result.code == 0, result.err
    with (tmp_path / "work" / "report" / "values.csv").open(encoding="utf-8") as lines:
        cells = [row for row in csv.DictReader(lines) if row["stage"] == "supervised"]
    seeds = sorted((row["model"] == "bm25", row["num_seeds"]) for row in cells)
    assert seeds == [(False, "2"), (False, "2"), (True, "1")], "seeds share a row"
    lines = (tmp_path / "work" / "negatives_3" / "mined.jsonl").read_text().splitlines()
    assert len(lines) == 8
    again = run_command(*command, environment=environment, timeout_s=300)
    assert again.code == 0, again.err
    assert "train.py" not in again.out, "finished runs are not made again"
