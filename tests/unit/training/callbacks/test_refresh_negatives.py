"""Mining inside a training: at defined steps, unnoticed, the same with workers and after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.joint_training import Case, build, examples
from helpers.refreshed_training import encoder_of, refresh_callback, train
from quarry.errors import UserError
from quarry.mining.dense_candidates import DenseCandidates
from quarry.mining.mining_job import MiningJob
from quarry.mining.mining_texts import read_mining_texts
from quarry.mining.negative_filter import NegativeFilter
from quarry.retrieval.index.exact import ExactIndex


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    found = train(folder, save_at=4)
    return {**found, "folder": folder}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    weights = zip(one["weights"].items(), other["weights"].items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in weights)


def test_lists_are_mined_at_their_steps_and_used_from_the_next_batch(whole: dict[str, Any]) -> None:
    assert list(whole["lists"]) == [3, 6]
    assert whole["lists"][3] != whole["lists"][6]  # other weights
    texts = read_mining_texts(examples())
    used = {text.text for text in texts.passages}
    assert len(used) > 10
    minings = json.loads((whole["folder"] / "refreshed_negatives.json").read_text())["minings"]
    assert [each["step"] for each in minings] == [3, 6]
    assert all(each["queries_in"] == len(texts) for each in minings)
    lengths = [len(own) for own in whole["lists"][3]]
    assert minings[0]["negatives"] == sum(lengths)
    assert set(lengths) <= {0, 1, 2}


def test_the_batches_have_what_was_mined(whole: dict[str, Any], tmp_path: Path) -> None:
    plain = train(tmp_path, every_n_steps=100)
    steps = range(1, 9)
    is_same = [whole["batches"][step] == plain["batches"][step] for step in steps]
    assert is_same[:3] == [True] * 3  # the lists of step 3 begin with the batch of step 4
    assert not any(is_same[3:])
    assert plain["lists"] == {}


def test_workers_that_prepare_ahead_change_nothing(whole: dict[str, Any], tmp_path: Path) -> None:
    found = train(tmp_path, num_workers=2)
    assert found["batches"] == whole["batches"]
    assert found["lists"] == whole["lists"]
    assert same(found, whole)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_equals_uninterrupted(
    whole: dict[str, Any], tmp_path: Path, num_workers: int
) -> None:
    resumed = train(
        tmp_path, checkpoint=whole["folder"] / "saved.ckpt", num_workers=num_workers
    )  # another folder: the lists are in the checkpoint
    assert resumed["batches"] == {step: whole["batches"][step] for step in range(5, 9)}
    assert resumed["lists"] == whole["lists"]
    assert same(resumed, whole)
    minings = json.loads((tmp_path / "refreshed_negatives.json").read_text())["minings"]
    assert [each["step"] for each in minings] == [3, 6]


def test_training_does_not_notice_the_encoding(tmp_path: Path) -> None:
    """With a filter that keeps nothing the data's own negatives stay, and so do all bits."""
    never = NegativeFilter(max_score=-2.0)
    (tmp_path / "mined").mkdir()
    (tmp_path / "plain").mkdir()
    found = train(tmp_path / "mined", filter=never, before_training=True, num_steps=4)
    plain = train(tmp_path / "plain", every_n_steps=100, num_steps=4)
    assert list(found["lists"]) == [0, 3]
    assert found["batches"] == plain["batches"]
    assert same(found, plain)


def test_lists_before_training_are_those_of_the_first_weights(tmp_path: Path) -> None:
    found = train(tmp_path, before_training=True, num_steps=1)
    model = build(case=Case(strategy="ddp", is_lora=True, dropout=0.2)).eval()
    texts = read_mining_texts(examples())
    source = DenseCandidates(texts=texts, encoder=encoder_of(model), index=ExactIndex())
    job = MiningJob(texts=texts, source=source, choice=refresh_callback().choice)
    expected = [
        chosen.places.tolist()
        for _, _, chosen in job.chosen(percentile_score=job.percentile_score())
    ]
    assert found["lists"] == {0: expected}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"num_negatives": 0}, "num_negatives=0"),
        ({"rank_range": [5, 11]}, r"rank_range=\[5,11\]: no ranks"),
        ({"rank_range": [5]}, r"rank_range=\[5\]: must be the first and the last"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=rf"callbacks\.refresh_negatives\.{words}.*Fix: "):
        refresh_callback(**settings)
