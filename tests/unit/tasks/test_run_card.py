"""A card states what the files of its run say, and no path of the machine that it ran on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from helpers.earlier_run import copied
from quarry.assembly.stored_model import open_stored_model
from quarry.models.saved import read_contract
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.run_card import card_facts, write_model_card


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return copied(tmp_path / "made")


def contract_of(run: Path) -> dict[str, Any]:
    contract = read_contract(run / "model")
    assert contract is not None
    return contract


def test_the_facts_of_a_run(run: Path) -> None:
    (run.parent / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    summary = {"training_data": {"num_examples": 8, "digest": "ab"}, "caveats": ["One is empty."]}
    facts = card_facts(run, contract_of(run), summary=summary)
    assert (facts.base_model, facts.base_is_on_hub, facts.base_license) == (
        "base", False, "apache-2.0",
    )  # fmt: skip
    assert (facts.num_examples, facts.data_digest) == (8, "ab")
    assert facts.data is not None
    assert facts.data.startswith("train.jsonl, ")
    assert facts.data_caveats == ("One is empty",)
    assert facts.loss == "InfoNCE"
    metrics = json.loads((run / "metrics.json").read_text())
    (scores,) = facts.scores
    assert scores.values["trained"] == metrics["sets"][scores.name]["trained"]
    assert str(run.parent) not in repr(facts)
    assert card_facts(run / "model", contract_of(run), summary=summary) == facts


def test_of_a_folder_without_a_run_the_base_alone_is_known(run: Path, tmp_path: Path) -> None:
    facts = card_facts(tmp_path, contract_of(run))
    assert (facts.base_model, facts.data, facts.scores) == ("base", None, ())


@pytest.mark.parametrize(
    "header", ["", "---\n[\n---\n", "---\n- a\n---\n", "---\nlicense: [a]\n---\n", "\xff"]
)
def test_a_license_that_is_not_stated_is_unknown(run: Path, header: str) -> None:
    (run.parent / "base" / "README.md").write_text(header, encoding="latin-1")
    assert card_facts(run, contract_of(run)).base_license is None


def test_data_of_the_hub(run: Path) -> None:
    file = run / "config_resolved.yaml"
    config = yaml.safe_load(file.read_text())
    config["data"] |= {"path": "owner/name", "split": "train"}
    file.write_text(yaml.safe_dump(config))
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["options"]["data"] = "hub"
    (run / "provenance.json").write_text(json.dumps(provenance))
    facts = card_facts(run, contract_of(run))
    assert facts.datasets == ("owner/name",)
    assert facts.data == "owner/name, split train, `data=hub`"


def test_the_card_of_the_trained_folder(run: Path) -> None:
    stored = open_stored_model(str(run), base_path=None)
    write_model_card(RunDirectory(run), stored.parts, summary={})
    card = ModelCard.load(run / "model" / "README.md")
    assert card.data.library_name == "peft", "an adapter"
    assert "quarry.load(" in card.text
    assert str(run.parent) not in card.content
    nothing = SimpleNamespace(tokenizer=None)
    write_model_card(RunDirectory(run / "checkpoints"), nothing, summary={})  # type: ignore[arg-type]
    assert not (run / "checkpoints" / "model").exists()
