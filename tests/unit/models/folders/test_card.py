"""Cards of models: keys of the configuration, and whose word they are."""

from __future__ import annotations

import pytest

from quarry.errors import UserError
from quarry.models.folders.card import card_facts
from quarry.models.folders.stated import Fact

SOURCE = "https://example.org/card"


def test_no_card_states_nothing() -> None:
    assert card_facts(None) == {}


def test_facts_of_a_card_name_their_source() -> None:
    card = {
        "source": SOURCE, "query": "q: {text}", "max_query_length": 64, "pooling": "last_token",
        "normalize": False,
    }  # fmt: skip
    told = f"model card, {SOURCE}"
    node = {"_target_": "quarry.models.pooling.last_token.LastToken"}
    assert card_facts(card) == {
        "prompt.query": Fact(value="q: {text}", source=told),
        "prompt.max_query_length": Fact(value=64, source=told),
        "model.pooling": Fact(value=node, source=told),
        "model.normalize": Fact(value=False, source=told),
    }


@pytest.mark.parametrize("name", ["cls", "max", "mean", "mean_sqrt_len", "weighted_mean"])
def test_poolings_are_options_of_the_group(name: str) -> None:
    node = card_facts({"pooling": name})["model.pooling"].value
    assert node["_target_"].startswith(f"quarry.models.pooling.{name}.")
    assert node["include_prompt"] is True


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.card\.query_prompt: .*query, document"):
        card_facts({"query_prompt": "q: "})


@pytest.mark.parametrize("name", ["lasttoken", "auto", None, 3])
def test_an_unknown_pooling_is_refused(name: object) -> None:
    with pytest.raises(UserError, match=rf"model\.card\.pooling={name}: .*cls, max, mean"):
        card_facts({"pooling": name})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("query", 3),
        ("document", None),
        ("max_query_length", "many"),
        ("max_document_length", 0),
        ("max_query_length", True),
        ("end_token", 7),
        ("normalize", "no"),
    ],
)
def test_a_value_of_another_kind_is_refused(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"model\.card\.{key}={value!r}"):
        card_facts({key: value})
