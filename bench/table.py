"""Format the JSON of `run.py` as a Markdown table, with targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from measurements import BATCH_NAMES, PEER

Content = Mapping[str, Any]
Address = tuple[str, str]
"""A measurement and one of its parts."""

HEADER = ("what", "ours", "reference", "ratio", "wanted", "of the matrix rate", "peak GiB")
DETAILS_HEADER = ("measurement", "tokens/s", "of windows", "warm-up, s", "peak GiB", "cosine")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: two parts that are compared, or a single part.

    Attributes:
        ours: the first of these that ran; with `is_within_memory` the fastest that takes no more
            memory than the reference.
        key, reference_key: keys of the compared values in the results.
        wanted_ratio: target of the ratio, a minimum, or a maximum if `is_better_low`.
        wanted_share: target as a share of the rate of the matrix product, a minimum.
    """

    what: str
    ours: tuple[Address, ...]
    reference: Address | None = None
    reference_name: str = PEER
    key: str = "tokens_per_s"
    reference_key: str | None = None
    wanted_ratio: float | None = None
    wanted_share: float | None = None
    is_better_low: bool = False
    is_within_memory: bool = False


def _row(what: str, ours: Address, reference: Address | None, **more: Any) -> Row:
    return Row(what=what, ours=(ours,), reference=reference, **more)


ROWS = (
    _row(
        "7B LoRA training, 8 x 16, no checkpointing; theirs with",
        ("train_7b", "ours"),
        ("train_7b", PEER),
        wanted_ratio=4.8,
    ),
    Row(
        what="the same within their memory",
        ours=(("train_7b_same_memory", "ours"),),
        reference=("train_7b", PEER),
        wanted_ratio=3.3,
        is_within_memory=True,
    ),
    Row(
        what="7B LoRA training, 16 x 16",
        ours=(("train_7b_16x16", "ours"), ("train_7b_16x16", "ours_in_chunks")),
        wanted_share=0.65,
    ),
    _row(
        "7B LoRA training in fp8, 8 x 16",
        ("train_7b_fp8", "ours_fp8"),
        ("train_7b", "ours"),
        reference_name="ours in bf16",
        wanted_ratio=1.25,
    ),
    _row(
        "7B encoding",
        ("encode_7b", "ours"),
        ("encode_7b", PEER),
        wanted_ratio=1.5,
        wanted_share=0.75,
    ),
    _row(
        "7B encoding in fp8; theirs in bf16",
        ("encode_7b", "ours_fp8"),
        ("encode_7b", PEER),
        wanted_ratio=2.3,
    ),
    _row(
        "7B encoding against padded batches",
        ("encode_7b", "ours"),
        ("encode_7b", "transformers"),
        reference_name="transformers",
    ),
    _row(
        "0.5B LoRA training, 16 x 16, no checkpointing; theirs with",
        ("train_05b", "ours"),
        ("train_05b", PEER),
        wanted_ratio=6.5,
    ),
    _row("0.5B encoding", ("encode_05b", "ours"), ("encode_05b", PEER), wanted_ratio=2.8),
    *(
        _row(
            f"GradCache in chunks of 8,192 tokens, 0.5B: memory of {number} queries x 16",
            ("grad_cache_memory", name),
            ("grad_cache_memory", BATCH_NAMES[0]),
            reference_name="8 queries",
            key="peak_gib",
            wanted_ratio=1.1,
            is_better_low=True,
        )
        for name, number in zip(BATCH_NAMES[1:], (64, 512), strict=True)
    ),
    *(
        _row(
            what,
            (name, "ours"),
            (name, "ours"),
            reference_name="the products alone",
            key="search_s",
            reference_key="products_s",
            wanted_ratio=wanted,
            is_better_low=True,
        )
        for what, name, wanted in (
            ("search: 6,980 x 1M x 3,584, top 100", "search", 1.75),
            ("search on a CPU: 300 x 100,000 x 256, top 100", "search_on_cpu", None),
        )
    ),
    _row(
        "encoding scifact with qwen-tiny on a CPU",
        ("encode_scifact", "ours"),
        ("encode_scifact", PEER),
        wanted_ratio=1.0,
    ),
)


