"""Each measure by hand, and the conventions: who counts, who is relevant, who comes first."""

import copy
import logging
import random
from math import log2

import numpy as np
import pytest
import pytrec_eval
import torch

from quarry.errors import UserError
from quarry.metrics.trec import Measure, evaluate_run, mean_scores, parse_measure
from quarry.types import Qrels, Run

# Ranked: an unjudged document, grade 2, grade -1, grade 3. Not found: the one of grade 1.
QRELS = {"q": {"a": 3, "b": 2, "c": 0, "d": 1, "e": -1}}
RUN = {"q": {"x": 9.0, "b": 7.0, "e": 5.0, "a": 3.0}}
IDEAL_DCG = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)


def value(name: str, *, qrels: Qrels = QRELS, run: Run = RUN, relevance_level: int = 1) -> float:
    scores = evaluate_run(qrels=qrels, run=run, measures=[name], relevance_level=relevance_level)
    assert list(scores) == [name]
    return scores[name]["q"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nDCG", (2 / log2(3) + 3 / log2(5)) / IDEAL_DCG),
        ("nDCG@10", (2 / log2(3) + 3 / log2(5)) / IDEAL_DCG),
        ("nDCG@3", (2 / log2(3)) / IDEAL_DCG),
        ("nDCG@2", (2 / log2(3)) / (3 / log2(2) + 2 / log2(3))),
        ("nDCG@1", 0.0),
        ("Recall@1", 0.0),
        ("Recall@3", 1 / 3),
        ("Recall@100", 2 / 3),
        ("P@2", 1 / 2),
        ("P@4", 2 / 4),
        ("P@10", 2 / 10),
        ("MAP", (1 / 2 + 2 / 4) / 3),
        ("MAP@3", (1 / 2) / 3),
        ("MRR", 1 / 2),
        ("MRR@2", 1 / 2),
        ("MRR@1", 0.0),
        ("Success@1", 0.0),
        ("Success@2", 1.0),
    ],
)
def test_measures_by_hand(name: str, expected: float) -> None:
    assert value(name) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "level_2", "level_3", "level_4"),
    [
        ("Recall@3", 1 / 2, 0.0, 0.0),
        ("Recall@4", 2 / 2, 1 / 1, 0.0),
        ("P@4", 2 / 4, 1 / 4, 0.0),
        ("MAP", (1 / 2 + 2 / 4) / 2, 1 / 4, 0.0),
        ("MAP@3", (1 / 2) / 2, 0.0, 0.0),
        ("MRR", 1 / 2, 1 / 4, 0.0),
        ("MRR@3", 1 / 2, 0.0, 0.0),
        ("Success@3", 1.0, 0.0, 0.0),
    ],
)
def test_the_relevance_level_says_who_is_relevant(
    name: str, level_2: float, level_3: float, level_4: float
) -> None:
    values = [value(name, relevance_level=level) for level in (2, 3, 4)]
    assert values == pytest.approx([level_2, level_3, level_4], abs=1e-12)


@pytest.mark.parametrize("name", ["nDCG", "nDCG@3"])
def test_ndcg_has_graded_gains_at_any_relevance_level(name: str) -> None:
    assert value(name) > 0
    assert all(value(name, relevance_level=level) == value(name) for level in (2, 3, 4))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("nDCG@3", 1 / log2(4)), ("MAP", 1 / 3), ("MRR", 1 / 3), ("MRR@2", 0.0), ("Recall@2", 0.0)],
)
def test_ties_go_by_document_id_descending(name: str, expected: float) -> None:
    run = {"q": {"d1": 1.0, "d10": 1.0, "d9": 1.0}}  # d9, d10, d1
    assert value(name, qrels={"q": {"d1": 1}}, run=run) == pytest.approx(expected, abs=1e-12)


def test_scores_that_differ_in_double_precision_are_no_tie() -> None:
    qrels, run = {"q": {"a": 1}}, {"q": {"a": 1.0 + 1e-12, "b": 1.0}}
    alone = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.1"}).evaluate(run)
    assert alone["q"]["ndcg_cut_1"] == 0.0  # in single precision b comes first
    names = ["nDCG@1", "MRR@1", "Recall@1"]
    assert [value(name, qrels=qrels, run=run) for name in names] == [1.0, 1.0, 1.0]


def test_every_judged_query_counts_and_no_other() -> None:
    qrels = {
        "absent": {"a": 1},
        "found": {"a": 1},
        "without results": {"a": 1},
        "no positive": {"a": 0, "b": -1},
        "no grades": {},
    }
    hit = {"a": 2.0, "b": 1.0}
    run = {
        "stranger": hit,
        "no grades": hit,
        "no positive": hit,
        "found": hit,
        "without results": {},
    }
    names = ["nDCG", "nDCG@10", "Recall@5", "MRR", "MRR@10", "MAP", "MAP@5", "P@1", "Success@1"]
    scores = evaluate_run(qrels=qrels, run=run, measures=names)
    for name in names:
        assert list(scores[name]) == list(qrels), name
        assert scores[name] == {query_id: float(query_id == "found") for query_id in qrels}, name
    assert mean_scores(scores) == dict.fromkeys(names, 1 / 5)


