"""Says what a training or an evaluation would take, and refuses what cannot fit, before anything
is loaded."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.assembly.model_parts import settle_contract
from quarry.assembly.strategy import settle_dtype
from quarry.config.instantiate import build
from quarry.config.validation import validate
from quarry.config.world_size import num_devices
from quarry.distributed.zero import BF16_WEIGHTS
from quarry.errors import UserError
from quarry.models.factory import BiEncoderFactory
from quarry.models.remedies import CannotLoadError
from quarry.planning.alternatives import Alternative, alternatives
from quarry.planning.disk import download_bytes, planned_disk
from quarry.planning.evaluation_outcome import EvaluationPlan
from quarry.planning.evaluation_page import (
    evaluation_line,
    evaluation_paragraphs,
    evaluation_refusal,
)
from quarry.planning.evaluation_plan import make_evaluation_plan
from quarry.planning.evaluations import planned_evaluations
from quarry.planning.host import CorpusPlace, host_reason, host_remedies, training_host
from quarry.planning.machine import CLOSE, Machine, planned_machine
from quarry.planning.outcome import Plan
from quarry.planning.plan_page import paragraphs, plan_line, plan_refusal
from quarry.planning.rate import planned_rate
from quarry.planning.setup import fitted_setup, fitting_choices, planned_model, training_setup
from quarry.planning.step_memory import step_memory
from quarry.planning.workload import planned_workload
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.files import write_json
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.task_output import show


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
    is_training = OmegaConf.select(config, "data") is not None
    if tokens_per_s is not None and not tokens_per_s > 0:
        raise UserError(f"task.tokens_per_s={tokens_per_s} must be above 0, or null: as measured.")
    if num_jobs_at_once < 1:
        raise UserError(f"task.num_jobs_at_once={num_jobs_at_once} must be 1 or more.")
    machine = planned_machine(
        gpu_memory_gib=gpu_memory_gib,
        disk_gib=disk_gib,
        card=card,
        accelerator=config.trainer.accelerator,
        num_devices=max(1, num_devices(config) or 1),
        folder=config.paths.runs_dir if is_training else config.paths.store_dir,
    )
    with planned_for_gpu() if machine.is_gpu else nullcontext():
        validate(config, primary="train" if is_training else "eval", is_planned=True)
        if is_training:
            found = _training(
                config,
                machine,
                is_stated=gpu_memory_gib is not None or card is not None,
                num_examples=num_examples,
                tokens_per_query=tokens_per_query,
                tokens_per_s=tokens_per_s,
                num_jobs=num_jobs_at_once,
            )
        else:
            _refuse_training_keys(num_examples=num_examples, tokens_per_query=tokens_per_query)
            found = _evaluation(
                config, machine, tokens_per_s=tokens_per_s, num_jobs=num_jobs_at_once
            )
    show(*found.paragraphs, result_line=found.line)
    if json is not None:
        write_json(Path(json).expanduser(), found.made.as_json() | {"refusal": found.refusal})
    if found.refusal is not None:
        raise UserError(found.refusal)
    return found.made.summary()


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """Hold a plan, how it is shown, and what is against it."""

    made: Plan | EvaluationPlan
    paragraphs: list[str]
    line: str
    refusal: str | None


def _training(config: DictConfig, machine: Machine, *, is_stated: bool, **stated: Any) -> _Shown:
    settle_contract(config)
    settle_dtype(config)
    made = make_plan(config, machine, **stated)
    return _Shown(
        made=made,
        paragraphs=paragraphs(made),
        line=plan_line(made),
        refusal=_refusal(config, made, is_stated=is_stated),
    )


def _evaluation(config: DictConfig, machine: Machine, **stated: Any) -> _Shown:
    made = make_evaluation_plan(config, machine, **stated)
    return _Shown(
        made=made,
        paragraphs=evaluation_paragraphs(made),
        line=evaluation_line(made),
        refusal=evaluation_refusal(config, made),
    )


def _refuse_training_keys(**given: float | None) -> None:
    for key, value in given.items():
        if value is not None:
            raise UserError(
                f"task.{key}={value}: no effect in eval.py, which trains nothing. Fix: leave it "
                "out."
            )


def make_plan(
    config: DictConfig,
    machine: Machine,
    *,
    num_examples: int | None,
    tokens_per_query: float | None,
    tokens_per_s: float | None,
    num_jobs: int = 1,
) -> Plan:
    """From a configuration whose contract and dtype are settled.

    Args:
        num_jobs: that run on the machine at once.
    """
    factory: BiEncoderFactory = build(config.model)
    model = planned_model(factory)
    workload = planned_workload(
        config, num_examples=num_examples, tokens_per_query=tokens_per_query
    )
    setup, choice = fitted_setup(
        training_setup(config, factory, model, workload), config, limit_bytes=_limit(machine)
    )
    evaluations = planned_evaluations(
        config,
        num_steps=workload.num_steps,
        setup=setup,
        machine=machine,
        shares_prefix=model.shares_prefix,
    )
    memory, num_nodes = step_memory(setup), int(config.trainer.get("num_nodes", 1))
    num_documents = 0 if evaluations is None else evaluations.largest_corpus
    missing = download_bytes(model.source, model.config, num_parameters=model.num_parameters)
    return Plan(
        model=model,
        machine=machine,
        setup=setup,
        choice=choice,
        candidates=fitting_choices(setup, config, limit_bytes=_limit(machine)),
        memory=memory,
        workload=workload,
        rate=planned_rate(
            setup, stated=tokens_per_s, linear_precision=factory.linear_precision, card=machine.card
        ),
        disk=planned_disk(
            setup,
            config.callbacks,
            num_evaluations=0 if evaluations is None else evaluations.num_after_start,
            download=missing + workload.num_missing_bytes,
        ),
        evaluations=evaluations,
        strategy=_strategy_name(setup.stage, setup.num_processes, setup.offloads_parameters),
        precision=str(config.trainer.precision),
        dtype=str(factory.torch_dtype(is_trained=True)).removeprefix("torch."),
        num_nodes=num_nodes,
        host=training_host(
            memory,
            machine,
            place=CorpusPlace.of(config.evaluation),
            num_documents=num_documents,
            dim=setup.embedding_dim,
            ranks_per_node=setup.num_processes // num_nodes,
            num_nodes=num_nodes,
            num_jobs=num_jobs,
        ),
        num_jobs=num_jobs,
    )


def _limit(machine: Machine) -> int | None:
    """Return the bytes that a rank may take where memory is chosen by; None: on a CPU."""
    return int(CLOSE * machine.num_bytes) if machine.is_gpu else None


def refusal_for_memory(config: DictConfig, *, num_bytes: int) -> str:
    """Return what would run where the run of `config` does not fit.

    Args:
        config: of a training whose contract and dtype are settled.
        num_bytes: free on the fullest GPU, all of them, used or not by `auto`.
    """
    machine = Machine(name="the fullest GPU", num_bytes=num_bytes, is_gpu=True, disk_bytes=None)
    made = make_plan(config, machine, num_examples=None, tokens_per_query=None, tokens_per_s=None)
    return _refusal(config, made, is_stated=True) or ""


def _refusal(config: DictConfig, made: Plan, *, is_stated: bool) -> str | None:
    found: list[Alternative] = []
    more: dict[str, str] = {}
    if not made.fits_memory:
        found = alternatives(
            made.setup, made.machine, zero_overrides=_beside_zero(config, made.setup.stage)
        )
        more = _other_models(config, made)
        if not made.machine.is_gpu and not is_stated:
            more["task.gpu_memory_gib=80"] = "a plan for GPUs of that size"
    return plan_refusal(made, found, more, host=_against_host(config, made))


def _against_host(config: DictConfig, made: Plan) -> tuple[str, dict[str, str]] | None:
    """Why the memory of this machine's host does not hold the run, and what it would hold."""
    host_bytes = made.machine.host_bytes
    if host_bytes is None or not made.fits_memory:
        return None
    reason = host_reason(made.host, host_bytes=host_bytes, num_jobs=made.num_jobs)
    if reason is None:
        return None
    return reason, host_remedies(
        made.host,
        config.evaluation,
        host_bytes=host_bytes,
        num_jobs=made.num_jobs,
        is_training=True,
    )


