"""The forms of other tools are read as their authors mean them; nothing is left out in silence."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from quarry.data.train_examples import TableExamples
from quarry.data.train_files import read_train_files
from quarry.data.train_forms import TrainColumns
from quarry.data.train_keys import _within_one_edit
from quarry.errors import UserError


def read(tmp_path: Path, *records: dict, **columns: Any) -> TableExamples:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_train_files(path=path, columns=TrainColumns(**columns), cache_dir=tmp_path / "c")


def texts(examples: TableExamples, index: int = 0) -> tuple[str, list[str], list[str]]:
    example = examples[index]
    return (
        example.query.text,
        [passage.text for passage in example.positives],
        [passage.text for passage in example.hard_negatives],
    )


def message(text: str, role: str = "user") -> dict:
    return {"role": role, "content": text}


CONTEXT = {"title": "T", "text": "p", "score": 1000, "passage_id": "12"}
Q, P, N1, N2 = "q", "p", "n1", "n2"
FORMS: dict[str, tuple[dict, list[str]]] = {
    "FlagEmbedding": ({"query": Q, "pos": [P], "neg": [N1, N2]}, [N1, N2]),
    "FlagEmbedding without negatives": ({"query": Q, "pos": [P]}, []),
    "triples": ({"anchor": Q, "positive": P, "negative": N1}, [N1]),
    "n-tuples, in order": (
        {"query": Q, "positive": P, "negative_2": N2, "negative_10": "n10", "negative_1": N1},
        [N1, N2, "n10"],
    ),
    "a list and a column": ({"query": Q, "positive": P, "negative": N1, "neg_1": N2}, [N1, N2]),
    "hard_negatives": ({"query": Q, "positive": P, "hard_negatives": [N1, N2]}, [N1, N2]),
    "question and answer": ({"question": Q, "answer": P}, []),
    "query and answer": ({"query": Q, "answer": P, "negative": [N1]}, [N1]),
    "sentences": ({"sentence1": Q, "sentence2": P}, []),
    "Tevatron": (
        {"query": Q, "positive_passages": [{"text": P}], "negative_passages": [{"text": N1}]},
        [N1],
    ),
    "texts instead of objects": (
        {"query_id": "1", "query": Q, "positive_passages": [P], "negative_passages": [N1]},
        [N1],
    ),
    "DPR": (
        {
            "question": Q,
            "answers": ["a"],
            "positive_ctxs": [CONTEXT],
            "negative_ctxs": [{"text": "random"}],
            "hard_negative_ctxs": [{"text": N1, "passage_id": 3}],
        },
        [N1],
    ),
    "ms-swift": (
        {
            "messages": [message(Q)],
            "positive_messages": [[message(P)]],
            "negative_messages": [[message(N1)], [message(N2)]],
        },
        [N1, N2],
    ),
    "ms-swift 3": ({"query": Q, "response": P, "rejected_response": [N1, N2]}, [N1, N2]),
    "nomic": ({"query": Q, "document": P, "negatives": [N1], "metadata": {"a": 1}}, [N1]),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_read(tmp_path: Path, name: str) -> None:
    record, negatives = FORMS[name]
    assert texts(read(tmp_path, record)) == (Q, [P], negatives)


def test_scores_stay_with_their_passages(tmp_path: Path) -> None:
    record = {"query": Q, "pos": [P, "p2"], "neg": [N1, P, N2]}
    scored = record | {"pos_scores": [0.9, 0.8], "neg_scores": [0.3, 0.2, 0.1]}
    examples = read(tmp_path, scored, record)
    assert examples[0].positive_scores == (0.9, 0.8)
    assert texts(examples)[2] == [N1, N2]  # the positive is no negative
    assert examples[0].hard_negative_scores == (0.3, 0.1)
    assert examples[1].positive_scores is examples[1].hard_negative_scores is None


def test_scores_of_objects_and_of_cornstack(tmp_path: Path) -> None:
    example = read(tmp_path, FORMS["DPR"][0])[0]
    assert example.positives[0].title == "T"
    assert example.positives[0].document_id == "12"
    assert example.positive_scores is example.hard_negative_scores is None  # BM25's
    mixed = {"query": Q, "positive_passages": [{"text": "a", "score": 1}, {"text": "b"}]}
    first, second = read(tmp_path, mixed)[0].positive_scores or ()
    assert first == 1.0
    assert math.isnan(second)
    strings = {"document_score": "0.75", "negative_scores": ["0.5"]}
    example = read(tmp_path, {"query": Q, "document": P, "negatives": [N1]} | strings)[0]
    assert (example.positive_scores, example.hard_negative_scores) == ((0.75,), (0.5,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neg_scores": [0.5]}, r"'neg_scores' has 1 scores for 2 passages"),
        ({"neg_scores": [0.5, "x"]}, r"\(neg_scores\): 'x' is no score"),
        ({"neg_scores": [0.5, math.nan]}, r"nan is no score"),
        ({"neg_scores": [0.5, True]}, r"True is no score"),
        ({"negs": ["x"]}, r"'negs' is not read; 'neg' is\. Fix: .*ignored=\[negs\]"),
        ({"poss": "x"}, r"'poss' is not read; 'pos' is"),
        ({"quer": "x"}, r"'quer' is not read; 'query' is"),
        ({"mined_negatives": ["x"]}, r"'mined_negatives' is not read; 'negative' is"),
        ({"positive_passages_2": {"text": "x"}}, r"'positive_passages_2' is not read"),
        ({"answer": "x"}, r"'answer' is not read; 'positive' is"),
        ({"Hard Negative": "x"}, r"'Hard Negative' is not read; 'hard_negative' is"),
        ({"negative-1": "x"}, r"'negative-1' is not read; 'negative' is"),
        ({"negPassage": "x"}, r"'negPassage' is not read; 'negative' is"),
        ({"distractor": "x"}, r"'distractor' is not read; 'negative' is"),
        ({"positive_id": "12"}, r"'positive_id' holds ids, .*data\.corpus_path"),
        ({"images": ["a.png"]}, r"'images' holds images"),
        ({"candidates": {"bm25": ["x"]}}, r"'candidates' is a list of texts"),
        ({"rejected_response": ["x"]}, r"'rejected_response' is not read; 'negative'"),
        ({"others": ["x"]}, r"'others' is a list of texts"),
        ({"others": [{"text": "x"}]}, r"'others' is a list of texts"),
        ({"others": [["x"]]}, r"'others' is a list of texts"),
        ({"others": '["x"]'}, r"'others' is a list of texts"),
        ({"pos": [{"text": "p", "chunks": ["x"]}]}, r"\(pos\): 'chunks' is a list of texts"),
        ({"label": 0}, r"'label' grades the pairs"),
        ({"score": 0.5}, r"'score' grades the pairs"),
        ({"relevance": 0}, r"'relevance' grades the pairs"),
        ({"isDuplicate": 1}, r"'isDuplicate' grades the pairs"),
        ({"question": "x"}, r"'query' and 'question' both name the query.*ignored=\[question\]"),
    ],
)
def test_what_would_be_left_out_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    record = {"query": Q, "pos": [P], "neg": [N1, N2]}
    with pytest.raises(UserError, match=rf"train\.jsonl:2.*({message})"):
        read(tmp_path, record, record | change)


@pytest.mark.parametrize(
    "key", ["negs", "poss", "mined_negatives", "answer", "others", "label", "question"]
)
def test_what_is_refused_can_be_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    record = {"query": Q, "pos": [P], key: ["x"]}
    examples = read(tmp_path, record, ignored=[key])
    assert texts(examples) == (Q, [P], [])
    assert not examples.caveats
    assert not caplog.records


def test_other_keys_are_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = {"query": Q, "pos": [P], "prompt": "Represent", "source": "web", "n": 3, "none": None}
    positive = {"query": Q, "pos": [{"text": P, "url": "u"}, {"text": "p2", "url": "v"}]}
    with caplog.at_level(logging.WARNING):
        examples = read(tmp_path, record, record, positive)
    (sentence,) = examples.caveats
    assert sentence.startswith("keys that are not read: ")
    assert "prompt (2 of 3 lines: " in sentence
    assert "source (2 of 3 lines), n (2 of 3 lines), pos.url (1 of 3 lines)" in sentence
    assert "none" not in sentence
    (record_,) = caplog.records
    assert sentence in record_.getMessage()
    again = read(tmp_path, record, record, positive)  # from the cache
    assert again.caveats == examples.caveats


def test_columns_can_be_named(tmp_path: Path) -> None:
    record = {"question": Q, "context": P, "a": [N1], "b": N2, "grade": 4, "other": "x"}
    named = {"query": "question", "positive": "context", "negative": ["b", "a"]}
    examples = read(tmp_path, record, **named, positive_scores="grade", ignored=["other"])
    assert texts(examples) == (Q, [P], [N2, N1])
    assert examples[0].positive_scores == (4.0,)
    assert not examples.caveats


def test_named_columns_complete_a_form(tmp_path: Path) -> None:
    record = FORMS["DPR"][0]
    both = read(tmp_path, record, negative=["hard_negative_ctxs", "negative_ctxs"])
    assert texts(both) == (Q, [P], [N1, "random"])
    labelled = {"anchor": Q, "positive": P, "score": 0.5}
    assert read(tmp_path, labelled, positive_scores="score")[0].positive_scores == (0.5,)


def test_a_named_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r":1: .*have 'context'.*of their keys: query, positive"):
        read(tmp_path, {"query": Q, "positive": P}, positive="context")
    with pytest.raises(UserError, match="names 'a' twice"):
        read(tmp_path, {"a": Q}, query="a", positive="a")
    later = read(
        tmp_path, {"a": Q, "b": P}, {"a": Q, "b": P, "c": N1}, query="a", positive="b", negative="c"
    )
    assert [len(example.hard_negatives) for example in later] == [0, 1]


def test_what_is_nothing_is_nothing_in_every_form(tmp_path: Path) -> None:
    record = {"query_id": "", "query": Q, "pos": [P, None], "neg": [N1, None], "images": [[]]}
    scored = record | {"neg_scores": [0.5, 0.25], "pos_scores": [0.75]}
    example, second = read(tmp_path, record, scored)
    assert example.positives == second.positives
    assert (second.positive_scores, second.hard_negative_scores) == ((0.75,), (0.5,))
    one = {"query": Q, "positive_passages": [{"docid": "", "text": P, "url": ""}]}
    examples = read(tmp_path, one, one | {"query_id": 7.0})
    assert [example.query.query_id for example in examples][1] == "7"
    assert not examples.caveats


def test_the_first_record_may_have_no_positive(tmp_path: Path) -> None:
    examples = read(tmp_path, {"query": Q, "neg": [N1]}, {"query": Q, "pos": [P]})
    assert len(examples) == 1
    assert examples.location(0).endswith(":2")


def test_cells_of_csv_hold_lists_as_json(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    cells = ['"[""n1"", ""n2""]"', "[]", "[sic] a text [1]", '"[""n1""] and [more]"', "[1]", ""]
    path.write_text("query,pos,neg\n" + "".join(f"q,p,{cell}\n" for cell in cells))
    examples = read_train_files(path=path, cache_dir=tmp_path / "c")
    assert [[n.text for n in example.hard_negatives] for example in examples] == [
        ["n1", "n2"], [], ["[sic] a text [1]"], ['["n1"] and [more]'], ["[1]"], []
    ]  # fmt: skip
    path.write_text("query,pos,neg\nq,p,\"['n1', 'n2']\"\n")
    with pytest.raises(UserError, match=r":2 \(neg\): .*write it as JSON"):
        read_train_files(path=path, cache_dir=tmp_path / "c")


def test_a_positive_is_no_negative_even_under_another_id(tmp_path: Path) -> None:
    record = {
        "query": Q,
        "positive_passages": [{"docid": "1", "text": P}],
        "negative_passages": [{"docid": "2", "text": f" {P}"}, {"docid": "3", "text": N1}],
    }
    examples = read(tmp_path, record)
    assert texts(examples) == (Q, [P], [N1])
    (caveat,) = examples.caveats
    assert caveat.startswith("1 passages stand twice in their line, or as its positive and")


def test_keys_of_passages_can_be_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passage = {"docid": "1", "title": "T", "text": P, "score": "high"}
    record = {"query": Q, "positive_passages": [passage]}
    with caplog.at_level(logging.WARNING):
        (example,) = read(tmp_path, record, ignored=["score", "title", "typo"])
    assert example.positives[0].title == ""
    assert example.positive_scores is None
    (warning,) = caplog.records
    assert "data.columns.ignored=[typo]: no record has it" in warning.getMessage()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"data": [{"query": Q, "positive": P}]}, r"jq -c '\.data\[\]'"),
        (
            {"Query": Q, "Positive": P},
            r"columns\.query=Query data\.columns\.positive=Po",
        ),
        ({"query": [Q], "positive": [P]}, "'query' is a list; .*orient='records'"),
        ({"what is a": "x", "passage a": "y"}, r"the first line of \.csv and \.tsv has to name"),
    ],
)
def test_files_of_another_shape_get_their_own_advice(
    tmp_path: Path, record: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, record)


def test_a_folder_of_another_kind_gets_its_own_advice(tmp_path: Path) -> None:
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    with pytest.raises(UserError, match="is a BEIR folder. Fix: data=folder"):
        read_train_files(path=tmp_path / "set", cache_dir=tmp_path / "c")
    folder = tmp_path / "ids"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"docid": "1", "text": "p"}\n')
    line = {"query": Q, "positive_document_ids": ["1"]}
    (folder / "a.jsonl").write_text(json.dumps(line) + "\n")
    (example,) = read_train_files(
        path=folder, corpus_path=folder / "corpus.jsonl", cache_dir=tmp_path / "c"
    )
    assert example.positives[0].text == P


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": Q, "positive_messages": [[message(P)]]}, "must be a list of messages"),
        (
            {"messages": [message("s", "system"), message(Q)], "positive_messages": P},
            r"2 messages \(system, user\); .*prompt\.query",
        ),
        (
            {"messages": [message(Q)], "positive_messages": [[message("<image>p")]]},
            r"positive_messages\): holds an image",
        ),
        ({"messages": [message(Q)], "positive_messages": [[{"role": "user"}]]}, "no text"),
        ({"query": Q, "positive": [[P]]}, "is no passage"),
        ({"query": Q, "positive": 3}, "3 is no passage"),
    ],
)
def test_malformed_values_are_named(tmp_path: Path, record: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf":1.*{message}"):
        read(tmp_path, record)


def test_lines_without_a_positive_are_skipped_in_every_form(tmp_path: Path) -> None:
    for name, (record, negatives) in FORMS.items():
        positive = next(
            key
            for key in record
            if key in ("answer", "response", "document", "sentence2") or key.startswith("pos")
        )
        without = [{k: v for k, v in record.items() if k != positive}]
        without += [record | {positive: value} for value in ([], None, [""], "")]
        examples = read(tmp_path, record, *without)
        assert len(examples) == 1, name
        assert texts(examples) == (Q, [P], negatives)
        assert examples.caveats[0] == "5 of 6 lines have no positive and are skipped (83.3 %)"


def test_one_id_has_one_text(tmp_path: Path) -> None:
    def line(query_id: str, query: str, docid: str, text: str, title: str = "") -> dict:
        passage = {"docid": docid, "text": text, "title": title}
        return {"query_id": query_id, "query": query, "positive_passages": [passage]}

    good = [line("1", "a", "x", "t"), line("1", "a", "x", "t"), line("2", "a", "y", "t")]
    assert len(read(tmp_path, *good)) == 3
    with pytest.raises(UserError, match=r":4: the passage id 'x' .* 'other' here.*'t' at .*:2"):
        read(tmp_path, *good, line("3", "b", "x", "other"), line("4", "c", "x", "third"))
    with pytest.raises(UserError, match=r":4: the passage id 'x' .*'T\\nt' here"):
        read(tmp_path, *good, line("3", "b", "x", "t", "T"))
    assert len(read(tmp_path, *good, line("3", "b", "x", " t"))) == 4  # outer white space
    long = "same " * 40
    with pytest.raises(UserError, match=r"'\.\.\.same same same same two' here.*one' at"):
        read(tmp_path, line("1", "a", "x", f"{long}one"), line("2", "b", "x", f"{long}two"))
    with pytest.raises(UserError, match=r":4: the query id '2' .*'b' here, and for 'a' at .*:3"):
        read(tmp_path, *good, line("2", "b", "z", "t"))
    bad = [*good, line("3", "b", "x", "other")]
    assert len(read(tmp_path, *bad, ignored=["docid"])) == 4


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("negs", "neg", True), ("ne", "neg", True), ("nag", "neg", True), ("nge", "neg", True),
        ("eneg", "neg", True), ("neg", "neg", False), ("nges", "neg", False), ("", "a", True),
        ("positves", "positives", True), ("postiive", "positive", True), ("abc", "cab", False),
        ("ab", "ba", True), ("abcd", "bacd", True), ("abcd", "badc", False), ("", "ab", False),
    ],
)  # fmt: skip
def test_one_edit(one: str, other: str, expected: bool) -> None:
    assert _within_one_edit(one, other) is expected
    assert _within_one_edit(other, one) is expected
