"""Format the rows of `many_gpus.py` in Markdown, with targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from textwrap import fill
from typing import Any

from many_gpus_rows import AUTO_ON_ONE, DEVICES, STRATEGIES, equal_to

Content = Mapping[str, Any]

NOT_MEASURED = "not measured"
MANY = DEVICES[1:]
LORA_WANTED = {2: 1.9, 8: 7.0}
"""Number of GPUs -> target of the speed-up over one GPU with equal settings."""

ENCODING_WANTED = {2: 1.95, 8: 7.5}
HANGS_WANTED = 20
"""Target of runs without a hang."""

FULL = {"full_zero3": (2, 4), "full_zero3_offload": (2,)}


def tables(content: Content) -> str:
    """Return all tables, from the JSON alone; † marks two sides from different calls."""
    makers = (_lora, _full, _encoding, _survival, _others)
    return "\n".join(make(content) for make in makers)


def part_of(content: Content, row: str, name: str) -> Content:
    """Return a part; `not_run` in it says why there is no figure."""
    found: Content = content["parts"].get(row, {}).get(name, {"not_run": NOT_MEASURED})
    return found


def ratio(many: Content, one: Content, wanted: float | None = None) -> str:
    """Return the speed-up, in bold where it reaches the target; "" if unknown."""
    if "not_run" in many or "not_run" in one:
        return ""
    times = many["tokens_per_s"] / one["tokens_per_s"]
    text = f"{times:.2f}" + ("" if many["run"] == one["run"] else " †")
    if wanted is None:
        return text
    return f"**{text}**" if times >= wanted else f"{text} ✗"


def reason_of(part: Content) -> str:
    """Return the reason why there is no figure."""
    why: str = part["not_run"]
    return why if why == NOT_MEASURED else f"not run: {why}"


def _lora(content: Content) -> str:
    head = [
        "7B, `sft_msmarco`", "GPUs", "tokens/s", "times one, equal settings", "wanted",
        "times one, `auto`", "peak GiB a GPU", "save, s", "`auto` chose", "commit",
    ]  # fmt: skip
    auto = part_of(content, "lora_ddp", AUTO_ON_ONE)
    rows = [_training("LoRA, `auto`", 1, auto, ["", "", ""])]
    for strategy in STRATEGIES:
        for number in MANY:
            part = part_of(content, f"lora_{strategy}", str(number))
            one = part_of(content, f"lora_{strategy}", equal_to(number))
            wanted = LORA_WANTED.get(number) if strategy != "zero3" else None
            equal = ratio(part, one, wanted)
            if not equal and "not_run" not in part:
                equal = reason_of(one)
            goal = "" if wanted is None else f"≥ {wanted:g}"
            cells = [equal, goal, ratio(part, auto)]
            rows.append(_training(f"LoRA, `{strategy}`", number, part, cells))
    return _table(head, rows)


def _full(content: Content) -> str:
    head = [
        "7B, all weights, `bf16-true`", "GPUs", "tokens/s", "peak GiB a GPU", "save, s",
        "`auto` chose", "commit",
    ]  # fmt: skip
    rows = [
        _training(f"`{row.removeprefix('full_')}`", number, part_of(content, row, str(number)), [])
        for row, numbers in FULL.items()
        for number in numbers
    ]
    return _table(head, rows)


def _training(what: str, number: int, part: Content, cells: Sequence[str]) -> list[str]:
    if "not_run" in part:
        return [what, str(number), reason_of(part), *cells, "", "", _chosen(part), _commit(part)]
    return [
        what, str(number), f"{part['tokens_per_s']:,.0f}", *cells, _number(part, "peak_gib"),
        _number(part, "save_s"), _chosen(part), _commit(part),
    ]  # fmt: skip


def _encoding(content: Content) -> str:
    head = [
        "7B, `eval.py experiment=zero_shot`", "GPUs", "tokens/s", "times one", "wanted",
        "search, s", "TREC run files", "commit",
    ]  # fmt: skip
    one = part_of(content, "encoding", "1")
    rows = []
    for number in DEVICES:
        part = part_of(content, "encoding", str(number))
        wanted = ENCODING_WANTED.get(number)
        goal = "" if wanted is None else f"≥ {wanted:g}"
        if "not_run" in part:
            rows.append(["encoding", str(number), reason_of(part), "", goal, "", "", _commit(part)])
            continue
        times = "" if number == 1 else ratio(part, one, wanted)
        rows.append(
            [
                "encoding",
                str(number),
                f"{part['tokens_per_s']:,.0f}",
                times,
                goal,
                f"{part['searching_s']:.2f}",
                _rankings(number, part, one),
                _commit(part),
            ],
        )
    return _table(head, rows)


def _rankings(number: int, part: Content, one: Content) -> str:
    if number == 1 or "not_run" in one:
        return ""
    is_equal = part["rankings"] and part["rankings"] == one["rankings"]
    return "**those of one, byte for byte**" if is_equal else "others than those of one ✗"


def _survival(content: Content) -> str:
    head = [
        "killed and resumed on 2 GPUs (0.5B)", "optimizer steps after",
        "largest difference of a loss", "trained model", "nDCG@10 uninterrupted / resumed",
        "commit",
    ]  # fmt: skip
    rows = []
    kinds = (("survival", ""), ("survival_refreshing", ", `callbacks=refresh_negatives`"))
    for (row, more), strategy in product(kinds, STRATEGIES):
        part = part_of(content, row, strategy)
        what = f"all weights, `{strategy}`" if strategy == "zero3" else f"LoRA, `{strategy}`"
        what += more
        if "not_run" in part:
            rows.append([what, reason_of(part), "", "", "", _commit(part)])
            continue
        loss, weight = part["largest_loss_difference"], part["largest_weight_difference"]
        is_equal = part["is_model_equal"]
        scores = " / ".join(_scores(part[key]) for key in ("scores", "scores_resumed"))
        rows.append(
            [
                what,
                f"{part['num_updates_gone_on']} of {part['num_updates']}",
                "**0**" if loss == 0 else f"{loss:.2g} ✗",
                "**the same bits**" if is_equal else f"off by {weight:.2g} at most ✗",
                scores,
                _commit(part),
            ],
        )
    return _table(head, rows)


def _scores(points: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{value:.4f}" for _, value in points)


def _others(content: Content) -> str:
    head = ["other runs on 2 GPUs", "result", "wanted", "commit"]
    return _table(head, [_hangs(content), _sweep(content)])


def _hangs(content: Content) -> list[str]:
    part = part_of(content, "hangs", "2")
    what = "evaluation in training under `zero3`, uneven and empty shares"
    goal = f"{HANGS_WANTED} runs without a hang"
    if "not_run" in part:
        return [what, reason_of(part), goal, _commit(part)]
    runs, hangs, failed = part["num_runs"], part["num_hangs"], part["num_failed"]
    is_reached = runs >= HANGS_WANTED and hangs == 0 and failed == 0
    shown = f"{runs} runs, {hangs} hung, {failed} failed"
    shown = f"**{shown}**" if is_reached else f"{shown} ✗"
    longest, limit_s = part["run_s"][-1], part["time_limit_s"]
    shown += f"; the longest took {longest:.0f} s of {limit_s:.0f}"
    return [what, shown, goal, _commit(part)]


def _sweep(content: Content) -> list[str]:
    part = part_of(content, "sweep", "jobs")
    what = "a sweep of four tiny models with `hydra/launcher=gpus`"
    if "not_run" in part:
        return [what, reason_of(part), "", _commit(part)]
    gpus = ", ".join(part["gpus"])
    shown = "**each job had a GPU of its own**" if part["has_own_gpus"] else "GPUs were shared ✗"
    return [what, f"{shown} (CUDA_VISIBLE_DEVICES {gpus})", "", _commit(part)]


def listed(item: str) -> str:
    """Return a wrapped list item."""
    return fill(item, width=100, subsequent_indent="  ", break_on_hyphens=False) + "\n"


def _chosen(part: Content) -> str:
    chosen = part.get("chosen") or {}
    if not chosen:
        return ""
    chunks = chosen["data.grad_cache_chunk_tokens"]
    checkpointing = str(chosen["model.gradient_checkpointing"]).lower()
    shown = "no chunks" if chunks is None else f"chunks of {chunks:,}"
    return f"checkpointing {checkpointing}, {shown}"


def _number(part: Content, key: str) -> str:
    return f"{part[key]:.1f}" if key in part else ""


def _commit(part: Content) -> str:
    return (part.get("commit") or "")[:12]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n" for cells in lines
    )
