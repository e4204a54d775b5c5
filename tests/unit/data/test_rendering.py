"""Chat templates come from the tokenizer; what they do to a prompt is taken apart and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from helpers.models import BOS, EOS, UNKNOWN, letter_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.rendering import build_frames
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.types import Document, Query

CONF = Path(__file__).resolve().parents[3] / "conf" / "prompt"

TEMPLATE = (
    "{%- if messages[0].role != 'system' -%}[S]be good[/S]{%- endif -%}"
    "{%- for message in messages -%}[{{ message.role }}]{{ message.content }}[/]{%- endfor -%}"
)
WORD = Prompt(
    query='Query: "{text}". One word.',
    document='Passage: "{text}". One word.',
    is_chat=True,
    assistant='It is: "',
    end_token=None,
)


def chat_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerBase:
    tokenizer = letter_tokenizer(has_bos=True)
    tokenizer.chat_template = template
    return tokenizer


def test_the_assistants_turn_is_opened_and_cut_there() -> None:
    frames = build_frames(chat_tokenizer(), WORD)
    assert frames["query"].literals == (
        '[S]be good[/S][user]Query: "',
        '". One word.[/][assistant]It is: "',
    )
    assert frames["document"].literals[0] == '[S]be good[/S][user]Passage: "'
    assert frames["query"].render("a b").endswith('"a b". One word.[/][assistant]It is: "')


def test_without_an_assistants_turn_the_users_is_closed() -> None:
    prompt = Prompt(query="Query:{text}", is_chat=True)
    frame = build_frames(chat_tokenizer(), prompt)["query"]
    assert frame.literals == ("[S]be good[/S][user]Query:", "[/]")
    assert frame.end_ids == (0,)


def test_a_chat_template_writes_its_own_bos() -> None:
    assert build_frames(chat_tokenizer(), WORD)["query"].start_ids == ()
    assert build_frames(chat_tokenizer(), Prompt())["query"].start_ids == (1,)


def test_a_repeated_text_stays_repeated() -> None:
    prompt = Prompt(query="Q:{text} again:{text}", is_chat=True)
    frame = build_frames(chat_tokenizer(), prompt)["query"]
    assert frame.num_copies == 2
    assert frame.render("x") == "[S]be good[/S][user]Q:x again:x[/]"
    assert frame.last_copy_start("x") == frame.render("x").rindex("x")


def test_a_missing_chat_template_is_refused() -> None:
    with pytest.raises(UserError, match=r"has no chat template, and prompt\.is_chat=true needs"):
        build_frames(chat_tokenizer(None), WORD)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content | upper }}",
        "hello",
        "{{ messages[0].content }}{{ messages[0].content }}[assistant]{{ messages[-1].content }}",
        "{{ messages[0].content }}",  # drops the assistant's turn
    ],
)
def test_a_chat_template_that_changes_the_turns_is_refused(template: str) -> None:
    with pytest.raises(UserError, match=r"changes or drops what the user's and the assistant's"):
        build_frames(chat_tokenizer(template), WORD)


@pytest.mark.parametrize("name", ["repllama", "repllama_vl"])
def test_repllama_renders_stripped_texts_to_the_letter(name: str) -> None:
    settings: dict[str, Any] = {}
    for part in ("none", "repllama", name):
        settings |= yaml.safe_load((CONF / f"{part}.yaml").read_text(encoding="utf-8"))
    keys = ("query", "document", "is_chat", "length_counts", "strip")
    prompt = Prompt(**{key: settings[key] for key in keys})
    frames = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt).frames
    before, after = ("[S]be good[/S][user]", "[/]") if prompt.is_chat else ("", "")
    for title, text in [("A title", "a text"), ("", "a text"), (" a\n", "\t b  "), ("  ", " b")]:
        query = Query(query_id="q", text=text)
        found = frames["query"].render(frames["query"].text_of(query))
        assert found == f"{before}Query:{text.strip()}{after}"
        document = Document(document_id="d", title=title, text=text)
        found = frames["document"].render(frames["document"].text_of(document))
        assert found == f"{before}Passage:{title.strip()} {text.strip()}{after}"
    untitled = Document(document_id="d", text=" TEXT\n")
    assert frames["document"].text_of(untitled) == " TEXT"


def ending_tokenizer(layout: str, *, has_eos: bool = True) -> PreTrainedTokenizerBase:
    """Puts special tokens around a text as `layout` says."""
    tokenizer = letter_tokenizer(has_eos=has_eos)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=layout, special_tokens=[("<eos>", EOS), ("<bos>", BOS), ("<unk>", UNKNOWN)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("layout", "end_token", "start_ids", "end_ids"),
    [
        # a BERT's: what the tokenizer appends is no EOS
        ("<bos> $A <unk>", "tokenizer", (BOS,), (UNKNOWN,)),
        ("<bos> $A <unk>", "auto", (BOS,), (UNKNOWN,)),
        ("<bos> $A <unk>", "eos", (BOS,), (EOS,)),
        ("<bos> $A <unk>", None, (BOS,), ()),
        ("<bos> $A <unk>", "<bos>", (BOS,), (BOS,)),
        # a decoder's that appends nothing
        ("$A", "tokenizer", (), ()),
        ("$A", "auto", (), (EOS,)),
        ("$A", "eos", (), (EOS,)),
        # one that appends its EOS, which then stands once
        ("$A <eos>", "tokenizer", (), (EOS,)),
        ("$A <eos>", "auto", (), (EOS,)),
        ("$A <eos>", "eos", (), (EOS,)),
        ("<bos> <unk> $A <unk> <eos>", "auto", (BOS, UNKNOWN), (UNKNOWN, EOS)),
    ],
)
def test_end_tokens(
    layout: str, end_token: str | None, start_ids: tuple[int, ...], end_ids: tuple[int, ...]
) -> None:
    frames = build_frames(ending_tokenizer(layout), Prompt(end_token=end_token))
    for frame in frames.values():
        assert (frame.start_ids, frame.end_ids) == (start_ids, end_ids)


def test_no_eos_is_needed_where_the_tokenizer_appends_something() -> None:
    tokenizer = ending_tokenizer("$A <unk>", has_eos=False)
    assert build_frames(tokenizer, Prompt())["query"].end_ids == (UNKNOWN,)
    with pytest.raises(UserError, match=r"prompt\.end_token=eos: .*names no eos_token"):
        build_frames(tokenizer, Prompt(end_token="eos"))


def test_an_end_token_that_the_tokenizer_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"prompt\.end_token='<end>'.*found: .*<bos>"):
        build_frames(letter_tokenizer(), Prompt(end_token="<end>"))


def test_a_tokenizer_that_changes_the_text_between_special_tokens_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = letter_tokenizer()
    monkeypatch.setattr(
        type(tokenizer), "encode", lambda *_, add_special_tokens: [7, 8] if add_special_tokens
        else [3],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"\[7, 8\].*\[3\].*post_processor.*tokenizer\.json"):
        build_frames(tokenizer, Prompt())
