"""Build the parts that the pages of training and evaluation plans share."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.assembly.preflight import command_with
from quarry.planning.host import HostNeed
from quarry.planning.machine import Machine
from quarry.planning.rate import Rate

Row = tuple[str, str, str]
"""Name, amount and note."""

UNKNOWN = "not known"


def aligned(rows: Sequence[Row], widths: Sequence[int]) -> str:
    """Return rows as plain text, in columns of these widths."""
    return "\n".join(
        f"  {name.ljust(widths[0])}  {value.rjust(widths[1])}  {note}".rstrip()
        for name, value, note in rows
    )


def readable_size(num_bytes: float) -> str:
    is_small = num_bytes < 2**30 / 10
    return f"{num_bytes / 2**20:,.1f} MiB" if is_small else f"{num_bytes / 2**30:,.1f} GiB"


def host_row(host: HostNeed, machine: Machine, *, num_jobs: int) -> Row:
    """Return the row of host memory on each node, of all ranks and all jobs there."""
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


def rate_row(rate: Rate | None, machine: Machine) -> Row:
    """Return the row with the rate of one device, or the key that states it."""
    if rate is not None:
        return ("rate", f"{rate.tokens_per_s:,.0f} tokens/s", f"of one device: {rate.source}")
    keys = (
        "task.tokens_per_s=N" if is_known_card(machine) else "task.card=NAME or task.tokens_per_s=N"
    )
    return ("rate", UNKNOWN, f"hours: {why_unknown(machine)}: state {keys}")


def is_known_card(machine: Machine) -> bool:
    return machine.card is not None or not machine.is_gpu


def why_unknown(machine: Machine) -> str:
    return "not measured for such a run" if is_known_card(machine) else "unknown for this card"


def with_commands(reasons: Sequence[str], more: dict[str, str], lines: Sequence[str] = ()) -> str:
    """Return reasons, followed by the commands that would run.

    Args:
        more: overrides, and what they mean.
        lines: commands that come before them.
    """
    lines = [
        *lines,
        *(f"{command_with(override)}   # {meaning}" for override, meaning in more.items()),
    ]
    if not lines:
        return "\n".join(reasons)
    return "\n".join([*reasons, "What would run:", *(f"  {line}" for line in lines)])
