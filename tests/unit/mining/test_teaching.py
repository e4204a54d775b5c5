"""What a teacher writes is what training reads: scores to the bit, vectors by the text's hash."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.stores import tiny_encoder
from quarry.data.pair_tokenization import Pair
from quarry.data.prompts import joined_text
from quarry.data.train_files import read_train_files
from quarry.errors import UserError
from quarry.losses.teacher_vectors import TeacherVectors
from quarry.mining.teaching import write_scores, write_vectors
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.rerankers.pair_scorer import PairScores
from quarry.runtime.text_hash import text_hash
from quarry.types import Document, Query, TrainExample


def passage(text: str, title: str = "") -> Document:
    return Document(document_id=f"id of {title}{text}", title=title, text=text)


EXAMPLES = [
    TrainExample(
        query=Query(query_id="a", text="first"),
        positives=(passage("one", "title"), passage("two")),
        hard_negatives=(passage("three"),),
        positive_scores=(1.0, 2.0),
        hard_negative_scores=(3.0,),
        weight=0.5,
    ),
    TrainExample(
        query=Query(query_id="b", text="second\n"), positives=(passage("two"),), weight=2.0
    ),
]


class Numbers:
    """A teacher whose scores are not short in decimals."""

    def score(self, pairs: Sequence[Pair], *, label: str) -> PairScores:
        scores = np.arange(len(pairs), dtype=np.float32) / np.float32(3)
        return PairScores(scores=scores, num_unique=len(pairs), num_cut=1)


def test_training_reads_the_scores_to_the_bit(tmp_path: Path) -> None:
    taught = write_scores(EXAMPLES, Numbers(), folder=tmp_path)
    from quarry.data.train_forms import TrainColumns

    read = read_train_files(
        path=taught.file, columns=TrainColumns(weight="weight"), cache_dir=tmp_path / "cache"
    )
    first, second = read[0], read[1]
    wanted = (np.arange(4, dtype=np.float32) / np.float32(3)).tolist()
    assert np.float32(first.positive_scores).tolist() == wanted[:2]  # type: ignore[arg-type]
    assert np.float32(first.hard_negative_scores).tolist() == wanted[2:3]  # type: ignore[arg-type]
    assert np.float32(second.positive_scores).tolist() == wanted[3:]  # type: ignore[arg-type]
    assert second.hard_negative_scores is None
    assert [example.query for example in read] == [example.query for example in EXAMPLES]
    assert first.positives == EXAMPLES[0].positives
    assert first.hard_negatives == EXAMPLES[0].hard_negatives
    assert [example.weight for example in read] == [0.5, 2.0]
    assert read.caveats == ()


def test_what_is_counted(tmp_path: Path) -> None:
    counts = write_scores(EXAMPLES, Numbers(), folder=tmp_path).counts
    assert counts["num_examples"] == 2
    assert counts["num_pairs"] == 4
    assert counts["num_cut_pairs"] == 1
    assert counts["num_examples_with_negatives"] == 1
    assert counts["num_examples_with_a_negative_above_the_positives"] == 1
    assert counts["num_examples_whose_scores_were_replaced"] == 1
    assert counts["highest_score"] == 1.0


def test_half_a_character_is_written(tmp_path: Path) -> None:
    broken = TrainExample(query=Query(query_id="q", text="\ud800"), positives=(passage("é"),))
    taught = write_scores([broken], Numbers(), folder=tmp_path)
    assert json.loads(taught.file.read_text(encoding="utf-8"))["query"] == "\ud800"


def test_a_teacher_that_fails_leaves_no_file(tmp_path: Path) -> None:
    class Failing(Numbers):
        def score(self, pairs: Sequence[Pair], *, label: str) -> PairScores:
            raise UserError("no")

    with pytest.raises(UserError, match="no"):
        write_scores(EXAMPLES, Failing(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("keeps_empty_title", [False, True])
def test_a_student_finds_the_vector_of_each_text(
    strip: bool, keeps_empty_title: bool, tmp_path: Path
) -> None:
    encoder = tiny_encoder(made=Encoder)
    taught = write_vectors(EXAMPLES, encoder, folder=tmp_path)
    teacher = TeacherVectors(taught.file)
    for example in EXAMPLES:
        for item, role in (
            (example.query, "query"),
            *((each, "document") for each in (*example.positives, *example.hard_negatives)),
        ):
            keeps = keeps_empty_title and role == "document"
            text = joined_text(item, strip=strip, keeps_empty_title=keeps)
            hashes = np.array([text_hash(text)])
            assert teacher.has(hashes).all(), text
            wanted = encoder.encode([item], role)  # type: ignore[arg-type]
            found = teacher.of(torch.from_numpy(hashes), like=wanted)
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    assert taught.counts["dim"] == teacher.dim
    assert taught.counts["num_queries_that_are_passages"] == 0


def test_a_text_that_is_query_and_passage_has_the_querys_vector(tmp_path: Path) -> None:
    both = TrainExample(query=Query(query_id="q", text="same"), positives=(passage("same"),))
    encoder = tiny_encoder(made=Encoder)
    taught = write_vectors([both], encoder, folder=tmp_path)
    assert taught.counts["num_queries_that_are_passages"] == 1
    wanted = encoder.encode([both.query], "query")
    found = TeacherVectors(taught.file).of(torch.tensor([text_hash("same")]), like=wanted)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_a_vector_that_is_not_finite_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_encoder(made=Encoder)
    nan = torch.full((2, 4), torch.nan)
    monkeypatch.setattr(encoder, "encode", lambda items, role, label="": nan[: len(items)])
    with pytest.raises(UserError, match="not finite"):
        write_vectors(EXAMPLES, encoder, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
