"""Show the plan of a training run as text."""

from __future__ import annotations

from quarry.planning.evaluations import Evaluations
from quarry.planning.machine import Machine
from quarry.planning.memory_fit import with_choice
from quarry.planning.outcome import Plan
from quarry.planning.page_rows import (
    UNKNOWN,
    Row,
    aligned,
    host_row,
    is_known_card,
    rate_row,
    readable_size,
    why_unknown,
)
from quarry.planning.prefix_tokens import prefix_note
from quarry.planning.step_cost import step_seconds
from quarry.planning.step_memory import step_memory


def paragraphs(plan: Plan) -> list[str]:
    """Return the plan as aligned plain text."""
    tables = {
        "Memory of one process at its peak": _memory(plan),
        "What fits, the fastest first": _candidates(plan),
        "Work": _work(plan),
        "Time": _time(plan),
        "Disk": _disk(plan),
    }
    tables = {title: table for title, table in tables.items() if table}
    rows = [row for table in tables.values() for row in table]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [_head(plan), *(f"{title}\n{aligned(t, widths)}" for title, t in tables.items())]


def plan_line(plan: Plan) -> str:
    """Return one line that programs can read."""
    values = {name.removeprefix("plan/"): value for name, value in plan.summary().items()}
    return "plan " + " ".join(f"{name}={value:.6g}" for name, value in values.items())


def _head(plan: Plan) -> str:
    model, setup = plan.model, plan.setup
    trained = f"{model.part.num_parameters / 1e6:,.4g}e6"
    what = f"{trained} more in LoRA" if model.part.is_beside else f"{trained} of them trained"
    nodes = f" on {plan.num_nodes} nodes" if plan.num_nodes > 1 else ""
    compiled = "compiled" if setup.kept.is_compiled else "not compiled"
    chosen = "" if plan.choice is None else f"\nauto: {', '.join(plan.choice.overrides)}"
    return (
        f"{model.source}: {model.num_parameters / 1e9:.3g}e9 parameters ({model.shape_from}), "
        f"{what}\n"
        f"{setup.world_size} process{'es' * (setup.world_size > 1)}{nodes}, "
        f"strategy {plan.strategy}, {plan.precision}, weights in {plan.dtype}, {compiled}\n"
        f"for {plan.machine.name}{chosen}"
    )


def _memory(plan: Plan) -> list[Row]:
    memory, setup = plan.memory, plan.setup
    per_pass = f"{setup.tokens_per_pass:,} tokens in the largest pass"
    if setup.kept.recomputes_layers:
        per_pass += ", layers computed twice"
    elif setup.kept.gradient_checkpointing:
        per_pass += ", what is element-wise computed twice"
    rows = [
        ("weights", readable_size(memory.weights), ""),
        (
            "gradients",
            readable_size(memory.gradients),
            f"{setup.num_trained / 1e6:,.4g}e6 are trained",
        ),
        (
            "optimizer",
            readable_size(memory.optimizer),
            "AdamW" + " and fp32 weights" * (setup.stage > 0),
        ),
        ("buffers", readable_size(memory.buffers), "of ZeRO"),
        ("activations", readable_size(memory.activations), per_pass),
        (
            "in passing",
            readable_size(memory.passing),
            "gradients in a layer, similarities, or casts",
        ),
        (
            "embeddings",
            readable_size(memory.embeddings),
            "of the contrastive batch, and their gradients",
        ),
        ("total", readable_size(memory.total), _verdict(plan)),
    ]
    if plan.unmeasured:
        rows.append(("", "", f"no measurement backs this: {', '.join(plan.unmeasured)}"))
    rows.append(host_row(plan.host, plan.machine, num_jobs=plan.num_jobs))
    return [row for row in rows if row[0] != "buffers" or memory.buffers]


def _candidates(plan: Plan) -> list[Row]:
    """Return what `auto` chose from: each with its memory and the hours of training."""
    chosen, rows = step_seconds(plan.setup), []
    for candidate in plan.candidates:
        setup = with_choice(plan.setup, candidate)
        mode = {"False": "nothing twice", "True": "full"}.get(
            str(candidate.gradient_checkpointing), str(candidate.gradient_checkpointing)
        )
        chunk = candidate.grad_cache_chunk_tokens
        note = "no chunks" if chunk is None else f"chunks of {chunk:,} tokens"
        if plan.training_hours is not None:
            note += f", {plan.training_hours * step_seconds(setup) / chosen:,.3g} h"
        rows.append((mode, readable_size(step_memory(setup).total), note))
    return rows


