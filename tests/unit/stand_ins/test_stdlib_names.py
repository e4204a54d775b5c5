from __future__ import annotations

from pathlib import Path

from quarry.stand_ins.stdlib_code import stdlib_code_examples, stdlib_code_set
from quarry.stand_ins.stdlib_names import name_words, names_set, stdlib_names_set
from quarry.types import Document, RetrievalSet


def test_words_of_identifiers() -> None:
    names = {
        "json.decoder:JSONDecoder.raw_decode": "json decoder json decoder raw decode",
        "http.client:HTTPResponse._read1": "http client http response read 1",
        "a:x_Y": "a x y",
    }
    for name, words in names.items():
        assert " ".join(name_words(name)) == words


def test_definitions_of_one_name_answer_one_query() -> None:
    ids = ("m:Popen.wait", "m:Popen._wait", "m:run")
    corpus = tuple(Document(document_id=one, text=one) for one in ids)
    code = RetrievalSet(
        name="stdlib_code_dev", queries=(), corpus=corpus, qrels={}, content="code", source="s"
    )
    made = names_set(code)
    assert made.name == "stdlib_names_dev"
    assert [query.text for query in made.queries] == ["m popen wait", "m run"]
    assert made.qrels == {
        "name:m:Popen.wait": {"m:Popen.wait": 1, "m:Popen._wait": 1},
        "name:m:run": {"m:run": 1},
    }


def test_nothing_of_it_was_trained_on(tmp_path: Path) -> None:
    names = stdlib_names_set(split="test", cache_dir=tmp_path)
    assert names.corpus == stdlib_code_set(split="test", cache_dir=tmp_path).corpus
    assert len(names.queries) > 500
    trained = {one.positives[0].text for one in stdlib_code_examples(cache_dir=tmp_path)}
    assert not trained & {document.text for document in names.corpus}
    modules = {one.positives[0].document_id.split(":")[0].split(".")[0]
               for one in stdlib_code_examples(cache_dir=tmp_path)}  # fmt: skip
    assert not modules & {d.document_id.split(":")[0].split(".")[0] for d in names.corpus}
