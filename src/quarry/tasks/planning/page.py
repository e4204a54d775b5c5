"""A plan as text, and what is against it as an error with the commands that would run."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.tasks.planning.alternatives import Alternative
from quarry.tasks.planning.outcome import Plan
from quarry.tasks.preflight import command_with

Row = tuple[str, str, str]
"""What, how much, and what is to be said of it."""

UNKNOWN = "not known"


def paragraphs(plan: Plan) -> list[str]:
    """Aligned plain text."""
    tables = {
        "Memory of one process at its peak": _memory(plan),
        "Work": _work(plan),
        "Time": _time(plan),
        "Disk": _disk(plan),
    }
    rows = [row for table in tables.values() for row in table]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [_head(plan), *(f"{title}\n{_aligned(t, widths)}" for title, t in tables.items())]


def result_line(plan: Plan) -> str:
    """One line that programs can read."""
    values = {name.removeprefix("plan/"): value for name, value in plan.summary().items()}
    return "plan " + " ".join(f"{name}={value:.6g}" for name, value in values.items())


def refusal(plan: Plan, found: Sequence[Alternative], more: dict[str, str]) -> str | None:
    """Why the run cannot be, and the commands that could; None: nothing is against it.

    Args:
        found: runs that fit.
        more: further overrides, and what they mean.
    """
    reasons = []
    if not plan.fits_memory:
        reasons.append(
            f"A process would take {size(plan.memory.total)}, and it would have "
            f"{size(plan.machine.num_bytes)} ({plan.machine.name}).{_if_bound(plan)}"
        )
    if not plan.fits_disk:
        assert plan.machine.disk_bytes is not None
        reasons.append(
            f"The run directory would take {size(plan.disk.run_directory)}, and "
            f"{size(plan.machine.disk_bytes)} are free: make room, set paths.runs_dir=DIR, or keep "
            "fewer checkpoints (callbacks=none keeps none)."
        )
    if not reasons:
        return None
    lines = [
        f"{command_with(*each.overrides)}   # {size(each.memory.total)}: {each.meaning}"
        for each in found
    ]
    lines += [f"{command_with(override)}   # {meaning}" for override, meaning in more.items()]
    if plan.fits_memory or not lines:
        return "\n".join(reasons)
    return "\n".join([*reasons, "What would run:", *(f"  {line}" for line in lines)])


def _if_bound(plan: Plan) -> str:
    if not plan.workload.is_bound:
        return ""
    return (
        " That is with texts as long as the prompt lets through: state task.tokens_per_query=N if "
        "yours are shorter."
    )


def size(num_bytes: float) -> str:
    is_small = num_bytes < 2**30 / 10
    return f"{num_bytes / 2**20:,.1f} MiB" if is_small else f"{num_bytes / 2**30:,.1f} GiB"


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
        f"{setup.num_processes} process{'es' * (setup.num_processes > 1)}{nodes}, "
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
        ("weights", size(memory.weights), ""),
        ("gradients", size(memory.gradients), f"{setup.num_trained / 1e6:,.4g}e6 are trained"),
        ("optimiser", size(memory.optimizer), "AdamW" + " and fp32 weights" * (setup.stage > 0)),
        ("buffers", size(memory.buffers), "of ZeRO"),
        ("activations", size(memory.activations), per_pass),
        ("in passing", size(memory.passing), "gradients in a layer, similarities, or casts"),
        ("embeddings", size(memory.embeddings), "of the contrast set, and their gradients"),
        ("total", size(memory.total), _verdict(plan)),
    ]
    if plan.machine.is_gpu:
        rows.append(("host", size(plan.host_bytes_per_node), "of each node, for all its processes"))
    return [row for row in rows if row[0] != "buffers" or memory.buffers]


def _verdict(plan: Plan) -> str:
    of = f"of {size(plan.machine.num_bytes)}: {plan.share_of_memory:.0%}"
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
        ("updates", steps, f"of {work.num_queries_per_update:,} queries each"),
        ("tokens a query", f"{most}{work.tokens_per_query:,.0f}", work.tokens_from),
        ("tokens an update", f"{most}{work.tokens_per_step:,.0f}", ""),
    ]
    for name, number in (("an epoch", work.tokens_per_epoch), ("in all", work.num_tokens)):
        text = UNKNOWN if number is None else f"{most}{number / 1e6:,.4g}e6"
        rows.append((f"tokens {name}", text, ""))
    return rows


def _time(plan: Plan) -> list[Row]:
    if plan.rate is None:
        rows = [("rate", UNKNOWN, "not measured for such a run: state task.tokens_per_s=N")]
    else:
        rate = f"{plan.rate.tokens_per_s:,.0f} tokens/s"
        rows = [("rate", rate, f"of one device: {plan.rate.source}")]
    if plan.hours is not None and plan.device_hours is not None:
        rows.append(("training", f"{_limit(plan)}{plan.hours:,.3g} h", _assumption(plan)))
        rows.append(("device hours", f"{_limit(plan)}{plan.device_hours:,.3g}", ""))
    evaluations = plan.evaluations
    if evaluations is not None:
        number = UNKNOWN if evaluations.number is None else _times(evaluations.number)
        texts = f"{evaluations.num_texts:,} texts each" if evaluations.num_texts else ""
        if evaluations.unknown_sets:
            texts += ", " * bool(texts) + f"size not known: {', '.join(evaluations.unknown_sets)}"
        rows.append(("evaluations", number, f"{texts}; their time comes on top"))
    return rows


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _limit(plan: Plan) -> str:
    """Whether hours are a bound; with too many tokens at too high a rate they are none."""
    assert plan.rate is not None
    if plan.workload.is_bound and plan.rate.is_limit:
        return "about "
    return "at most " if plan.workload.is_bound else "at least " if plan.rate.is_limit else ""


def _assumption(plan: Plan) -> str:
    number = plan.setup.num_processes
    return f"if {number} devices are {number} times as fast as one" if number > 1 else ""


def _disk(plan: Plan) -> list[Row]:
    disk, free = plan.disk, plan.machine.disk_bytes
    room = "" if free is None else f"of {size(free)} free"
    room += ", does not fit" * (not plan.fits_disk)
    rows = [
        ("last checkpoint", disk.last, "two of them while one replaces the other"),
        ("top checkpoints", disk.top, ""),
        ("best model", disk.best, "two of them while one replaces the other"),
        ("trained model", disk.model, ""),
        ("run directory", disk.run_directory, room),
        ("download", disk.download, "from the hub, into its cache"),
    ]
    return [
        (name, size(number), note)
        for name, number, note in rows
        if number or name == "run directory"
    ]


def _aligned(rows: Sequence[Row], widths: Sequence[int]) -> str:
    return "\n".join(
        f"  {name.ljust(widths[0])}  {value.rjust(widths[1])}  {note}".rstrip()
        for name, value, note in rows
    )
