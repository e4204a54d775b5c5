"""Compare a server's vectors of the golden texts with a model, and state what differs and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity

from quarry.data.tokenization import TextTokenizer
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.endpoint.broken_rules import WITHOUT_PROJECTIONS, Sends
from quarry.retrieval.endpoint.replay import Rules
from quarry.retrieval.endpoint.role_findings import BOTH, CUT_REMEDY, Finding, RoleFindings
from quarry.retrieval.golden_texts import GOLDEN, golden_embeddings, name_of

MAX_LENGTH_ERROR = 0.02
"""Largest relative error of a vector's length that precision may cause."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """The outcome of a comparison.

    Attributes:
        findings: what differs; empty: nothing.
        cosines: for each golden text, to the contract's vector; NaN without a comparable vector.
    """

    findings: tuple[Finding, ...]
    cosines: tuple[float, ...]


def diagnose(
    found: Sequence[Tensor | None],
    *,
    model: BiEncoder,
    tokenizer: TextTokenizer,
    sends: Sends,
    max_distance: float,
) -> Diagnosis:
    """Say what differs between a server's vectors and those of the model by its contract.

    Args:
        found: the server's vector of each golden text, [dim], all of one width; None: it refused
            the text.
        model: in eval mode, in float32.
        sends: what the server received, see `Replay`.
        max_distance: largest 1 - cosine of vectors that count as equal.
    """
    expected = golden_embeddings(model, tokenizer)
    width = next(len(each) for each in found if each is not None)
    is_comparable = width == expected.shape[1]
    cosines = tuple(
        float("nan")
        if each is None or not is_comparable
        else float(cosine_similarity(each.double(), one.double(), dim=0))
        for each, one in zip(found, expected, strict=True)
    )
    findings = list(_refused(found))
    always, of_width = _width(model, width)
    findings += of_width
    if always is not None:
        findings += RoleFindings(
            model=model, tokenizer=tokenizer, sends=sends, max_distance=max_distance,
            found=found, expected=expected, always=always,
        ).findings()  # fmt: skip
    if is_comparable:
        findings += _lengths(found, expected, is_normalized=model.is_normalized)
    return Diagnosis(findings=tuple(findings), cosines=cosines)


def _refused(found: Sequence[Tensor | None]) -> list[Finding]:
    names = [name_of(item) for item, one in zip(GOLDEN, found, strict=True) if one is None]
    if not names:
        return []
    what = f"the server refuses {', '.join(map(repr, names))}, which it should cut"
    return [Finding(who="Long texts", what=what, remedy=CUT_REMEDY)]


def _width(model: BiEncoder, width: int) -> tuple[Rules | None, list[Finding]]:
    """Return the rules that the width alone says are broken, and the finding.

    The rules are None where no vector can be compared.
    """
    expected, full = model.embedding_dim, model.full_dim
    if width == expected:
        return (), []
    hidden = int(text_model(model.backbone).config.hidden_size)
    if width == full:
        what = f"vectors have all {full} dimensions, not the first {expected}"
        return (), [_of_all(what, "cut the vectors in the client, then normalize them")]
    if width == hidden and model.projections:
        rule = WITHOUT_PROJECTIONS
        return (rule,), [_of_all(rule.finding, rule.remedy)]
    if width < expected:
        what = f"vectors have the first {width} of {expected} dimensions"
        return (), [_of_all(what, "leave `dimensions` out of the request or the server's settings")]
    what = f"vectors have {width} dimensions, not {expected}: another model answers"
    return None, [_of_all(what, "serve this model, or name the right one: task.endpoint_model")]


def _lengths(
    found: Sequence[Tensor | None], expected: Tensor, *, is_normalized: bool
) -> list[Finding]:
    """Return the finding about the lengths of the vectors."""
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None]
    ratios = [float(a.double().norm() / b.double().norm()) for a, b in pairs]
    if max(abs(ratio - 1) for ratio in ratios) <= MAX_LENGTH_ERROR:
        return []
    if is_normalized:
        what = "vectors are not normalized to length 1, so inner products are no cosines"
        return [_of_all(what, "normalize in the client, or in the server (vLLM: --pooler-config)")]
    if max(abs(float(a.double().norm()) - 1) for a, _ in pairs) <= MAX_LENGTH_ERROR:
        what = "vectors are normalized to length 1, and the model's have lengths that count"
        return [_of_all(what, "switch normalization off in the server")]
    return []  # another length follows from another difference


def _of_all(what: str, remedy: str) -> Finding:
    return Finding(who=BOTH, what=what, remedy=remedy)
