"""What an evaluation leaves in a run directory: names, metrics.json, merging, per-query, runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from quarry.errors import MissingPathError, UserError
from quarry.evaluation.run_directory_files import (
    metrics_document,
    per_query_path,
    read_reports,
    run_path,
    safe_name,
    write_results,
    write_runs,
)
from quarry.metrics.run_files import read_run
from quarry.runtime.files import write_text
from quarry.types import Report, SetResult

NASTY = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/absolute",
    "..\\windows",
    ".hidden",
    "-rf",
    "a b",
    "a/b",
    "a_b",
    "a=b",
    "a\nb",
    "a\x00b",
    "naïve",
    "日本語",
    "中文字",
    "\ud800",
    "x" * 300,
    "x" * 301,
    "cqadupstack/android",
    "~",
    "$(rm -rf .)",
    "scifact",
]


def a_result(name: str = "scifact", **changes: object) -> SetResult:
    fields = {
        "name": name,
        "metrics": {"nDCG@10": 0.1 + 0.2},
        "per_query": {"nDCG@10": {"q1": 1 / 3, "q2": 0.0}},
        "run": {"q1": {"d1": 1.5, "d2": 0.25}},
        "num_queries": 2,
        "num_documents": 7,
        "convention": {"self_match_removal": True},
        "source": "mteb/scifact@d56462d0, test",
        "licence": "cc-by-4.0",
    }
    return SetResult(**(fields | changes))  # type: ignore[arg-type]


def a_report(retriever: str = "bm25", *results: SetResult) -> Report:
    return Report(retriever=retriever, results=results or (a_result(),))


@pytest.mark.parametrize("name", ["scifact", "trec-dl-2019", "stdlib_code", "qwen2.5", "A", "_x"])
def test_harmless_names_are_kept(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("name", NASTY)
def test_names_are_safe(name: str) -> None:
    safe = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", safe)
    assert safe not in {".", ".."}


def test_different_names_stay_different() -> None:
    once = {safe_name(name) for name in NASTY}
    assert len(once) == len(NASTY)
    # A set that bears the safe name of another one does not get its file.
    assert not once & {safe_name(safe_name(name)) for name in NASTY if safe_name(name) != name}


def test_paths_stay_inside_and_apart(tmp_path: Path) -> None:
    pairs = [(s, r) for s in NASTY for r in NASTY] + [("a.b", "c"), ("a", "b.c")]
    for path_of in (run_path, per_query_path):
        paths = {path_of(tmp_path, set_name=s, retriever=r).resolve() for s, r in pairs}
        assert len(paths) == len(pairs)
        assert all(path.parent.parent == tmp_path.resolve() for path in paths)
        assert all(len(path.name) <= 255 for path in paths)


def test_file_names_of_plain_names(tmp_path: Path) -> None:
    names = {"set_name": "scifact", "retriever": "qwen2.5"}
    assert run_path(tmp_path, **names) == tmp_path / "runs" / "scifact.qwen2.5.trec"
    assert per_query_path(tmp_path, **names) == tmp_path / "per_query" / "scifact.qwen2.5.jsonl"


def test_metrics_document() -> None:
    bm25 = a_report(
        "bm25",
        a_result("scifact", metrics={"nDCG@10": 0.25, "MRR@10": 0.5}),
        a_result(
            "nfcorpus",
            metrics={"nDCG@10": 0.75},
            num_queries=3,
            num_documents=9,
            term_tokenizer="words",
        ),
    )
    dense = a_report("dense", a_result("scifact", metrics={"nDCG@10": 1.0}, corpus_dtype="float16"))
    assert metrics_document([bm25, dense]) == {
        "sets": {
            "scifact": {"bm25": {"nDCG@10": 0.25, "MRR@10": 0.5}, "dense": {"nDCG@10": 1.0}},
            "nfcorpus": {"bm25": {"nDCG@10": 0.75}},
        },
        "intervals": {},
        "means": {"bm25": {"nDCG@10": 0.5}, "dense": {"nDCG@10": 1.0}},
        "order": {"retrievers": ["bm25", "dense"], "sets": ["scifact", "nfcorpus"]},
        "num_queries": {"scifact": 2, "nfcorpus": 3},
        "num_documents": {"scifact": 7, "nfcorpus": 9},
        "convention": {
            "scifact": {"self_match_removal": True},
            "nfcorpus": {"self_match_removal": True},
        },
        "group": {"scifact": None, "nfcorpus": None},
        "source": dict.fromkeys(["scifact", "nfcorpus"], "mteb/scifact@d56462d0, test"),
        "licence": dict.fromkeys(["scifact", "nfcorpus"], "cc-by-4.0"),
        "failed": {},
        "corpus_dtype": {"scifact": {"dense": "float16"}},
        "term_tokenizer": {"nfcorpus": {"bm25": "words"}},
        "contract": {},
        "caveats": {},
    }


def test_the_dtype_of_embeddings_comes_back_where_it_was_written(tmp_path: Path) -> None:
    write_results([a_report("bm25"), a_report("dense", a_result(corpus_dtype="float16"))], tmp_path)
    found = {report.retriever: report.results[0].corpus_dtype for report in read_reports(tmp_path)}
    assert found == {"bm25": None, "dense": "float16"}
    file = tmp_path / "metrics.json"
    document = json.loads(file.read_text())
    del document["corpus_dtype"]  # as an earlier version wrote it
    file.write_text(json.dumps(document))
    assert {report.results[0].corpus_dtype for report in read_reports(tmp_path)} == {None}


def test_what_cut_texts_into_terms_comes_back_where_it_was_written(tmp_path: Path) -> None:
    write_results([a_report("bm25", a_result(term_tokenizer="words")), a_report("d")], tmp_path)
    found = {
        report.retriever: report.results[0].term_tokenizer for report in read_reports(tmp_path)
    }
    assert found == {"bm25": "words", "d": None}
    file = tmp_path / "metrics.json"
    document = json.loads(file.read_text())
    del document["term_tokenizer"]  # as an earlier version wrote it
    file.write_text(json.dumps(document))
    assert {report.results[0].term_tokenizer for report in read_reports(tmp_path)} == {None}


def test_caveats_come_back_and_are_kept_where_others_are_merged(tmp_path: Path) -> None:
    caveats = ("2 of 7 documents are empty (28.6 %)", "x")
    write_results([a_report("bm25", a_result(caveats=caveats))], tmp_path)
    file = tmp_path / "metrics.json"
    name = a_result().name
    assert json.loads(file.read_text())["caveats"] == {name: list(caveats)}
    assert read_reports(tmp_path)[0].results[0].caveats == caveats
    write_results([a_report("dense", a_result("other"))], tmp_path, merge=True)
    document = json.loads(file.read_text())
    assert document["caveats"] == {name: list(caveats)}
    del document["caveats"]  # as an earlier version wrote it
    file.write_text(json.dumps(document))
    assert {each.results[0].caveats for each in read_reports(tmp_path)} == {()}


def test_groups_and_failures_come_back_and_a_later_success_counts(tmp_path: Path) -> None:
    parts = [
        a_result(f"forum-{i}", metrics={"nDCG@10": value}, group="forums")
        for i, value in enumerate((0.2, 0.4))
    ]
    first = Report(
        retriever="bm25",
        results=(*parts, a_result("scifact", metrics={"nDCG@10": 0.9})),
        failures={"nq": "cut off", "fever": "no memory"},
    )
    write_results([first], tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["failed"] == {"nq": {"bm25": "cut off"}, "fever": {"bm25": "no memory"}}
    assert document["group"]["forum-0"] == "forums"
    (read,) = read_reports(tmp_path)
    assert read.failures == first.failures
    assert read.mean("nDCG@10") == first.mean("nDCG@10") == pytest.approx((0.3 + 0.9) / 2)
    again = a_report("bm25", a_result("nq", metrics={"nDCG@10": 0.5}))
    (merged,) = write_results([again], tmp_path, merge=True)
    assert merged.failures == {"fever": "no memory"}
    assert [result.name for result in merged.results] == ["forum-0", "forum-1", "scifact", "nq"]


def test_files_hold_full_precision_and_nothing_else_is_left(tmp_path: Path) -> None:
    reports = [a_report("bm25")]
    assert write_results(reports, tmp_path / "new" / "run") == tuple(reports)
    write_runs(reports, tmp_path / "new" / "run")
    directory = tmp_path / "new" / "run"
    files = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    assert files == ["metrics.json", "per_query/scifact.bm25.jsonl", "runs/scifact.bm25.trec"]
    text = (directory / "metrics.json").read_text()
    assert "0.30000000000000004" in text
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert (directory / "per_query/scifact.bm25.jsonl").read_text() == (
        '{"query_id": "q1", "nDCG@10": 0.3333333333333333}\n{"query_id": "q2", "nDCG@10": 0.0}\n'
    )
    assert read_run(directory / "runs/scifact.bm25.trec") == reports[0].results[0].run
    assert (directory / "runs/scifact.bm25.trec").read_text().split()[-1] == "bm25"


def test_read_reports_gives_back_what_was_written(tmp_path: Path) -> None:
    reports = [
        a_report("zeta", a_result("b"), a_result("a/b")),
        a_report("alpha", a_result("a/b", metrics={"MAP": 1 / 3})),
    ]
    write_results(reports, tmp_path)
    stripped = tuple(
        Report(
            retriever=report.retriever,
            results=tuple(
                a_result(r.name, metrics=r.metrics, per_query={}, run={}) for r in report.results
            ),
        )
        for report in reports
    )
    assert read_reports(tmp_path) == stripped


def test_other_results_are_never_lost_silently(tmp_path: Path) -> None:
    write_results([a_report("bm25")], tmp_path)
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(UserError, match=r"metrics\.json: holds results of 'bm25' on 'scifact'"):
        write_results([a_report("dense")], tmp_path)
    assert (tmp_path / "metrics.json").read_bytes() == before
    assert not per_query_path(tmp_path, set_name="scifact", retriever="dense").exists()


def test_the_same_results_may_be_written_again(tmp_path: Path) -> None:
    write_results([a_report("bm25")], tmp_path)
    write_results([a_report("bm25", a_result(metrics={"nDCG@10": 0.5})), a_report("d")], tmp_path)
    sets = json.loads((tmp_path / "metrics.json").read_text())["sets"]
    assert sets == {"scifact": {"bm25": {"nDCG@10": 0.5}, "d": {"nDCG@10": 0.1 + 0.2}}}


def test_merge_keeps_others_and_replaces_the_same(tmp_path: Path) -> None:
    older = [
        a_report("zeta", a_result("b"), a_result("a", metrics={"nDCG@10": 0.25})),
        a_report("bm25", a_result("b")),
    ]
    write_results(older, tmp_path)
    newer = [
        a_report("dense", a_result("b", metrics={"nDCG@10": 1.0})),
        a_report("zeta", a_result("b", metrics={"nDCG@10": 0.75})),
    ]
    merged = write_results(newer, tmp_path, merge=True)
    assert [report.retriever for report in merged] == ["dense", "bm25", "zeta"]
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["sets"] == {
        "a": {"zeta": {"nDCG@10": 0.25}},
        "b": {
            "bm25": {"nDCG@10": 0.1 + 0.2},
            "dense": {"nDCG@10": 1.0},
            "zeta": {"nDCG@10": 0.75},
        },
    }
    assert document["means"]["zeta"] == {"nDCG@10": 0.5}
    assert per_query_path(tmp_path, set_name="b", retriever="bm25").is_file()


def test_the_last_to_write_says_in_which_order_its_retrievers_stand(tmp_path: Path) -> None:
    for name in ("untrained", "best", "trained"):
        write_results([a_report(name)], tmp_path, merge=True)
    names = ["untrained", "trained", "best", "hybrid"]
    merged = write_results([a_report(name) for name in names], tmp_path, merge=True)
    assert [report.retriever for report in merged] == names
    (again, *_) = write_results([a_report("untrained")], tmp_path, merge=True)
    assert again.retriever == "untrained"  # measured anew, it stays where it was


def test_merge_into_nothing_is_a_plain_write(tmp_path: Path) -> None:
    reports = [a_report("bm25")]
    assert write_results(reports, tmp_path, merge=True) == tuple(reports)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_queries": 3}, "num_queries is 3"),
        ({"num_documents": 8}, "num_documents is 8"),
        ({"convention": {"self_match_removal": False}}, "convention is"),
    ],
)
def test_what_cannot_be_compared_is_not_merged(
    tmp_path: Path, change: dict[str, object], key: str
) -> None:
    write_results([a_report("bm25")], tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"'scifact': {key}.*'dense'"):
        write_results([a_report("dense", a_result(**change))], tmp_path, merge=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_convention_with_tuples_equals_itself_after_json(tmp_path: Path) -> None:
    result = a_result(convention={"measures": ("nDCG@10", "MRR@10")})
    write_results([a_report("bm25", result)], tmp_path)
    merged = write_results([a_report("dense", result)], tmp_path, merge=True)
    assert len(merged) == 2


@pytest.mark.parametrize(
    "reports",
    [
        [a_report("bm25"), a_report("bm25")],
        [a_report("bm25", a_result("scifact"), a_result("scifact"))],
    ],
)
def test_names_must_be_unique(tmp_path: Path, reports: list[Report]) -> None:
    with pytest.raises(UserError, match="reported twice"):
        write_results(reports, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sets": {}}', '{"order": {"retrievers": [1]}}'])
def test_a_foreign_metrics_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text)
    for merge in (False, True):
        with pytest.raises(UserError, match="not the metrics of an evaluation"):
            write_results([a_report()], tmp_path, merge=merge)
    assert path.read_text() == text


def test_a_missing_metrics_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=re.escape(str(tmp_path / "metrics.json"))):
        read_reports(tmp_path)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_intervals_and_groups_are_read_back(tmp_path: Path) -> None:
    result = a_result("forum", group="forums", intervals={"nDCG@10": (0.125, 0.5)})
    write_results([a_report("bm25", result)], tmp_path)
    (back,) = read_reports(tmp_path)
    assert back.results[0].group == "forums"
    assert back.results[0].intervals == {"nDCG@10": (0.125, 0.5)}
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["intervals"] == {"forum": {"bm25": {"nDCG@10": [0.125, 0.5]}}}
    assert document["group"] == {"forum": "forums"}


def test_a_retriever_with_failed_sets_has_no_mean() -> None:
    whole = a_report("bm25", a_result("scifact"))
    partial = replace(a_report("dense", a_result("scifact")), failures={"nq": "no network"})
    assert list(metrics_document([whole, partial])["means"]) == ["bm25"]


def test_a_set_is_either_measured_or_failed_whichever_came_last(tmp_path: Path) -> None:
    report = a_report("bm25", a_result("a"), a_result("b"))
    write_results([report], tmp_path)
    failed = Report(retriever="bm25", results=(), failures={"a": "disk full"})
    (merged,) = write_results([failed], tmp_path, merge=True)
    assert [result.name for result in merged.results] == ["b"]
    assert merged.failures == {"a": "disk full"}
    (merged,) = write_results([a_report("bm25", a_result("a"))], tmp_path, merge=True)
    assert sorted(result.name for result in merged.results) == ["a", "b"]
    assert merged.failures == {}


FED = {
    "parts": {"prompt.query": {"value": "q: {text}", "source": "command line"}},
    "notes": ["a note"],
}


def fed(retriever: str = "dense", contract: dict[str, object] | None = None) -> Report:
    return replace(a_report(retriever), contract=FED if contract is None else contract)


def contracts_in(folder: Path) -> object:
    return json.loads((folder / "metrics.json").read_text())["contract"]


def test_how_texts_were_fed_comes_back_where_it_was_written(tmp_path: Path) -> None:
    write_results([a_report("bm25"), fed()], tmp_path)
    assert contracts_in(tmp_path) == {"dense": FED}
    assert {r.retriever: dict(r.contract) for r in read_reports(tmp_path)} == {
        "bm25": {},
        "dense": FED,
    }


def test_merging_keeps_how_texts_were_fed(tmp_path: Path) -> None:
    write_results([fed()], tmp_path)
    write_results([a_report("bm25")], tmp_path, merge=True)
    assert contracts_in(tmp_path) == {"dense": FED}
    # measured again, and by something that does not know it
    another = replace(a_report("dense", a_result("nfcorpus")), contract={})
    write_results([another], tmp_path, merge=True)
    assert contracts_in(tmp_path) == {"dense": FED}
    newer = FED | {"notes": []}
    merged = write_results([fed(contract=newer)], tmp_path, merge=True)
    assert contracts_in(tmp_path) == {"dense": newer}
    assert {r.retriever: dict(r.contract) for r in merged} == {"dense": newer, "bm25": {}}


def test_a_file_of_before_contracts_is_read_and_merged_into(tmp_path: Path) -> None:
    write_results([a_report("old")], tmp_path)
    file = tmp_path / "metrics.json"
    document = json.loads(file.read_text())
    del document["contract"]
    file.write_text(json.dumps(document))
    (report,) = read_reports(tmp_path)
    assert report.contract == {}
    write_results([fed()], tmp_path, merge=True)
    assert contracts_in(tmp_path) == {"dense": FED}


def test_how_texts_were_fed_is_read_with_the_key_names_of_today(tmp_path: Path) -> None:
    fact = {"value": True, "source": "modules.json (Normalize)"}
    stored = {"parts": {"model.is_normalized": fact}, "notes": []}
    write_results([fed(contract=stored)], tmp_path)
    (report,) = read_reports(tmp_path)
    assert report.contract == {"parts": {"model.normalize": fact}, "notes": []}
