"""Imports go one way, the way of the data, and heavy libraries load only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "quarry"

LEVELS = [
    {"types", "errors"},
    {"distributed"},
    {"runtime"},
    {"data", "models", "losses", "metrics"},
    {"retrieval"},
    {"evaluation"},
    {"stand_ins"},
    {"training"},
    {"config"},
    {"assembly"},
    {"planning"},
    {"tasks"},
    {"sweep"},
    {"study_report"},
    {"cli"},
    {"__main__"},
]
KNOW_HYDRA = {"config", "assembly", "planning", "tasks", "sweep", "study_report", "cli"}
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import in a file, those inside functions, too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found.append((node.lineno, node.module or ""))
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_every_file_is_looked_at() -> None:
    assert len(FILES) >= 60
    packages = {package(path) for path in FILES} - {"__init__"}
    assert packages == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_the_road_only(path: Path) -> None:
    own = package(path)
    for line, module in imported(path):
        where = f"{path.relative_to(SOURCE)}:{line} imports {module}"
        top = module.split(".")[0]
        if top in ("hydra", "omegaconf"):
            shows_errors = path == SOURCE / "runtime" / "entry.py"
            assert own in KNOW_HYDRA or shows_errors, f"{where}: only {sorted(KNOW_HYDRA)} may"
        assert top != "lightning", f"{where}: use pytorch_lightning, mixed classes fail isinstance"
        parts = module.split(".")
        if parts[0] != "quarry" or len(parts) < 2 or parts[1] == own or own == "__init__":
            continue
        assert LEVEL[parts[1]] < LEVEL[own], f"{where}: {own} stands on no higher level"


def loaded_with(path: Path) -> set[str]:
    """Libraries that a file imports as soon as it is imported itself."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        todo += ast.iter_child_nodes(node)
    return found


def test_slow_libraries_load_in_functions_or_in_the_one_file_that_is_about_them() -> None:
    slow = {"wandb", "bm25s", "deepspeed", "matplotlib", "datasets", "sentence_transformers"}
    found = {str(path.relative_to(SOURCE)): slow & loaded_with(path) for path in FILES}
    assert {file: names for file, names in found.items() if names} == {
        "retrieval/export/framed_transformer.py": {"sentence_transformers"},
    }


def test_training_and_encoding_do_not_load_what_they_do_not_use() -> None:
    code = (
        "import sys, quarry.training.module, quarry.retrieval.encoder, quarry.data.datamodule\n"
        "slow = {'wandb', 'bm25s', 'deepspeed', 'datasets', 'hydra', 'omegaconf', 'pytrec_eval',\n"
        "        'sentence_transformers'}\n"
        "heavy = slow & set(sys.modules)  # matplotlib is loaded by Lightning's torchmetrics\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
