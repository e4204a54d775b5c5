"""In one process everything is an identity; which process was launched first is known early."""

from __future__ import annotations

import pytest
import torch

from quarry.distributed import world
from quarry.distributed.data_parallel import data_parallel_strategy
from quarry.distributed.gather import exchanged_shares
from quarry.distributed.zero import ZeroStrategy


def test_one_process_has_everything() -> None:
    assert (world.rank(), world.size()) == (0, 1)
    values = torch.tensor([1.0, 2.0])
    assert world.total(values) is values
    assert world.largest(5) == 5
    assert world.gathered({"a": 1}) == [{"a": 1}]
    assert world.first_does(lambda: "done") == "done"
    (shares,) = exchanged_shares(3)
    rows = torch.ones(3, 2)
    assert shares.gather(rows) is rows
    assert shares.start == 0


@pytest.mark.parametrize("has_gpu", [True, False])
def test_cpus_talk_beside_gpus(monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    strategies = [
        data_parallel_strategy(timeout_s=60),
        ZeroStrategy(stage=2, reduce_bucket_size=1000),
    ]
    wanted = "cpu:gloo,cuda:nccl" if has_gpu else None
    assert [strategy.process_group_backend for strategy in strategies] == [wanted, wanted]


@pytest.mark.parametrize(
    ("environment", "is_first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun, the second node
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),  # Lightning's own children
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_the_first_process_is_known_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_first: bool
) -> None:
    for name in (*world.RANK_VARIABLES, *world.RANK_PARTS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert world.is_launched_first() is is_first
