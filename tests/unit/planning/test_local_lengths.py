"""Lengths of sets whose data are here: by the tokenizer where there is one, else by characters."""

from __future__ import annotations

import pytest

from helpers.conventions import convention
from helpers.models import letter_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import MissingPathError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.planning.encoding_work import SetLengths, TextFrame
from quarry.planning.local_lengths import LocalLengths
from quarry.types import Document, Query, RetrievalSet

PROMPT = Prompt(query="q:{text}", document="{text}", max_document_length=12)


def own() -> RetrievalSet:
    """Two queries of 8 letters; documents of 4 and of 80 letters, one with a title of 3."""
    return RetrievalSet(
        name="own",
        queries=[Query(query_id=str(n), text="abcdefgh") for n in range(2)],
        corpus=[
            Document(document_id="a", text="abcd"),
            Document(document_id="b", text="ab" * 40, title="abc"),
        ],
        qrels={"0": {"a": 1}, "1": {"b": 1}},
    )


def missing() -> RetrievalSet:
    raise MissingPathError("nowhere: no such folder\nand more")


def lengths(*, has_tokenizer: bool) -> LocalLengths:
    sets = [BenchmarkSet(name="own", load=own), BenchmarkSet(name="gone", load=missing)]
    evaluator = Evaluator(
        benchmark=Benchmark(name="mine", sets=sets), measures=["nDCG@10"], top_k=10,
        convention=convention(),
    )  # fmt: skip
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT)
    return LocalLengths(
        evaluator=evaluator, prompt=PROMPT, tokenizer=tokenizer if has_tokenizer else None, seed=0
    )


def counted(count: LocalLengths) -> SetLengths:
    found = count(count.evaluator.benchmark.sets[0])
    assert isinstance(found, SetLengths)
    assert (found.num_queries, found.num_documents) == (2, 2)
    return found


def test_texts_are_tokenized() -> None:
    count = lengths(has_tokenizer=True)
    found = counted(count)
    frame = count.frames["query"]
    assert found.tokens_per_query == 8 + frame.num_tokens
    assert found.tokens_per_document == (4 + 1 + 12) / 2, "with the end token, and cut"
    assert count.frames["document"] == TextFrame(num_tokens=1)
    assert found.source.endswith("tokenized")


def test_without_a_tokenizer_characters_count() -> None:
    found = counted(lengths(has_tokenizer=False))
    assert found.tokens_per_query == 8 / 4 + 2 / 4 + 1
    assert found.tokens_per_document == ((4 / 4 + 1) + 12) / 2
    assert found.source.endswith("at 4 characters a token")


def test_data_that_are_not_here_are_named() -> None:
    count = lengths(has_tokenizer=False)
    assert count(count.evaluator.benchmark.sets[1]) == "nowhere: no such folder"


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_the_same_seed_gives_the_same_sample(has_tokenizer: bool) -> None:
    assert counted(lengths(has_tokenizer=has_tokenizer)) == counted(
        lengths(has_tokenizer=has_tokenizer)
    )
