"""Chat templates come from the tokenizer; what they do to a prompt is taken apart and checked."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from helpers.models import letter_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.rendering import build_frames
from quarry.errors import UserError

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
