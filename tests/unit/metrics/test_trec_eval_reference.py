"""trec_eval's own regression outputs, reproduced value by value to the printed digits.

What our report names cover (nDCG, MAP, MRR, P, Recall, Success) goes through `evaluate_run`, with
missing queries (-c), the relevance level (-l) and cuts of the run (-M) by our functions. The rest
of what pytrec_eval has goes to pytrec_eval directly and shows that its trec_eval is the real one.

Not reproducible with pytrec_eval: strings (runid, relstring), the measures rbp and unj, which came
with a later trec_eval, and the outputs out.test.prefs, .qrels_prefs and .qrels_jg, whose input
formats it does not have (the last test here would notice if it did).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import pytest
import pytrec_eval
import pytrec_eval_ext

from quarry.metrics.ranking import rank_documents
from quarry.metrics.run_files import read_run, read_trec_qrels
from quarry.metrics.trec import evaluate_run, mean_scores
from quarry.types import Qrels, Run

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "trec_eval_test"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="trec_eval's test data are not beside the repository (shared/data)"
)

FAMILIES = {
    "ndcg_cut": "nDCG",
    "map_cut": "MAP",
    "recall": "Recall",
    "P": "P",
    "success": "Success",
}
FULL_RANKING = {"ndcg": "nDCG", "map": "MAP", "recip_rank": "MRR"}

NO_NUMBER = {"runid", "relstring", "relstring_20"}
LATER_MEASURES = {"rbp", "rbp_resid", "unj_5", "unj_10", "unj_20"}

# The relevant documents that make up a recall level: trec_eval 9.1 rounds, pytrec_eval's older
# copy truncates after adding 0.9. Where that is another document, interpolated precision and its
# average differ. They are no measures of ours; each of these must differ, and no others.
OTHER_ROUNDING = {
    ("iprec_at_recall_0.10", "301"),
    ("iprec_at_recall_0.60", "302"),
    ("11pt_avg", "302"),
    ("iprec_at_recall_0.10", "all"),
    ("iprec_at_recall_0.60", "all"),
    ("11pt_avg", "all"),
}
OTHER_ROUNDING_AT_LEVEL_2 = OTHER_ROUNDING | {
    ("11pt_avg", "301"),
    ("iprec_at_recall_0.90", "303"),
    ("11pt_avg", "303"),
    ("iprec_at_recall_0.90", "all"),
}


@dataclass
class Comparison:
    """What became of the lines of an expected output."""

    num_ours: int = 0
    num_direct: int = 0
    left_out: set[str] = field(default_factory=set)
    different: set[tuple[str, str]] = field(default_factory=set)


def report_name(trec_name: str) -> str | None:
    """Our name of a measure in trec_eval's output, if we have it."""
    if trec_name in FULL_RANKING:
        return FULL_RANKING[trec_name]
    family, _, cutoff = trec_name.rpartition("_")
    return f"{FAMILIES[family]}@{cutoff}" if family in FAMILIES and cutoff.isdigit() else None


def expected_lines(output: str) -> list[tuple[str, str, str]]:
    """Measure, query id or "all", printed value."""
    lines = (FOLDER / output).read_text(encoding="utf-8").splitlines()
    return [(name, query_id, printed) for name, query_id, printed in map(str.split, lines)]


def ours(qrels: Qrels, run: Run, names: set[str], level: int = 1) -> dict[str, dict[str, float]]:
    """trec_eval's names of measures -> query id or "all" -> value, by our functions."""
    reported = {name: report for name in names if (report := report_name(name)) is not None}
    measures = sorted(set(reported.values()))
    scores = evaluate_run(qrels=qrels, run=run, measures=measures, relevance_level=level)
    means = mean_scores(scores)
    return {name: {**scores[report], "all": means[report]} for name, report in reported.items()}


def direct(qrels: Qrels, run: Run, level: int = 1) -> dict[str, dict[str, float]]:
    """The same by pytrec_eval alone, for all its measures.

    It drops missing queries and can crash on empty results: an unjudged document stands in.
    """
    evaluator = pytrec_eval.RelevanceEvaluator(
        qrels, pytrec_eval.supported_measures - NO_NUMBER, relevance_level=level
    )
    by_query = evaluator.evaluate({query: run.get(query, {"stand-in": 0.0}) for query in qrels})
    by_measure: dict[str, dict[str, float]] = {}
    for query_id, values in by_query.items():
        for name, value in values.items():
            by_measure.setdefault(name, {})[query_id] = value
    for name, values in by_measure.items():
        values["all"] = pytrec_eval.compute_aggregated_measure(name, list(values.values()))
    return by_measure


