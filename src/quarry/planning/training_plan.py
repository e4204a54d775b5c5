"""Plan a training run from its inputs, without weights and network."""

from __future__ import annotations

from quarry.planning.disk import DiskNeed, download_bytes, planned_disk
from quarry.planning.evaluations import Evaluations, planned_evaluations
from quarry.planning.host import HostNeed, training_host
from quarry.planning.inputs import PlannedTraining
from quarry.planning.machine import CLOSE, Machine
from quarry.planning.memory_fit import fitted_setup, fitting_choices
from quarry.planning.outcome import Plan
from quarry.planning.rate import planned_rate
from quarry.planning.setup import PlannedModel, planned_model, training_setup
from quarry.planning.step_memory import StepMemory, TrainingSetup, step_memory
from quarry.planning.workload import Workload, planned_workload


def make_training_plan(
    inputs: PlannedTraining,
    machine: Machine,
    *,
    num_examples: int | None,
    tokens_per_query: float | None,
    tokens_per_s: float | None,
    num_jobs: int = 1,
) -> Plan:
    """Plan a training.

    Args:
        num_examples, tokens_per_query: see `planned_workload`.
        tokens_per_s: of one device; None: as measured.
        num_jobs: that run on the machine at once.
    """
    step, limit = inputs.step, memory_limit(machine)
    model = planned_model(step.spec)
    workload = planned_workload(step, num_examples=num_examples, tokens_per_query=tokens_per_query)
    setup, choice = fitted_setup(
        training_setup(step, model, workload), step.asked, limit_bytes=limit
    )
    evaluations = planned_evaluations(
        inputs,
        num_steps=workload.num_steps,
        setup=setup,
        machine=machine,
        shares_prefix=model.shares_prefix,
    )
    memory, precision = step_memory(setup), step.spec.options.linear_precision
    return Plan(
        model=model,
        machine=machine,
        setup=setup,
        choice=choice,
        candidates=fitting_choices(setup, step.asked, limit_bytes=limit),
        memory=memory,
        workload=workload,
        rate=planned_rate(
            setup, stated=tokens_per_s, linear_precision=precision, card=machine.card
        ),
        disk=_disk(inputs, setup, model, workload, evaluations),
        evaluations=evaluations,
        strategy=_strategy_name(setup),
        precision=step.precision,
        dtype=str(step.spec.options.torch_dtype(is_trained=True)).removeprefix("torch."),
        num_nodes=step.ranks.num_nodes,
        host=_host(inputs, setup, machine, evaluations, memory=memory, num_jobs=num_jobs),
        num_jobs=num_jobs,
    )


def memory_limit(machine: Machine) -> int | None:
    """Return the bytes that a rank may take where memory is chosen by; None: on a CPU."""
    return int(CLOSE * machine.num_bytes) if machine.is_gpu else None


def _disk(
    inputs: PlannedTraining,
    setup: TrainingSetup,
    model: PlannedModel,
    workload: Workload,
    evaluations: Evaluations | None,
) -> DiskNeed:
    weights = download_bytes(model.source, model.config, num_parameters=model.num_parameters)
    return planned_disk(
        setup,
        inputs.saved,
        num_evaluations=0 if evaluations is None else evaluations.num_after_start,
        download=weights + workload.num_missing_bytes,
    )


def _host(
    inputs: PlannedTraining,
    setup: TrainingSetup,
    machine: Machine,
    evaluations: Evaluations | None,
    *,
    memory: StepMemory,
    num_jobs: int,
) -> HostNeed:
    return training_host(
        memory,
        machine,
        place=inputs.corpus,
        num_documents=0 if evaluations is None else evaluations.largest_corpus,
        dim=setup.embedding_dim,
        ranks_per_node=inputs.step.ranks.per_node,
        num_nodes=inputs.step.ranks.num_nodes,
        num_jobs=num_jobs,
    )


def _strategy_name(setup: TrainingSetup) -> str:
    if setup.stage:
        return f"zero{setup.stage}" + "_offload" * setup.offloads_parameters
    return "ddp" if setup.world_size > 1 else "auto"
