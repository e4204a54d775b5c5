"""The dialects of the eight: end tokens, specials and chat templates, to the token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.models import letter_tokenizer
from helpers.replicas import TEXTS, VARIANTS, dialect_of, replica
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import MissingPathError, UserError
from quarry.models.backbones.huggingface import load_tokenizer
from quarry.stand_ins.replica_tokenizer import (
    NON_SPECIALS,
    SPECIALS,
    ChatML,
    Vocabulary,
    published_vocabulary,
    stand_in_vocabulary,
    write_tokenizer,
)
from quarry.types import Document, Query

PROMPTS = Path(__file__).resolve().parents[3] / "conf" / "prompt"
HELPFUL = "You are a helpful assistant."
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
MATH = r"Please reason step by step, and put your final answer within \boxed{}."
ASKED = (
    'Query: "what is love". Use one word to represent the query in a retrieval task. '
    "Make sure your word is in lowercase."
)
SYSTEM_LINES = {
    "qwen-base": HELPFUL,
    "qwen-instruct": QWEN,
    "qwen-coder": HELPFUL,
    "qwen-coder-instruct": QWEN,
    "qwen-math": MATH,
    "qwen-math-instruct": MATH,
    "qwen-vl": HELPFUL,
}
END_IDS = {
    "qwen-base": 151643,
    "qwen-instruct": 151645,
    "qwen-coder": 151643,
    "qwen-coder-instruct": 151645,
    "qwen-math": 151643,
    "qwen-math-instruct": 151645,
    "qwen-vl": 151645,
}
WHAT_IS_LOVE = [2859, 25, 12555, 374, 2948]  # Query : what is love


def prompt(name: str) -> Prompt:
    """A file of conf/prompt, the one that it builds on included."""
    content = yaml.safe_load((PROMPTS / f"{name}.yaml").read_text(encoding="utf-8"))
    bases = content.pop("defaults", [])
    content.pop("_target_", None)
    for base in bases:
        path = PROMPTS / f"{base}.yaml"
        below = yaml.safe_load(path.read_text(encoding="utf-8"))
        content = {k: v for k, v in below.items() if k not in ("_target_", "defaults")} | content
    return Prompt(**content)


def ids(tokenizer: Any, name: str, text: str = "what is love") -> list[int]:
    tokenize = TextTokenizer(tokenizer=tokenizer, prompt=prompt(name))
    return [int(i) for i in tokenize([Query(query_id="1", text=text)], "query")[0].ids]


def promptreps_text(variant: str) -> str:
    """What PromptReps asks of a variant, written out."""
    if variant == "qwen-r1":
        return f'<｜begin▁of▁sentence｜><｜User｜>{ASKED}<｜Assistant｜>The word is: "'
    return (
        f"<|im_start|>system\n{SYSTEM_LINES[variant]}<|im_end|>\n"
        f"<|im_start|>user\n{ASKED}<|im_end|>\n"
        '<|im_start|>assistant\nThe word is: "'
    )


def loaded(folder: Path, vocabulary: Vocabulary, variant: str) -> Any:
    folder.mkdir()
    write_tokenizer(folder, vocabulary=vocabulary, dialect=dialect_of(variant), max_length=4096)
    return load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def stand_in() -> Vocabulary:
    return stand_in_vocabulary(TEXTS, vocab_size=400)


@pytest.fixture(scope="module")
def published(qwen_tokenizer_folder: Path) -> Vocabulary:
    return published_vocabulary(str(qwen_tokenizer_folder))


@pytest.fixture(scope="module")
def real(published: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the tokenizer of a variant with the published vocabulary, which is slow to read.

    It is read twice, for the two sets of special tokens; end token and template are put in.
    """
    root, made = tmp_path_factory.mktemp("real"), {}

    def tokenizer(variant: str) -> Any:
        specials = dialect_of(variant).specials()
        if specials not in made:
            made[specials] = loaded(root / variant, published, variant)
        settings = dialect_of(variant).settings(published.chat_template)
        for name in ("eos_token", "pad_token", "bos_token", "chat_template"):
            setattr(made[specials], name, settings[name])
        return made[specials]

    return tokenizer


@pytest.mark.parametrize("variant", VARIANTS)
def test_repllama_is_the_prefix_the_text_and_the_end_token(real: Any, variant: str) -> None:
    expected = (
        [151646, *WHAT_IS_LOVE, 151643]
        if variant == "qwen-r1"
        else [*WHAT_IS_LOVE, END_IDS[variant]]
    )
    assert ids(real(variant), "repllama") == expected


def test_repllama_vl_is_a_users_turn_and_endoftext(real: Any) -> None:
    tokenizer = real("qwen-vl")
    row = ids(tokenizer, "repllama_vl")
    # fmt: off
    assert row == [
        151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198,
        151644, 872, 198, *WHAT_IS_LOVE, 151645, 198, 151643,
    ]
    # fmt: on
    assert tokenizer.decode(row) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nQuery:what is love<|im_end|>\n<|endoftext|>"
    )


