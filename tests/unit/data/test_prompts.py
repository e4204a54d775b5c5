"""Templates are checked when they are made and split exactly at their one field."""

from __future__ import annotations

import pytest

from quarry.data.prompts import Prompt, joined_text
from quarry.errors import UserError
from quarry.types import Document, Query


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        ("{text}", "", ""),
        ("Query:{text}", "Query:", ""),
        ("{text} Summary:", "", " Summary:"),
        ('This: "{text}" means in one word:"', 'This: "', '" means in one word:"'),
        ("{{a}} {text} {{b}} c", "{a} ", " {b} c"),
        ("{text}{{", "", "{"),
        ("line\n{text}\n", "line\n", "\n"),
    ],
)
def test_a_template_splits_at_its_field(template: str, before: str, after: str) -> None:
    assert Prompt(query=template).template("query").literals == (before, after)
    assert Prompt(document=template).template("document").literals == (before, after)
    assert before + "x" + after == template.format(text="x")


@pytest.mark.parametrize(
    "template",
    [
        "", "Query:", "{}", "{0}", "{txt}", "{text}{text}{text}", "{text} {title}", "{title}{text}",
        "{title}",         "{title} {text} {text}", "{instruction}{text}", "{text.x}",
        "{text[0]}", "{text!r}", "{text:>9}", "{text", "text}", "{{text}}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["query", "document"])
def test_a_template_without_exactly_one_text_is_refused(template: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"prompt\.{key}=.*braces as {{{{ and }}}}"):
        Prompt(**{key: template})


def test_a_text_may_stand_twice() -> None:
    template = Prompt(query="Q:{text}\nagain:{text}.").template("query")
    assert template.literals == ("Q:", "\nagain:", ".")


def test_an_instruction_becomes_part_of_the_literals() -> None:
    prompt = Prompt(query="Instruct: {instruction}\nQuery:{text}", instruction="Find {it}")
    assert prompt.template("query").literals == ("Instruct: Find {it}\nQuery:", "")


def test_only_a_document_has_a_title() -> None:
    template = Prompt(document="P:{title} {text}!").template("document")
    assert (template.literals, template.keeps_empty_title) == (("P:", "!"), True)
    with pytest.raises(UserError, match=r"prompt\.query="):
        Prompt(query="{title} {text}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_query_length": 0}, r"prompt\.max_query_length=0"),
        ({"assistant": "The word is"}, r"no effect without prompt\.is_chat=true"),
        ({"length_counts": "words"}, r"prompt\.length_counts='words': all, text or turn"),
        ({"length_counts": "turn"}, r"length_counts=turn counts what the user says in a chat"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Prompt(**settings)


def test_roles_have_their_own_lengths() -> None:
    prompt = Prompt(max_query_length=7, max_document_length=9)
    assert (prompt.max_length("query"), prompt.max_length("document")) == (7, 9)


def test_a_title_stands_before_the_text_of_a_document() -> None:
    assert joined_text(Query(query_id="q", text="a b")) == "a b"
    assert joined_text(Document(document_id="d", text="text", title="Title")) == "Title text"
    assert joined_text(Document(document_id="d", text="text")) == "text"
    assert joined_text(Document(document_id="d", text="", title="Title")) == "Title"
    untitled = Document(document_id="d", text="text")
    assert joined_text(untitled, keeps_empty_title=True) == " text"


@pytest.mark.parametrize(
    ("title", "text", "joined", "kept"),
    [
        (" Title\n", "\ttext ", "Title text", "Title text"),
        ("", " text ", "text", " text"),
        (" \n", "text", "text", " text"),
        (" Title", "  ", "Title", "Title "),
        (" ", "\n", "", " "),
    ],
)
def test_outer_white_space_is_removed_before_title_and_text_are_joined(
    title: str, text: str, joined: str, kept: str
) -> None:
    document = Document(document_id="d", title=title, text=text)
    assert joined_text(document, strip=True) == joined
    assert joined_text(document, strip=True, keeps_empty_title=True) == kept
    assert joined_text(Query(query_id="q", text=f"\u3000{text}"), strip=True) == text.strip()
    assert joined_text(Query(query_id="q", text=text)) == text
