"""Read and write qrels and runs in TREC's file formats, as trec_eval uses them."""

from __future__ import annotations

import codecs
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from quarry.errors import MissingPathError, UserError
from quarry.metrics.ranking import rank_documents
from quarry.runtime.bounded_gzip import open_gzip
from quarry.runtime.files import replacing
from quarry.types import Run

_QRELS_FORM = "query-id iteration document-id grade"
_RUN_FORM = "query-id Q0 document-id rank score tag"


def read_trec_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read TREC qrels: lines of "query-id iteration document-id grade", `.gz` or plain.

    Returns:
        Query id -> document id -> grade, in the order of the file. Blank lines are skipped.

    Raises:
        MissingPathError: there is no such file.
        UserError: a malformed line, or a document that is judged twice for a query.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, (query_id, _, document_id, grade) in _rows(path, form=_QRELS_FORM):
        grades = qrels.setdefault(query_id, {})
        if document_id in grades:
            raise _repetition(path, number, query_id, document_id)
        try:
            grades[document_id] = int(grade)
        except ValueError:
            raise UserError(
                f"{path}:{number}: the grade {grade!r} is not a whole number; write lines of "
                f"'{_QRELS_FORM}', where a grade of 0 or below means not relevant"
            ) from None
    return qrels


def read_run(path: Path) -> Run:
    """Read a TREC run: lines of "query-id Q0 document-id rank score tag", `.gz` or plain.

    As in trec_eval, the scores alone order the documents: ranks and tags are ignored.

    Returns:
        Query id -> document id -> score, in the order of the file. Blank lines are skipped.

    Raises:
        MissingPathError: there is no such file.
        UserError: a malformed line, or a document that is listed twice for a query.
    """
    run: Run = {}
    for number, (query_id, _, document_id, _, text, _) in _rows(path, form=_RUN_FORM):
        scores = run.setdefault(query_id, {})
        if document_id in scores:
            raise _repetition(path, number, query_id, document_id)
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise UserError(
                f"{path}:{number}: the score {text!r} is not a number; write lines of '{_RUN_FORM}'"
            )
        scores[document_id] = score
    return run


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write a TREC run, best documents first; `read_run` restores it exactly.

    Scores keep full precision. The file is written atomically, and its folder is created. A query
    without results has no line in this format, so it is not restored.

    Args:
        path: target file; plain text, so not `.gz`.
        run: rankings; scores may be numpy or torch scalars.
        tag: name of the system, the last column.

    Raises:
        UserError: a path in `.gz`, an id or tag that is empty or has whitespace, a NaN score.
    """
    if path.suffix == ".gz":
        raise UserError(f"{path}: runs are written as plain text; name the file without .gz")
    _check_writable("tag", tag)
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as stream,
    ):
        for query_id, scores in run.items():
            stream.writelines(_run_lines(query_id, scores, tag))


def check_ids(what: str, ids: Iterable[str]) -> None:
    """Raise on ids that a run file cannot hold, before a ranking of them is computed.

    Raises:
        UserError: an id that is empty or has whitespace.
    """
    for text in ids:
        _check_writable(what, text)


def _run_lines(query_id: str, scores: Mapping[str, float], tag: str) -> Iterator[str]:
    _check_writable("query id", query_id)
    for position, document_id in enumerate(rank_documents(scores), start=1):
        _check_writable("document id", document_id)
        # the repr of a Python float is the shortest text that reads back as the same number
        yield f"{query_id} Q0 {document_id} {position} {float(scores[document_id])!r} {tag}\n"


def _check_writable(what: str, text: str) -> None:
    if text.split() != [text]:
        raise UserError(
            f"{what} {text!r}: the columns of TREC files are separated by whitespace, so it must "
            "have none and must not be empty; rename it"
        )


def _rows(path: Path, *, form: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and columns of every line that is not blank; they must fit `form`."""
    for number, line in numbered_lines(path):
        columns = line.split()
        if len(columns) == len(form.split()):
            yield number, columns
        elif columns:
            raise UserError(
                f"{path}:{number}: {len(columns)} columns where {len(form.split())} are expected; "
                f"write lines of '{form}', without whitespace in ids"
            )


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of each line of a file, `.gz` or plain.

    Raises:
        MissingPathError: there is no such file.
        UserError: bytes that are not UTF-8, or a gzip file that is damaged or expands too far.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: there is no such file; check the path")
    number = 0
    try:
        with open_gzip(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                # A byte order mark would become part of the first query id. (The codec utf-8-sig
                # drops it, too, but is written in Python: slow for millions of lines.)
                yield number, line.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: this is not UTF-8 text ({error}); convert it") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}:{number + 1}: the compressed file is damaged ({error}); fetch it again"
        ) from error


def _repetition(path: Path, number: int, query_id: str, document_id: str) -> UserError:
    return UserError(
        f"{path}:{number}: document {document_id!r} is there twice for query {query_id!r}; "
        "leave one of the two lines"
    )