def compare(
    output: str,
    our_values: Mapping[str, Mapping[str, float]],
    direct_values: Mapping[str, Mapping[str, float]],
) -> Comparison:
    comparison = Comparison()
    for name, query_id, printed in expected_lines(output):
        if name in our_values:
            value = our_values[name][query_id]
            comparison.num_ours += 1
        elif name in direct_values:
            value = direct_values[name][query_id]
            comparison.num_direct += 1
        else:
            comparison.left_out.add(name)
            continue
        digits = 4 if "." in printed else 0
        if f"{value:.{digits}f}" != printed:
            comparison.different.add((name, query_id))
    return comparison


def standardised(by_measure: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """(value - mean) / standard deviation, where trec_eval's file has both; 0 if all were equal."""
    moments = {}
    for line in (FOLDER / "zscores_file").read_text(encoding="utf-8").splitlines():
        query_id, name, mean, deviation = line.split()
        moments[query_id, name] = float(mean), float(deviation)
    scored = {}
    for name, values in by_measure.items():
        scores = {}
        for query_id, value in values.items():
            if (query_id, name) in moments:
                mean, deviation = moments[query_id, name]
                scores[query_id] = (value - mean) / deviation if deviation else 0.0
        if scores:
            total = pytrec_eval.compute_aggregated_measure(name, list(scores.values()))
            scored[f"Z{name}"] = {**scores, "all": total}
    return scored


def names_in(output: str) -> set[str]:
    return {name for name, _, _ in expected_lines(output)}


def truncated_run(folder: Path) -> Run:
    """Its last lines have remarks after the sixth column, which our reader refuses by design."""
    lines = (FOLDER / "results.trunc").read_text(encoding="utf-8").splitlines()
    path = folder / "results.trunc"
    path.write_text("".join(" ".join(line.split()[:6]) + "\n" for line in lines), encoding="utf-8")
    return read_run(path)


def cut(run: Run, num_documents: int) -> Run:
    return {
        query_id: {
            document_id: scores[document_id]
            for document_id in rank_documents(scores)[:num_documents]
        }
        for query_id, scores in run.items()
    }


@pytest.mark.parametrize(
    ("output", "num_ours", "num_direct", "left_out"),
    [
        # trec_eval; -m all_trec; -m all_trec -q
        ("out.test", 11, 18, {"runid"}),
        ("out.test.a", 42, 51, {"runid"} | LATER_MEASURES),
        ("out.test.aq", 168, 195, {"runid", "relstring"} | LATER_MEASURES),
    ],
)
def test_plain_outputs(output: str, num_ours: int, num_direct: int, left_out: set[str]) -> None:
    qrels, run = read_trec_qrels(FOLDER / "qrels.test"), read_run(FOLDER / "results.test")
    found = compare(output, ours(qrels, run, names_in(output)), direct(qrels, run))
    assert (found.num_ours, found.num_direct) == (num_ours, num_direct)
    assert found.left_out == left_out
    lines = {(name, query_id) for name, query_id, _ in expected_lines(output)}
    assert found.different == OTHER_ROUNDING & lines


@pytest.mark.parametrize(
    ("output", "num_documents", "other_rounding"),
    [
        # -m all_trec -q -c; the same with -M100, where no recall level hits another document
        ("out.test.aqc", 500, {("iprec_at_recall_0.10", "301")}),
        ("out.test.aqcM", 100, set()),
    ],
)
def test_missing_queries_count_zero_also_in_cut_runs(
    tmp_path: Path, output: str, num_documents: int, other_rounding: set[tuple[str, str]]
) -> None:
    qrels, run = read_trec_qrels(FOLDER / "qrels.test"), cut(truncated_run(tmp_path), num_documents)
    assert qrels.keys() - run.keys() == {"302"}
    found = compare(output, ours(qrels, run, names_in(output)), direct(qrels, run))
    assert (found.num_ours, found.num_direct) == (168, 195)
    assert found.left_out == {"runid", "relstring"} | LATER_MEASURES
    # The two measures that see the document that stands in for the results of query 302.
    stand_in = {(name, query) for name in ("num_ret", "utility") for query in ("302", "all")}
    assert found.different == other_rounding | stand_in


def test_relevance_level_two() -> None:
    # -m all_trec -mrelstring.20 -q -l2
    qrels, run = read_trec_qrels(FOLDER / "qrels.rel_level"), read_run(FOLDER / "results.test")
    our_values = ours(qrels, run, names_in("out.test.aql"), level=2)
    found = compare("out.test.aql", our_values, direct(qrels, run, level=2))
    assert (found.num_ours, found.num_direct) == (168, 195)
    assert found.left_out == {"runid", "relstring_20"} | LATER_MEASURES
    assert found.different == OTHER_ROUNDING_AT_LEVEL_2


def test_measures_with_parameters() -> None:
    # -q -miprec_at_recall..10,.20,.25,.75,.50 -mP.5,7,3 -mrecall.20,2000 -mRprec_mult.5.0,0.2,0.35
    # -mutility.2,-1,0,0 -m11pt_avg..25,.5,.75 -mndcg.1=3,2=9,4=4.5 -mndcg_cut.10,20,23
    # -msuccess.2,5,20
    output = "out.test.meas_params"
    qrels, run = read_trec_qrels(FOLDER / "qrels.test"), read_run(FOLDER / "results.test")
    our_values = ours(qrels, run, names_in(output))
    # A gain for a grade: our gains are the grades, so the judgements carry it.
    gains = {
        query: {doc: 3 * grade for doc, grade in grades.items()} for query, grades in qrels.items()
    }
    our_values["ndcg_1=3,2=9,4=4.5"] = ours(gains, run, {"ndcg"})["ndcg"]
    # pytrec_eval's own reading of parameters takes neither signs nor ".5"; its base class does.
    requests = {
        "iprec_at_recall": "iprec_at_recall..10,.20,.25,.75,.50",
        "Rprec_mult": "Rprec_mult.5.0,0.2,0.35",
        "utility_2,-1,0,0": "utility.2,-1,0,0",
        "11pt_avg_.25,.5,.75": "11pt_avg..25,.5,.75",
    }
    evaluator = pytrec_eval_ext.RelevanceEvaluator(qrels, {*requests.values()}, 1, False)
    by_query = evaluator.evaluate(run)
    direct_values = {}
    for name in names_in(output) - our_values.keys():
        key = re.sub(r"_[-.\d]+(,[-.\d]+)+$", "", name)  # it leaves lists out of the name
        values = {query_id: by_query[query_id][key] for query_id in by_query}
        direct_values[name] = {**values, "all": fmean(values.values())}
    found = compare(output, our_values, direct_values)
    assert (found.num_ours, found.num_direct) == (48, 40)
    assert found.left_out == set()
    assert found.different == {
        ("iprec_at_recall_0.10", "301"),
        ("iprec_at_recall_0.25", "302"),
        ("11pt_avg_.25,.5,.75", "302"),
        ("iprec_at_recall_0.10", "all"),
        ("iprec_at_recall_0.25", "all"),
        ("11pt_avg_.25,.5,.75", "all"),
    }


def test_standard_scores() -> None:
    # -m all_trec -q -Z zscores_file
    output = "out.test.aqZ"
    qrels, run = read_trec_qrels(FOLDER / "qrels.test"), read_run(FOLDER / "results.test")
    names = {name.removeprefix("Z") for name in names_in(output)}
    found = compare(output, standardised(ours(qrels, run, names)), standardised(direct(qrels, run)))
    assert (found.num_ours, found.num_direct) == (168, 192)
    without_moments = {"Znum_q", "Zgm_map", "Zgm_bpref"}
    assert found.left_out == (
        {"runid", "relstring"} | {f"Z{name}" for name in LATER_MEASURES} | without_moments
    )
    averages = {("11pt_avg", "301")}  # differs by less than its printed digits without -Z
    assert found.different == {(f"Z{name}", query) for name, query in OTHER_ROUNDING | averages}


def test_a_single_query() -> None:
    qrels, run = read_trec_qrels(FOLDER / "qrels-302.test"), read_run(FOLDER / "results-302.test")
    our_values = ours(qrels, run, names_in("out.test.aq"))
    expected = {name: text for name, query, text in expected_lines("out.test.aq") if query == "302"}
    assert {name: f"{values['302']:.4f}" for name, values in our_values.items()} == {
        name: expected[name] for name in our_values
    }
    assert len(our_values) == 42


@pytest.mark.parametrize("output", ["out.test.prefs", "out.test.qrels_prefs", "out.test.qrels_jg"])
def test_preference_and_judgement_group_outputs_are_beyond_pytrec_eval(output: str) -> None:
    names = names_in(output) - {"runid", "num_q"}
    assert len(names) >= 14
    for supported in pytrec_eval.supported_measures:
        pattern = re.compile(re.escape(supported) + r"(_[\d.]+)?")
        assert not [name for name in names if pattern.fullmatch(name)]
