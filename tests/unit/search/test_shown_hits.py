"""What people and programs see of a search."""

from __future__ import annotations

import io
import json

from quarry.search.searcher import Hit
from quarry.search.shown_hits import print_tables, snippet, write_json_lines
from quarry.types import Document, Query

LONG = " ".join(f"word{i}" for i in range(400))


def _hit(text: str, *, title: str = "") -> Hit:
    return Hit(document=Document(document_id="d[b]1", text=text, title=title), score=0.25)


def test_json_lines_have_everything() -> None:
    file = io.StringIO()
    queries = [Query(query_id="a", text='x "y"\n'), Query(query_id="b", text="z")]
    write_json_lines(file, queries, [[_hit("é\n1", title="t")], []])
    first, second = map(json.loads, file.getvalue().splitlines())
    assert first == {
        "query_id": "a",
        "query": 'x "y"\n',
        "hits": [{"document_id": "d[b]1", "score": 0.25, "title": "t", "text": "é\n1"}],
    }
    assert second["hits"] == []


def test_half_a_character_does_not_break_a_line() -> None:
    file = io.StringIO()
    write_json_lines(file, [Query(query_id="a", text="\ud800")], [[]])
    assert json.loads(file.getvalue())["query"] == "?"


def test_a_table_takes_markup_and_escapes_for_text() -> None:
    file = io.StringIO()
    query = Query(query_id="a", text="find [bold]it[/bold]")
    print_tables(file, [query], [[_hit("a [red]text[/red] \x1b[31m", title="a title")]])
    shown = file.getvalue()
    assert "[bold]it[/bold]" in shown
    assert "d[b]1" in shown
    assert "[red]text[/red]" in shown
    assert "0.2500" in shown
    assert "\x1b[31m" not in shown


def test_a_snippet_is_where_most_words_of_the_query_are() -> None:
    found = snippet(LONG, "Word200 WORD203 word7?")
    assert "word200" in found
    assert "word203" in found
    assert found.startswith("... ")
    assert found.endswith(" ...")
    assert len(found) < 260
    assert snippet(LONG, "nothing").startswith("word0 word1 ")
    assert snippet(" a\n b ", "x") == "a b"
