"""`data.max_examples` keeps what is known of the complete training set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from quarry.assembly.train_examples import build_examples
from quarry.data.first_examples import FirstExamples
from quarry.data.train_dataset import TrainDataset
from quarry.errors import UserError
from quarry.types import Document, Query, TrainExample


def test_the_first_examples_of_a_file_have_its_caveats_and_lines(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"query": "nothing", "positive": ""}]
    rows += [{"query": f"q{i}", "positive": f"p{i}", "negatives": [f"n{i}"] * i} for i in range(4)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = "quarry.data.train_files.read_train_files"
    examples = {"_target_": target, "path": str(path), "cache_dir": str(tmp_path / "cache")}
    every = build_examples(OmegaConf.create({"examples": examples, "max_examples": None}))
    assert every.caveats  # type: ignore[attr-defined]
    data = OmegaConf.create({"examples": examples, "max_examples": 2})
    dataset = TrainDataset(build_examples(data), num_hard_negatives=None, seed=1)
    assert dataset.caveats == every.caveats  # type: ignore[attr-defined]
    assert dataset.hard_negative_counts.tolist() == [0, 1]
    assert [dataset.examples[i].query.text for i in range(len(dataset))] == ["q0", "q1"]
    with pytest.raises(UserError, match=r"rows\.jsonl:2: "):
        TrainDataset(build_examples(data), num_hard_negatives=1, seed=1)


def test_any_sequence_has_first_examples() -> None:
    def example(number: int) -> TrainExample:
        documents = [Document(document_id=f"{i}", text=f"{i}") for i in range(number + 1)]
        query = Query(query_id=str(number), text="q")
        return TrainExample(
            query=query, positives=(documents[0],), hard_negatives=tuple(documents[1:])
        )

    every = [example(number) for number in range(4)]
    first = FirstExamples(every, 3)
    assert list(first) == every[:3]
    assert (first[-1], first[1:]) == (every[2], every[1:3])
    with pytest.raises(IndexError):
        first[3]
    assert first.caveats == ()
    assert first.hard_negative_counts().tolist() == [0, 1, 2]
    assert first.location(1) == "example 1"
