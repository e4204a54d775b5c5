"""Build a text-to-code collection from the running interpreter's standard library.

Docstring summaries become queries; the code that they describe becomes training passages and the
corpus to search. Nothing is downloaded.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import platform
import re
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Literal

from quarry.errors import MissingPathError, UserError
from quarry.runtime.cache_use import keep_used
from quarry.runtime.files import write_text
from quarry.types import Document, Qrels, Query, RetrievalSet, TrainExample

logger = logging.getLogger(__name__)

Split = Literal["train", "dev", "test"]

# part of the name of the cache file: raise it whenever a rule or a list below changes
_FORMAT_VERSION = 1

# fmt: off
_EXCLUDED_FOLDERS = frozenset({
    "test", "tests", "idle_test", "site-packages", "dist-packages", "ensurepip",  # not the library
    "idlelib", "turtledemo", "encodings", "pydoc_data", "__phello__",  # applications and tables
    "__pycache__",
})
_EXCLUDED_FILES = re.compile(r"(_sysconfigdata.*|__hello__|this|antigravity)\.py")

# Related modules are in one split (http with urllib and html, pdb with bdb and cmd; mailbox and
# email in training), so that training has few near copies of test items. Modules that are not
# listed, also those of later Python versions, are in training.
_TEST_MODULES = frozenset({
    "argparse", "base64", "calendar", "collections", "configparser", "csv", "difflib", "enum",
    "fractions", "heapq", "html", "http", "ipaddress", "json", "pathlib", "plistlib", "random",
    "shutil", "statistics", "string", "subprocess", "tempfile", "textwrap", "urllib", "uuid",
    "weakref",
})
_DEV_MODULES = frozenset({
    "ast", "bdb", "cmd", "codecs", "contextlib", "copy", "functools", "operator", "pdb", "pprint",
    "shlex", "timeit", "tracemalloc", "zoneinfo",
})
# fmt: on

_MIN_QUERY_WORDS = 3
_MIN_BODY_WORDS = 3
_MAX_CODE_LINES = 300

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, kw_only=True, slots=True)
class CodePair:
    """A docstring summary and its code, for instance of `json.decoder:py_scanstring`.

    Attributes:
        pair_id: module, colon, qualified name.
        summary: the first paragraph of the docstring, in one line.
        code: decorators, signature and body, dedented, without any docstring.
    """

    pair_id: str
    summary: str
    code: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StdlibCode:
    """The collection: training pairs, and two retrieval sets from modules held out of training."""

    train: Sequence[TrainExample]
    dev: RetrievalSet
    test: RetrievalSet

    def retrieval_set(self, split: str) -> RetrievalSet:
        """Return the set `dev` or `test`.

        Raises:
            UserError: another name.
        """
        sets = {"dev": self.dev, "test": self.test}
        if split not in sets:
            raise UserError(
                f"stdlib_code has no retrieval split {split!r} (allowed: {', '.join(sets)})"
            )
        return sets[split]


def stdlib_code_examples(*, cache_dir: Path | str) -> Sequence[TrainExample]:
    """Return the training pairs: one positive each, no hard negatives."""
    return _collection(Path(cache_dir).expanduser()).train


def stdlib_code_set(*, split: str, cache_dir: Path | str) -> RetrievalSet:
    """Return the retrieval set of a split, `dev` or `test`."""
    return _collection(Path(cache_dir).expanduser()).retrieval_set(split)


def stdlib_code_texts(*, cache_dir: Path | str) -> list[str]:
    """Return all training texts, each query followed by its code, to train a tokenizer on."""
    examples = stdlib_code_examples(cache_dir=cache_dir)
    return [text for item in examples for text in (item.query.text, item.positives[0].text)]


def build_stdlib_code(*, cache_dir: Path | str) -> StdlibCode:
    """Read the collection from `cache_dir`, or build it there from the standard library's source.

    The cache file's name depends on the Python version, the content of the source files and the
    version of the rules, so it is never stale. No library code is imported or run.

    Raises:
        MissingPathError: the interpreter has no source files of its standard library.
        UserError: the cache file is damaged.
    """
    root = Path(sysconfig.get_path("stdlib"))
    sources = {path.relative_to(root): path.read_bytes() for path in _source_files(root)}
    if not sources:
        raise MissingPathError(
            f"stdlib_code: {root} holds no .py files of the standard library. Fix: "
            "use a Python that ships its library as source"
        )
    version = platform.python_version()
    name = f"stdlib_code-v{_FORMAT_VERSION}-py{version}-{_digest(sources.items())}.jsonl"
    cache_file = Path(cache_dir).expanduser() / name
    keep_used(cache_file)  # before the check: nobody removes it in between
    if not cache_file.exists():
        _write_cache(cache_file, _split_pairs(sources))
        keep_used(cache_file)
    collection = _to_collection(_read_cache(cache_file))
    logger.info(
        "stdlib_code: %d training pairs, %d dev and %d test queries = documents (Python %s)",
        len(collection.train),
        len(collection.dev.queries),
        len(collection.test.queries),
        version,
    )
    return collection


@cache
def _collection(cache_dir: Path) -> StdlibCode:
    """Return the collection, cached in memory: model, data and benchmark all use it."""
    return build_stdlib_code(cache_dir=cache_dir)


def pairs_from_source(source: str, *, module: str) -> Iterator[CodePair]:
    """Yield the eligible pairs of one source file, in the order of the file.

    Functions, methods and classes are eligible (not definitions inside a function) if their
    docstring's summary has at least 3 words and is no doctest, their body has at least 3 words
    besides docstrings, and they have at most 300 lines. Of several definitions of one name the
    first is used.
    """
    lines = source.split("\n")  # not splitlines: ast does not end lines at form feeds
    seen: set[str] = set()
    for name, node in _definitions(_parse(source)):
        docstring = ast.get_docstring(node)
        if not docstring or name in seen:
            continue
        seen.add(name)
        summary = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
        head, body = _code_without_docstrings(node, lines)
        if (
            len(re.findall(r"\w+", summary)) >= _MIN_QUERY_WORDS
            and not summary.startswith(">>>")
            and len(re.findall(r"\w+", "\n".join(body))) >= _MIN_BODY_WORDS
            and len(head) + len(body) <= _MAX_CODE_LINES
        ):
            code = textwrap.dedent("\n".join([*head, *body]))
            yield CodePair(pair_id=f"{module}:{name}", summary=summary, code=code)


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old library code
        return ast.parse(source)


def _definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, _Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _definitions(child, prefix)


def _code_without_docstrings(node: _Definition, lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines of the signature (with decorators) and those of the body.

    Nested docstrings are removed, too: a class would otherwise contain its methods' queries.
    """
    docstring_lines: set[int] = set()
    for inner in ast.walk(node):
        if isinstance(inner, _Definition) and ast.get_docstring(inner) is not None:
            statement = inner.body[0]
            docstring_lines.update(range(statement.lineno, (statement.end_lineno or 0) + 1))
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    kept = [
        number
        for number in range(first, (node.end_lineno or 0) + 1)
        if number not in docstring_lines and lines[number - 1].strip()
    ]
    body_start = node.body[0].lineno
    return (
        [lines[number - 1].rstrip() for number in kept if number < body_start],
        [lines[number - 1].rstrip() for number in kept if number >= body_start],
    )


