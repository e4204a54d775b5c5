"""Refuse a training that cannot run as planned, with commands that would run."""

from __future__ import annotations

from dataclasses import replace

from quarry.assembly.preflight import command_with
from quarry.distributed.settings import BF16_WEIGHTS
from quarry.models.remedies import CannotLoadError
from quarry.planning.alternatives import Alternative, alternatives
from quarry.planning.host import host_reason, host_remedies
from quarry.planning.inputs import PlannedStep, PlannedTraining
from quarry.planning.machine import CLOSE, Machine
from quarry.planning.memory_fit import fitted_setup
from quarry.planning.outcome import Plan
from quarry.planning.page_rows import readable_size, with_commands
from quarry.planning.setup import planned_model, training_setup
from quarry.planning.step_memory import step_memory
from quarry.planning.training_plan import make_training_plan, memory_limit


def training_refusal(inputs: PlannedTraining, made: Plan, *, is_stated: bool) -> str | None:
    """Return why the run is refused, and commands that would run; None: it is not.

    Args:
        is_stated: the GPUs of the plan were stated.
    """
    found: list[Alternative] = []
    more: dict[str, str] = {}
    if not made.fits_memory:
        found = alternatives(
            made.setup, made.machine, zero_overrides=_beside_zero(inputs.step, made.setup.stage)
        )
        more = _other_models(inputs.step, made)
        if not made.machine.is_gpu and not is_stated:
            more["task.gpu_memory_gib=80"] = "a plan for GPUs of that size"
    host = _against_host(inputs, made)
    reasons = _reasons(made)
    if host is not None:
        reasons.append(host[0])
        more |= host[1]
    if not reasons:
        return None
    lines = [
        f"{command_with(*each.overrides)}   # {readable_size(each.memory.total)}: {each.meaning}"
        for each in found
    ]
    return with_commands(reasons, more, lines)


def refusal_for_memory(inputs: PlannedTraining, *, num_bytes: int) -> str:
    """Return what would run where a training does not fit.

    Args:
        num_bytes: free on the fullest GPU, all of them, used or not by `auto`.
    """
    machine = Machine(name="the fullest GPU", num_bytes=num_bytes, is_gpu=True, disk_bytes=None)
    made = make_training_plan(
        inputs, machine, num_examples=None, tokens_per_query=None, tokens_per_s=None
    )
    return training_refusal(inputs, made, is_stated=True) or ""


def _reasons(plan: Plan) -> list[str]:
    """Return what is against a plan on its device and disk."""
    reasons = []
    if not plan.fits_memory:
        reasons.append(
            f"A process would take {readable_size(plan.memory.total)}, and it would have "
            f"{readable_size(plan.machine.num_bytes)} ({plan.machine.name}).{_if_chosen(plan)}"
            f"{_if_bound(plan)}"
        )
    if not plan.fits_disk:
        assert plan.machine.disk_bytes is not None
        reasons.append(
            f"The run directory would take {readable_size(plan.disk.run_directory)}, and "
            f"{readable_size(plan.machine.disk_bytes)} are free: make room, set "
            "paths.runs_dir=DIR, or keep fewer checkpoints (callbacks=none keeps none)."
        )
    return reasons


def _if_chosen(plan: Plan) -> str:
    """Say why a run that is smaller than the memory is refused."""
    return "" if plan.share_of_memory > 1 else f" auto uses {CLOSE:.0%} of it."


def _if_bound(plan: Plan) -> str:
    if not plan.workload.is_bound:
        return ""
    return (
        " That is with texts as long as the prompt lets through: state task.tokens_per_query=N if "
        "yours are shorter."
    )


def _against_host(inputs: PlannedTraining, made: Plan) -> tuple[str, dict[str, str]] | None:
    """Return why the memory of this machine's host does not hold the run, and what it would hold.

    None: it does, or the run does not fit the device either.
    """
    host_bytes = made.machine.host_bytes
    if host_bytes is None or not made.fits_memory:
        return None
    reason = host_reason(made.host, host_bytes=host_bytes, num_jobs=made.num_jobs)
    if reason is None:
        return None
    return reason, host_remedies(
        made.host,
        inputs.corpus,
        host_bytes=host_bytes,
        num_jobs=made.num_jobs,
        is_training=True,
    )


def _other_models(step: PlannedStep, made: Plan) -> dict[str, str]:
    """Return the largest smaller size of the family that fits as it is, and the replica."""
    spec = step.spec
    smaller = {}
    for size, hub_id in spec.source.hub_ids.items() if spec.source.path is None else ():
        other = replace(spec, source=replace(spec.source, size=size, hub_id=hub_id))
        try:
            model = planned_model(other)
        except CannotLoadError:  # neither the hub nor its name tells its shape
            continue
        if model.num_parameters < made.model.num_parameters:
            setup, _ = fitted_setup(
                training_setup(replace(step, spec=other), model, made.workload),
                step.asked,
                limit_bytes=memory_limit(made.machine),
            )
            smaller[size] = (model.num_parameters, step_memory(setup).total)
    fitting = [
        size for size, (_, need) in smaller.items() if need <= CLOSE * made.machine.num_bytes
    ]
    largest = max(fitting, key=lambda size: smaller[size][0], default=None)
    found = {} if largest is None else {f"model.size={largest}": "the largest that fits as it is"}
    return found | spec.source.remedies(share=0)


def _beside_zero(step: PlannedStep, stage: int) -> tuple[str, ...]:
    """Return the overrides that a strategy of ZeRO needs beside it, where there is none yet."""
    spec, overrides = step.spec, []
    if spec.options.adapter.trains_backbone and step.precision != BF16_WEIGHTS:
        overrides.append(f"trainer.precision={BF16_WEIGHTS}")
        if spec.options.dtype not in ("auto", "bfloat16", "bf16"):
            overrides.append("model.dtype=bfloat16")
    if stage == 0 and spec.options.linear_precision == "fp8":
        overrides.append("model.linear_precision=null")
    if spec.options.compile is True:
        overrides.append("model.compile=auto")
    return tuple(overrides)
