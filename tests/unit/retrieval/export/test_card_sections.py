"""The hub's own reader understands the header, and what is not known is said to be unknown."""

from __future__ import annotations

from dataclasses import replace

from huggingface_hub import ModelCard

from quarry.retrieval.export.card_facts import CardFacts, SetScores
from quarry.retrieval.export.card_sections import front_matter, sections

FACTS = CardFacts(
    base_model="Qwen/Qwen2.5-0.5B", base_is_on_hub=True, base_revision="abc",
    base_license="apache-2.0", base_fingerprint="f" * 32, data="Tevatron/msmarco-passage-aug",
    datasets=("Tevatron/msmarco-passage-aug",), num_examples=485_823, data_digest="d" * 64,
    data_caveats=("3 examples without a positive were left out",), loss="InfoNCE",
    retriever="trained",
    scores=(
        SetScores(
            name="scifact", source="BeIR/scifact, commit 1a2b", num_queries=300,
            num_documents=5183,
            values={
                "bm25": {"nDCG@10": 0.665},
                "trained": {"nDCG@10": 0.7012, "Recall@100": 0.95},
            },
        ),
        SetScores(name="fiqa", source=None, num_queries=648, num_documents=57638,
                  values={"bm25": {"nDCG@10": 0.236}}),
    ),
    quarry_version="1.2.3",
)  # fmt: skip


def card_of(facts: CardFacts, name: str = "me/model: of 'mine'") -> ModelCard:
    header = front_matter(name, facts, library="transformers", tags=["mine"], more={})
    return ModelCard(f"{header}\n{sections(facts)}")


def test_the_hub_reads_the_header() -> None:
    data = card_of(FACTS).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert data.base_model == "Qwen/Qwen2.5-0.5B"
    assert data.license == "apache-2.0"
    assert data.datasets == ["Tevatron/msmarco-passage-aug"]
    assert data.model_name == "me/model: of 'mine'"
    found = {(r.dataset_name, r.metric_type, r.metric_value) for r in data.eval_results}
    assert found == {
        ("scifact", "ndcg_at_10", 0.7012),
        ("scifact", "recall_at_100", 0.95),
    }, "not those of other retrievers"


def test_what_is_not_known_is_unknown_and_nothing_is_invented() -> None:
    card = card_of(CardFacts())
    assert card.data.license == "unknown"
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert card.data.eval_results is None
    for line in (
        "- Source: unknown", "- Examples: unknown", "- SHA-256 of the examples: unknown",
        "- Base model: unknown, revision unknown", "as its card states it: unknown",
        "it was not evaluated",
    ):  # fmt: skip
        assert line in card.text
    odd = card_of(replace(FACTS, base_license="Llama 3: see file", base_is_on_hub=False))
    assert odd.data.license == "unknown", "no identifier of the hub"
    assert "as its card states it: Llama 3: see file" in odd.text
    assert odd.data.base_model is None, "a folder is no id of the hub"


def test_data_and_results_are_stated() -> None:
    text = card_of(FACTS).text
    for line in (
        "- Examples: 485,823",
        f"- SHA-256 of the examples: {'d' * 64}",
        "- Note: 3 examples without a positive were left out.",
        "| scifact | 300 | 5,183 | **trained** | 70.1 | 95.0 |",
        "| scifact | 300 | 5,183 | bm25 | 66.5 |  |",
        "| fiqa | 648 | 57,638 | bm25 | 23.6 |  |",
        "- scifact: BeIR/scifact, commit 1a2b",
        "[Qwen/Qwen2.5-0.5B](https://huggingface.co/Qwen/Qwen2.5-0.5B), revision abc",
    ):
        assert line in text
