"""Training files of any known form become `TableExamples`: from disk, or from the hub.

What a file says is checked once, record by record, when its table is built: a bad line stops a run
before any model loads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.data.arrow_table import open_table
from quarry.data.beir import read_corpus
from quarry.data.corpus import Corpus
from quarry.data.hub_tables import HubTable, find_table_files, pinned
from quarry.data.jsonl import find_file, shown
from quarry.data.record_files import form_of as file_form
from quarry.data.record_files import read_records
from quarry.data.train_examples import (
    TableExamples,
    corpus_cells,
    inline_cells,
    row_of,
    schema,
)
from quarry.data.train_forms import TrainColumns, TrainForm, form_of
from quarry.data.train_lines import LineReader
from quarry.data.training_files import find_training_files
from quarry.errors import UserError
from quarry.runtime.hub_files import HubFiles, reads_hub

logger = logging.getLogger(__name__)


def read_train_files(
    *,
    path: Path | str,
    corpus_path: Path | str | None = None,
    columns: TrainColumns | None = None,
    cache_dir: Path | str,
) -> TableExamples:
    """Return the examples of a file, or of the files in a folder; docs/data.md lists the forms.

    Args:
        path: JSON lines, a JSON array, CSV, TSV or Parquet, or a folder of such files.
        corpus_path: documents (JSONL, TSV or Parquet), for the form that has ids alone.
        columns: the user's own names of columns; None: those of the form.
        cache_dir: where the memory-mapped tables go.

    Raises:
        MissingPathError: a file is not there.
        UserError: a malformed record or one of another form than the first, an empty query, an id
            that stands for two texts, a key that is not read but seems to hold passages, no
            example at all.
    """
    if path is None:
        raise UserError("data.path: is not set. Fix: data.path=FILE, or a folder of files")
    return _examples(find_training_files(Path(path)), corpus_path, columns, cache_dir)


def train_hub_files(
    *,
    path: str,
    subset: str | None = None,
    split: str = "train",
    revision: str | None = None,
    **_: object,
) -> tuple[HubFiles, ...]:
    """Return what `read_train_hub` fetches from the hub; see there for the arguments."""
    table = _hub_table(path=path, subset=subset, split=split, revision=revision)
    return table.hub_files(used_by="training set")


@reads_hub(train_hub_files)
def read_train_hub(
    *,
    path: str,
    subset: str | None = None,
    split: str = "train",
    revision: str | None = None,
    corpus_path: Path | str | None = None,
    columns: TrainColumns | None = None,
    cache_dir: Path | str,
) -> TableExamples:
    """Return the examples of a data set on the hub, read from its files at one commit.

    Args:
        path: "owner/name", or a folder with a copy of such a repository, beginning with . / or ~.
        subset: one of its configurations; None: "default", or the only one.
        split: one of its splits.
        revision: a commit in full; None: the newest, which is logged.
        corpus_path, columns, cache_dir: as for `read_train_files`.

    Raises:
        UserError: as `read_train_files`; the hub cannot give the data set, or it has no such
            configuration or split.
    """
    table = _hub_table(path=path, subset=subset, split=split, revision=revision)
    return _examples(find_table_files(pinned(table)), corpus_path, columns, cache_dir)


def _hub_table(*, path: str, subset: str | None, split: str, revision: str | None) -> HubTable:
    if path is None:
        raise UserError("data.path: is not set. Fix: data.path=OWNER/NAME, a data set on the hub")
    configs = () if subset is None else (subset,)
    return HubTable(repo=path, revision=revision, configs=configs, splits=(split,), group="data")


def _examples(
    files: Sequence[Path],
    corpus_path: Path | str | None,
    columns: TrainColumns | None,
    cache_dir: Path | str,
) -> TableExamples:
    columns = TrainColumns() if columns is None else columns
    form = _form_of_files(files, columns)
    if form.has_ids and corpus_path is None:
        raise UserError(
            f"{files[0]}: names passages by id ({form.positive[0]!r}) but corpus_path is not set. "
            "Fix: data.corpus_path=FILE, which holds their texts"
        )
    if not form.has_ids and corpus_path is not None:
        logger.warning("%s holds its texts; corpus_path=%s is not read", files[0], corpus_path)
        corpus_path = None
    corpus_source = None if corpus_path is None else find_file(Path(corpus_path))
    corpus = None
    if corpus_source is not None:
        corpus = read_corpus(path=corpus_source, cache_dir=cache_dir)
    table = open_table(
        cache_dir=Path(cache_dir),
        kind="examples",
        sources=[*files, *([] if corpus_source is None else [corpus_source])],
        schema=schema(in_corpus=corpus is not None),
        rows=_rows(files, form, columns, corpus),
        settings=repr((columns, form)),
    )
    return TableExamples(table=table, sources=files, corpus=corpus)


def _form_of_files(files: Sequence[Path], columns: TrainColumns) -> TrainForm:
    for _, where, record in read_records(files):
        return form_of(record, where, columns)
    raise UserError(f"{files[0]}: holds no records; check that it is the right file")


def _rows(
    files: Sequence[Path], form: TrainForm, columns: TrainColumns, corpus: Corpus | None
) -> Iterator[tuple[Any, ...]]:
    cells_of = inline_cells if corpus is None else corpus_cells(corpus)
    read = LineReader(
        form,
        ignored=columns.ignored,
        has_text_cells=file_form(files[0]) in (".csv", ".tsv"),
    )
    record_number = 0
    for file, source in enumerate(files):
        for number, where, record in read_records([source]):
            read.query_ids.record = read.passage_ids.record = record_number
            yield row_of(read(record, where), file=file, number=number, cells_of=cells_of)
            record_number += 1
    _refuse_contradictions(files, read)


def _refuse_contradictions(files: Sequence[Path], read: LineReader) -> None:
    """Raise UserError if an id stands for two texts: one of them would be trained as the other."""
    for name, given in (("query", read.query_ids), ("passage", read.passage_ids)):
        found = given.first_contradiction()
        if found is None:
            continue
        texts: dict[str, dict[str, str]] = {}  # id -> title and text -> where they stand
        for number, (_, where, record) in enumerate(read_records(files)):
            if number in found:
                line = read(record, where)
                if name == "query":
                    texts.setdefault(line.query_id, {}).setdefault(line.query, where)
                    continue
                for passage, _ in (*line.positives, *line.hard_negatives):
                    text = f"{passage.title} {passage.text}".strip()
                    texts.setdefault(passage.document_id, {}).setdefault(text, where)
        id_, (first, second) = next(
            (id_, list(each.items())[:2]) for id_, each in texts.items() if len(each) > 1
        )
        raise UserError(
            f"{second[1]}: the {name} id {shown(id_)} stands for {shown(second[0])} here, and for "
            f"{shown(first[0])} at {first[1]}. Fix: make ids differ, or leave them out: "
            "data.columns.ignored=[KEY]"
        )
