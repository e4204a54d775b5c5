"""Write the parts of a model card that do not depend on its library: header, data, results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from quarry.data.tokenization import TextTokenizer
from quarry.retrieval.export.card_facts import CardFacts, SetScores
from quarry.types import Document, Query, Role

UNKNOWN = "unknown"

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def front_matter(
    name: str, facts: CardFacts, *, library: str, tags: Sequence[str], more: Mapping[str, Any]
) -> str:
    """Return the YAML header that the hub reads.

    Args:
        name: of the model, for its results.
        more: further keys.
    """
    header: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "sentence-similarity",
        "tags": [*tags, "sentence-similarity", "feature-extraction", "dense-retrieval"],
    }
    license_ = facts.base_license or ""
    header["license"] = license_ if _LICENSE.fullmatch(license_) else UNKNOWN
    if facts.base_model is not None and facts.base_is_on_hub:
        header["base_model"] = facts.base_model
    if facts.datasets:
        header["datasets"] = list(facts.datasets)
    header |= more
    results = [
        _as_result(scores, facts.retriever)
        for scores in facts.scores
        if facts.retriever in scores.values
    ]
    if results:
        header["model-index"] = [{"name": name, "results": results}]
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{text}---\n"


def _as_result(scores: SetScores, retriever: str | None) -> dict[str, Any]:
    """Return a collection's results as an entry of the hub's model index."""
    return {
        "task": {"type": "retrieval", "name": "Retrieval"},
        "dataset": {"name": scores.name, "type": scores.name},
        "metrics": [
            {"type": _metric(measure), "name": measure, "value": round(float(value), 6)}
            for measure, value in scores.values[str(retriever)].items()
        ],
    }


def _metric(measure: str) -> str:
    return measure.lower().replace("@", "_at_")


def contract_lines(tokenizer: TextTokenizer, *, pooling: str, is_causal: bool) -> list[str]:
    """Return what is fed to the model and how a vector is made of it, as items of a list."""
    end = tokenizer.tokenizer.decode(list(tokenizer.frames["document"].end_ids))
    start = tokenizer.tokenizer.decode(list(tokenizer.frames["document"].start_ids))
    lines = [
        f"A query is a string: {fed(tokenizer, Query(query_id='', text='TEXT'), 'query')}.",
        f"Tokens around it: {f'`{start}` before, ' if start else 'none before, '}"
        f"{f'`{end}` after' if end else 'none after'}.",
        f"Pooling: {pooling}, attention {'causal' if is_causal else 'bidirectional'}.",
    ]
    return lines


def fed(tokenizer: TextTokenizer, item: Query | Document, role: Role) -> str:
    """Describe the input of the model and its maximal length."""
    counts, frame = tokenizer.prompt.length_counts, tokenizer.frames[role]
    counted = {"all": "everything", "text": "the text", "turn": f"`{frame.counted}TEXT`"}[counts]
    shown = frame.render(frame.text_of(item))
    length = tokenizer.prompt.max_length(role)
    strips = "outer white space removed, " if frame.strip else ""
    return f"`{shown!r}`, {strips}{counted} cut to {length} tokens"


def sections(facts: CardFacts) -> str:
    """Return the sections on training data, results, and base model with its license."""
    return "\n".join([*_data(facts), "", *_results(facts), "", *_base(facts), ""])


def _data(facts: CardFacts) -> list[str]:
    number = UNKNOWN if facts.num_examples is None else f"{facts.num_examples:,}"
    lines = [
        "## Training data", "",
        f"- Source: {facts.data or UNKNOWN}",
        f"- Examples: {number}",
        f"- SHA-256 of the examples: {facts.data_digest or UNKNOWN}",
        f"- Loss: {facts.loss or UNKNOWN}",
    ]  # fmt: skip
    return lines + [f"- Note: {caveat}." for caveat in facts.data_caveats]


def _results(facts: CardFacts) -> list[str]:
    if not any(facts.retriever in scores.values for scores in facts.scores):
        return ["## Results", "", "The run has no results: it was not evaluated."]
    measures = list(
        dict.fromkeys(
            measure
            for scores in facts.scores
            for measure in scores.values.get(str(facts.retriever), {})
        )
    )
    lines = [
        "## Results", "",
        f"In percent; this model is `{facts.retriever}`.", "",
        "| collection | queries | documents | model | " + " | ".join(measures) + " |",
        "|---|--:|--:|---|" + "--:|" * len(measures),
    ]  # fmt: skip
    for scores in facts.scores:
        for name, values in scores.values.items():
            cells = [f"{100 * values[m]:.1f}" if m in values else "" for m in measures]
            shown = f"**{name}**" if name == facts.retriever else name
            sizes = f"{scores.num_queries:,} | {scores.num_documents:,}"
            lines.append(f"| {scores.name} | {sizes} | {shown} | {' | '.join(cells)} |")
    sources = [f"- {s.name}: {s.source}" for s in facts.scores if s.source]
    return [*lines, *(["", *sources] if sources else [])]


def _base(facts: CardFacts) -> list[str]:
    shown = facts.base_model or UNKNOWN
    if facts.base_is_on_hub:
        shown = f"[{shown}](https://huggingface.co/{shown})"
    version = facts.quarry_version or UNKNOWN
    return [
        "## Base model and license", "",
        f"- Base model: {shown}, revision {facts.base_revision or UNKNOWN}",
        f"- Fingerprint of its weights: {facts.base_fingerprint or UNKNOWN}",
        f"- License of the base model, as its card states it: {facts.base_license or UNKNOWN}",
        f"- Trained and written with Quarry {version}",
        "",
        "Look at the licenses of the base model and of the training data before you pass it on.",
    ]  # fmt: skip