def _source_files(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        # config-3.x holds build settings; pruning `folders` keeps the walk out of site-packages
        folders[:] = [
            name
            for name in folders
            if name not in _EXCLUDED_FOLDERS and not name.startswith("config-")
        ]
        found.extend(
            Path(folder, name)
            for name in names
            if name.endswith(".py") and not _EXCLUDED_FILES.fullmatch(name)
        )
    return sorted(found)


def _digest(sources: Iterable[tuple[Path, bytes]]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for path, content in sources:
        digest.update(f"{path.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _split_pairs(sources: dict[Path, bytes]) -> dict[Split, list[CodePair]]:
    """Return all pairs by split, without pairs whose query or code repeats an earlier one.

    Splits come in the order test, dev, train, so a duplicate across splits is dropped from train.
    """
    candidates: dict[Split, list[CodePair]] = {"test": [], "dev": [], "train": []}
    for path, content in sources.items():
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        candidates[_split_of(module)].extend(pairs_from_source(_decode(content), module=module))
    seen: set[str] = set()
    kept: dict[Split, list[CodePair]] = {"test": [], "dev": [], "train": []}
    for split, pairs in candidates.items():
        for pair in pairs:
            query = "query " + " ".join(re.findall(r"\w+", pair.summary.casefold()))
            code = "code " + " ".join(pair.code.split())
            if query not in seen and code not in seen:
                kept[split].append(pair)
            seen.update((query, code))
    return kept


def _decode(content: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
    return TextIOWrapper(BytesIO(content), encoding=encoding).read()


def _split_of(module: str) -> Split:
    top_level = module.partition(".")[0]
    if top_level in _TEST_MODULES:
        return "test"
    return "dev" if top_level in _DEV_MODULES else "train"


def _write_cache(cache_file: Path, pairs_by_split: dict[Split, list[CodePair]]) -> None:
    lines = [
        json.dumps({"split": split, **asdict(pair)}, ensure_ascii=False)
        for split, pairs in pairs_by_split.items()
        for pair in pairs
    ]
    write_text(cache_file, "".join(line + "\n" for line in lines))


def _read_cache(cache_file: Path) -> dict[Split, list[CodePair]]:
    pairs_by_split: dict[Split, list[CodePair]] = {"test": [], "dev": [], "train": []}
    with cache_file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                pairs_by_split[row.pop("split")].append(CodePair(**row))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{cache_file}:{number}: not a row of the stdlib_code cache ({error}). Fix: "
                    "delete the file; the next run builds it again"
                ) from error
    return pairs_by_split


def _to_collection(pairs: dict[Split, list[CodePair]]) -> StdlibCode:
    return StdlibCode(
        train=tuple(
            TrainExample(query=_query(pair), positives=(_document(pair),))
            for pair in pairs["train"]
        ),
        dev=_to_set("stdlib_code_dev", pairs["dev"], split="dev"),
        test=_to_set("stdlib_code", pairs["test"], split="test"),
    )


def _to_set(name: str, pairs: Sequence[CodePair], *, split: Split) -> RetrievalSet:
    queries = tuple(_query(pair) for pair in pairs)
    corpus = tuple(_document(pair) for pair in pairs)
    qrels: Qrels = {
        query.query_id: {document.document_id: 1}
        for query, document in zip(queries, corpus, strict=True)
    }
    return RetrievalSet(
        name=name,
        queries=queries,
        corpus=corpus,
        qrels=qrels,
        content="code",
        source=f"standard library of Python {platform.python_version()}, {split}",
    )


def _query(pair: CodePair) -> Query:
    # not the document's id: some conventions drop a result whose id is the query's
    return Query(query_id=f"query:{pair.pair_id}", text=pair.summary)


def _document(pair: CodePair) -> Document:
    return Document(document_id=pair.pair_id, text=pair.code)