def test_repllama_vl_cuts_prefix_and_text_together_as_the_study_does(real: Any) -> None:
    """There the turn is cut at 32 tokens before the chat template is put around it."""
    tokenizer = real("qwen-vl")
    text = "what is love and how do people who never met it learn " * 4
    row = ids(tokenizer, "repllama_vl", text)
    turn = tokenizer.decode(tokenizer.encode("Query:" + text)[:32])
    message = [{"role": "user", "content": turn}]
    rendered = tokenizer.apply_chat_template(message, tokenize=False) + "<|endoftext|>"
    assert row == tokenizer.encode(rendered)


def test_promptreps_keeps_the_space_of_a_missing_title(real: Any) -> None:
    tokenize = TextTokenizer(tokenizer=real("qwen-vl"), prompt=prompt("promptreps"))
    (row,) = tokenize([Document(document_id="1", text="Love is")], "document")
    assert '\nPassage: " Love is". Use' in tokenize.tokenizer.decode(row.ids)


def test_promptreps_of_r1_has_one_bos_and_no_system_line(real: Any) -> None:
    # fmt: off
    assert ids(real("qwen-r1"), "promptreps") == [
        151646, 151644, 2859, 25, 330, 12555, 374, 2948, 3263, 5443, 825, 3409, 311, 4009, 279,
        3239, 304, 264, 56370, 3383, 13, 7405, 2704, 697, 3409, 374, 304, 42047, 13, 151645,
        785, 3409, 374, 25, 330,
    ]
    # fmt: on


@pytest.mark.parametrize("variant", VARIANTS)
def test_promptreps_with_the_published_vocabulary(real: Any, variant: str) -> None:
    tokenizer = real(variant)
    row = ids(tokenizer, "promptreps")
    assert tokenizer.decode(row) == promptreps_text(variant)
    assert row[-5:] == [785, 3409, 374, 25, 330]  # The word is : "
    assert row.count(151646) == (1 if variant == "qwen-r1" else 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_promptreps_with_the_stand_in(stand_in: Vocabulary, tmp_path: Path, variant: str) -> None:
    tokenizer = loaded(tmp_path / "tokenizer", stand_in, variant)
    assert tokenizer.decode(ids(tokenizer, "promptreps")) == promptreps_text(variant)
    row = ids(tokenizer, "repllama")
    is_r1 = variant == "qwen-r1"
    assert row[-1] == tokenizer.eos_token_id
    assert (row[0] == tokenizer.bos_token_id) is is_r1
    assert tokenizer.decode(row[int(is_r1) : -1]) == "Query:what is love"


def test_the_published_template_keeps_what_is_not_the_system_line(
    published: Vocabulary, real: Any
) -> None:
    tokenizer = real("qwen-instruct")
    assert tokenizer.chat_template == published.chat_template
    messages = [{"role": "system", "content": "Hm."}, {"role": "user", "content": "a"}]
    rendered = real("qwen-math").apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert rendered == (
        "<|im_start|>system\nHm.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_specials_stand_behind_the_vocabulary_in_qwens_order(
    stand_in: Vocabulary, tmp_path: Path, published: Vocabulary
) -> None:
    real_names = [token["content"] for token in published.added_tokens]
    names = [token["content"] for token in stand_in.added_tokens]
    assert names == real_names == [*SPECIALS, *NON_SPECIALS]
    assert [token["id"] for token in published.added_tokens] == list(range(151643, 151665))
    flags = [token["special"] for token in stand_in.added_tokens]
    assert flags == [token["special"] for token in published.added_tokens]


def test_r1_renames_the_first_seven(stand_in: Vocabulary, tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path / "r1", stand_in, "qwen-r1")
    first = stand_in.added_tokens[0]["id"]
    assert tokenizer.convert_ids_to_tokens(list(range(first, first + 8))) == [
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜begin▁of▁sentence｜>",
        "<|EOT|>",
        "<think>",
        "</think>",
        "<|quad_start|>",
    ]
    settings = json.loads((tmp_path / "r1" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "LlamaTokenizerFast"
    assert settings["add_bos_token"] is True


def test_the_stand_in_keeps_case_and_white_space(stand_in: Vocabulary, tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path / "base", stand_in, "qwen-base")
    for text in ("def readLine(self):\n        return  A", "Ω ≠ 你好 🙂", "naïve"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("READ") != tokenizer.encode("read")


def test_a_replica_uses_the_tokenizer_it_is_given(
    qwen_tokenizer_folder: Path, tmp_path: Path
) -> None:
    folder = replica(
        "qwen-base", tmp_path, tokenizer_path=str(qwen_tokenizer_folder), texts=None
    ).folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == 151680
    assert config["eos_token_id"] == 151643


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    letter_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no Qwen2\.5 tokenizer.*<eos>.*<\|endoftext\|>"):
        published_vocabulary(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(MissingPathError, match=r"model\.tokenizer_path=.* holds a tokenizer\.json"):
        published_vocabulary(str(tmp_path))


def test_a_template_without_a_system_line_of_its_own_is_refused() -> None:
    dialect = ChatML(end_token="<|im_end|>", system_line=HELPFUL)
    with pytest.raises(UserError, match="no default system line"):
        dialect.settings("{{ messages[0].content }}")
