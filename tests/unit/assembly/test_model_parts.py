"""Folders that cannot be followed are refused in one message before weights are read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from torch import nn

from config.configurations import composed, opened
from helpers.refused_folders import MARK, REFUSED, Refused
from helpers.sentence_folders import dense, roberta, sentence_folder
from quarry.assembly.model_parts import ModelParts, build_model_parts
from quarry.config.instantiate import build
from quarry.config.settled_contract import settle
from quarry.errors import UserError


@pytest.fixture(scope="module")
def config() -> DictConfig:
    with opened():
        return composed("eval")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Dense and everything but the backbone's weights."""
    path = tmp_path_factory.mktemp("sentence") / "base"
    folder = sentence_folder(path, denses=[dense(32, 12, nn.Tanh())])
    (folder / "model.safetensors").unlink()
    return folder


def parts_of(config: DictConfig, **changes: object) -> ModelParts:
    """Settle and build the parts of a model with these keys on the command line."""
    own = OmegaConf.merge(config)
    assert isinstance(own, DictConfig)
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    for key, value in keys.items():
        OmegaConf.update(own, key, value, force_add=True)
    settle(own, build(own.model), explicit=list(keys), options={})
    return build_model_parts(own)


def test_the_folder_that_the_others_are_made_of_is_followed(config: DictConfig, base: Path) -> None:
    assert parts_of(config, model__path=str(base)).spec.source.home() == str(base)


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_a_folder_that_cannot_be_followed_is_refused(
    config: DictConfig, base: Path, tmp_path: Path, case: Refused
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    case.change(folder)
    with pytest.raises(UserError) as caught:
        parts_of(config, model__path=str(folder))
    message = str(caught.value)
    assert str(folder) in message
    assert [fact for fact in case.facts if not re.search(fact, message)] == []
    assert not (folder / MARK).exists()


def test_prompts_of_tasks_are_no_hindrance_where_the_command_line_says_one(
    config: DictConfig, base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    REFUSED["prompts of tasks alone"].change(folder)
    parts = parts_of(config, model__path=str(folder), prompt__query="class: {text}")
    assert parts.tokenizer.prompt.query == "class: {text}"
    with pytest.raises(UserError, match=r"prompt\.query="):
        parts_of(config, model__path=str(folder), prompt__document="class: {text}")


def test_positions_before_the_first_of_a_text_do_not_count(
    config: DictConfig, tmp_path: Path
) -> None:
    # padding is 0, so that texts begin at position 1 of 40
    folder = sentence_folder(tmp_path / "m", model=roberta(), transformer={"max_seq_length": 40})
    with pytest.raises(UserError, match=r"max_query_length: .*40 tokens.*positions for 39"):
        parts_of(config, model__path=str(folder))
    lengths = {"prompt__max_query_length": 39, "prompt__max_document_length": 39}
    assert parts_of(config, model__path=str(folder), **lengths).tokenizer.longest("query") == 39


@pytest.mark.parametrize(
    ("card", "fact"),
    [
        ({"prefix": "q: "}, r"model\.card\.prefix: .*query, document"),
        ({"pooling": "best"}, r"model\.card\.pooling=best: .*cls, max"),
    ],
)
def test_a_card_that_cannot_be_followed_is_refused(
    config: DictConfig, base: Path, card: dict[str, str], fact: str
) -> None:
    with pytest.raises(UserError, match=fact):
        parts_of(config, model__path=str(base), model__card=card)
