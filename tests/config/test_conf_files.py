"""What holds for every file under conf/: reachable, headed by a command, naming classes we know."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from configurations import (
    CONF,
    PRIMARIES,
    composed,
    defaults,
    files,
    header,
    opened,
    primaries_of,
    reached,
)

TOP_LEVEL = {
    "eval": [
        "baseline",
        "benchmark",
        "convention",
        "debug",
        "evaluation",
        "logger",
        "model",
        "optimized_metric",
        "paths",
        "prompt",
        "recipe",
        "retriever",
        "run",
        "runs",
        "seed",
        "study",
        "tags",
        "task",
        "trainer",
        "trusted_packages",
    ],
    "train": [
        "baseline",
        "benchmark",
        "callbacks",
        "convention",
        "data",
        "debug",
        "evaluation",
        "logger",
        "loss",
        "model",
        "optimized_metric",
        "optimizer",
        "paths",
        "prompt",
        "recipe",
        "retriever",
        "run",
        "scheduler",
        "seed",
        "study",
        "tags",
        "task",
        "trainer",
        "trusted_packages",
    ],
}
"""Frozen: a new top-level key is a decision about the whole, not a detail of one file."""

TARGETS = ("quarry.", "pytorch_lightning.", "torch.optim.")
OPTIONAL_GROUPS = ("baseline", "callbacks", "debug", "experiment", "logger", "model/adapter")
COMMAND = re.compile(r"python (train|eval)\.py|(?<!\S)[a-z][\w/@.]*=\S")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of conf/ to spoil."""
    return Path(shutil.copytree(CONF, tmp_path / "conf"))


def _content(file: str) -> Any:
    return yaml.safe_load((CONF / f"{file}.yaml").read_text(encoding="utf-8"))


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    if isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _default_keys(content: Any) -> list[str]:
    entries = content.get("defaults", []) if isinstance(content, dict) else []
    return [key for entry in entries for key in (entry if isinstance(entry, dict) else [entry])]


def test_every_file_is_reachable() -> None:
    assert set(files()) - reached() - set(PRIMARIES) == set()


def test_a_file_that_nothing_uses_is_noticed(copy: Path) -> None:
    with opened(copy):  # without what is no default: it would only take time
        by_default = {one.config_path for name in PRIMARIES for one in defaults(name).defaults}
    for file in set(files(copy)) - by_default - set(PRIMARIES):
        (copy / f"{file}.yaml").unlink()
    (copy / "losses").mkdir()
    (copy / "losses" / "orphan.yaml").write_text("temperature: 1\n")
    assert set(files(copy)) - reached(copy) - set(PRIMARIES) == {"losses/orphan"}


@pytest.mark.parametrize("primary", PRIMARIES)
def test_top_level_keys_are_frozen(primary: str) -> None:
    with opened():
        assert sorted(composed(primary)) == TOP_LEVEL[primary]


@pytest.mark.parametrize("file", files())
def test_header_says_what_it_is_and_how_to_use_it(file: str) -> None:
    lines = [line for line in header(file).splitlines() if not line.startswith("# @package")]
    assert lines, f"conf/{file}.yaml has no comment at its head"
    text = " ".join(lines)
    assert COMMAND.search(text), f"the header of conf/{file}.yaml shows no command"
    words = re.findall(r"[A-Za-z]{2,}", COMMAND.sub("", text))
    assert len(words) >= 3, f"the header of conf/{file}.yaml does not say what it is"
    assert set(primaries_of(file)) <= set(PRIMARIES)


@pytest.mark.parametrize("file", files())
def test_targets_are_ours_or_of_the_few_libraries_that_we_configure(file: str) -> None:
    foreign = [target for target in _targets(_content(file)) if not target.startswith(TARGETS)]
    assert foreign == []


def test_targets_are_found_at_any_depth() -> None:
    node = {"a": [{"_target_": "lightning.pytorch.Trainer"}], "_target_": "quarry.x"}
    assert list(_targets(node)) == ["quarry.x", "lightning.pytorch.Trainer"]
    assert sum(len(list(_targets(_content(file)))) for file in files()) >= 30


def test_every_option_is_on_the_page_about_configuration() -> None:
    page = (CONF.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for file in files():
        group, _, option = file.rpartition("/")
        if not group or group.startswith("hydra/"):
            continue
        names = [row for row in rows if f"`{group}`" in row and f"`{option}`" in row]
        assert names, f"docs/configuration.md does not list {group}={option}"


def test_no_default_is_optional() -> None:
    keys = {key for file in files() for key in _default_keys(_content(file))}
    assert {"train_schema", "model", "pooling@model.pooling", "override job_logging"} <= keys
    assert [key for key in keys if "optional" in key.split()] == []


@pytest.mark.parametrize("group", OPTIONAL_GROUPS)
def test_an_optional_group_has_an_option_none(group: str) -> None:
    assert f"{group}/none" in files()


def test_experiments_are_global_and_name_their_primary() -> None:
    experiments = [file for file in files() if file.startswith("experiment/")]
    assert experiments
    for file in experiments:
        assert header(file).startswith("# @package _global_"), file
        assert "# primary: " in header(file), f"conf/{file}.yaml: say which primary it is for"