def _verdict(plan: Plan) -> str:
    of = f"of {readable_size(plan.machine.num_bytes)}: {plan.share_of_memory:.0%}"
    if not plan.fits_memory:
        return f"{of}, does not fit"
    return f"{of}, close: try a few steps first" if plan.is_close else of


def _work(plan: Plan) -> list[Row]:
    work = plan.workload
    most = "at most " if work.is_bound else ""
    examples = UNKNOWN if work.num_examples is None else f"{work.num_examples:,}"
    steps = UNKNOWN if work.num_steps is None else f"{work.num_steps:,}"
    rows = [
        ("examples", examples, work.examples_from),
        ("optimizer steps", steps, f"of {work.global_batch_size:,} queries each"),
        ("tokens a query", f"{most}{work.tokens_per_query:,.0f}", work.tokens_from),
        ("tokens a step", f"{most}{work.tokens_per_step:,.0f}", ""),
    ]
    for name, number in (("an epoch", work.tokens_per_epoch), ("in all", work.num_tokens)):
        text = UNKNOWN if number is None else f"{most}{number / 1e6:,.4g}e6"
        rows.append((f"tokens {name}", text, ""))
    return rows


def _time(plan: Plan) -> list[Row]:
    rows = [rate_row(plan.rate, plan.machine)]
    if plan.training_hours is not None:
        note = _assumption(plan)
        rows.append(("training", f"{_limit(plan)}{plan.training_hours:,.3g} h", note))
    if plan.evaluations is not None:
        rows.append(_evaluations(plan.evaluations, plan.machine))
    if plan.hours is not None and plan.device_hours is not None:
        limit = _limit(plan)
        if plan.is_at_least:
            limit = "about " if plan.workload.is_bound else "at least "
        rows.append(("total", f"{limit}{plan.hours:,.3g} h", "training and evaluations"))
        rows.append(("device hours", f"{limit}{plan.device_hours:,.3g}", ""))
    return rows


def _evaluations(evaluations: Evaluations, machine: Machine) -> Row:
    number = UNKNOWN if evaluations.number is None else f"{evaluations.number:,} times"
    notes = [number]
    if evaluations.num_texts or not evaluations.unknown_sets:
        notes.append(f"{evaluations.num_texts:,} texts each")
    if evaluations.num_texts and prefix_note(evaluations.prefix_tokens):
        notes.append(prefix_note(evaluations.prefix_tokens))
    if evaluations.unknown_sets:
        notes.append(f"size not known: {', '.join(evaluations.unknown_sets)}")
    if evaluations.rate is None:
        key = "" if is_known_card(machine) else ": state task.card=NAME"
        notes.append(f"hours {why_unknown(machine)}{key}")
        return ("evaluations", UNKNOWN, "; ".join(notes))
    notes.append(f"{evaluations.rate.tokens_per_s:,.0f} tokens/s: {evaluations.rate.source}")
    if evaluations.hours is None:
        return ("evaluations", UNKNOWN, "; ".join(notes))
    limit = "at least " * evaluations.is_limit
    return ("evaluations", f"{limit}{evaluations.hours:,.3g} h", "; ".join(notes))


def _limit(plan: Plan) -> str:
    """Return how hours are bounded; too many tokens at too high a rate bound nothing."""
    if plan.rate is None:
        return ""
    if plan.workload.is_bound and plan.rate.is_limit:
        return "about "
    return "at most " if plan.workload.is_bound else "at least " if plan.rate.is_limit else ""


def _assumption(plan: Plan) -> str:
    number = plan.setup.world_size
    return f"if {number} devices are {number} times as fast as one" if number > 1 else ""


def _disk(plan: Plan) -> list[Row]:
    disk, free = plan.disk, plan.machine.disk_bytes
    room = "" if free is None else f"of {readable_size(free)} free"
    room += ", does not fit" * (not plan.fits_disk)
    rows = [
        ("last checkpoint", disk.last, "two of them while one replaces the other"),
        ("top checkpoints", disk.top, ""),
        ("best model", disk.best, "two of them while one replaces the other"),
        ("trained model", disk.model, ""),
        ("run directory", disk.run_directory, room),
        ("download", disk.download, "from the hub, into its cache"),
    ]
    if plan.host.corpus_on_disk:
        rows.insert(-1, ("corpus", plan.host.corpus_on_disk, "embeddings, while they are searched"))
    return [
        (name, readable_size(number), note)
        for name, number, note in rows
        if number or name == "run directory"
    ]
