"""The lists of what a stored configuration may name are those of conf/, none forgotten."""

from __future__ import annotations

import re

import pytest
from hydra.utils import get_object

from quarry.config.shipped_targets import (
    OF_EARLIER_VERSIONS,
    PLACES,
    named_targets,
    place_of,
    shipped_targets,
)
from quarry.config.stored_targets import own_name
from quarry.runtime.renamed_keys import MOVED_MODULES, RENAMED_TARGETS
from quarry.runtime.shipped_files import conf_dir

TARGET = re.compile(r"^(?!#).*_target_: *(\S+)", re.MULTILINE)


def test_the_lists_hold_every_target_of_conf_and_no_other() -> None:
    named = {
        target
        for file in conf_dir().rglob("*.yaml")
        if "hydra" not in file.relative_to(conf_dir()).parts
        for target in TARGET.findall(file.read_text(encoding="utf-8"))
    }
    earlier = {target for targets in OF_EARLIER_VERSIONS.values() for target in targets}
    assert set().union(*shipped_targets().values()) == named | earlier
    assert len(named) > 50
    assert all(shipped_targets()[place] for place in PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_a_listed_name_is_that_of_the_object_itself(place: str) -> None:
    """Re-exported at most inside its own library, under its own last name."""
    for target in shipped_targets()[place]:
        own = own_name(get_object(target))
        assert own.partition(".")[0] == target.partition(".")[0], target
        assert own.rpartition(".")[2] == target.rpartition(".")[2], target


def test_new_names_of_earlier_targets_are_listed() -> None:
    listed = set().union(*shipped_targets().values())
    assert set(RENAMED_TARGETS.values()) <= listed
    modules = {target.rpartition(".")[0] for target in listed}
    assert set(MOVED_MODULES.values()) - {"quarry.sweep.start"} <= modules  # of Hydra's own part


def test_a_path_belongs_to_its_innermost_place() -> None:
    assert place_of("model.pooling") == "model.pooling"
    assert place_of("model.pooling.inner.0") == "model.pooling"
    assert place_of("model.replica.texts") == "model"
    assert place_of("trainer.strategy") == "trainer.strategy"
    assert place_of("trainer.strategy_of_mine") == "trainer"
    assert place_of("models") is None
    assert place_of("") is None


def test_targets_are_found_at_any_depth() -> None:
    node = {"a": {"_target_": "x.y", "b": [1, {"_target_": "z.w"}]}, "_target_": 3}
    assert list(named_targets(node)) == [("a", "x.y"), ("a.b.1", "z.w")]
