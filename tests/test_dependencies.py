"""pyproject.toml against constraints.txt, constraints-minimum.txt and what the code imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
    if name != "all"
}

UNPINNED = {"torch"}
"""Of which no older CPU build can be had: the Makefile has the version that all tests run with."""

DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "hydra": "hydra-core",
    "lightning_fabric": "pytorch-lightning",  # in its wheel
    "pytrec_eval": "pytrec-eval-terrier",
    "Stemmer": "PyStemmer",
    "yaml": "PyYAML",
}
"""Module -> the distribution that has it, where their names differ."""

OF_TORCH = {"triton"}
"""What a build of torch brings, and only code for GPUs imports."""

PRIVATE_NAMES = {
    "transformers", "pytorch-lightning", "hydra-core", "omegaconf", "peft", "deepspeed",
    "huggingface-hub", "wandb-workspaces", "uvicorn",
}  # fmt: skip
"""Libraries of which names are used that they do not call public."""


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(library): Version(version) for library, version in pairs}


def bound(requirement: Requirement, operator: str) -> Version | None:
    found = [each.version for each in requirement.specifier if each.operator == operator]
    return Version(found[0]) if found else None


def name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def test_the_lower_bounds_are_those_that_are_tested() -> None:
    tested = [*REQUIRED, *EXTRAS["plots"], *EXTRAS["export"]]
    bounds = {name(each): bound(each, ">=") for each in tested if name(each) not in UNPINNED}
    assert pins("constraints-minimum.txt") == bounds


def test_the_pinned_versions_are_in_their_ranges() -> None:
    pinned = pins("constraints.txt")
    extras = (lines for extra, lines in EXTRAS.items() if extra != "loggers")
    for requirement in [*REQUIRED, *(each for lines in extras for each in lines)]:
        assert requirement.specifier.contains(pinned[name(requirement)]), requirement


def test_an_upper_bound_where_private_names_are_used() -> None:
    everything = [*REQUIRED, *(each for lines in EXTRAS.values() for each in lines)]
    bounded = {name(each) for each in everything if bound(each, "<") is not None}
    assert bounded == PRIVATE_NAMES


def test_what_is_imported_is_required_or_in_an_extra() -> None:
    declared = {name(each) for each in [*REQUIRED, *(e for es in EXTRAS.values() for e in es)]}
    paths = [*(ROOT / "src").rglob("*.py"), ROOT / "train.py", ROOT / "eval.py"]
    modules = set().union(*(imported(path) for path in paths))
    foreign = modules - set(sys.stdlib_module_names) - OF_TORCH - {"quarry"}
    assert {canonicalize_name(DISTRIBUTIONS.get(each, each)) for each in foreign} <= declared
    used = {canonicalize_name(DISTRIBUTIONS.get(each, each)) for each in foreign}
    assert {name(each) for each in REQUIRED} <= used


def imported(path: Path) -> set[str]:
    """Return the top-level names of the modules that a file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(str(node.module))
    return {each.partition(".")[0] for each in names}


@pytest.mark.parametrize("python", ["", "/no/such/python"])
def test_make_names_the_interpreters_that_do(python: str, tmp_path: Path) -> None:
    command = ["make", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert f"PYTHON={python}: Python 3.11, 3.12 or 3.13 is needed. Fix: " in process.stdout
    assert not (tmp_path / "venv").exists()
