"""A short storm: some kills of two commands, of the many that `make storm` gives all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from storm.kills import storm


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nothing_is_lost_in_a_short_storm(tmp_path: Path) -> None:
    record = storm(
        tmp_path, seed=1, minutes=1, num_kills=4, num_lanes=1, real_share=0,
        only=["train", "export"],
    )  # fmt: skip
    assert record.failures == []
    assert sum(record.kills.values()) >= 4
