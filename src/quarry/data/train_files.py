"""Read training files of any known form into `TableExamples`, from disk or from the hub.

Every record is checked once, when its table is built, so that a bad line stops a run before
any model loads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from quarry.data.arrow_table import open_table
from quarry.data.beir import read_corpus
from quarry.data.corpus import Corpus
from quarry.data.hub_tables import HubTable, find_table_files, pinned
from quarry.data.jsonl import find_file, shown
from quarry.data.record_files import form_of, read_records
from quarry.data.text_ids import first_difference
from quarry.data.train_examples import (
    TableExamples,
    corpus_cells,
    inline_cells,
    row_of,
    schema,
)
from quarry.data.train_forms import TrainColumns, TrainForm
from quarry.data.train_keys import form_of_record
from quarry.data.train_lines import RULES_VERSION, LineReader
from quarry.data.train_paths import find_training_files
from quarry.errors import UserError
from quarry.runtime.hub_files import HubFiles, reads_hub

logger = logging.getLogger(__name__)

NUM_RECORDS_OF_FORM = 100
"""Number of records whose keys decide the form of a file."""


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
        columns: column names of the user; None: those of the form.
        cache_dir: folder for the memory-mapped tables.

    Raises:
        MissingPathError: a file does not exist.
        UserError: a malformed record or one of another form than the first, an empty query, an id
            that stands for two texts, an unread key that seems to hold passages, no example at all.
    """
    path = Path(path).expanduser()
    if (path / "qrels").is_dir():
        raise UserError(f"{path}: is a BEIR folder. Fix: data=folder data.path={path}")
    beside = None if corpus_path is None else Path(corpus_path)
    return _examples(find_training_files(path, beside=beside), corpus_path, columns, cache_dir)


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
        UserError: as `read_train_files`; the hub cannot provide the dataset, or it has no such
            configuration or split.
    """
    table = _hub_table(path=path, subset=subset, split=split, revision=revision)
    return _examples(find_table_files(pinned(table)), corpus_path, columns, cache_dir)


def _hub_table(*, path: str, subset: str | None, split: str, revision: str | None) -> HubTable:
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
        settings=f"{RULES_VERSION} {columns}",
    )
    return TableExamples(table=table, sources=files, corpus=corpus)


def _form_of_files(files: Sequence[Path], columns: TrainColumns) -> TrainForm:
    """Return the form by the keys of the first records: the very first may have no positive."""
    keys: dict[str, Any] = {}
    first = None
    for _, where, record in islice(read_records(files), NUM_RECORDS_OF_FORM):
        first = first or where
        for key, value in record.items():
            keys.setdefault(key, value)
    if first is None:
        raise UserError(f"{files[0]}: holds no records; check that it is the right file")
    return form_of_record(keys, first, columns)


def _rows(
    files: Sequence[Path], form: TrainForm, columns: TrainColumns, corpus: Corpus | None
) -> Iterator[tuple[Any, ...]]:
    cells_of = inline_cells if corpus is None else corpus_cells(corpus)
    read = LineReader(
        form,
        ignored=columns.ignored,
        has_text_cells=form_of(files[0]) in (".csv", ".tsv"),
    )
    record_number = 0
    for file, source in enumerate(files):
        for number, where, record in read_records([source]):
            read.query_ids.record = read.passage_ids.record = record_number
            yield row_of(read(record, where), file=file, number=number, cells_of=cells_of)
            record_number += 1
    _refuse_contradictions(files, read)
    if read.not_seen:
        logger.warning(
            "data.columns.ignored=[%s]: no record has it; check the spelling",
            ",".join(sorted(read.not_seen)),
        )


def _refuse_contradictions(files: Sequence[Path], read: LineReader) -> None:
    """Raise UserError if an id stands for two texts: one of them would be trained as the other."""
    for name, given in (("query", read.query_ids), ("passage", read.passage_ids)):
        found = given.first_contradiction()
        if found is None:
            continue
        texts: dict[str, dict[tuple[str, ...], str]] = {}  # id -> title and text -> where
        for number, (_, where, record) in enumerate(read_records(files)):
            if number > max(found):
                break
            if number in found:
                line = read(record, where)
                passages = [passage for passage, _ in (*line.positives, *line.hard_negatives)]
                each: list[tuple[str, tuple[str, ...]]] = [(line.query_id, (line.query.strip(),))]
                if name == "passage":
                    each = [(p.document_id, (p.title.strip(), p.text.strip())) for p in passages]
                for given_id, text in each:
                    texts.setdefault(given_id, {}).setdefault(text, where)
        given_id, ((one, first), (other, second), *_) = next(
            (given_id, tuple(each.items())) for given_id, each in texts.items() if len(each) > 1
        )
        joined = ["\n".join(filter(None, each)) for each in (one, other)]
        one_text, other_text = first_difference(*joined)
        raise UserError(
            f"{second}: the {name} id {shown(given_id)} stands for {shown(other_text)} here, and "
            f"for {shown(one_text)} at {first}. Fix: make ids differ, or leave them out: "
            "data.columns.ignored=[KEY]"
        )
