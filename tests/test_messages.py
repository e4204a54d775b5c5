"""Messages name the command as the user has started it, through `own_command`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "quarry"
NAMES = ("train.py", "eval.py", "conf/train.yaml", "conf/eval.yaml")
MODULE = "runtime/own_command.py"


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the strings of a module that are no docstrings."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_docstring = isinstance(node, ast.Expr)
            if (
                isinstance(child, ast.Constant)
                and isinstance(child.value, str)
                and not is_docstring
            ):
                yield child.value


def test_no_message_names_a_script() -> None:
    found = []
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        if name == MODULE or "published" in name:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{name}: {text}" for text in texts(tree) if any(one in text for one in NAMES)]
    assert found == []
