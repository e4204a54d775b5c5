"""A test collection in BEIR's layout becomes a `RetrievalSet` whose corpus is memory-mapped.

    <set>/corpus.jsonl        {"_id", "title" (optional), "text"}
    <set>/queries.jsonl       {"_id", "text"}
    <set>/qrels/<split>.tsv   query-id, corpus-id, score, separated by tabs, below a header line

Each file may be gzipped (`.gz` appended). Layout: Thakur et al. 2021, arXiv 2104.08663.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quarry.data.corpus import Corpus, check_judged_documents, open_corpus
from quarry.data.jsonl import find_file, read_jsonl, read_lines
from quarry.data.records import (
    Judgement,
    Record,
    collect_qrels,
    judged_queries,
    record_document,
)
from quarry.errors import MissingPathError, UserError
from quarry.types import Content, Qrels, Query, RetrievalSet


def read_corpus(*, path: Path | str, cache_dir: Path | str) -> Corpus:
    """The documents of a JSONL file: BEIR's `_id` or Tevatron's `docid`, `title`, `text`.

    Raises:
        MissingPathError: no such file.
        UserError: a malformed line, or an id that stands on two lines.
    """
    source = find_file(Path(path))
    return open_corpus(
        sources=[source],
        documents=(
            (line, record_document(record, ("_id", "docid"), where))
            for line, where, record in _records(source)
        ),
        cache_dir=cache_dir,
    )


def read_beir(
    *,
    path: Path | str,
    split: str,
    cache_dir: Path | str,
    name: str | None = None,
    content: Content = "text",
) -> RetrievalSet:
    """One split of a BEIR folder, with the queries that it judges, in the order of their file.

    Public sets hold empty documents, and judge documents that their corpus lacks. Both are kept
    (a missing document counts as one that no retriever finds) and told in one logged warning.

    Args:
        path: the folder of the set.
        split: its qrels, `qrels/<split>.tsv`.
        cache_dir: where the memory-mapped corpus goes.
        name: of the set in reports; the folder's name if left out.
        content: what the corpus holds, for BM25.

    Raises:
        MissingPathError: the folder, a file or the split is not there.
        UserError: a malformed line; an id twice; a judged query that is empty or missing; no judged
            document in the corpus; no judgement above 0.
    """
    path = Path(path).expanduser()
    qrels_path = find_split(path=path, split=split)
    qrels = read_qrels(qrels_path)
    queries = [query for _, query in read_judged_queries(path=path, qrels=qrels)]
    corpus = read_corpus(path=path / "corpus.jsonl", cache_dir=cache_dir)
    name = name or path.resolve().name
    check_judged_documents(name=name, qrels=qrels, where=qrels_path, corpus=corpus)
    return RetrievalSet(
        name=name,
        queries=queries,
        corpus=corpus,
        qrels=qrels,
        content=content,
        source=f"{path.resolve().name}, {split}",
    )


def list_splits(path: Path | str) -> list[str]:
    """Names of the splits that a BEIR folder has judgements for, sorted."""
    names = {file.name.removesuffix(".gz") for file in (Path(path) / "qrels").glob("*.tsv*")}
    return sorted(name.removesuffix(".tsv") for name in names if name.endswith(".tsv"))


def find_sets(path: Path | str) -> list[Path]:
    """The BEIR folders at `path`: itself, or those directly inside it, sorted by name.

    Raises:
        MissingPathError: there is none.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise MissingPathError(f"{path}: no such folder; check the path or fetch the data")
    if is_beir_folder(path):
        return [path]
    sets = sorted(folder for folder in path.iterdir() if is_beir_folder(folder))
    if not sets:
        raise MissingPathError(
            f"{path}: neither a BEIR folder nor a folder of them; a BEIR folder has corpus.jsonl, "
            "queries.jsonl (or .gz of them) and qrels/<split>.tsv"
        )
    return sets


def is_beir_folder(path: Path) -> bool:
    """Whether a folder has the three files of a set, with the judgements of any split."""
    names = ("corpus.jsonl", "queries.jsonl")
    has_texts = all((path / n).is_file() or (path / f"{n}.gz").is_file() for n in names)
    return has_texts and bool(list_splits(path))


def find_split(*, path: Path, split: str) -> Path:
    """The qrels file of a split; MissingPathError (with the splits that exist) without one."""
    if not path.is_dir():
        raise MissingPathError(f"{path}: no such folder; check the path or fetch the data")
    splits = list_splits(path)
    if split not in splits:
        known = f"choose one of: {', '.join(splits)}" if splits else "it has no qrels/*.tsv at all"
        raise MissingPathError(f"{path}: no split {split!r} (qrels/{split}.tsv); {known}")
    return find_file(path / "qrels" / f"{split}.tsv")


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements of a BEIR qrels file: query id -> document id -> grade, in the file's order.

    A first line whose third column is no number is the header; a repeated line counts once.

    Raises:
        UserError: not three columns, a grade that is no integer, two different grades for one pair,
            or no grade above 0 at all.
    """
    path = find_file(path)
    return collect_qrels(lambda: read_judgements(path), source=path)


def read_judgements(path: Path) -> Iterator[Judgement]:
    """The lines of a BEIR qrels file; UserError for one that is no judgement."""
    for line, text in read_lines(path):
        if not text.strip():
            continue
        columns = text.split("\t")
        if len(columns) != 3:
            raise UserError(
                f"{path}:{line}: {len(columns)} columns, not 3; a line is query id, document id "
                "and grade, separated by tabs"
            )
        query_id, document_id, grade = (column.strip() for column in columns)
        if line == 1 and not _is_number(grade):
            continue
        try:
            yield f"{path}:{line}", query_id, document_id, int(grade)
        except ValueError as error:
            raise UserError(
                f"{path}:{line}: the grade {grade!r} is not an integer; grades are 0, 1, 2, ..."
            ) from error


def read_judged_queries(*, path: Path, qrels: Qrels) -> Iterator[tuple[int, Query]]:
    """Line number and query of each judged query of a BEIR folder, in the order of its file.

    Raises:
        UserError: a malformed line, an id twice, a judged query that is empty or is not there.
    """
    source = find_file(path / "queries.jsonl")
    yield from judged_queries(_records(source), qrels=qrels, source=source)


def _records(source: Path) -> Iterator[Record]:
    for line, record in read_jsonl(source):
        yield line, f"{source}:{line}", record


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
