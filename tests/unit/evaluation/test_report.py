"""Tables, the result line, and the directory that a report becomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quarry.errors import UserError
from quarry.evaluation.intervals import with_intervals
from quarry.evaluation.report import (
    contract_sections,
    markdown_report,
    result_line,
    terminal_table,
    write_report,
)
from quarry.types import Report, SetResult


def a_result(name: str, group: str | None = None, **metrics: float) -> SetResult:
    """Measures are given as nDCG, Recall and MRR."""
    names = {"nDCG": "nDCG@10", "Recall": "Recall@100", "MRR": "MRR@10"}
    return SetResult(
        name=name,
        metrics={names[key]: value for key, value in metrics.items()},
        per_query={names[key]: {"q": value} for key, value in metrics.items()},
        run={"q": {"d": 1.0}},
        num_queries=1,
        num_documents=7,
        convention={"tie_breaking": "trec_eval"},
        group=group,
    )


ONE_SET = [
    Report(retriever="bm25", results=(a_result("scifact", nDCG=0.5, Recall=0.9, MRR=0.25),)),
    Report(retriever="untrained", results=(a_result("scifact", nDCG=0.125, Recall=0.5, MRR=0.1),)),
    Report(retriever="trained", results=(a_result("scifact", nDCG=0.75, Recall=0.9, MRR=1.0),)),
]
SEVERAL_SETS = [
    Report(
        retriever="bm25",
        results=(a_result("a", nDCG=0.25, MRR=0.5), a_result("b", nDCG=0.5, MRR=0.5)),
    ),
    Report(
        retriever="dense",
        results=(a_result("a", nDCG=0.5, MRR=0.25), a_result("b", nDCG=0.0, MRR=1.0)),
    ),
]


def test_result_line_of_several_retrievers_on_one_set() -> None:
    assert result_line(ONE_SET) == "nDCG@10 bm25=0.5000 untrained=0.1250 trained=0.7500"


def test_result_line_of_one_retriever_names_the_sets() -> None:
    assert result_line(SEVERAL_SETS[:1]) == "nDCG@10 a=0.2500 b=0.5000 mean=0.3750"
    assert result_line(ONE_SET[:1], "MRR@10") == "MRR@10 scifact=0.2500"


def test_result_line_of_several_of_both_gives_means() -> None:
    assert result_line(SEVERAL_SETS) == "nDCG@10 bm25=0.3750 dense=0.2500"


def test_result_line_can_be_split_whatever_the_names() -> None:
    names = ["a b", "a=b", "a\nb", "", "=", "plain"]
    report = Report(retriever="r", results=tuple(a_result(name, nDCG=0.5) for name in names))
    measure, *entries = result_line([report]).split(" ")
    assert measure == "nDCG@10"
    parsed = dict(entry.split("=") for entry in entries)
    assert len(parsed) == len(names) + 1
    assert entries[-1] == "mean=0.5000"
    assert set(parsed.values()) == {"0.5000"}
    assert "plain" in parsed


def test_result_line_needs_every_value() -> None:
    with pytest.raises(UserError, match="'bm25' has no MAP on set 'scifact'"):
        result_line(ONE_SET, "MAP")
    with pytest.raises(UserError, match=r"'dense' has no nDCG@10 on set 'b'"):
        result_line([SEVERAL_SETS[0], Report(retriever="dense", results=(a_result("a", nDCG=1),))])


def test_terminal_table_of_one_set() -> None:
    assert terminal_table(ONE_SET) == (
        "retriever  nDCG@10  Recall@100  MRR@10\n"
        "---------  -------  ----------  ------\n"
        "bm25        0.5000      0.9000  0.2500\n"
        "untrained   0.1250      0.5000  0.1000\n"
        "trained     0.7500      0.9000  1.0000"
    )


def test_terminal_table_of_several_sets() -> None:
    assert terminal_table(SEVERAL_SETS) == (
        "nDCG@10\n"
        "set     bm25   dense\n"
        "----  ------  ------\n"
        "a     0.2500  0.5000\n"
        "b     0.5000  0.0000\n"
        "mean  0.3750  0.2500"
    )


def test_terminal_table_is_aligned_for_wide_and_steering_characters() -> None:
    report = Report(retriever="日本", results=(a_result("x", nDCG=0.5),))
    evil = Report(retriever="\x1b[31mred\n", results=(a_result("x", nDCG=0.25),))
    assert terminal_table([report, evil]) == (
        "retriever  nDCG@10\n---------  -------\n日本        0.5000\n[31mred     0.2500"
    )


def test_markdown_of_one_set_with_the_best_bold_ties_included() -> None:
    assert markdown_report(ONE_SET) == (
        "# Retrieval results: scifact\n"
        "\n"
        "| retriever |    nDCG@10 | Recall@100 |     MRR@10 |\n"
        "| --------- | ---------: | ---------: | ---------: |\n"
        "| bm25      |     0.5000 | **0.9000** |     0.2500 |\n"
        "| untrained |     0.1250 |     0.5000 |     0.1000 |\n"
        "| trained   | **0.7500** | **0.9000** | **1.0000** |\n"
        "\n"
        "## Sets\n"
        "\n"
        "| set     | source | licence | queries | documents |\n"
        "| ------- | ------ | ------- | ------: | --------: |\n"
        "| scifact | -      | -       |       1 |         7 |\n"
        "\n"
        "| convention   | value     |\n"
        "| ------------ | --------- |\n"
        "| tie breaking | trec_eval |\n"
    )


def test_markdown_of_several_sets_has_a_table_for_each_measure() -> None:
    text = markdown_report(SEVERAL_SETS)
    assert text.startswith(
        "# Retrieval results\n"
        "\n"
        "## nDCG@10\n"
        "\n"
        "| set  |       bm25 |      dense |\n"
        "| ---- | ---------: | ---------: |\n"
        "| a    |     0.2500 | **0.5000** |\n"
        "| b    | **0.5000** |     0.0000 |\n"
        "| mean | **0.3750** |     0.2500 |\n"
        "\n"
        "## MRR@10\n"
        "\n"
        "| set  |       bm25 |      dense |\n"
        "| ---- | ---------: | ---------: |\n"
        "| a    | **0.5000** |     0.2500 |\n"
        "| b    |     0.5000 | **1.0000** |\n"
        "| mean |     0.5000 | **0.6250** |\n"
        "\n"
        "## Sets\n"
    )
    assert "Recall@100" not in text


GROUPED = [
    Report(
        retriever=retriever,
        results=(
            a_result("forum-a", group="forums", nDCG=first),
            a_result("alone", nDCG=0.5),
            a_result("forum-b", group="forums", nDCG=first + 0.25),
        ),
    )
    for retriever, first in (("bm25", 0.0), ("dense", 0.5))
]


def test_a_group_is_one_row_and_counts_once() -> None:
    assert terminal_table(GROUPED) == (
        "nDCG@10\n"
        "set                   bm25   dense\n"
        "------------------  ------  ------\n"
        "forums (mean of 2)  0.1250  0.6250\n"
        "alone               0.5000  0.5000\n"
        "mean                0.3125  0.5625"
    )
    assert result_line(GROUPED) == "nDCG@10 bm25=0.3125 dense=0.5625"
    assert GROUPED[1].mean("nDCG@10") == 0.5625
    assert result_line(GROUPED[:1]) == (
        "nDCG@10 forum-a=0.0000 forum-b=0.2500 alone=0.5000 mean=0.3125"
    )


def test_the_sets_of_a_group_stand_below() -> None:
    page = markdown_report(GROUPED)
    main, members = page.split("The sets of the groups:")
    assert "forum-a" not in main
    rows = [line.split("|")[1].strip() for line in members.splitlines() if line.startswith("| ")]
    assert rows[2:4] == ["forum-a", "forum-b"]
    assert "alone" not in members.split("## Sets")[0]


def test_a_group_that_lacks_a_set_here_has_no_value_here() -> None:
    partial = Report(retriever="partial", results=GROUPED[0].results[:2])
    rows = terminal_table([*GROUPED, partial]).splitlines()
    assert rows[3].split()[-1] == "-"
    assert rows[5].split() == ["mean", "0.3125", "0.5625", "-"]


FAILED = [
    Report(retriever="bm25", results=(a_result("a", nDCG=0.25), a_result("b", nDCG=0.75))),
    Report(
        retriever="dense",
        results=(a_result("b", nDCG=0.5),),
        failures={"a": "too | long", "c": "x"},
    ),
]


def test_what_failed_is_shown_and_left_out_of_every_mean() -> None:
    assert [line.split() for line in terminal_table(FAILED).splitlines()[1:]] == [
        ["set", "bm25", "dense"],
        ["-" * 17, "------", "------"],
        ["a", "0.2500", "failed"],
        ["b", "0.7500", "0.5000"],
        ["c", "-", "failed"],
        ["mean", "without", "a,", "c", "0.7500", "0.5000"],
    ]
    section = markdown_report(FAILED).split("## Failed\n")[1].split("##")[0]
    assert "- a (dense): too \\| long\n- c (dense): x\n" in section


def test_many_failures_are_counted_in_the_name_of_the_mean() -> None:
    failures = dict.fromkeys("abc", "no network")
    report = Report(retriever="r", results=(a_result("d", nDCG=0.5),), failures=failures)
    assert "mean without 3 that failed" in terminal_table([report])


def test_a_line_for_programs_has_no_mean_of_fewer_sets() -> None:
    failed = [FAILED[0], Report(retriever="dense", results=FAILED[1].results, failures={"a": "x"})]
    assert result_line(failed) == "nDCG@10 bm25=0.5000 dense=failed"
    assert result_line(failed[1:]) == "nDCG@10 b=0.5000 a=failed mean=failed"


def test_if_everything_failed_there_is_still_a_table() -> None:
    report = Report(retriever="r", results=(), failures={"a": "x", "b": "y"})
    assert terminal_table([report]).splitlines()[3:] == [
        "a                  failed",
        "b                  failed",
        "mean without a, b       -",
    ]
    assert markdown_report([report]).count("failed") == 6
    assert result_line([report]) == "nDCG@10 a=failed b=failed mean=failed"


def measured(name: str, *values: float) -> Report:
    per_query = {"nDCG@10": {f"q{i}": value for i, value in enumerate(values)}}
    result = SetResult(
        name=name,
        metrics={"nDCG@10": sum(values) / len(values)},
        per_query=per_query,
        run={},
        num_queries=len(values),
        num_documents=1,
    )
    return with_intervals(Report(retriever="r", results=(result,)))


def test_intervals_have_a_table_of_their_own() -> None:
    report = measured("s", *[0.0, 1.0] * 50)
    low, high = report.results[0].intervals["nDCG@10"]
    assert 0.35 < low < 0.45 < 0.55 < high < 0.65
    section = markdown_report([report]).split("## 95 % confidence intervals\n")[1]
    assert f"| r         | {low:.4f} to {high:.4f} |" in section
    two = Report(retriever="r", results=(*report.results, *measured("t", 0.5).results))
    section = markdown_report([two]).split("## 95 % confidence intervals of nDCG@10\n")[1]
    assert f"| s   | {low:.4f} to {high:.4f} |" in section
    assert "| t   | 0.5000 to 0.5000 |" in section


def test_embeddings_in_another_dtype_than_float32_are_told() -> None:
    report = measured("s", 0.5)
    (result,) = report.results
    baseline = replace(report, retriever="bm25")
    plain = replace(report, results=(replace(result, corpus_dtype="float32"),))
    assert "Embeddings of the corpus" not in markdown_report([baseline, plain])
    half = replace(report, results=(replace(result, corpus_dtype="float16"),))
    line = "\n\nEmbeddings of the corpus in float16, scores summed in float32: r.\n"
    assert markdown_report([baseline, half]).endswith(line)


def test_what_cut_texts_into_terms_is_told_with_the_sets_where_it_differs() -> None:
    (one,), (two,) = measured("s", 0.5).results, measured("t", 0.5).results
    words, parts = replace(one, term_tokenizer="words"), replace(two, term_tokenizer="_parts_")

    def page(*results: SetResult) -> str:
        return markdown_report([Report(retriever="bm25", results=results)])

    assert "Terms of" not in page(one, two)
    assert page(words, replace(two, term_tokenizer="words")).endswith("\n\nTerms of bm25: words.\n")
    assert "Terms of bm25: words (s).\n\nTerms of bm25: \\_parts\\_ (t).\n" in page(words, parts)
    assert "Terms of bm25: words (s).\n" in page(words, two)  # of the other it is not known


def test_intervals_are_those_of_the_values_and_computed_once() -> None:
    report = measured("s", 0.0, 1.0, 1.0)
    assert with_intervals(report) == report
    kept = replace(report.results[0], per_query={"nDCG@10": {"q0": 0.0}})
    assert with_intervals(replace(report, results=(kept,))).results[0].intervals == kept.intervals


def test_values_that_look_alike_are_equally_good() -> None:
    values = [0.30001, 0.30004, 0.29990]
    reports = [
        Report(retriever=str(i), results=(a_result("x", nDCG=value),))
        for i, value in enumerate(values)
    ]
    assert markdown_report(reports).count("**0.3000**") == 2
    assert "**0.2999**" not in markdown_report(reports)


def test_nothing_is_bold_without_a_rival() -> None:
    assert "**" not in markdown_report(SEVERAL_SETS[:1])


def test_what_was_not_measured_has_no_value_and_no_mean() -> None:
    partial = Report(retriever="dense", results=(a_result("a", nDCG=0.9),))
    rows = terminal_table([SEVERAL_SETS[0], partial]).splitlines()
    assert rows[-2:] == ["b     0.5000       -", "mean  0.3750       -"]


def test_names_are_plain_text_in_markdown() -> None:
    report = Report(
        retriever="a|b *c* `d` <e> _f_ g_h [i](j)\nk $l$", results=(a_result("s", nDCG=0.5),)
    )
    row = next(line for line in markdown_report([report]).splitlines() if "0.5000" in line)
    expected = r"a\|b \*c\* \`d\` \<e\> \_f\_ g_h \[i\](j) k \$l\$"
    assert row == f"| {expected} |  0.5000 |"


def rules_of(**conventions: dict[str, object]) -> list[list[str]]:
    """The cells of the table of rules, without its header."""
    results = (replace(a_result(n, nDCG=0.5), convention=c) for n, c in conventions.items())
    page = markdown_report([Report(retriever="r", results=tuple(results))])
    lines = page.split("| convention ")[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_rules_are_words() -> None:
    facts = {"capped_recall": ["a_b", "*c*"], "none": [], "nothing": None, "is": True, "level": 2}
    assert rules_of(s=facts) == [
        ["capped recall", r"a_b, \*c\*"],
        ["none", "-"],
        ["nothing", "-"],
        ["is", "yes"],
        ["level", "2"],
    ]


def test_where_sets_differ_the_fewer_are_named() -> None:
    kept, removed = {"self_match": "kept", "top_k": 9}, {"self_match": "removed", "top_k": 9}
    assert rules_of(a=removed, b=kept, c=kept, d=removed, e=kept) == [
        ["self match", "kept; removed on a, d"],
        ["top k", "9"],
    ]
    assert rules_of(a=kept, b={}) == [["self match", "kept; - on b"], ["top k", "9; - on b"]]


def test_where_no_rule_is_known_it_says_so() -> None:
    bare = replace(a_result("a", nDCG=0.5), convention={})
    page = markdown_report([Report(retriever="r", results=(bare,))])
    assert page.endswith("\n\nConvention: not recorded\n")


def test_source_and_licence_of_a_set_are_told() -> None:
    public = replace(a_result("a", nDCG=0.5), source="mteb/a@" + "5" * 40, licence="cc-by-4.0")
    page = markdown_report([Report(retriever="r", results=(public,))])
    assert f"| a   | mteb/a@{'5' * 40} | cc-by-4.0 |       1 |         7 |" in page


def test_a_table_needs_a_measure() -> None:
    for table in (terminal_table, markdown_report):
        with pytest.raises(UserError, match=r"None of the measures MAP was computed \(there are"):
            table(ONE_SET, measures=["MAP"])


def test_write_report_writes_everything_and_merges(tmp_path: Path) -> None:
    write_report(ONE_SET[:1], tmp_path)
    merged = write_report(ONE_SET[1:], tmp_path, merge=True)
    assert [report.retriever for report in merged] == ["bm25", "untrained", "trained"]
    known = [with_intervals(report) for report in ONE_SET]
    assert (tmp_path / "report.md").read_text() == markdown_report(known)
    for retriever in ("bm25", "untrained", "trained"):
        assert (tmp_path / "runs" / f"scifact.{retriever}.trec").is_file()
        assert (tmp_path / "per_query" / f"scifact.{retriever}.jsonl").is_file()


def test_an_id_that_no_run_file_can_hold_does_not_cost_the_numbers(tmp_path: Path) -> None:
    result = SetResult(
        name="s",
        metrics={"nDCG@10": 0.5},
        per_query={"nDCG@10": {"q 1": 0.5}},
        run={"q 1": {"d": 1.0}},
        num_queries=1,
        num_documents=1,
    )
    with pytest.raises(UserError, match="q 1"):
        write_report([Report(retriever="r", results=(result,))], tmp_path)
    assert (tmp_path / "metrics.json").is_file()
    assert (tmp_path / "report.md").is_file()


CONTRACT = {
    "parts": {
        "prompt.query": {"value": "a | b:\n{text}", "source": "model card, https://example.org"},
        "model.normalize": {"value": True, "source": "modules.json (Normalize)"},
        "model.is_causal": {"value": None, "source": "configuration (model=local)"},
    },
    "notes": ["a prompt 'passage' is not used here"],
}


def fed(retriever: str, contract: dict[str, object]) -> Report:
    return Report(retriever=retriever, results=(a_result("scifact", nDCG=0.5),), contract=contract)


def test_how_texts_were_fed_is_told_once_for_all_that_were_fed_alike() -> None:
    other = CONTRACT | {"notes": []}
    title, table, note, second, *more = contract_sections(
        [fed("a", CONTRACT), fed("bm25", {}), fed("b", dict(CONTRACT)), fed("c", other)]
    )
    assert title == "## How texts were fed: a, b"
    assert second == "## How texts were fed: c"
    assert len(more) == 1
    lines = table.splitlines()
    assert len(lines) == 2 + 3, "a value with line breaks stays in its line"
    (query,) = [line for line in lines if line.startswith("| prompt.query")]
    assert r"a \| b:\\n{text}" in query
    assert "model card, https://example.org" in query
    assert any("model.normalize" in x and "true" in x and "modules.json" in x for x in lines)
    assert any("is_causal" in x and "null" in x for x in lines)
    assert note.startswith("Note: ")
    assert "passage" in note


def test_nothing_is_told_of_what_feeds_no_model() -> None:
    assert contract_sections([fed("bm25", {})]) == []
    assert "How texts were fed" not in markdown_report([fed("bm25", {})], measures=["nDCG@10"])


def test_the_report_ends_with_how_texts_were_fed(tmp_path: Path) -> None:
    write_report([fed("dense", CONTRACT)], tmp_path, measures=["nDCG@10"])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.index("## Sets") < text.index("## How texts were fed: dense")
