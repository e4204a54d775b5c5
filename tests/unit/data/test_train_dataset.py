from __future__ import annotations

import json
import logging
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from quarry.data.train_dataset import TrainDataset
from quarry.data.train_files import read_train_files
from quarry.errors import UserError
from quarry.types import Document, Query, TrainExample


def documents(prefix: str, number: int) -> tuple[Document, ...]:
    return tuple(Document(document_id=f"{prefix}{i}", text=f"{prefix} {i}") for i in range(number))


def example(index: int = 0, *, num_positives: int = 1, num_hard: int = 0) -> TrainExample:
    return TrainExample(
        query=Query(query_id=f"q{index}", text=f"query {index}"),
        positives=documents("p", num_positives),
        hard_negatives=documents("n", num_hard),
    )


def ids(item: TrainExample) -> list[str]:
    return [document.document_id for document in item.hard_negatives]


def test_the_window_moves_on_by_its_width_and_starts_over() -> None:
    dataset = TrainDataset([example(num_hard=6)], num_hard_negatives=2, seed=1)
    windows = [ids(dataset[epoch, 0]) for epoch in range(7)]
    order = windows[0] + windows[1] + windows[2]
    assert sorted(order) == [f"n{i}" for i in range(6)]
    assert order != sorted(order)
    assert windows[3:] == [*windows[:3], windows[0]]


def test_a_window_wraps_around_the_end() -> None:
    dataset = TrainDataset([example(num_hard=5)], num_hard_negatives=2, seed=1)
    a, b, c, d, e = (*ids(dataset[0, 0]), *ids(dataset[1, 0]), ids(dataset[2, 0])[0])
    assert sorted([a, b, c, d, e]) == [f"n{i}" for i in range(5)]
    assert [ids(dataset[epoch, 0]) for epoch in (2, 3, 4, 5)] == [[e, a], [b, c], [d, e], [a, b]]


def test_all_are_taken_where_as_many_are_asked_for() -> None:
    dataset = TrainDataset([example(num_hard=4)], num_hard_negatives=4, seed=3)
    for epoch in range(3):
        assert sorted(ids(dataset[epoch, 0])) == ["n0", "n1", "n2", "n3"]


def test_too_few_are_drawn_with_replacement_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    examples = [example(i, num_hard=number) for i, number in enumerate((3, 8, 2, 9))]
    with caplog.at_level(logging.WARNING):
        dataset = TrainDataset(examples, num_hard_negatives=8, seed=0)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "2 of 4 examples have fewer than num_hard_negatives=8 hard negatives (the fewest: 2)"
    )
    drawn = [ids(dataset[epoch, 0]) for epoch in range(100)]
    assert all(len(names) == 8 for names in drawn)
    counts = Counter(name for names in drawn for name in names)
    assert set(counts) == {"n0", "n1", "n2"}
    # 800 draws of 3: 267 each, standard deviation 13.
    assert all(abs(count - 800 / 3) < 60 for count in counts.values())
    assert len({tuple(names) for names in drawn}) > 90


def test_one_of_several_positives_is_drawn_by_epoch() -> None:
    dataset = TrainDataset([example(num_positives=3)], num_hard_negatives=0, seed=0)
    items = [dataset[epoch, 0] for epoch in range(300)]
    assert all(len(item.positives) == 1 and item.hard_negatives == () for item in items)
    counts = Counter(item.positives[0].document_id for item in items)
    # 300 draws of 3: 100 each, standard deviation 8.
    assert all(abs(counts[name] - 100) < 35 for name in ("p0", "p1", "p2"))


def test_the_choice_depends_on_seed_and_key_alone() -> None:
    examples = [example(i, num_positives=5, num_hard=20) for i in range(6)]
    keys = [(epoch, index) for epoch in range(3) for index in range(6)]
    dataset = TrainDataset(examples, num_hard_negatives=4, seed=7)
    expected = {key: dataset[key] for key in keys}
    other = pickle.loads(pickle.dumps(TrainDataset(examples, num_hard_negatives=4, seed=7)))
    assert {key: other[key] for key in reversed(keys)} == expected
    assert dataset[np.int64(2), np.int64(5)] == expected[2, 5]
    reseeded = TrainDataset(examples, num_hard_negatives=4, seed=8)
    assert sum(ids(reseeded[key]) == ids(expected[key]) for key in keys) < 3


