"""What a run begins with is identified by content, and other content is refused or noted."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pytest
import torch
from safetensors.torch import save_file

from quarry.assembly.origin import NAMES, NUM_SAMPLED, check_origin, data_digest
from quarry.data.train_examples import BeirExamples
from quarry.data.train_files import read_train_files
from quarry.errors import UserError
from quarry.models.backbones import fingerprint
from quarry.models.backbones.fingerprint import affordable_digest
from quarry.types import Document, Query, TrainExample


def example(number: int, text: str = "text") -> TrainExample:
    document = Document(document_id=f"d{number}", text=text)
    return TrainExample(
        query=Query(query_id=f"q{number}", text="query"), positives=(document,), hard_negatives=()
    )


def written(path: Path, texts: list[str]) -> Path:
    lines = (json.dumps({"query": f"q {text}", "positives": [text]}) for text in texts)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def digest_of(path: Path, cache: Path) -> str:
    return data_digest(read_train_files(path=path, cache_dir=cache))


def test_a_table_is_identified_by_its_content_and_order(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = digest_of(written(tmp_path / "a.jsonl", ["one", "two"]), cache)
    assert digest_of(written(tmp_path / "moved.jsonl", ["one", "two"]), cache) == first
    assert digest_of(written(tmp_path / "b.jsonl", ["two", "one"]), cache) != first
    assert digest_of(written(tmp_path / "c.jsonl", ["one", "twO"]), cache) != first


def test_the_passages_of_a_corpus_count(tmp_path: Path) -> None:
    digests = set()
    for text in ("one", "One"):
        folder = tmp_path / text
        (folder / "qrels").mkdir(parents=True)
        (folder / "queries.jsonl").write_text('{"_id": "q", "text": "query"}\n')
        (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": text}) + "\n")
        (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
        examples = BeirExamples(path=folder, split="train", cache_dir=tmp_path / "cache")
        assert len(examples.tables) == 2
        digests.add(data_digest(examples))
    assert len(digests) == 2


class Lazy(Sequence[TrainExample]):
    """A sequence that is no list, and counts what is read of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.num_read = 0

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> TrainExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainExample]: ...
    def __getitem__(self, index: int | slice) -> Any:
        assert isinstance(index, int)
        if not 0 <= index < self.number:
            raise IndexError(index)
        self.num_read += 1
        return example(index)

    def __iter__(self) -> Iterator[TrainExample]:
        raise AssertionError("all of them")


def test_a_list_is_read_completely_and_another_sequence_in_samples() -> None:
    listed = [example(index) for index in range(NUM_SAMPLED + 100)]
    first = data_digest(listed)
    for changed in (0, 4001, NUM_SAMPLED + 99):
        others = [*listed]
        others[changed] = example(changed, "other")
        assert data_digest(others) != first
    lazy = Lazy(10 * NUM_SAMPLED)
    data_digest(lazy)
    assert lazy.num_read == NUM_SAMPLED
    assert data_digest(Lazy(5)) == data_digest([example(index) for index in range(5)])


def test_small_weights_are_hashed_completely_and_large_ones_in_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saved(name: str, weight: torch.Tensor) -> str:
        folder = tmp_path / name
        folder.mkdir()
        save_file({"weight": weight}, folder / "model.safetensors")
        return str(folder)

    weight = torch.zeros(10_000)
    one = saved("one", weight)
    weight[9_000] = 1  # beyond the sample of a tensor
    other = saved("other", weight)
    weight[0] = 1
    third = saved("third", weight)
    one_digest, *digests = (
        affordable_digest(each, memo=tmp_path / "memo") for each in (one, other, third)
    )
    assert one_digest.startswith("full:")
    assert one_digest not in digests
    monkeypatch.setattr(fingerprint, "AFFORDABLE_BYTES", 1000)
    sampled = [affordable_digest(each, memo=tmp_path / "memo") for each in (one, other, third)]
    assert sampled[0].startswith("sampled:")
    assert sampled[0] == sampled[1] != sampled[2]


ORIGIN = dict.fromkeys(NAMES, "0")
RUN = Path("run")


def test_the_same_origin_goes_on() -> None:
    facts = {"step": 3, "origin": ORIGIN}
    assert check_origin(facts, ORIGIN, run=RUN, accepts=False) == []
    assert check_origin(facts, {}, run=RUN, accepts=False) == []  # a run without checkpoints


@pytest.mark.parametrize("key", NAMES)
def test_another_origin_is_refused_or_accepted_by_name(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"step": 3, "origin": ORIGIN}
    now = ORIGIN | {key: "1"}
    with pytest.raises(UserError) as caught:
        check_origin(facts, now, run=RUN, accepts=False)
    assert f"step 3: {NAMES[key]} " in str(caught.value)
    assert "task.accepts_changed_data=true" in str(caught.value)
    assert check_origin(facts, now, run=RUN, accepts=True) == [NAMES[key]]
    assert f"changed {NAMES[key]}" in caplog.text


@pytest.mark.parametrize("facts", [{}, {"step": 3}, {"step": 3, "origin": {}}])
def test_a_checkpoint_of_before_is_continued_with_one_warning(
    facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert check_origin(facts, ORIGIN, run=RUN, accepts=False) == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{RUN}{os.linesep}" not in caplog.text
