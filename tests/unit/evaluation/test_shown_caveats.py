"""What tables and pages say of sets whose data have flaws."""

from __future__ import annotations

from dataclasses import replace

from quarry.evaluation.report import markdown_report, result_line, terminal_table
from quarry.evaluation.shown_caveats import caveats_of, mark_explained, marked_sets
from quarry.types import Report, SetResult

MANY = "10 of 11 judged documents are not in the corpus (90.9 % are missing)"
FEW = "1 of 20 judged documents are not in the corpus (5.0 % are missing)"
EMPTY = "2 of 9 documents are empty (22.2 %)"


def a_result(name: str, *caveats: str, group: str | None = None) -> SetResult:
    return SetResult(
        name=name,
        metrics={"nDCG@10": 0.5},
        per_query={},
        run={},
        num_queries=1,
        num_documents=9,
        group=group,
        caveats=caveats,
    )


FLAWED, FINE = a_result("a|b", MANY, EMPTY), a_result("c", FEW)


def test_a_set_that_lacks_many_judged_documents_is_marked_where_its_number_stands() -> None:
    report = Report(retriever="r", results=(FLAWED, FINE))
    assert marked_sets([report]) == ["a|b"]
    lines = terminal_table([report]).splitlines()
    assert [line.split("  ")[0] for line in lines[3:6]] == ["a|b (!)", "c", "mean"]
    assert lines[-1].startswith("(!) More than 5 % of the judged documents are not in the corpus")
    assert lines[-1].endswith("find them: a|b 91 %.")
    page = markdown_report([report])
    assert "| a\\|b (!) |" in page
    assert "\n(!) More than 5 %" in page
    assert f"## Caveats\n\n- a\\|b: {MANY}.\n- a\\|b: {EMPTY}.\n- c: {FEW}." in page
    assert result_line([report]).split()[2] == "c=0.5000"  # names for programs have no mark


def test_the_table_of_one_set_has_the_line_and_the_page_the_mark() -> None:
    report = Report(retriever="r", results=(FLAWED,))
    assert terminal_table([report]).splitlines()[-1].startswith("(!) More than 5 %")
    assert markdown_report([report]).startswith("# Retrieval results: a\\|b (!)\n")


def test_a_group_with_a_marked_set_is_marked() -> None:
    forums = (a_result("x", MANY, group="g"), a_result("y", group="g"))
    lines = terminal_table([Report(retriever="r", results=forums)]).splitlines()
    assert lines[3].startswith("g (mean of 2) (!)")


def test_caveats_of_several_retrievers_are_told_once() -> None:
    reports = [
        Report(retriever="old", results=(replace(FLAWED, caveats=()),)),
        Report(retriever="one", results=(FLAWED,)),
        Report(retriever="two", results=(FLAWED,)),
    ]
    assert caveats_of(reports) == {"a|b": (MANY, EMPTY)}


def test_nothing_is_said_of_sets_without_flaws() -> None:
    report = Report(retriever="r", results=(a_result("c"),))
    assert mark_explained([report]) == []
    assert "(!)" not in terminal_table([report])
    assert "Caveats" not in markdown_report([report])