def first(items: list[TrainExample]) -> TrainExample:
    return items[0]


@pytest.mark.parametrize("number", [4, None])
def test_workers_change_nothing(number: int | None) -> None:
    examples = [replace(scored(5, 20 + i), query=example(i).query) for i in range(6)]
    dataset = TrainDataset(examples, num_hard_negatives=number, seed=7)
    keys = [(epoch, index) for epoch in range(2) for index in (3, 0, 5, 1)]
    loader = DataLoader(dataset, sampler=keys, num_workers=2, collate_fn=first)
    assert list(loader) == [dataset[key] for key in keys]


def test_seed_epoch_and_index_do_not_add_up() -> None:
    # Were they summed, a key would make the choices of its neighbour: same sum, same window.
    examples = [example(i, num_positives=50, num_hard=50) for i in range(40)]

    def choices(seed: int, epoch: int, index: int) -> tuple[str, list[str]]:
        item = TrainDataset(examples, num_hard_negatives=10, seed=seed)[epoch, index]
        return item.positives[0].document_id, ids(item)

    same_sum = [choices(seed, epoch, 39 - seed - epoch) for seed in range(5) for epoch in range(5)]
    assert len({tuple(names) for _, names in same_sum}) == 25
    positives = Counter(positive for positive, _ in same_sum)
    assert max(positives.values()) < 6  # 25 draws of 50


def test_positives_and_repeats_are_no_hard_negatives() -> None:
    item = TrainExample(
        query=Query(query_id="q", text="?"),
        positives=documents("p", 2),
        hard_negatives=(*documents("n", 3), *documents("p", 2), *documents("n", 3)),
    )
    dataset = TrainDataset([item], num_hard_negatives=3, seed=0)
    for epoch in range(5):
        assert sorted(ids(dataset[epoch, 0])) == ["n0", "n1", "n2"]


def test_an_example_without_hard_negatives_is_refused_at_once() -> None:
    examples = [example(0, num_hard=2), example(1), example(2)]
    with pytest.raises(
        UserError, match=r"example 1: query 'q1' has no hard negative \(2 of 3 .*hard_negatives=2"
    ):
        TrainDataset(examples, num_hard_negatives=2, seed=0)
    assert len(TrainDataset(examples, num_hard_negatives=0, seed=0)) == 3
    with pytest.raises(UserError, match="num_hard_negatives=-1: must be 0 or more"):
        TrainDataset(examples, num_hard_negatives=-1, seed=0)


def test_null_takes_all_that_each_example_has_in_their_order() -> None:
    examples = [example(i, num_positives=2, num_hard=number) for i, number in enumerate((3, 0, 5))]
    dataset = TrainDataset(examples, num_hard_negatives=None, seed=0)
    for epoch in range(3):
        assert [ids(dataset[epoch, i]) for i in range(3)] == [
            ["n0", "n1", "n2"], [], ["n0", "n1", "n2", "n3", "n4"],
        ]  # fmt: skip
    assert dataset.hard_negative_counts.tolist() == [3, 0, 5]
    assert dataset.group_sizes.tolist() == [4, 1, 6]
    assert TrainDataset(examples[::2], num_hard_negatives=4, seed=0).group_sizes.tolist() == [5, 5]


