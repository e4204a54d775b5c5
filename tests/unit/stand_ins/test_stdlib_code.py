"""The stdlib collection: rules by hand on small sources, the whole on the real library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import pytrec_eval

from quarry.errors import MissingPathError, UserError
from quarry.retrieval.bm25 import BM25Retriever, CodeAnalyzer
from quarry.stand_ins.stdlib_code import (
    StdlibCode,
    build_stdlib_code,
    pairs_from_source,
    stdlib_code_examples,
    stdlib_code_set,
    stdlib_code_texts,
)


def pairs(source: str) -> dict[str, tuple[str, str]]:
    return {
        pair.pair_id: (pair.summary, pair.code) for pair in pairs_from_source(source, module="m")
    }


def function(name: str, summary: str, body: str = "return first + second + third") -> str:
    return f'def {name}(first, second):\n    """{summary}"""\n    {body}\n\n'


def test_a_function_is_cut_into_summary_and_code() -> None:
    source = '''
@cached
def add(a,
        b=1):
    """Add two   numbers
    together.

    Not part of the summary.
    """

    # why
    return a + b
'''
    code = "@cached\ndef add(a,\n        b=1):\n    # why\n    return a + b"
    assert pairs(source) == {"m:add": ("Add two numbers together.", code)}


def test_a_class_loses_the_docstrings_of_its_methods() -> None:
    source = '''
class Box:
    "Holds one thing."

    async def open(self):
        r"""Give away the thing."""
        return self.thing.inside
    class Lid:
        pass
'''
    found = pairs(source)
    assert list(found) == ["m:Box", "m:Box.open"]
    assert found["m:Box"][1] == (
        "class Box:\n    async def open(self):\n        return self.thing.inside\n"
        "    class Lid:\n        pass"
    )
    assert found["m:Box.open"] == (
        "Give away the thing.",
        "async def open(self):\n    return self.thing.inside",
    )


def test_a_form_feed_does_not_shift_lines() -> None:
    source = "x = 1\n\f\n" + function("f", "Sum up all three.")
    expected = "def f(first, second):\n    return first + second + third"
    assert pairs(source)["m:f"][1] == expected


def test_the_first_definition_of_a_name_counts_also_under_conditions() -> None:
    branches = [function("f", f"Variant number {word}.") for word in ("one", "two")]
    first, second = (branch.strip().replace("\n", "\n    ") for branch in branches)
    source = f"try:\n    {first}\nexcept ImportError:\n    {second}\n"
    assert [summary for summary, _ in pairs(source).values()] == ["Variant number one."]


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, b):\n    return a + b + 1\n",
        function("f", "Too short."),
        function("f", ">>> f(1, 2) is doctest"),
        function("f", "Nothing is done here.", body="raise NotImplementedError"),
        'class C(Exception):\n    """Raised when it fails."""\n',
        'def f(a, b): "Docstring beside the code."\n',
        function("f", "Far too long a body.", body="\n    ".join(["first += second"] * 300)),
        'def outer():\n    def f():\n        """Known to nobody else."""\n        return 1 + 2\n',
    ],
)
def test_not_eligible(source: str) -> None:
    assert pairs(source) == {}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library in small: json is a test module, ast a dev module, others train."""
    root = tmp_path / "lib"
    files = {
        "json/__init__.py": function("dumps", "Write text of objects.", "return first.second.x")
        + function("same", "Known in both places!", "return first.a.b"),
        "json/decoder.py": function("decode", "Read objects from text.", "return first[second][0]"),
        "ast.py": function("parse", "Grow a syntax tree.", "return first % second % 2"),
        "email.py": function("same", "known in both  places", "return first.c.d")
        + function("decode", "Another text, same code.", "return first[second][0]")
        + function("send", "Post a letter somewhere.", "return first @ second @ 1"),
        "latin.py": "# -*- coding: latin-1 -*-\n" + function("f", "Café mit Müsli dazu."),
        "boom.py": "raise SystemExit('a module was run')\n",
        "email/test/test_x.py": function("hidden", "Tests are left out."),
        "site-packages/other.py": function("hidden", "Packages are left out."),
        "config-3.11/conf.py": function("hidden", "Settings are left out."),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1" if name == "latin.py" else "utf-8"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    return root


def train_ids(collection: StdlibCode) -> list[str]:
    return [example.positives[0].document_id for example in collection.train]


def test_splits_duplicates_and_exclusions(library: Path, tmp_path: Path) -> None:
    collection = build_stdlib_code(cache_dir=tmp_path / "cache")
    # email:same repeats a test query and email:decode a test code: both are gone from train.
    assert train_ids(collection) == ["email:send", "latin:f"]
    assert [item.document_id for item in collection.dev.corpus] == ["ast:parse"]
    test = collection.retrieval_set("test")
    assert [item.document_id for item in test.corpus] == [
        "json:dumps",
        "json:same",
        "json.decoder:decode",
    ]
    assert test.qrels == {
        f"query:{item.document_id}": {item.document_id: 1} for item in test.corpus
    }
    assert [query.query_id for query in test.queries] == list(test.qrels)
    assert test.content == "code"
    assert collection.train[1].query.text == "Café mit Müsli dazu."


def test_thin_functions(library: Path, tmp_path: Path) -> None:
    cache_dir = str(tmp_path / "cache")
    examples = stdlib_code_examples(cache_dir=cache_dir)
    assert [example.hard_negatives for example in examples] == [(), ()]
    texts = stdlib_code_texts(cache_dir=cache_dir)
    assert texts[:2] == [
        "Post a letter somewhere.",
        "def send(first, second):\n    return first @ second @ 1",
    ]
    assert len(texts) == 4
    assert stdlib_code_set(split="dev", cache_dir=cache_dir).name == "stdlib_code_dev"
    assert stdlib_code_set(split="test", cache_dir=cache_dir).name == "stdlib_code"
    with pytest.raises(UserError, match=r"'train'.*dev, test"):
        stdlib_code_set(split="train", cache_dir=cache_dir)


def test_the_cache_is_byte_identical_and_read(library: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    built = build_stdlib_code(cache_dir=first)
    build_stdlib_code(cache_dir=second)
    (file,) = first.iterdir()
    assert file.read_bytes() == (second / file.name).read_bytes()
    file.write_bytes(file.read_bytes().replace(b"Post a letter", b"Read from cache"))
    reread = build_stdlib_code(cache_dir=first)
    assert reread.train[0].query.text == "Read from cache somewhere."
    assert reread.test == built.test


def test_changed_source_makes_a_new_cache(library: Path, tmp_path: Path) -> None:
    cache_dir = tmp_path / "cache"
    build_stdlib_code(cache_dir=cache_dir)
    (library / "ast.py").write_text(function("walk", "Visit all the nodes."), encoding="utf-8")
    collection = build_stdlib_code(cache_dir=cache_dir)
    assert [item.document_id for item in collection.dev.corpus] == ["ast:walk"]
    assert len(list(cache_dir.iterdir())) == 2


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"split": "train", "other": 1}'])
def test_a_damaged_cache_names_file_and_line(library: Path, tmp_path: Path, line: str) -> None:
    build_stdlib_code(cache_dir=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    rows = file.read_text(encoding="utf-8").splitlines()
    rows[1] = line
    file.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(UserError, match=rf"{file.name}:2: .*delete the file"):
        build_stdlib_code(cache_dir=tmp_path / "cache")


def test_an_interpreter_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nothing"))
    with pytest.raises(MissingPathError, match=r"no \.py files"):
        build_stdlib_code(cache_dir=tmp_path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> StdlibCode:
    return build_stdlib_code(cache_dir=tmp_path_factory.mktemp("stdlib"))


def test_real_sizes(real: StdlibCode) -> None:
    assert 4500 <= len(real.train) <= 5500
    assert 850 <= len(real.test.queries) == len(real.test.corpus) <= 950
    assert 250 <= len(real.dev.queries) == len(real.dev.corpus) <= 350


def test_real_splits_share_nothing(real: StdlibCode) -> None:
    documents = {
        "train": [example.positives[0] for example in real.train],
        "dev": list(real.dev.corpus),
        "test": list(real.test.corpus),
    }
    queries = [example.query for example in real.train]
    queries += [*real.dev.queries, *real.test.queries]
    everything = [document for split in documents.values() for document in split]
    for values in (
        [query.text.casefold() for query in queries],
        [query.query_id for query in queries],
        [document.document_id for document in everything],
        [" ".join(document.text.split()) for document in everything],
    ):
        assert len(values) == len(set(values))
    modules = [
        {document.document_id.partition(":")[0].partition(".")[0] for document in split}
        for split in documents.values()
    ]
    assert sum(map(len, modules)) == len(set.union(*modules))
    assert not set.union(*modules) & {"test", "idlelib", "turtledemo", "encodings", "ensurepip"}


def test_real_code_does_not_hold_its_query(real: StdlibCode) -> None:
    held = [
        query.query_id
        for query, document in zip(real.test.queries, real.test.corpus, strict=True)
        if len(query.text) > 30 and query.text in " ".join(document.text.split())
    ]
    assert held == []


def test_real_difficulty_for_bm25(real: StdlibCode) -> None:
    run = BM25Retriever(tokenizers={"code": CodeAnalyzer()}).retrieve(real.test, top_k=100)
    qrels = {query_id: dict(grades) for query_id, grades in real.test.qrels.items()}
    values = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    assert 0.28 <= sum(value["ndcg_cut_10"] for value in values.values()) / len(qrels) <= 0.34