def test_a_run_without_any_judged_query_scores_zero() -> None:
    assert value("nDCG@10", run={}) == 0.0
    assert value("nDCG@10", run={"other": {"a": 1.0}}) == 0.0


def test_queries_without_judgements_are_counted_in_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="quarry"):
        value("nDCG@10", run={**RUN, "p": {"a": 1.0}, "r": {"a": 1.0}})
    assert [record.getMessage() for record in caplog.records] == [
        "ignored 2 of 3 queries: they have no judgements"
    ]


def test_no_warning_when_every_query_is_judged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="quarry"):
        value("nDCG@10")
    assert not caplog.records


def test_takes_numpy_and_torch_scores() -> None:
    scores = RUN["q"]
    as_numpy = {"q": {document: np.float32(score) for document, score in scores.items()}}
    as_torch = {"q": {document: torch.tensor(score) for document, score in scores.items()}}
    for name in ("nDCG@3", "MRR@10", "MAP"):
        assert value(name, run=as_numpy) == value(name, run=as_torch) == value(name)


def test_arguments_are_not_changed() -> None:
    qrels, run = copy.deepcopy(QRELS), copy.deepcopy(RUN)
    evaluate_run(qrels=qrels, run=run, measures=["nDCG@10", "MRR@10"])
    assert (qrels, run) == (QRELS, RUN)


def test_equals_pytrec_eval_on_random_runs_full_of_ties() -> None:
    rng = random.Random(0)
    documents = [f"d{number}" for number in range(50)] + ["é", "ß", "\uffff", "\U00010000"]
    run = {
        f"q{number}": {document: rng.randrange(8) / 8 for document in rng.sample(documents, 40)}
        for number in range(40)
    }
    qrels = {
        query_id: {document: rng.choice([-1, 0, 1, 2]) for document in rng.sample(documents, 20)}
        for query_id in run
    }
    keys = {
        "nDCG": "ndcg",
        "nDCG@10": "ndcg_cut_10",
        "Recall@20": "recall_20",
        "MRR": "recip_rank",
        "MAP": "map",
        "MAP@10": "map_cut_10",
        "P@5": "P_5",
        "Success@1": "success_1",
    }
    for level in (1, 2):
        ours = evaluate_run(qrels=qrels, run=run, measures=[*keys], relevance_level=level)
        evaluator = pytrec_eval.RelevanceEvaluator(qrels, {*keys.values()}, relevance_level=level)
        theirs = evaluator.evaluate(run)
        for name, key in keys.items():
            assert ours[name] == {query_id: theirs[query_id][key] for query_id in qrels}, name


def test_means_are_over_queries() -> None:
    per_query = {"nDCG@10": {"p": 0.25, "q": 0.5, "r": 0.0}, "MRR": {"p": 1.0}}
    assert mean_scores(per_query) == {"nDCG@10": 0.25, "MRR": 1.0}


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("nDCG@10", Measure(trec_name="ndcg_cut", k=10)),
        ("nDCG", Measure(trec_name="ndcg")),
        ("Recall@100", Measure(trec_name="recall", k=100)),
        ("MRR@10", Measure(trec_name="recip_rank", k=10)),
        ("MAP", Measure(trec_name="map")),
    ],
)
def test_report_names_are_read(name: str, measure: Measure) -> None:
    assert parse_measure(name) == measure


@pytest.mark.parametrize(
    "name",
    [
        *("ndcg@10", "nDCG10", "ndcg_cut_10", "F1@10", "", "Recall", "P", "Success"),
        *("nDCG@", "nDCG@0", "nDCG@-1", "nDCG@1.5", "nDCG@ 10", "nDCG@010", "MAP@all"),
    ],
)
def test_a_wrong_measure_is_told_the_forms(name: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate_run(qrels=QRELS, run=RUN, measures=["nDCG@10", name])
    message = str(caught.value)
    assert repr(name) in message
    forms = "nDCG@k, Recall@k, Recall_cap@k, MRR@k, MAP@k, P@k, Success@k, nDCG, MAP, MRR"
    assert forms in message


def test_without_judgements_nothing_can_be_scored() -> None:
    with pytest.raises(UserError, match="no query is judged"):
        evaluate_run(qrels={}, run=RUN, measures=["nDCG@10"])


@pytest.mark.parametrize("level", [0, -1])
def test_a_relevance_level_below_one_is_refused(level: int) -> None:
    with pytest.raises(UserError, match=f"relevance_level={level}"):
        evaluate_run(qrels=QRELS, run=RUN, measures=["nDCG@10"], relevance_level=level)


def test_a_nan_score_is_refused() -> None:
    with pytest.raises(UserError, match="NaN"):
        value("nDCG@10", run={"q": {"a": float("nan")}})


def test_a_grade_that_trec_eval_crashes_on_is_refused() -> None:
    with pytest.raises(UserError, match=r"'q'.*'d'.*4611686018427387904"):
        evaluate_run(qrels={"q": {"d": 2**62}}, run={"q": {"d": 1.0}}, measures=["nDCG@10"])