def _other_models(config: DictConfig, made: Plan) -> dict[str, str]:
    """The largest smaller size of the family that fits as it is, and the replica."""
    factory: BiEncoderFactory = build(config.model)
    smaller = {}
    for size, hub_id in factory.hub_ids.items() if factory.path is None else ():
        other = copy.copy(factory)
        other.size, other.hub_id = size, hub_id
        try:
            model = planned_model(other)
        except CannotLoadError:  # neither the hub nor its name tells its shape
            continue
        if model.num_parameters < made.model.num_parameters:
            setup, _ = fitted_setup(
                training_setup(config, other, model, made.workload),
                config,
                limit_bytes=_limit(made.machine),
            )
            smaller[size] = (model.num_parameters, step_memory(setup).total)
    fitting = [
        size for size, (_, need) in smaller.items() if need <= CLOSE * made.machine.num_bytes
    ]
    largest = max(fitting, key=lambda size: smaller[size][0], default=None)
    found = {} if largest is None else {f"model.size={largest}": "the largest that fits as it is"}
    return found | factory.remedies(share=0)


def _beside_zero(config: DictConfig, stage: int) -> tuple[str, ...]:
    """Overrides that a strategy of ZeRO needs beside it, where there is none yet."""
    overrides = []
    trains_trunk = build(config.model).adapter.trains_trunk
    if trains_trunk and config.trainer.precision != BF16_WEIGHTS:
        overrides.append(f"trainer.precision={BF16_WEIGHTS}")
        if config.model.dtype not in ("auto", "bfloat16", "bf16"):
            overrides.append("model.dtype=bfloat16")
    if stage == 0 and config.model.linear_precision == "fp8":
        overrides.append("model.linear_precision=null")
    if config.model.compile is True:
        overrides.append("model.compile=auto")
    return tuple(overrides)


def _strategy_name(stage: int, num_processes: int, is_offloaded: bool) -> str:
    if stage:
        return f"zero{stage}" + "_offload" * is_offloaded
    return "ddp" if num_processes > 1 else "auto"
