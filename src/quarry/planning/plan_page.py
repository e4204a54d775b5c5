"""A plan as text, and what is against it as an error with the commands that would run."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.assembly.preflight import command_with
from quarry.planning.alternatives import Alternative
from quarry.planning.evaluations import Evaluations
from quarry.planning.host import HostNeed
from quarry.planning.machine import CLOSE, Machine
from quarry.planning.memory_fit import with_choice
from quarry.planning.outcome import Plan
from quarry.planning.prefix_tokens import prefix_note
from quarry.planning.rate import Rate
from quarry.planning.step_cost import step_seconds
from quarry.planning.step_memory import step_memory

Row = tuple[str, str, str]
"""What, how much, and what is to be said of it."""

UNKNOWN = "not known"


def paragraphs(plan: Plan) -> list[str]:
    """Aligned plain text."""
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
    """One line that programs can read."""
    values = {name.removeprefix("plan/"): value for name, value in plan.summary().items()}
    return "plan " + " ".join(f"{name}={value:.6g}" for name, value in values.items())


def plan_refusal(
    plan: Plan,
    found: Sequence[Alternative],
    more: dict[str, str],
    *,
    host: tuple[str, dict[str, str]] | None = None,
) -> str | None:
    """Why the run cannot be, and the commands that could; None: nothing is against it.

    Args:
        found: runs that fit.
        more: further overrides, and what they mean.
        host: why the memory of the host does not hold it, and overrides as in `more`.
    """
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
    if host is not None:
        reasons.append(host[0])
        if plan.fits_memory:
            more = more | host[1]
    if not reasons:
        return None
    lines = [
        f"{command_with(*each.overrides)}   # {readable_size(each.memory.total)}: {each.meaning}"
        for each in found
    ]
    return with_commands(reasons, more, lines)


def with_commands(reasons: Sequence[str], more: dict[str, str], lines: Sequence[str] = ()) -> str:
    """Reasons, and the commands that would run.

    Args:
        more: overrides, and what they mean.
        lines: commands that go before them.
    """
    lines = [
        *lines,
        *(f"{command_with(override)}   # {meaning}" for override, meaning in more.items()),
    ]
    if not lines:
        return "\n".join(reasons)
    return "\n".join([*reasons, "What would run:", *(f"  {line}" for line in lines)])


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


def readable_size(num_bytes: float) -> str:
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
        ("weights", readable_size(memory.weights), ""),
        (
            "gradients",
            readable_size(memory.gradients),
            f"{setup.num_trained / 1e6:,.4g}e6 are trained",
        ),
        (
            "optimiser",
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
            "of the contrast set, and their gradients",
        ),
        ("total", readable_size(memory.total), _verdict(plan)),
    ]
    if plan.unmeasured:
        rows.append(("", "", f"no measurement backs this: {', '.join(plan.unmeasured)}"))
    rows.append(host_row(plan.host, plan.machine, num_jobs=plan.num_jobs))
    return [row for row in rows if row[0] != "buffers" or memory.buffers]


def _candidates(plan: Plan) -> list[Row]:
    """What `auto` chose from: each with its memory and the hours of training."""
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


def host_row(host: HostNeed, machine: Machine, *, num_jobs: int) -> Row:
    """Memory of the host on each node, of all ranks and all jobs there."""
    parts = {
        "weights in passing": host.loading,
        "states": host.resident,
        "embeddings of the corpus": host.corpus,
        "ids": host.ids,
    }
    note = "of each node: " + ", ".join(
        f"{name} {readable_size(n)}" for name, n in parts.items() if n
    )
    if host.corpus_on_disk:
        note += f"; embeddings of the corpus are on disk, {readable_size(host.corpus_on_disk)}"
    if num_jobs > 1:
        note += f"; {num_jobs} jobs at once, {readable_size(host.total)} each"
    if machine.host_bytes is not None:
        note += f"; {readable_size(machine.host_bytes)} available here"
    return ("host", readable_size(num_jobs * host.total), note)


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


def rate_row(rate: Rate | None, machine: Machine) -> Row:
    """The rate of one device, or the key that states it."""
    if rate is not None:
        return ("rate", f"{rate.tokens_per_s:,.0f} tokens/s", f"of one device: {rate.source}")
    keys = "task.tokens_per_s=N" if _is_known(machine) else "task.card=NAME or task.tokens_per_s=N"
    return ("rate", UNKNOWN, f"hours: {_why_unknown(machine)}: state {keys}")


def _is_known(machine: Machine) -> bool:
    return machine.card is not None or not machine.is_gpu


def _why_unknown(machine: Machine) -> str:
    return "not measured for such a run" if _is_known(machine) else "unknown for this card"


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
        key = "" if _is_known(machine) else ": state task.card=NAME"
        notes.append(f"hours {_why_unknown(machine)}{key}")
        return ("evaluations", UNKNOWN, "; ".join(notes))
    notes.append(f"{evaluations.rate.tokens_per_s:,.0f} tokens/s: {evaluations.rate.source}")
    if evaluations.hours is None:
        return ("evaluations", UNKNOWN, "; ".join(notes))
    limit = "at least " * evaluations.is_limit
    return ("evaluations", f"{limit}{evaluations.hours:,.3g} h", "; ".join(notes))


def _limit(plan: Plan) -> str:
    """Whether hours are a bound; with too many tokens at too high a rate they are none."""
    if plan.rate is None:
        return ""
    if plan.workload.is_bound and plan.rate.is_limit:
        return "about "
    return "at most " if plan.workload.is_bound else "at least " if plan.rate.is_limit else ""


def _assumption(plan: Plan) -> str:
    number = plan.setup.num_processes
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


def aligned(rows: Sequence[Row], widths: Sequence[int]) -> str:
    """Rows as plain text, in columns of these widths."""
    return "\n".join(
        f"  {name.ljust(widths[0])}  {value.rjust(widths[1])}  {note}".rstrip()
        for name, value, note in rows
    )
