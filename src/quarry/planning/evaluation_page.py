"""Show the plan of an evaluation as text, and refuse it with commands that would run."""

from __future__ import annotations

from quarry.assembly.preflight import command_with
from quarry.models.dtypes import DTYPES
from quarry.planning.encoding_work import EncodingWork, SetWork
from quarry.planning.evaluation_outcome import EvaluationPlan
from quarry.planning.host import host_reason, host_remedies
from quarry.planning.inputs import PlannedEvaluation
from quarry.planning.machine import CLOSE
from quarry.planning.page_rows import (
    UNKNOWN,
    Row,
    aligned,
    host_row,
    rate_row,
    readable_size,
    with_commands,
)
from quarry.planning.prefix_tokens import prefix_note

NUM_GPUS = (2, 4, 8)
"""GPUs of a node that are tried."""


def evaluation_paragraphs(plan: EvaluationPlan) -> list[str]:
    """Return the plan as aligned plain text."""
    tables = {"Work": _work(plan), "Time": _time(plan)}
    if plan.model is not None:
        tables |= {"Memory": _memory(plan), "Disk": _disk(plan)}
    rows = [row for table in tables.values() for row in table]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [_head(plan), *(f"{title}\n{aligned(t, widths)}" for title, t in tables.items())]


def evaluation_line(plan: EvaluationPlan) -> str:
    """Return one line that programs can read."""
    values = {name.removeprefix("plan/"): value for name, value in plan.summary().items()}
    return " ".join(["plan", *(f"{name}={value:.6g}" for name, value in values.items())])


def evaluation_refusal(inputs: PlannedEvaluation, plan: EvaluationPlan) -> str | None:
    """Return why the evaluation is refused, and commands that would run; None: it is not."""
    reasons: list[str] = []
    commands: dict[str, str] = {}
    lines: list[str] = []
    if not plan.fits_memory:
        assert inputs.spec is not None, "what embeds nothing has no weights"
        reasons.append(
            f"The weights take {readable_size(plan.weights)} on each device, which has "
            f"{readable_size(plan.machine.num_bytes)} ({plan.machine.name})."
        )
        commands |= inputs.spec.source.remedies(share=plan.machine.num_bytes / plan.weights)
        lines = _in_shards(plan)
    if not plan.fits_disk:
        reasons.append(_against_disk(plan))
        commands |= _disk_remedies(plan)
    host_bytes = plan.machine.host_bytes
    if host_bytes is not None and plan.fits_memory:
        reason = host_reason(plan.host, host_bytes=host_bytes, num_jobs=plan.num_jobs)
        if reason is not None:
            reasons.append(reason)
            commands |= host_remedies(
                plan.host,
                inputs.corpus,
                host_bytes=host_bytes,
                num_jobs=plan.num_jobs,
                is_training=False,
            )
    return with_commands(reasons, commands, lines) if reasons else None


def _in_shards(plan: EvaluationPlan) -> list[str]:
    """Return the command that spreads the weights over the fewest GPUs of a node that hold them."""
    assert plan.model is not None
    if not plan.machine.is_gpu:
        return []
    complete = plan.model.num_parameters * DTYPES[plan.dtype].itemsize
    for number in NUM_GPUS:
        if number > plan.world_size and complete / number <= CLOSE * plan.machine.num_bytes:
            command = command_with("strategy=zero3", f"trainer.devices={number}")
            return [f"{command}   # weights in shards, {readable_size(complete / number)} a device"]
    return []


def _against_disk(plan: EvaluationPlan) -> str:
    assert plan.machine.disk_bytes is not None
    what = "The embedding store" if plan.store_dtype else "The embeddings of the corpus"
    return (
        f"{what} would take {readable_size(plan.disk_bytes)}, and "
        f"{readable_size(plan.machine.disk_bytes)} are free: make room, or name a larger disk."
    )


def _disk_remedies(plan: EvaluationPlan) -> dict[str, str]:
    free = plan.machine.disk_bytes
    assert free is not None
    found = {}
    if plan.store_dtype == "float32" and plan.disk_bytes / 2 <= free:
        found["evaluation.store_dtype=float16"] = (
            f"half the size: {readable_size(plan.disk_bytes / 2)}"
        )
    if plan.store_dtype:
        found["paths.store_dir=DIR"] = f"a folder with {readable_size(plan.disk_bytes)} free"
    largest = max((one.num_texts or 0 for one in plan.work.sets), default=0)
    share = plan.disk_bytes * largest / max(1, plan.work.num_texts)
    if plan.store_dtype and share <= free and len(plan.work.sets) > 1:
        name = next(one.name for one in plan.work.sets if one.num_texts == largest)
        found[f"benchmark.sets=[{name}]"] = "set by set; delete the store in between"
    return found


def _head(plan: EvaluationPlan) -> str:
    ranks = f"{plan.world_size} process{'es' * (plan.world_size > 1)}"
    nodes = f" on {plan.num_nodes} nodes" if plan.num_nodes > 1 else ""
    if plan.model is None:
        return f"evaluation of {plan.retriever}, which embeds nothing"
    model = plan.model
    return (
        f"evaluation of {model.source}: {model.num_parameters / 1e9:.3g}e9 parameters "
        f"({model.shape_from})\n"
        f"{ranks}{nodes}, weights in {plan.dtype}, retriever {plan.retriever}\n"
        f"for {plan.machine.name}"
    )


