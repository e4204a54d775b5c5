"""Schedules and parameter groups by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import LambdaLR

from helpers.models import tiny_bi_encoder, tiny_qwen
from quarry.config.resolvers import register_resolvers
from quarry.errors import UserError
from quarry.models.adapters.lora import LoRA
from quarry.training.optim import (
    constant_schedule,
    linear_schedule,
    log_warmup_schedule,
    parameter_groups,
)

OPTIMIZERS = Path(__file__).resolve().parents[3] / "conf" / "optimizer"


def rates(
    schedule: Callable[..., LambdaLR], *, num_training_steps: int, warmup: int
) -> list[float]:
    """The rate of each update, and what it would be after the last, where the peak is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, num_training_steps=num_training_steps, num_warmup_steps=warmup)
    values = [optimizer.param_groups[0]["lr"]]
    for _ in range(num_training_steps):
        optimizer.step()
        scheduler.step()
        values.append(optimizer.param_groups[0]["lr"])
    return values


def test_linear_by_hand() -> None:
    values = rates(linear_schedule, num_training_steps=6, warmup=2)
    assert values == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0])


@pytest.mark.parametrize("warmup", [1, 7, 30])
def test_log_warmup_is_deepspeeds_own_schedule(
    warmup: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.lr_schedules import WarmupDecayLR

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = WarmupDecayLR(
        optimizer, total_num_steps=20, warmup_max_lr=1.0, warmup_num_steps=warmup
    )
    expected = [optimizer.param_groups[0]["lr"]]
    for _ in range(20):
        theirs.step()
        expected.append(optimizer.param_groups[0]["lr"])
    found = rates(log_warmup_schedule, num_training_steps=20, warmup=warmup)
    assert found == pytest.approx(expected, abs=1e-12)


def test_log_warmup_shows_the_rates_of_the_studys_log() -> None:
    # its log shows, after 10, 20 and 100 of 3,836 updates: 5.0e-5, 6.5e-5, 1e-4
    values = rates(log_warmup_schedule, num_training_steps=3836, warmup=100)
    assert [round(values[step], 3) for step in (10, 20, 100)] == [0.5, 0.651, 1.0]
    assert values[-1] == pytest.approx(1 / 3736)


def test_linear_without_warmup() -> None:
    values = rates(linear_schedule, num_training_steps=4, warmup=0)
    assert values == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4, 0])


@pytest.mark.parametrize("warmup", [3, 5])
def test_a_warmup_as_long_as_training_only_rises(warmup: int) -> None:
    values = rates(linear_schedule, num_training_steps=3, warmup=warmup)
    assert values[:3] == pytest.approx([(step + 1) / (warmup + 1) for step in range(3)])


def test_constant_by_hand() -> None:
    values = rates(constant_schedule, num_training_steps=5, warmup=3)
    assert values == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 1])
    assert rates(constant_schedule, num_training_steps=2, warmup=0) == [1, 1, 1]


@pytest.mark.parametrize("schedule", [linear_schedule, constant_schedule])
def test_a_negative_warmup_is_refused(schedule: Callable[..., LambdaLR]) -> None:
    with pytest.raises(UserError, match=r"scheduler\.num_warmup_steps=-1 must be 0 or more"):
        rates(schedule, num_training_steps=5, warmup=-1)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = tiny_bi_encoder()
    matrices, vectors = parameter_groups(model)
    assert "weight_decay" not in matrices  # the optimizer's own value
    assert vectors["weight_decay"] == 0.0
    assert {p.ndim for p in matrices["params"]} == {2}
    assert {p.ndim for p in vectors["params"]} == {1}
    parameters = list(model.parameters())
    grouped = [*matrices["params"], *vectors["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, parameters))


def test_only_what_is_trained_and_no_empty_group() -> None:
    adapted = LoRA(r=2, alpha=2, dropout=0.0, target_modules=["q_proj"])(tiny_qwen())
    (matrices,) = parameter_groups(adapted)
    assert len(matrices["params"]) == 4  # two layers, A and B
    assert all(p.requires_grad for p in matrices["params"])


@pytest.mark.parametrize("option", sorted(path.stem for path in OPTIMIZERS.glob("*.yaml")))
def test_every_optimizer_of_the_configuration_moves_all_weights(option: str) -> None:
    register_resolvers()
    node = OmegaConf.load(OPTIMIZERS / f"{option}.yaml")
    recipe = {"recipe": {"learning_rate": 0.01}, "optimizer": node}
    model = tiny_bi_encoder()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = instantiate(OmegaConf.create(recipe).optimizer)(parameter_groups(model))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.isfinite(new).all()
        assert not torch.equal(old, new)
