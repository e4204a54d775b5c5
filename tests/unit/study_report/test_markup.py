"""What tables look like: what stands out and why, whatever the names, in all three formats."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.study_runs import a_set, entries_in, tables_of, write_run_directory
from quarry.study_report.grid import Grid, GridCell, GridRow, difference_grid, value_grid
from quarry.study_report.markup import (
    grid_csv,
    grid_latex,
    grid_markdown,
    latex,
    latex_document,
    values_csv,
)
from quarry.types import Report

EVIL = r"50% of_a & b #1 {x} \y ~z ^w <v> |u| [t] * $m$ ± † …"


def grids(folder: Path) -> tuple[Grid, Grid]:
    """Of a base, a model that is better in all of twenty queries, and one with two seeds."""
    good, fair = [0.9] * 20, [0.5, 0.51] * 10
    runs = [
        write_run_directory(
            folder / model, [Report(retriever="dense", results=(a_set("alpha", found),))],
            model=model,
        )
        for model, found in (("qwen-base", fair), ("better", good), ("same", fair))
    ]  # fmt: skip
    (table,) = tables_of(entries_in(runs))
    differences = difference_grid(table)
    assert differences is not None
    return value_grid(table), differences


def a_grid(*rows: GridRow, header: tuple[tuple[str, str], ...] = (("a", ""),)) -> Grid:
    return Grid(
        key="k_1", title="T", caption=("C.",), header=header, blocks=(rows,), published_from=1
    )


def test_the_best_is_bold_the_second_underlined_and_differences_are_marked(tmp_path: Path) -> None:
    values, differences = grids(tmp_path)
    assert grid_markdown(values) == (
        "| model     |         alpha |\n"
        "| --------- | ------------: |\n"
        "| qwen-base | <u>0.5050</u> |\n"
        "| better    |  **0.9000**\\* |\n"
        "| same      | <u>0.5050</u> |"
    )
    assert "better & \\textbf{0.9000}$^{*}$ \\\\" in grid_latex(values)
    assert "same & \\underline{0.5050} \\\\" in grid_latex(values)
    assert "better & $+0.3950$$^{*}$ \\\\" in grid_latex(differences)
    assert "| same   |   +0.0000 |" in grid_markdown(differences)
    assert "qwen-base" not in grid_latex(differences).split("\\midrule")[1]


def test_the_caption_states_the_test(tmp_path: Path) -> None:
    values, _ = grids(tmp_path)
    text = " ".join(values.caption)
    parts = (
        "paired randomization test",
        "2,000 permutations",
        "seed 1",
        "alpha 0.05",
        "Holm's correction for the 2 comparisons",
        "different from qwen-base",
    )
    for part in parts:
        assert part in text


def test_the_caption_says_what_baselines_cut_texts_with(tmp_path: Path) -> None:
    results = (
        replace(a_set("alpha", [0.1]), term_tokenizer="words"),
        replace(a_set("beta", [0.1]), term_tokenizer="parts of names"),
    )
    model = (a_set("alpha", [0.2]), a_set("beta", [0.2]))
    reports = [
        Report(retriever="bm25", results=results), Report(retriever="zero_shot", results=model)
    ]  # fmt: skip
    run = write_run_directory(tmp_path / "run", reports)
    (table,) = tables_of(entries_in([run]))
    text = " ".join(value_grid(table).caption)
    assert "Terms of bm25: words (alpha). Terms of bm25: parts of names (beta)." in text


def test_a_set_that_lacks_many_judged_documents_is_marked(tmp_path: Path) -> None:
    caveat = "9 of 10 judged documents are not in the corpus (90.0 % are missing)"
    results = (replace(a_set("alpha", [0.1]), caveats=(caveat,)), a_set("beta", [0.1]))
    run = write_run_directory(tmp_path / "run", [Report(retriever="zero_shot", results=results)])
    (table,) = tables_of(entries_in([run]))
    grid = value_grid(table)
    assert [name for name, _ in grid.header][:2] == ["alpha (!)", "beta"]
    assert "(!) More than 5 % of the judged documents" in " ".join(grid.caption)
    assert "alpha 90 %" in " ".join(grid.caption)


def test_deviations_are_shown_where_seeds_make_a_difference(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / f"{model}-{seed}",
            [Report(retriever="trained", results=(a_set("alpha", [value]),))],
            model=model,
            is_training=True,
            seed=seed,
        )
        for model, seed, value in (("a", 1, 0.2), ("a", 2, 0.4), ("b", 1, 0.3), ("b", 2, 0.3))
    ]
    (table,) = tables_of(entries_in(runs))
    grid = value_grid(table)
    assert [row.cells[0].deviation for row in grid.blocks[0]] == ["0.1414", None]
    assert "**0.3000** ± 0.1414" in grid_markdown(grid)
    assert r"{\small$\pm$0.1414}" in grid_latex(grid)
    assert "over seeds (2)" in " ".join(grid.caption)


def test_missing_cells_and_published_rows_show_as_such() -> None:
    own = GridRow(label="own", cells=(GridCell(text=None),))
    other = GridRow(label="theirs", cells=(GridCell(text="0.420"),))
    grid = Grid(
        key="k", title="T", caption=("C.",), header=(("a", ""),), blocks=((own,), (other,)),
        published_from=1,
    )  # fmt: skip
    assert "| own      |     - |\n| theirs † | 0.420 |" in grid_markdown(grid)
    assert "own & -- \\\\\n\\midrule\ntheirs$^{\\dagger}$ & 0.420 \\\\" in grid_latex(grid)
    rows = list(csv.reader(io.StringIO(grid_csv(grid))))
    assert rows[1:] == [["own", "false", "", "", ""], ["theirs", "true", "0.420", "", ""]]


def unescaped(text: str, character: str) -> int:
    return len(re.findall(rf"(?<!\\){re.escape(character)}", text))


def check_latex(text: str) -> None:
    """Environments, braces and mathematics are balanced, and rows have as many cells as columns."""
    begun: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            begun.append(name)
        else:
            assert begun.pop() == name
    assert begun == []
    assert unescaped(text, "{") == unescaped(text, "}")
    assert unescaped(text, "$") % 2 == 0
    (columns,) = re.findall(r"\\begin\{tabular\}\{(l[r]+)\}", text)
    body = text.split("\\toprule\n")[1].split("\\bottomrule", maxsplit=1)[0]
    rows = [line for line in body.splitlines() if line != "\\midrule"]
    assert rows
    for line in rows:
        assert line.endswith(" \\\\")
        assert unescaped(line.removesuffix(" \\\\"), "&") == len(columns) - 1
    for character in "%#~^":
        outside = re.sub(r"\$[^$]*\$", "", text).replace("{!}{%\n", "")
        assert unescaped(outside.replace(r"\^", ""), character) == 0, character


@pytest.mark.parametrize("num_columns", [1, 12])
def test_latex_is_balanced_whatever_the_names(num_columns: int) -> None:
    cells = tuple(
        GridCell(text="0.5", deviation="0.1", emphasis="best", is_marked=True)
        for _ in range(num_columns)
    )
    header = tuple((EVIL, "nDCG@10") for _ in range(num_columns))
    text = grid_latex(a_grid(GridRow(label=EVIL, cells=cells), header=header))
    check_latex(text)
    assert (r"\resizebox{\textwidth}{!}{%" in text) is (num_columns == 12)
    # after the end of a row a bracket would be read as a length, and an asterisk as a part of it
    starts = re.findall(r"\\\\\n(.)", grid_latex(a_grid(GridRow(label="[x]", cells=cells[:1]))))
    assert "[" not in starts


def test_real_tables_are_balanced(tmp_path: Path) -> None:
    for grid in grids(tmp_path):
        check_latex(grid_latex(grid))


def test_escaping_by_hand() -> None:
    assert latex("a_b & 5%") == r"a\_b \& 5\%"
    assert latex("\\") == r"\textbackslash{}"
    assert latex("[*]") == "{[}{*}{]}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_the_document_compiles(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    cells = (GridCell(text="0.5", deviation="0.1", emphasis="second", is_marked=True),)
    text = grid_latex(a_grid(GridRow(label=EVIL, cells=cells)))
    (tmp_path / "tables" / "k_1.tex").write_text(text)
    (tmp_path / "report.tex").write_text(latex_document(["k_1"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]


def test_the_long_table_has_every_cell_in_full(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / model,
            [Report(retriever="dense", results=results, failures=failures)],
            model=model,
        )
        for model, results, failures in (
            ("qwen-base", (a_set("alpha", [1 / 3, 0.0]), a_set("beta", [0.5])), {}),
            ("other", (a_set("alpha", [2 / 3, 0.0]),), {"beta": "no network, alas"}),
        )
    ]
    tables = tables_of(entries_in(runs))
    rows = list(csv.DictReader(io.StringIO(values_csv(tables))))
    assert [(row["model"], row["column"]) for row in rows] == [
        (model, column) for model in ("qwen-base", "other") for column in ("alpha", "beta", "mean")
    ]
    first, failed = rows[3], rows[4]
    assert float(first["value"]) == 1 / 3
    assert float(first["difference"]) == pytest.approx(1 / 6)
    assert (first["base"], first["p_value"], first["num_queries"]) == ("qwen-base", "1.0", "2")
    assert (failed["value"], failed["missing"]) == ("", "beta failed: no network, alas")
