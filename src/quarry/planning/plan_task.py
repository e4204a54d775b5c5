"""Say what a training or an evaluation would take, and refuse what cannot fit, before anything is
loaded."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.assembly.model_parts import settle_contract
from quarry.assembly.strategy import settle_dtype
from quarry.config.overrides import named_run_directory
from quarry.config.validation import validate
from quarry.config.world_size import num_devices
from quarry.errors import UserError
from quarry.planning.evaluation_outcome import EvaluationPlan
from quarry.planning.evaluation_page import (
    evaluation_line,
    evaluation_paragraphs,
    evaluation_refusal,
)
from quarry.planning.evaluation_plan import make_evaluation_plan
from quarry.planning.inputs import (
    PlannedEvaluation,
    PlannedTraining,
    planned_evaluation,
    planned_training,
)
from quarry.planning.machine import Machine, planned_machine
from quarry.planning.outcome import Plan
from quarry.planning.plan_page import paragraphs, plan_line
from quarry.planning.training_plan import make_training_plan
from quarry.planning.training_refusal import training_refusal
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.files import write_json
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.own_command import own_command
from quarry.runtime.task_output import show


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """Hold a plan, how it is shown, and what is against it."""

    made: Plan | EvaluationPlan
    paragraphs: list[str]
    line: str
    refusal: str | None


def plan(
    config: DictConfig,
    *,
    card: str | None,
    gpu_memory_gib: float | None,
    disk_gib: float | None,
    num_examples: int | None,
    tokens_per_query: float | None,
    tokens_per_s: float | None,
    num_jobs_at_once: int,
    json: str | None,
) -> dict[str, float]:
    """Print the plan of the training or evaluation that the rest of the configuration describes.

    Args:
        card, gpu_memory_gib, disk_gib: see `planned_machine`.
        num_examples, tokens_per_query: see `planned_workload`; of a training alone.
        tokens_per_s: of one device; None: as measured, where it was.
        num_jobs_at_once: such jobs that share the memory of this machine's host.
        json: a file that gets the plan, also one that is refused.

    Raises:
        UserError: the run would not fit, or its configuration cannot work.
    """
    quiet_libraries()
    _check_stated(tokens_per_s=tokens_per_s, num_jobs_at_once=num_jobs_at_once)
    is_training = OmegaConf.select(config, "data") is not None
    machine = planned_machine(
        gpu_memory_gib=gpu_memory_gib,
        disk_gib=disk_gib,
        card=card,
        accelerator=config.trainer.accelerator,
        num_devices=max(1, num_devices(config) or 1),
        folder=config.paths.runs_dir if is_training else config.paths.store_dir,
    )
    stated: dict[str, Any] = {"tokens_per_s": tokens_per_s, "num_jobs": num_jobs_at_once}
    counts = {"num_examples": num_examples, "tokens_per_query": tokens_per_query}
    with planned_for_gpu() if machine.is_gpu else nullcontext():
        validate(config, primary="train" if is_training else "eval", is_planned=True)
        if is_training:
            settle_contract(config)
            settle_dtype(config)
            is_stated = gpu_memory_gib is not None or card is not None
            found = _training(
                planned_training(config), machine, is_stated=is_stated, **stated, **counts
            )
        else:
            _refuse_training_keys(**counts)
            found = _evaluation(planned_evaluation(config), machine, **stated)
    named = named_run_directory(config)
    file = None if named is None else named / "plan.json"
    return _finished(found, file=file if json is None else Path(json).expanduser())


def make_plan(
    config: DictConfig,
    machine: Machine,
    *,
    num_examples: int | None,
    tokens_per_query: float | None,
    tokens_per_s: float | None,
    num_jobs: int = 1,
) -> Plan:
    """Plan a training whose contract and dtype are settled; see `make_training_plan`."""
    return make_training_plan(
        planned_training(config),
        machine,
        num_examples=num_examples,
        tokens_per_query=tokens_per_query,
        tokens_per_s=tokens_per_s,
        num_jobs=num_jobs,
    )


def _check_stated(*, tokens_per_s: float | None, num_jobs_at_once: int) -> None:
    if tokens_per_s is not None and not tokens_per_s > 0:
        raise UserError(f"task.tokens_per_s={tokens_per_s} must be above 0, or null: as measured.")
    if num_jobs_at_once < 1:
        raise UserError(f"task.num_jobs_at_once={num_jobs_at_once} must be 1 or more.")


def _training(
    inputs: PlannedTraining, machine: Machine, *, is_stated: bool, **stated: Any
) -> _Shown:
    made = make_training_plan(inputs, machine, **stated)
    return _Shown(
        made=made,
        paragraphs=paragraphs(made),
        line=plan_line(made),
        refusal=training_refusal(inputs, made, is_stated=is_stated),
    )


def _evaluation(inputs: PlannedEvaluation, machine: Machine, **stated: Any) -> _Shown:
    made = make_evaluation_plan(inputs, machine, **stated)
    return _Shown(
        made=made,
        paragraphs=evaluation_paragraphs(made),
        line=evaluation_line(made),
        refusal=evaluation_refusal(inputs, made),
    )


def _refuse_training_keys(**given: float | None) -> None:
    for key, value in given.items():
        if value is not None:
            raise UserError(
                f"task.{key}={value}: no effect on the plan of an evaluation. Fix: leave it out, "
                f"or {own_command('train')} task=plan"
            )


def _finished(found: _Shown, *, file: Path | None) -> dict[str, float]:
    """Show a plan, write it, and return its summary.

    Raises:
        UserError: it is refused.
    """
    show(*found.paragraphs, result_line=found.line)
    if file is not None:
        write_json(file, found.made.as_json() | {"refusal": found.refusal})
    if found.refusal is not None:
        raise UserError(found.refusal)
    return found.made.summary()
