"""Format the gains of the shared prefix and the pooled last layer, with targets, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study_rows import ENCODING, ENCODING_FP8, ENCODING_PEER, LAST_LAYER, PEER_PROMPT, STUDY

Content = Mapping[str, Any]
Address = tuple[str, ...]
"""A part of the study, and the keys that lead to a rate in its result."""

HEAD = """
### Shared prefix and pooled last layer

| what | tokens/s | compared with | ratio | wanted |
| --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of two rates.

    Attributes:
        wanted: target of the ratio of `ours` to `reference`, a minimum.
    """

    what: str
    ours: Address
    reference: Address
    reference_name: str
    wanted: float


def _encoding(what: str, prompt: str, way: str, wanted: float) -> Comparison:
    return Comparison(
        what=what,
        ours=(ENCODING, prompt, "tokens_per_s", way),
        reference=(ENCODING, prompt, "tokens_per_s", "plain"),
        reference_name="without both",
        wanted=wanted,
    )


def _peer(what: str, part: str, wanted: float) -> Comparison:
    return Comparison(
        what=what,
        ours=(part, PEER_PROMPT, "tokens_per_s", "shared"),
        reference=(ENCODING_PEER, "tokens_per_s"),
        reference_name="sentence-transformers, bf16",
        wanted=wanted,
    )


COMPARISONS = (
    _encoding("PromptReps, base: encoding passages", "promptreps_base", "shared", 1.18),
    _encoding("PromptReps, instruct: encoding passages", PEER_PROMPT, "shared", 1.25),
    _encoding("no template: encoding passages", "last_token", "pooled", 1.02),
    _peer("PromptReps, instruct, bf16", ENCODING, 1.6),
    _peer("PromptReps, instruct, fp8", ENCODING_FP8, 2.7),
    Comparison(
        what="`sft_msmarco`: training",
        ours=(LAST_LAYER, "tokens_per_s"),
        reference=(LAST_LAYER, "tokens_per_s_plain"),
        reference_name="without the pooled last layer",
        wanted=1.02,
    ),
)


def encoding_table(content: Content) -> str:
    """Return all comparisons; † marks two sides from different calls."""
    return HEAD + "".join(f"| {' | '.join(_cells(row, content))} |\n" for row in COMPARISONS)


def _cells(row: Comparison, content: Content) -> list[str]:
    parts = content["parts"].get(STUDY, {})
    ours, reference = _rate(row.ours, parts), _rate(row.reference, parts)
    wanted = f"≥ {row.wanted:g}"
    if isinstance(ours, str):
        return [row.what, ours, row.reference_name, "", wanted]
    if isinstance(reference, str):
        return [row.what, f"{ours:,.0f}", f"{row.reference_name}: {reference}", "", wanted]
    is_one_call = parts[row.ours[0]]["run"] == parts[row.reference[0]]["run"]
    ratio = ours / reference
    shown = f"{ratio:.3f}{'' if is_one_call else ' †'}"
    return [
        row.what,
        f"{ours:,.0f}",
        f"{row.reference_name}: {reference:,.0f}",
        f"**{shown}**" if ratio >= row.wanted else f"{shown} ✗",
        wanted,
    ]


def _rate(address: Address, parts: Content) -> float | str:
    """Return tokens/s, or the reason why there is no figure."""
    name, *keys = address
    found = parts.get(name, {"not_run": "not measured"})
    for key in keys:
        if key not in found:
            reason = found.get("not_run", "not measured")
            return str(reason) if reason == "not measured" else f"not run: {reason}"
        found = found[key]
    assert isinstance(found, float)
    return found
