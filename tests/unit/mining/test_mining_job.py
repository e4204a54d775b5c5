"""Mined lines: exact, the same after a kill, and never with a positive or a text twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.mining import HashEncoder, embedding, example, made_examples, passage
from quarry.data.train_files import read_train_files
from quarry.errors import UserError
from quarry.mining.bm25_candidates import BM25Candidates
from quarry.mining.candidate_source import CandidateSource
from quarry.mining.dense_candidates import DenseCandidates
from quarry.mining.mined_file import MINED_FILE, PROGRESS_FILE, MinedFile
from quarry.mining.mining_job import MiningJob
from quarry.mining.mining_report import mining_report, report_lines
from quarry.mining.mining_texts import MiningTexts, read_mining_texts
from quarry.mining.negative_choice import NegativeChoice, Ranked
from quarry.mining.negative_filter import NegativeFilter
from quarry.mining.run_candidates import RunCandidates, passages_of_examples
from quarry.mining.teacher_candidates import TeacherCandidates
from quarry.retrieval.bm25 import BM25Retriever
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.terms import TextAnalyzer
from quarry.types import TrainExample

EXAMPLES = made_examples()


def dense(texts: MiningTexts) -> DenseCandidates:
    return DenseCandidates(texts=texts, encoder=HashEncoder(), index=ExactIndex())


def job(
    texts: MiningTexts,
    source: CandidateSource,
    *,
    at_a_time: int = 12,
    keep_queries: bool = False,
    **choice: Any,
) -> MiningJob:
    settings = {"top_k": 10, "num_negatives": 3, "filter": NegativeFilter()} | choice
    return MiningJob(
        texts=texts,
        source=source,
        choice=NegativeChoice(**settings),
        keep_queries=keep_queries,
        max_queries_per_search=at_a_time,
    )


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarry.mining.mining_job.NUM_QUERIES_PER_BLOCK", 7)


def mined(
    folder: Path, work: MiningJob, examples: list[TrainExample] | None = None
) -> list[dict[str, Any]]:
    file = MinedFile(folder, key="k")
    work.write(file, examples or EXAMPLES, percentile_score=work.percentile_score())
    path = file.finish()
    file.clear()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts_of(line: dict[str, Any], name: str) -> list[str]:
    return [each["text"] for each in line[name]]


def test_dense_equals_brute_force(tmp_path: Path) -> None:
    texts = read_mining_texts(EXAMPLES)
    work = job(texts, dense(texts), filter=NegativeFilter(relative_margin=0.05))
    lines = {tuple(texts_of(line, "positive_passages")): line for line in mined(tmp_path, work)}
    documents = [document.text for document in texts.passages]
    matrix = np.stack([embedding(f"document {text}") for text in documents])
    positives_of: dict[str, set[str]] = {}
    for each in EXAMPLES:
        own = positives_of.setdefault(each.query.text, set())
        own.add(each.positives[0].text)
    num_without = 0
    for each in EXAMPLES:
        scores = matrix @ embedding(f"query {each.query.text}")
        positive = scores[documents.index(each.positives[0].text)]
        order = [row for row in np.argsort(-scores) if documents[row] not in positives_of[
            each.query.text]][:10]  # fmt: skip
        bound = positive - 0.05 * abs(positive)
        expected = [documents[row] for row in order if scores[row] < bound][:3]
        line = lines.get((each.positives[0].text,))
        num_without += line is None
        assert (texts_of(line, "negative_passages") if line else []) == expected
        if line:
            found = line["mined"]["scores"]
            assert found == pytest.approx(scores[[documents.index(t) for t in expected]], abs=1e-6)
            assert line["mined"]["positive_scores"] == pytest.approx([positive], abs=1e-6)
    assert 0 < num_without < len(EXAMPLES)


def test_dense_candidates_are_those_of_the_exact_index() -> None:
    texts = read_mining_texts(EXAMPLES)
    encoder = HashEncoder()
    source = DenseCandidates(texts=texts, encoder=encoder, index=ExactIndex())
    assert encoder.num_encoded == len(texts) + len(texts.passages)  # each once
    names = [f"{10_000 - place}" for place in range(len(texts.passages))]  # ties by place
    run = ExactIndex().search(
        query_ids=[str(row) for row in range(len(texts))],
        queries=encoder.encode(texts.queries, "query"),
        document_ids=names,
        documents=encoder.encode(texts.passages, "document"),
        top_k=15,
    )
    for row, ranked in enumerate(source.ranked(0, len(texts), depth=15)):
        found = dict(zip([names[place] for place in ranked.places], ranked.scores, strict=True))
        assert found == run[str(row)]


def test_positives_outside_of_a_corpus_have_scores_and_are_no_candidates() -> None:
    corpus = [passage(f"document {number}") for number in range(30)]
    texts = read_mining_texts(EXAMPLES, corpus=corpus)
    found = list(dense(texts).ranked(0, 5, depth=100))
    for each, ranked in zip(EXAMPLES, found, strict=False):
        assert len(ranked.places) == 30
        positive = embedding(f"document {each.positives[0].text}")
        expected = embedding(f"query {each.query.text}") @ positive
        assert ranked.positive_scores == pytest.approx([expected], abs=1e-6)


def bm25() -> BM25Retriever:
    return BM25Retriever(tokenizers={"text": TextAnalyzer(stemmer=None, stop_words=())})


def test_bm25_ranks_as_the_retriever_and_scores_positives_below_the_depth(tmp_path: Path) -> None:
    examples = [
        example("red apple", ["apple tree"], ["red red apple apple"]),
        example("blue", ["blue blue sea"], ["blue sky", "green"]),
    ]
    texts = read_mining_texts(examples)
    source = BM25Candidates(texts=texts, retriever=bm25(), content="text")
    first, second = source.ranked(0, 2, depth=1)
    assert [texts.passages[place].text for place in first.places] == ["red red apple apple"]
    assert first.positive_scores[0] > 0
    assert second.positive_scores[0] == second.scores[0]
    lines = mined(tmp_path, job(texts, source), examples)
    assert texts_of(lines[1], "negative_passages") == ["blue sky"]  # green shares no term
    assert source.positive_scores(0, 2).tolist() == [
        *first.positive_scores,
        *second.positive_scores,
    ]


def test_a_run_file_gives_candidates_and_unknown_ids_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = {each.positives[0].text: each.positives[0].document_id for each in EXAMPLES}
    query_id = EXAMPLES[0].query.query_id
    path = tmp_path / "run.trec"
    path.write_text(
        f"{query_id} Q0 {ids['positive 9']} 1 5 t\n{query_id} Q0 {ids['positive 0']} 2 4 t\n"
        f"{query_id} Q0 {ids['positive 8']} 3 3.5 t\n{query_id} Q0 nobody 4 3 t\n"
        f"strange Q0 {ids['positive 8']} 1 3 t\n"
    )
    texts = read_mining_texts(EXAMPLES)
    source = RunCandidates(
        path=path, texts=texts, documents=passages_of_examples(EXAMPLES), places=texts.places
    )
    facts = source.facts()
    assert (facts["num_unknown_queries"], facts["num_unknown_documents"]) == (1, 1)
    assert facts["num_queries_not_in_run"] == 19
    (warning,) = [record.message for record in caplog.records]
    assert "1 of its 2 queries and 1 of its 4 documents are unknown" in warning
    work = job(texts, source, filter=NegativeFilter(absolute_margin=0.1))
    file = MinedFile(_new(tmp_path / "out"), key="k")
    work.write(file, EXAMPLES, percentile_score=None)
    (line,) = [json.loads(text) for text in file.path.read_text().splitlines()]
    assert texts_of(line, "negative_passages") == ["positive 8"]
    assert (line["mined"]["scores"], line["mined"]["positive_scores"]) == ([3.5], [4.0])
    # positive 1 has the same query, and the run lacks it
    assert file.counts["left_out_positive_without_score"] == 1
    assert file.counts["left_out_no_candidate_in_source"] == 38
    shown = report_lines(mining_report(file.path, file.counts), work)
    assert "Left out: 38 (the run file has no known document for the query)" in shown
    assert "num_unknown_queries=1" in shown[0]


def test_run_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    texts = read_mining_texts(EXAMPLES)

    def read(content: str) -> None:
        path = tmp_path / "run.trec"
        path.write_text(content)
        RunCandidates(
            path=path, texts=texts, documents=passages_of_examples(EXAMPLES), places=texts.places
        )

    with pytest.raises(UserError, match=r"none of its queries is known.*'q9'.*Fix: "):
        read("q9 Q0 d9 1 5 t\n")
    with pytest.raises(UserError, match=r"none of its documents is known.*'d9'.*Fix: "):
        read(f"{EXAMPLES[0].query.query_id} Q0 d9 1 5 t\n")
    with pytest.raises(UserError, match="has a score that is not finite"):
        read(f"{EXAMPLES[0].query.query_id} Q0 d9 1 inf t\n")
    with pytest.raises(UserError, match="has ranks and no scores"):
        read(f"{EXAMPLES[0].query.query_id} d9 1\n")


SCORED = [
    example(
        "one", ["a", "b"], ["c", "d", "e"],
        positive_scores=(5.0, 4.0), hard_negative_scores=(4.5, 3.0, float("nan")),
    ),
    example("two", ["c"], ["a"], positive_scores=(1.0,), hard_negative_scores=(0.5,)),
    example("three", ["x"]),
]  # fmt: skip


def test_a_teachers_scores_stay_a_teachers_scores(tmp_path: Path) -> None:
    texts = read_mining_texts(SCORED)
    source = TeacherCandidates(examples=SCORED, texts=texts)
    lines = mined(tmp_path, job(texts, source, filter=NegativeFilter(absolute_margin=0)), SCORED)
    assert [texts_of(line, "negative_passages") for line in lines] == [["d"], ["a"]]
    found = read_train_files(path=tmp_path / MINED_FILE, cache_dir=tmp_path / "cache")
    assert found[0].positive_scores == (5.0, 4.0)
    assert found[0].hard_negative_scores == (3.0,)


def test_scores_of_a_retriever_are_no_teachers(tmp_path: Path) -> None:
    texts = read_mining_texts(SCORED)
    mined(tmp_path, job(texts, dense(texts)), SCORED)
    found = read_train_files(path=tmp_path / MINED_FILE, cache_dir=tmp_path / "cache")
    assert len(found) == 3
    assert [each.positive_scores for each in found] == [None] * 3
    assert [each.hard_negative_scores for each in found] == [None] * 3
    assert [each.query for each in found] == [each.query for each in SCORED]
    assert {len(each.hard_negatives) for each in found} <= {1, 2, 3}
    assert "mined" in found.caveats[0]


def test_a_teacher_without_scores_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.use_scores=true: no hard negative.*Fix: "):
        TeacherCandidates(examples=EXAMPLES, texts=read_mining_texts(EXAMPLES))


class KilledError(Exception):
    pass


class Killed:
    """A source that ends the process, so to say, at an example."""

    name, is_teacher = "dense", False

    def __init__(self, source: DenseCandidates, at: int) -> None:
        self.source, self.at = source, at
        self.asked: list[tuple[int, int]] = []

    def ranked(self, start: int, stop: int, *, depth: int) -> Iterator[Ranked]:
        self.asked.append((start, stop))
        for row, ranked in enumerate(self.source.ranked(start, stop, depth=depth), start):
            if row == self.at:
                raise KilledError
            yield ranked

    def positive_scores(self, start: int, stop: int) -> np.ndarray:
        return self.source.positive_scores(start, stop)

    def facts(self) -> dict[str, Any]:
        return {}


SETTINGS: dict[str, Any] = {
    "sampling": "random", "num_negatives": 2, "filter": NegativeFilter(percentile=95),
}  # fmt: skip


@pytest.mark.parametrize("at", [0, 6, 7, 13, 25, 39])
@pytest.mark.parametrize("keep", [False, True])
def test_killed_and_continued_equals_uninterrupted(tmp_path: Path, at: int, keep: bool) -> None:
    texts = read_mining_texts(EXAMPLES)
    settings = SETTINGS | {"keep_queries": keep}
    if keep:  # with many that have none
        settings |= {"filter": NegativeFilter(absolute_margin=0.2), "top_k": 30}
    expected = mined(_new(tmp_path / "whole"), job(texts, dense(texts), **settings))
    folder = _new(tmp_path / "parts")
    work = job(texts, Killed(dense(texts), at), **settings)
    file = MinedFile(folder, key="k")
    with pytest.raises(KilledError):
        work.write(file, EXAMPLES, percentile_score=work.percentile_score())
    with file.path.open("ab") as torn:  # a block without its line of progress
        torn.write(b'{"query": "half')
    with (folder / PROGRESS_FILE).open("ab") as torn:
        torn.write(b'{"stop": 39, "num_')
    source = Killed(dense(texts), -1)
    again = job(texts, source, **settings)
    assert mined(folder, again) == expected
    assert (folder / MINED_FILE).read_bytes() == (tmp_path / "whole" / MINED_FILE).read_bytes()
    if at >= 25:
        assert source.asked[0][0] >= 12  # it did not begin anew


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_call_killed_after_the_last_block_only_ends(tmp_path: Path) -> None:
    texts = read_mining_texts(EXAMPLES)
    work = job(texts, dense(texts))
    file = MinedFile(tmp_path, key="k")
    work.write(file, EXAMPLES, percentile_score=None)
    counts = file.counts
    content = file.finish().read_bytes()
    again = MinedFile(tmp_path, key="k")
    assert (again.num_done, again.counts) == (len(EXAMPLES), counts)
    work.write(again, EXAMPLES, percentile_score=None)
    assert again.finish().read_bytes() == content


def test_another_work_is_not_continued(tmp_path: Path) -> None:
    texts = read_mining_texts(EXAMPLES)
    work = job(texts, Killed(dense(texts), 20))
    with pytest.raises(KilledError):
        work.write(MinedFile(tmp_path, key="k"), EXAMPLES, percentile_score=None)
    with pytest.raises(UserError, match=r"hydra\.run\.dir=.*other data, settings or weights"):
        MinedFile(tmp_path, key="other")


def test_searches_at_a_time_change_nothing(tmp_path: Path) -> None:
    texts = read_mining_texts(EXAMPLES)
    found = [
        mined(_new(tmp_path / name), job(texts, dense(texts), at_a_time=size, **SETTINGS))
        for name, size in (("one", 40), ("two", 40), ("three", 3))
    ]
    assert found[0] == found[1]
    negatives = [[texts_of(line, "negative_passages") for line in lines] for lines in found]
    assert negatives[0] == negatives[2]


def test_no_negative_is_a_positive_a_duplicate_or_the_query(tmp_path: Path) -> None:
    examples = [
        example("one", ["a"], ["c", "c ", "one", "b"]),
        example("one", ["b"], ["a", "d"]),
        example("d", ["c"], ["a "]),
    ]
    texts = read_mining_texts(examples)
    lines = mined(tmp_path, job(texts, dense(texts), num_negatives=10), examples)
    found = [sorted(texts_of(line, "negative_passages")) for line in lines]
    assert found == [["c", "d"], ["c", "d"], ["a", "b", "one"]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"filter": NegativeFilter(max_score=-2)},
            r"task\.filter\.max_score=-2: leaves none of 40",
        ),
        ({"top_k": 900, "rank_range": (800, 900)}, r"task\.rank_range=\[800,900\]: leaves none"),
    ],
)
def test_settings_that_leave_nothing_are_an_error_with_the_key(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    texts = read_mining_texts(EXAMPLES)
    work = job(texts, dense(texts), **settings)
    with pytest.raises(UserError, match=words):
        mined(tmp_path, work)
    assert list(tmp_path.iterdir()) == []


def test_the_remedy_is_that_of_the_source(tmp_path: Path) -> None:
    ids = {each.positives[0].text: each.positives[0].document_id for each in EXAMPLES}
    path = tmp_path / "run.trec"
    path.write_text(f"{EXAMPLES[0].query.query_id} Q0 {ids['positive 0']} 1 5 t\n")
    texts = read_mining_texts(EXAMPLES)
    source = RunCandidates(
        path=path, texts=texts, documents=passages_of_examples(EXAMPLES), places=texts.places
    )
    with pytest.raises(UserError, match=r"^task\.run_file=.*: leaves none.*Fix: a run with more"):
        mined(_new(tmp_path / "run"), job(texts, source))
    scored = [example("q", ["a"], ["a", "b"], positive_scores=(1.0,),
                      hard_negative_scores=(0.5, float("nan")))]  # fmt: skip
    teacher = TeacherCandidates(examples=scored, texts=read_mining_texts(scored))
    with pytest.raises(UserError, match=r"^task\.use_scores=true: leaves none.*Fix: ") as info:
        mined(_new(tmp_path / "teacher"), job(read_mining_texts(scored), teacher), scored)
    assert "task.corpus" not in str(info.value)


def test_margins_without_scores_of_positives_are_named_in_the_remedy(tmp_path: Path) -> None:
    scored = [example("q", ["a"], ["b"], hard_negative_scores=(0.5,))]
    texts = read_mining_texts(scored)
    bounds = NegativeFilter(max_score=3, absolute_margin=0.1)
    work = job(texts, TeacherCandidates(examples=scored, texts=texts), filter=bounds)
    with pytest.raises(
        UserError,
        match=r"^task\.filter\.absolute_margin=0\.1: .*task\.filter\.absolute_margin=null",
    ):
        mined(tmp_path, work, scored)


def test_lines_with_an_unscored_positive_are_counted(tmp_path: Path) -> None:
    scored = [example("q", ["a", "b"], ["c"], positive_scores=(5.0, float("nan")),
                      hard_negative_scores=(3.0,))]  # fmt: skip
    texts = read_mining_texts(scored)
    source = TeacherCandidates(examples=scored, texts=texts)
    work = job(texts, source, filter=NegativeFilter(absolute_margin=0))
    file = MinedFile(tmp_path, key="k")
    work.write(file, scored, percentile_score=None)
    report = mining_report(file.path, file.counts)
    assert report["counts"]["queries_with_unscored_positive"] == 1
    shown = report_lines(report, work)
    assert any(
        "1 compared with only those of their positives that have a" in line for line in shown
    )


def test_the_report_counts_every_query_and_describes_ranks_and_scores(tmp_path: Path) -> None:
    texts = read_mining_texts(EXAMPLES)
    work = job(texts, dense(texts), top_k=30, filter=NegativeFilter(absolute_margin=0.2))
    file = MinedFile(tmp_path, key="k")
    work.write(file, EXAMPLES, percentile_score=None)
    report = mining_report(file.path, file.counts)
    counts = report["counts"]
    lines = [json.loads(text) for text in file.path.read_text().splitlines()]
    assert counts["queries_in"] == 40
    assert counts["queries_out"] == len(lines) < 40
    assert counts["queries_out"] + sum(counts["without_negatives"].values()) == 40
    ranks = [rank for line in lines for rank in line["mined"]["ranks"]]
    assert counts["negatives"] == len(ranks)
    assert report["percentiles"]["ranks"]["p50"] == np.median(ranks)
    assert any("Left out: " in line and "the filter" in line for line in report_lines(report, work))


def test_queries_without_a_negative_are_kept_on_request(tmp_path: Path) -> None:
    texts = read_mining_texts(EXAMPLES)
    bounds = NegativeFilter(absolute_margin=0.2)
    found: dict[bool, list[dict[str, Any]]] = {}
    for keep in (False, True):
        work = job(texts, dense(texts), top_k=30, filter=bounds, keep_queries=keep)
        file = MinedFile(_new(tmp_path / str(keep)), key="k")
        work.write(file, EXAMPLES, percentile_score=None)
        found[keep] = [json.loads(text) for text in file.path.read_text().splitlines()]
        report = mining_report(file.path, file.counts)
        assert report["counts"]["queries_out"] == len(found[False]) < 40
        assert report["counts"]["lines"] == len(found[keep])
    assert [line["query"] for line in found[True]] == [each.query.text for each in EXAMPLES]
    assert [line for line in found[True] if line["negative_passages"]] == found[False]
    shown = report_lines(report, work)
    without = 40 - len(found[False])
    assert any(f"Kept without hard negatives: {without} (" in line for line in shown)
    scores = [score for line in found[False] for score in line["mined"]["positive_scores"]]
    assert report["percentiles"]["positive_scores"]["p50"] == np.median(scores)
