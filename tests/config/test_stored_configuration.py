"""What a run directory stores is what the run was: nothing that a resumed run needs is hidden."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from configurations import composed, opened
from omegaconf import OmegaConf

from quarry.runtime.secret_values import scrub

COMMANDS = [
    ("train",),
    ("train", "model=qwen-r1", "model.size=tiny"),
    ("train", "experiment=sft_msmarco", "model=qwen-vl", "model.size=tiny"),
    ("eval", "experiment=zero_shot", "model=qwen-math"),
]


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_value_of_ours_is_taken_for_a_secret(command: tuple[str, ...]) -> None:
    plain = OmegaConf.to_container(composed(*command), resolve=False)
    assert scrub(plain) == plain
