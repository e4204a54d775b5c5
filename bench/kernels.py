"""Tabulate the kernels of a trace: the time of each kind, and the idle time of the GPU."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

KINDS = {
    "compiled element-wise": r"^triton_(poi|red|per)|^quanti[sz]e",  # named after fused operations
    "attention": r"flash|fmha|attention|varlen",
    "matrix products": r"gemm|nvjet|cutlass|cublas|xmma|scaled_mm|splitk|_mm_",
    "optimizer and clipping": r"adam|multi_tensor|foreach|lpnorm",
    "copies": r"memcpy|memset|copy",
}
"""Kind -> pattern in kernel names, the first match counts; others are eager element-wise ones."""

OTHER = "other element-wise, reductions, indexing"
WAITING = "none: the GPU waits"
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
NUM_NAMES = 12

Event = Mapping[str, Any]


def kind_of(name: str) -> str:
    for kind, pattern in KINDS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return OTHER


def times_by(events: Iterable[Event], *, is_by_name: bool = False) -> dict[str, float]:
    """Return the microseconds of each kind (or name), in descending order."""
    times: dict[str, float] = {}
    for event in events:
        key = event["name"] if is_by_name else kind_of(event["name"])
        times[key] = times.get(key, 0.0) + event["dur"]
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def waiting(events: Iterable[Event]) -> float:
    """Return the idle microseconds between the first and the last event."""
    idle, end = 0.0, None
    for event in sorted(events, key=lambda event: float(event["ts"])):
        if end is not None:
            idle += max(0.0, event["ts"] - end)
        end = max(end or 0.0, event["ts"] + event["dur"])
    return idle


def profile_table(events: list[Event], *, num_steps: int, unit: str = "step") -> str:
    """Return a table of the shares by kind, and one of the longest kernels.

    Args:
        num_steps: in the trace.
        unit: what a step is called.
    """
    times = times_by(events) | {WAITING: waiting(events)}
    whole = sum(times.values())
    lines = [f"| what | share | ms a {unit} |\n", "| --- | --- | --- |\n"]
    lines += [_line(kind, time, whole, num_steps) for kind, time in times.items()]
    lines += [f"\n| kernel | share | ms a {unit} |\n", "| --- | --- | --- |\n"]
    by_name = list(times_by(events, is_by_name=True).items())[:NUM_NAMES]
    lines += [_line(f"`{name[:90]}`", time, whole, num_steps) for name, time in by_name]
    return "".join(lines)


def _line(what: str, time: float, whole: float, num_steps: int) -> str:
    return f"| {what} | {time / whole:.1%} | {time / 1000 / num_steps:.2f} |\n"


def read_trace(path: Path) -> list[Event]:
    """Return the GPU events of a trace."""
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return [event for event in events if event.get("cat") in ON_GPU and "dur" in event]
