"""Says what a training run would take, and refuses what cannot fit, before anything is loaded."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.config.processes import num_devices
from quarry.config.validation import validate
from quarry.distributed.zero import BF16_WEIGHTS
from quarry.errors import MissingPathError, UserError
from quarry.models.factory import BiEncoderFactory
from quarry.models.remedies import CannotLoadError
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.files import write_json
from quarry.runtime.logging import quiet_libraries
from quarry.tasks.output import show
from quarry.tasks.parts import build_evaluator, settle_contract
from quarry.tasks.planning.alternatives import Alternative, alternatives
from quarry.tasks.planning.disk import download_bytes, planned_disk
from quarry.tasks.planning.machine import CLOSE, Machine, planned_machine
from quarry.tasks.planning.outcome import Evaluations, Plan
from quarry.tasks.planning.page import paragraphs, refusal, result_line
from quarry.tasks.planning.rate import planned_rate
from quarry.tasks.planning.setup import fitted_setup, planned_model, training_setup
from quarry.tasks.planning.workload import planned_workload
from quarry.tasks.strategy import settle_dtype
from quarry.training.step_memory import step_memory


def plan(
    config: DictConfig,
    *,
    gpu_memory_gib: float | None,
    disk_gib: float | None,
    num_examples: int | None,
    tokens_per_query: float | None,
    tokens_per_s: float | None,
    json: str | None,
) -> dict[str, float]:
    """Prints the plan of the training run that the rest of the configuration describes.

    Args:
        gpu_memory_gib, disk_gib: see `planned_machine`.
        num_examples, tokens_per_query: see `planned_workload`.
        tokens_per_s: of one device; None: as measured, where it was.
        json: a file that gets the plan, also one that is refused.

    Raises:
        UserError: the run would not fit, or its configuration cannot work.
    """
    quiet_libraries()
    if tokens_per_s is not None and not tokens_per_s > 0:
        raise UserError(f"task.tokens_per_s={tokens_per_s} must be above 0, or null: as measured.")
    machine = planned_machine(
        gpu_memory_gib=gpu_memory_gib,
        disk_gib=disk_gib,
        accelerator=config.trainer.accelerator,
        num_devices=max(1, num_devices(config) or 1),
        runs_dir=config.paths.runs_dir,
    )
    with planned_for_gpu() if machine.is_gpu else nullcontext():
        validate(config, primary="train", is_planned=True)
        settle_contract(config)
        settle_dtype(config)
        made = make_plan(
            config,
            machine,
            num_examples=num_examples,
            tokens_per_query=tokens_per_query,
            tokens_per_s=tokens_per_s,
        )
        message = _refusal(config, made, is_stated=gpu_memory_gib is not None)
    show(*paragraphs(made), result_line=result_line(made))
    if json is not None:
        write_json(Path(json).expanduser(), made.as_json() | {"refusal": message})
    if message is not None:
        raise UserError(message)
    return made.summary()


def make_plan(
    config: DictConfig,
    machine: Machine,
    *,
    num_examples: int | None,
    tokens_per_query: float | None,
    tokens_per_s: float | None,
) -> Plan:
    """From a configuration whose contract and dtype are settled."""
    factory: BiEncoderFactory = build(config.model)
    model = planned_model(factory)
    workload = planned_workload(
        config, num_examples=num_examples, tokens_per_query=tokens_per_query
    )
    setup, choice = fitted_setup(
        training_setup(config, factory, model, workload), config, limit_bytes=_limit(machine)
    )
    evaluations = planned_evaluations(config, num_steps=workload.num_steps)
    missing = download_bytes(model.source, model.config, num_parameters=model.num_parameters)
    num_before = int(config.evaluation.before_training)
    num_after = 0 if evaluations is None else (evaluations.number or num_before) - num_before
    return Plan(
        model=model,
        machine=machine,
        setup=setup,
        choice=choice,
        memory=step_memory(setup),
        workload=workload,
        rate=planned_rate(setup, stated=tokens_per_s, linear=factory.linear, is_gpu=machine.is_gpu),
        disk=planned_disk(
            setup,
            config.callbacks,
            num_evaluations=num_after,
            download=missing + workload.num_missing_bytes,
        ),
        evaluations=evaluations,
        strategy=_strategy_name(setup.stage, setup.num_processes, setup.offloads_parameters),
        precision=str(config.trainer.precision),
        dtype=str(factory.torch_dtype(is_trained=True)).removeprefix("torch."),
        num_nodes=int(config.trainer.get("num_nodes", 1)),
    )


def planned_evaluations(config: DictConfig, *, num_steps: int | None) -> Evaluations | None:
    """How often, and of how many texts as far as the catalogue knows; None: there are none."""
    try:
        evaluator = build_evaluator(config)
    except MissingPathError as error:  # on the machine of the run it may be there
        return Evaluations(number=None, num_texts=0, unknown_sets=(str(error),))
    if evaluator is None:
        return None
    sets = evaluator.benchmark.sets
    known = [(one, one.expected) for one in sets if one.expected is not None]
    corpora = {one.corpus or one.name: counts.num_documents for one, counts in known}
    number = None
    if num_steps is not None:
        every = config.evaluation.every_n_steps
        in_between = num_steps // every if every else 0
        is_last_due = every > 0 and num_steps % every == 0
        number = int(config.evaluation.before_training) + in_between + (not is_last_due)
    return Evaluations(
        number=number,
        num_texts=sum(counts.num_queries for _, counts in known) + sum(corpora.values()),
        unknown_sets=tuple(one.name for one in sets if one.expected is None),
    )


def _limit(machine: Machine) -> int | None:
    """Return the bytes that a rank may take where memory is chosen by; None: on a CPU."""
    return int(CLOSE * machine.num_bytes) if machine.is_gpu else None


def refusal_for_memory(config: DictConfig, *, num_bytes: int) -> str:
    """Return what would run where the run of `config` does not fit a GPU with so much memory."""
    machine = Machine(name="the fullest GPU", num_bytes=num_bytes, is_gpu=True, disk_bytes=None)
    nothing: dict[str, None] = dict.fromkeys(("num_examples", "tokens_per_query", "tokens_per_s"))
    made = make_plan(config, machine, **nothing)
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
    return refusal(made, found, more)


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
    if stage == 0 and config.model.linear == "fp8":
        overrides.append("model.linear=plain")
    if config.model.compile is True:
        overrides.append("model.compile=auto")
    return tuple(overrides)


def _strategy_name(stage: int, num_processes: int, is_offloaded: bool) -> str:
    if stage:
        return f"zero{stage}" + "_offload" * is_offloaded
    return "ddp" if num_processes > 1 else "auto"