def test_the_positive_does_not_depend_on_the_number_of_hard_negatives() -> None:
    examples = [example(i, num_positives=9, num_hard=2) for i in range(20)]
    drawn = [
        [dataset[1, i].positives for i in range(20)]
        for dataset in (TrainDataset(examples, num_hard_negatives=n, seed=4) for n in (None, 0, 2))
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_positives_and_repeats_are_left_out_of_all_hard_negatives() -> None:
    item = TrainExample(
        query=Query(query_id="q", text="?"),
        positives=documents("p", 2),
        hard_negatives=(*documents("p", 1), *documents("n", 3), *documents("n", 2)),
    )
    dataset = TrainDataset([item], num_hard_negatives=None, seed=0)
    assert ids(dataset[0, 0]) == ["n0", "n1", "n2"]
    assert dataset.group_sizes.tolist() == [4]


def test_zero_counts_what_it_leaves_out(caplog: pytest.LogCaptureFixture) -> None:
    examples = [example(i, num_hard=number) for i, number in enumerate((3, 0, 5))]
    sentence = "8 hard negatives of 2 examples are not used (data.num_hard_negatives=0)"
    dataset = TrainDataset(examples, num_hard_negatives=0, seed=0)
    assert dataset.unused_hard_negatives == sentence
    with caplog.at_level(logging.INFO):
        dataset.log_hard_negatives()
    counts, warning = caplog.records
    assert counts.getMessage() == (
        "Hard negatives per example: min 0, median 3, max 5; 1 of 3 examples have none"
    )
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith(sentence)
    caplog.clear()
    for others, number in ((examples, None), ([example(0)] * 2, 0), (examples[::2], 1)):
        quiet = TrainDataset(others, num_hard_negatives=number, seed=0)
        quiet.log_hard_negatives()
        assert quiet.unused_hard_negatives is None
    assert not [record for record in caplog.records if "not used" in record.getMessage()]


def scored(num_positives: int = 3, num_hard: int = 6) -> TrainExample:
    """Scores that name their passage: 10, 11, ... of the positives, 0, 1, ... of the others."""
    return replace(
        example(num_positives=num_positives, num_hard=num_hard),
        positive_scores=tuple(10.0 + i for i in range(num_positives)),
        hard_negative_scores=tuple(float(i) for i in range(num_hard)),
    )


@pytest.mark.parametrize("number", [None, 0, 2, 6, 9])
def test_scores_stay_with_their_passages(number: int | None) -> None:
    dataset = TrainDataset([scored()], num_hard_negatives=number, seed=0)
    seen = set()
    for epoch in range(8):
        item = dataset[epoch, 0]
        (positive,) = item.positives
        assert item.positive_scores == (10.0 + int(positive.document_id[1:]),)
        assert item.hard_negative_scores == tuple(float(name[1:]) for name in ids(item))
        assert len(item.hard_negatives) == (6 if number is None else number)
        seen.add((item.positive_scores, item.hard_negative_scores))
    assert len(seen) >= 3  # epochs differ, and scores with them


def test_scores_of_what_is_left_out_are_left_out() -> None:
    item = TrainExample(
        query=Query(query_id="q", text="?"),
        positives=documents("p", 1),
        hard_negatives=(*documents("p", 1), *documents("n", 3)),
        hard_negative_scores=(9.0, 0.0, 1.0, 2.0),
    )
    found = TrainDataset([item], num_hard_negatives=None, seed=0)[0, 0]
    assert (found.positive_scores, found.hard_negative_scores) == (None, (0.0, 1.0, 2.0))


def test_a_file_is_named_with_the_line_that_lacks_hard_negatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.jsonl"
    # The second example's one negative is its positive, so it has none.
    path.write_text(
        json.dumps({"query": "one?", "positive": "a", "negatives": ["b", "c"]})
        + "\n\n"
        + json.dumps({"query": "two?", "positive": "a", "negative": "a"})
    )
    examples = read_train_files(path=path, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match=r"train\.jsonl:3: query .* has no hard negative \(1 of 2"):
        TrainDataset(examples, num_hard_negatives=2, seed=0)

    def unread(*_: object) -> None:
        pytest.fail("the counts of the table were not used")

    path.write_text(json.dumps({"query": "one?", "positive": "a", "negatives": ["b", "c"]}))
    examples = read_train_files(path=path, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(type(examples), "__getitem__", unread)
    TrainDataset(examples, num_hard_negatives=2, seed=0)


def test_these_choices_are_kept_for_good() -> None:
    # A snapshot: a change here would silently change every resumed or repeated run.
    dataset = TrainDataset(
        [example(i, num_positives=4, num_hard=6) for i in range(2)], num_hard_negatives=3, seed=42
    )
    found = [(item.positives[0].document_id, *ids(item)) for item in (dataset[0, 0], dataset[1, 1])]
    assert found == [("p0", "n3", "n0", "n1"), ("p0", "n0", "n5", "n4")]
