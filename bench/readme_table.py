"""Write the Speed table of the README, from docs/performance.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from measurements import PEER
from study_rows import RECIPE, STUDY
from study_table import fastest_peer
from table import Address

Content = Mapping[str, Any]

BEGIN, END = "<!-- speed: made by bench/page.py -->\n", "<!-- /speed -->\n"


@dataclass(frozen=True, kw_only=True)
class ReadmeRow:
    """A comparison of a rate with sentence-transformers'.

    Attributes:
        peer: its address; None: the faster of its rows in the study.
        has_peer_cell: False where the row above shows the peer.
    """

    what: str
    ours: Address
    peer: Address | None = None
    has_peer_cell: bool = True


ROWS = (
    ReadmeRow(
        what="`experiment=sft_msmarco` as configured: 7B, LoRA with dropout, 32 x 16 (theirs with "
        "their cached loss)",
        ours=(STUDY, RECIPE),
    ),
    ReadmeRow(
        what="the same in at most 40 GiB",
        ours=(STUDY, f"{RECIPE}_40_gib"),
        has_peer_cell=False,
    ),
    ReadmeRow(
        what="the same in fp8",
        ours=(STUDY, f"{RECIPE}_fp8"),
        has_peer_cell=False,
    ),
    ReadmeRow(
        what="7B LoRA training, 8 queries x 16 passages, no dropout (theirs with gradient "
        "checkpointing)",
        ours=("train_7b", "ours"),
        peer=("train_7b", PEER),
    ),
    ReadmeRow(
        what="the same in fp8",
        ours=("train_7b_fp8", "ours_fp8"),
        peer=("train_7b", PEER),
        has_peer_cell=False,
    ),
    ReadmeRow(what="7B encoding", ours=("encode_7b", "ours"), peer=("encode_7b", PEER)),
    ReadmeRow(what="7B encoding in fp8", ours=("encode_7b", "ours_fp8"), peer=("encode_7b", PEER)),
    ReadmeRow(
        what="0.5B LoRA training, 16 x 16", ours=("train_05b", "ours"), peer=("train_05b", PEER)
    ),
    ReadmeRow(
        what="0.5B encoding from text", ours=("encode_05b", "ours"), peer=("encode_05b", PEER)
    ),
)


def readme_table(content: Content) -> str:
    """Return the table, from the JSON alone."""
    lines = ["| | Quarry | sentence-transformers | |\n", "|---|---|---|---|\n"]
    return "".join([*lines, *(_line(row, content) for row in ROWS)])


def with_table(readme: str, content: Content) -> str:
    """Return the README with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, "README.md has lost the marks of its Speed table"
    return before + BEGIN + readme_table(content) + END + after


def _line(row: ReadmeRow, content: Content) -> str:
    ours, peer = _rate(row.ours, content), _rate(row.peer, content)
    ratio = "" if ours is None or peer is None else f"{ours / peer:.2f} times"
    peer_cell = _shown(peer) if row.has_peer_cell else ""
    return f"| {row.what} | {_shown(ours)} | {peer_cell} | {ratio} |\n"


def _rate(address: Address | None, content: Content) -> float | None:
    if address is None:
        peer = fastest_peer(content)
        return None if peer is None else peer["tokens_per_s"]
    measurement, part = address
    found: Content = content["parts"].get(measurement, {}).get(part, {"not_run": ""})
    return None if "not_run" in found else found["tokens_per_s"]


def _shown(rate: float | None) -> str:
    return "not measured" if rate is None else f"{rate:,.0f}"