def table(content: Content) -> str:
    """Return all rows, also those that were not run; † marks two sides from different runs."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    lines += [_line(_cells(row, content)) for row in ROWS]
    return "".join(lines)


def details(content: Content) -> str:
    """Return every part that ran, with the range of its windows and its warm-up."""
    lines = [_line(DETAILS_HEADER), _line(["---"] * len(DETAILS_HEADER))]
    for measurement, parts in content["parts"].items():
        for name, part in parts.items():
            rates = part.get("tokens_per_s_of_windows") or part.get("tokens_per_s_of_passes")
            if rates is None:
                continue
            cosine = part.get("smallest_cosine")
            cells = [
                f"`{measurement}`, {name}",
                f"{part['tokens_per_s']:,.0f}",
                f"{min(rates):,} to {max(rates):,}",
                f"{part['warm_up_s']:.0f}",
                f"{part['peak_gib']:.1f}" if "peak_gib" in part else "",
                "" if cosine is None else f"{cosine:.4f}",
            ]
            lines.append(_line(cells))
    return "".join(lines)


def _cells(row: Row, content: Content) -> list[str]:
    reference = _result(content, row.reference)
    ours = _chosen(row, content, reference)
    if row.key not in ours:
        reason = ours.get("not_run", "not counted on a CPU")
        return [row.what, f"not run: {reason}", *[""] * 2, _wanted(row), "", ""]
    key, reference_key = row.key, row.reference_key or row.key
    cells = [row.what, _amount(key, ours[key])]
    has_reference = row.reference is not None and "not_run" not in reference
    if has_reference:
        cells.append(f"{_amount(reference_key, reference[reference_key])} ({row.reference_name})")
        ratio = ours[key] / reference[reference_key]
        mark = "" if ours["run"] == reference["run"] else " †"
        cells.append(_judged(f"{ratio:.2f}{mark}", _is_reached(row, ratio)))
    elif row.reference is None:
        cells += ["", ""]
    else:
        cells += [f"not run: {reference['not_run']}", ""]
    share = _share(ours, content)
    is_enough = None if row.wanted_share is None or share is None else share >= row.wanted_share
    cells += [_wanted(row), "" if share is None else _judged(f"{share:.0%}", is_enough)]
    peaks = [part["peak_gib"] for part in (ours, reference) if "peak_gib" in part]
    is_same = row.reference in row.ours
    cells.append(" / ".join(f"{peak:.1f}" for peak in peaks[: 1 if is_same else 2]))
    return cells


def _chosen(row: Row, content: Content, reference: Content) -> Content:
    """Return the part of ours that the row shows."""
    found = [_result(content, address) for address in row.ours]
    ran = [part for part in found if "not_run" not in part]
    if not ran:
        return found[0]
    if not row.is_within_memory or "peak_gib" not in reference:
        return ran[0]
    fitting = [part for part in ran if part["peak_gib"] <= reference["peak_gib"]]
    if not fitting:
        least = min(part["peak_gib"] for part in ran)
        return {"not_run": f"none fits: {least:.1f} GiB at least, they {reference['peak_gib']:.1f}"}
    return max(fitting, key=lambda part: float(part["tokens_per_s"]))


def _result(content: Content, address: Address | None) -> Content:
    if address is None:
        return {"not_run": ""}
    measurement, part = address
    found: Content = content["parts"].get(measurement, {}).get(part, {"not_run": "not measured"})
    return found


def _share(part: Content, content: Content) -> float | None:
    """Return useful FLOP/s as a share of the bf16 matrix product's in the same run."""
    run = content["runs"][part["run"]]
    if "flop_per_token" not in part or not run["has_gpu"]:
        return None
    return float(part["tokens_per_s"] * part["flop_per_token"] / run["matrix_flop_per_s"])


def _is_reached(row: Row, ratio: float) -> bool | None:
    if row.wanted_ratio is None:
        return None
    return ratio <= row.wanted_ratio if row.is_better_low else ratio >= row.wanted_ratio


def _judged(text: str, is_reached: bool | None) -> str:
    """Return the text in bold, or with a mark if the target is missed."""
    return text if is_reached is None else f"**{text}**" if is_reached else f"{text} ✗"


def _wanted(row: Row) -> str:
    wanted = []
    if row.wanted_ratio is not None:
        wanted.append(f"{'≤' if row.is_better_low else '≥'} {row.wanted_ratio:g}")
    if row.wanted_share is not None:
        wanted.append(f"≥ {row.wanted_share:.0%} of the rate")
    return ", ".join(wanted)


def _amount(key: str, value: float) -> str:
    if key.endswith("_gib"):
        return f"{value:.2f} GiB"
    return f"{value:.4f} s" if key.endswith("_s") and "per" not in key else f"{value:,.0f} tokens/s"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
