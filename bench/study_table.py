"""Format the rows of `study.py` in Markdown, with targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study_rows import BATCHED, CACHED, CACHED_NO_CHECKPOINTING, RECIPE, STUDY

Content = Mapping[str, Any]

NOT_MEASURED = "not measured"
PEERS = (CACHED, CACHED_NO_CHECKPOINTING)
"""Rows of sentence-transformers with the recipe's contrastive batch."""

HEADER = (
    "what", "tokens/s", "wanted", "times sentence-transformers", "GiB allocated / reserved",
    "warm-up, s", "`auto` chose",
)  # fmt: skip
WARM_UP = "warm_up_s"


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A row of the table, for a part of the study.

    Attributes:
        wanted: target in tokens/s, a minimum.
        profile: beginning of the titles of its profiles.
    """

    name: str
    what: str
    wanted: float | None = None
    profile: str | None = None


ROWS = (
    StudyRow(
        name=RECIPE,
        what="`sft_msmarco` as configured, bf16",
        wanted=16_500,
        profile="`sft_msmarco`, bf16",
    ),
    StudyRow(
        name=f"{RECIPE}_40_gib",
        what="the same in at most 40 GiB",
        wanted=14_500,
        profile="`sft_msmarco`, 40 GiB",
    ),
    StudyRow(
        name=f"{RECIPE}_fp8", what="the same, fp8", wanted=22_000, profile="`sft_msmarco`, fp8"
    ),
    StudyRow(name=f"{RECIPE}_dropout_0", what="the same, dropout 0"),
    StudyRow(name=f"{RECIPE}_24_gib", what="the same in at most 24 GiB"),
    StudyRow(name=f"{RECIPE}_48_gib", what="the same in at most 48 GiB"),
    StudyRow(name=f"{RECIPE}_80_gib", what="the same in at most 80 GiB"),
    StudyRow(name=f"{RECIPE}_checkpointing", what="`model.gradient_checkpointing=true`"),
    StudyRow(name=f"{RECIPE}_selective", what="`model.gradient_checkpointing=selective`"),
    StudyRow(
        name=f"{RECIPE}_no_checkpointing",
        what="`model.gradient_checkpointing=false`, GradCache chunks of 24,576 tokens",
    ),
    StudyRow(name=f"{RECIPE}_not_compiled", what="`model.compile=false`"),
    StudyRow(name=f"{RECIPE}_kl", what="`loss=kl_distillation`, a teacher's scores in the data"),
    StudyRow(name=f"{RECIPE}_sum", what="`loss=sum`: InfoNCE and KL distillation"),
    StudyRow(name=CACHED, what="sentence-transformers, cached loss, 32 x 16, checkpointing"),
    StudyRow(
        name=CACHED_NO_CHECKPOINTING,
        what="sentence-transformers, cached loss, 32 x 16, no checkpointing",
    ),
    StudyRow(name=BATCHED, what="sentence-transformers, 8 x 16, checkpointing"),
    StudyRow(name="zero_shot", what="`zero_shot`: encoding, PromptReps, float16"),
)

DROPOUT_WANTED = 0.93
"""Target of the rate with dropout, as a share of the rate without it in one call."""


def study_table(content: Content) -> str:
    """Return all rows and the cost of dropout; † marks two sides from different calls."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    lines += [_line(_cells(row, content)) for row in ROWS]
    return "".join(lines) + "\n" + _dropout(content) + _shortfalls(content)


def part_of(content: Content, name: str) -> Content:
    """Return a part of the study; `not_run` in it says why there is no figure."""
    found: Content = content["parts"].get(STUDY, {}).get(name, {"not_run": NOT_MEASURED})
    return found


def times_peer(part: Content, content: Content) -> str:
    """Return the speed-up over the faster of `PEERS`, "" if unknown."""
    peer = fastest_peer(content)
    if "not_run" in part or peer is None:
        return ""
    mark = "" if part["run"] == peer["run"] else " †"
    return f"{part['tokens_per_s'] / peer['tokens_per_s']:.2f}{mark}"


def fastest_peer(content: Content) -> Content | None:
    """Return the faster of `PEERS` that ran."""
    ran = [part for part in (part_of(content, name) for name in PEERS) if "not_run" not in part]
    return max(ran, key=lambda part: float(part["tokens_per_s"]), default=None)


def judged(text: str, *, is_reached: bool) -> str:
    """Return the text in bold, or with a mark if the target is missed."""
    return f"**{text}**" if is_reached else f"{text} ✗"


def _cells(row: StudyRow, content: Content) -> list[str]:
    part = part_of(content, row.name)
    wanted = "" if row.wanted is None else f"≥ {row.wanted:,.0f}"
    if "not_run" in part:
        reason = part["not_run"]
        text = reason if reason == NOT_MEASURED else f"not run: {reason}"
        return [row.what, text, wanted, "", "", "", _chosen(part)]
    rate = f"{part['tokens_per_s']:,.0f}"
    if row.wanted is not None:
        rate = judged(rate, is_reached=part["tokens_per_s"] >= row.wanted)
    is_training = row.name.startswith(RECIPE)
    peaks = [f"{part[key]:.1f}" for key in ("peak_gib", "peak_reserved_gib") if key in part]
    version = part.get("sentence_transformers")
    return [
        row.what if version is None else f"{row.what}; version {version}",
        rate,
        wanted,
        times_peer(part, content) if is_training else "",
        " / ".join(peaks),
        f"{part[WARM_UP]:.0f}" if WARM_UP in part else f"all: {part['command_s']:.0f}",
        _chosen(part),
    ]


def _chosen(part: Content) -> str:
    """Return the stored values of the keys that can be `auto`."""
    chosen = part.get("chosen") or {}
    names = ("model.gradient_checkpointing", "data.grad_cache_chunk_tokens")
    return ", ".join(_value(chosen[name], name) for name in names if name in chosen)


def _value(value: object, name: str) -> str:
    if "chunk" in name:
        return "no chunks" if value is None else f"chunks of {value}"
    return f"checkpointing {str(value).lower()}"


def _dropout(content: Content) -> str:
    """Return a sentence on the cost of LoRA's dropout."""
    with_it, without = part_of(content, RECIPE), part_of(content, f"{RECIPE}_dropout_0")
    wanted = f"wanted ≥ {DROPOUT_WANTED:g} in one call"
    if "not_run" in with_it or "not_run" in without:
        return f"Dropout 0.1 against 0: {NOT_MEASURED} ({wanted}).\n"
    ratio = with_it["tokens_per_s"] / without["tokens_per_s"]
    mark = "" if with_it["run"] == without["run"] else " †"
    shown = judged(f"{ratio:.3f}{mark}", is_reached=ratio >= DROPOUT_WANTED)
    return f"Dropout 0.1 against 0: {shown} of the rate ({wanted}).\n"


def _shortfalls(content: Content) -> str:
    """Return a line for each missed target, with its profile."""
    profiles = content.get("profiles", {})
    lines = []
    for row in ROWS:
        part = part_of(content, row.name)
        if row.wanted is None or "not_run" in part or part["tokens_per_s"] >= row.wanted:
            continue
        titles = [title for title in profiles if row.profile and title.startswith(row.profile)]
        where = f'see "{titles[0]}" below' if titles else "no profile yet"
        share = part["tokens_per_s"] / row.wanted
        lines.append(f"- {row.what}: {share:.0%} of what is wanted; {where}.\n")
    return "\nWhat falls short:\n\n" + "".join(lines) if lines else ""


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