def _work(plan: EvaluationPlan) -> list[Row]:
    work, has_tokens = plan.work, plan.model is not None
    sources = {one.source for one in work.sets}
    shared = sources.pop() if len(sources) == 1 and not work.unknown_sets else ""
    groups: dict[str, list[SetWork]] = {}
    for one in work.sets:
        name = one.name if one.group is None or one.num_texts is None else one.group
        groups.setdefault(name, []).append(one)
    rows = [
        _group_row(name, sets, has_tokens=has_tokens, has_source=not shared)
        for name, sets in groups.items()
    ]
    notes = [f"{_counted(work.num_tokens)} tokens"] if has_tokens else []
    notes += [shared] if shared else []
    if work.unknown_sets:
        notes.append(f"{len(work.unknown_sets)} sets are not known and come on top")
    if plan.num_passes == 2:
        notes.append("each is encoded twice, see evaluation.compare_dtype")
    if work.is_unknown:
        return [*rows, ("in all", UNKNOWN, "")]
    rows.append(("in all", f"{work.num_texts:,} texts", "; ".join(notes)))
    return [*rows, *_computed_rows(plan), *_share_rows(plan), *_reranked_rows(plan)]


def _computed_rows(plan: EvaluationPlan) -> list[Row]:
    """Show the tokens that go through the model, where texts share a prefix or may do so."""
    note = prefix_note(plan.work.prefix_tokens)
    if plan.model is None or not note:
        return []
    return [("computed", f"{_counted(plan.work.num_computed_tokens)} tokens", note)]


def _reranked_rows(plan: EvaluationPlan) -> list[Row]:
    """Show the pairs that a reranker scores."""
    number = plan.num_reranked_pairs
    if number is None:
        return []
    note = (
        f"at most: the best {plan.reranked_depth} documents of each query; time and weights of the "
        "reranker are not counted"
    )
    return [("reranked", f"{number:,} pairs", note)]


def _share_rows(plan: EvaluationPlan) -> list[Row]:
    """Show what one of several ranks tokenizes, on its CPU cores, and encodes."""
    tokens = plan.tokens_per_process
    if tokens is None or plan.world_size == 1:
        return []
    note = f"tokenizes and encodes {_counted(tokens)} tokens"
    return [("each process", f"1/{plan.world_size} of them", note)]


def _group_row(name: str, sets: list[SetWork], *, has_tokens: bool, has_source: bool) -> Row:
    """Show a set, or the parts of a group together; of an unknown set the reason."""
    if sets[0].num_texts is None:
        return (name, UNKNOWN, sets[0].source)
    notes = [f"{len(sets)} sets"] if len(sets) > 1 else []
    if has_tokens:
        notes.append(f"{_counted(sum(one.num_tokens or 0 for one in sets))} tokens")
    if not any(one.num_new_documents for one in sets):
        notes.append("corpus of a set before it")
    if has_source:
        notes.append(sets[0].source)
    return (name, f"{sum(one.num_texts or 0 for one in sets):,} texts", "; ".join(notes))


def _counted(number: float) -> str:
    return f"{number:,.0f}" if number < 1e6 else f"{number / 1e6:,.4g} million"


def _time(plan: EvaluationPlan) -> list[Row]:
    if plan.model is None:
        note = f"{plan.retriever} embeds nothing; its time on the CPU is not counted"
        if plan.reranked_depth is not None:
            return [("GPU hours", UNKNOWN, f"{note}, nor that of the reranker")]
        return [("GPU hours", "none", note)]
    rows = [rate_row(plan.rate, plan.machine)]
    if plan.hours is None or plan.device_hours is None:
        return [*rows, ("encoding", UNKNOWN, "")]
    limit = "at least " * plan.is_at_least
    number = plan.world_size
    note = f"if {number} devices are {number} times as fast as one" if number > 1 else ""
    note = "; ".join(part for part in (note, "search and reading weights are not counted") if part)
    rows.append(("encoding", f"{limit}{plan.hours:,.3g} h", note))
    rows.append(("device hours", f"{limit}{plan.device_hours:,.3g}", ""))
    return rows


def _memory(plan: EvaluationPlan) -> list[Row]:
    share = plan.weights / plan.machine.num_bytes
    fit = "" if plan.fits_memory else ", does not fit"
    note = (
        f"of {readable_size(plan.machine.num_bytes)}: {share:.0%}{fit}; a forward pass comes on top"
    )
    return [
        ("weights", readable_size(plan.weights), note),
        host_row(plan.host, plan.machine, num_jobs=plan.num_jobs),
    ]


def _disk(plan: EvaluationPlan) -> list[Row]:
    free = plan.machine.disk_bytes
    room = "" if free is None else f", of {readable_size(free)} free"
    room += ", does not fit" * (not plan.fits_disk)
    rows: list[Row] = []
    if plan.store_dtype is not None:
        note = f"{_limited(plan.work)}{plan.dim:,} x {plan.store_dtype} a text{room}"
        need = UNKNOWN if plan.work.is_unknown else readable_size(plan.store_bytes)
        rows.append(("embedding store", need, note))
    elif plan.disk_bytes:
        rows.append(("corpus", readable_size(plan.disk_bytes), f"embeddings, while searched{room}"))
    else:
        rows.append(("embedding store", "none", "evaluation.store=false"))
    if plan.download:
        rows.append(
            ("download", readable_size(plan.download), "weights from the hub, into its cache")
        )
    return rows


def _limited(work: EncodingWork) -> str:
    return "at least: " if work.unknown_sets else ""
