"""Read the documents of a place, cut the long ones, and count what is left out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from quarry.data.document_places import DocumentPlace
from quarry.data.record_files import form_of, read_records
from quarry.data.records import (
    DOCUMENT_IDS,
    DOCUMENT_TEXTS,
    QUERY_IDS,
    QUERY_TEXTS,
    record_document,
)
from quarry.data.source_part import SourcePart
from quarry.data.table_sources import SourceFile
from quarry.data.text_files import read_text_file, text_file_ids
from quarry.data.text_splitter import TextSplitter
from quarry.errors import UserError
from quarry.types import Document, Role

UNREAD = "keys that are not read: "
"""Beginning of a count that names them."""

MISSING = "no record of this shard has "
"""Beginning of a count that names a column."""

ENDING = "binary "
"""Beginning of a count of binary files with one ending."""

MAX_KEYS = 20
"""Keys that a caveat names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentColumns:
    """Names of a table's columns; None: the usual ones (docs/data.md)."""

    id: str | None = None
    title: str | None = None
    text: str | None = None


class DocumentReader:
    """Reads documents of a place, and counts what is left out."""

    def __init__(
        self,
        place: DocumentPlace,
        splitter: TextSplitter,
        columns: DocumentColumns,
        *,
        role: Role,
        part: SourcePart | None,
    ) -> None:
        self.place = place
        self.part = part
        self.counts: Counter[str] = Counter()
        self.is_done = False
        self._splitter = splitter
        self._columns = columns
        self._role = role
        self.digest, self.modified = self._digests()

    @property
    def settings(self) -> str:
        """Everything but the files that the rows depend on, for the table's key."""
        return f"documents 2 {self.digest} {self.part}"

    @property
    def rules(self) -> dict[str, Any]:
        """Splitter and columns, as plain data."""
        return {"splitter": asdict(self._splitter), "columns": asdict(self._columns)}

    def rows(self) -> Iterator[tuple[int, Document]]:
        """Yield line and document of each piece; `counts` is complete when `is_done`."""
        self.counts.clear()
        read = self._files() if self.place.are_texts else self._records()
        for line, document in read:
            self.counts["documents"] += 1
            pieces = 0
            for piece in self._splitter.pieces(document, names_lines=self.place.are_texts):
                pieces += 1
                yield line, piece
            self.counts["pieces"] += pieces
            self.counts["split"] += pieces > 1
        self.is_done = True

    def _files(self) -> Iterator[tuple[int, Document]]:
        assert self.place.folder is not None
        files = self.place.files
        if self.part is not None:
            files = tuple(self.part.whole_files(files))
        for line, (name, file) in enumerate(text_file_ids(self.place.folder, files), start=1):
            text = read_text_file(file, partial(self._note, file))
            if text is not None:
                yield line, Document(document_id=name, title=name, text=text)

    def _note(self, file: Path, reason: str) -> None:
        self.counts[reason] += 1
        if reason == "binary" and file.suffix:
            self.counts[f"{ENDING}{file.suffix.lower()}"] += 1

    def _records(self) -> Iterator[tuple[int, Document]]:
        ids, texts = self._keys()
        title = self._columns.title or "title"
        wanted = tuple(dict.fromkeys((*ids, title, *texts)))
        unread = dict.fromkeys(_parquet_names(self.place.files[0]))
        num_titles = num_records = 0
        for line, where, record in read_records(self.place.files, wanted, part=self.part):
            document = record_document(record, ids, where, texts=texts, title=title)
            num_records += 1
            num_titles += title in record
            if document.title and self._role == "query":
                self.counts["titles"] += 1
                document = replace(document, title="")
            unread.update(dict.fromkeys(key for key, value in record.items() if value))
            yield line, document
        if self._columns.title is not None and num_records and not num_titles:
            self._miss(f"task.columns.title={title}", unread)
        read = {*ids, title, next((key for key in texts if key in unread), texts[0])}
        if left := [key for key in unread if key not in read]:
            more = f" and {len(left) - MAX_KEYS} more" if len(left) > MAX_KEYS else ""
            self.counts[f"{UNREAD}{', '.join(left[:MAX_KEYS])}{more}"] = 1

    def _miss(self, column: str, found: Iterable[str]) -> None:
        """Refuse a column that no record has; of a part, which may lack it by chance, note it."""
        if self.part is not None:
            self.counts[f"{MISSING}{column}"] = 1
            return
        raise UserError(
            f"{column}: no record of {self.place.source} has it (they have "
            f"{', '.join(list(found)[:MAX_KEYS])}). Fix: one of these, or leave it out"
        )

    def _keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the keys of id and text, in the order of preference."""
        ids = QUERY_IDS if self._role == "query" else DOCUMENT_IDS
        texts = QUERY_TEXTS if self._role == "query" else DOCUMENT_TEXTS
        given = self._columns
        return (
            ids if given.id is None else (given.id,),
            texts if given.text is None else (given.text,),
        )

    def _digests(self) -> tuple[str, str]:
        """Return a digest of what is read and how, and one of the times when files were changed.

        The first is the same for a copy. It has the sizes and both ends of files, so that a change
        in the middle of a large one may be told by the second alone.
        """
        files = [_facts_of(file) for file in self.place.files]
        names = [file.name for file in self.place.files]
        if self.place.folder is not None:
            names = [name for name, _ in text_file_ids(self.place.folder, self.place.files)]
        facts: list[Any] = [
            [(name, file.size, file.digest) for name, file in zip(names, files, strict=True)],
            asdict(self._splitter),
            asdict(self._columns),
            self._role,
        ]
        times = [file.modified_ns for file in files]
        digests = [hashlib.sha256(json.dumps(each).encode()).hexdigest() for each in (facts, times)]
        return digests[0], digests[1]


def _facts_of(file: Path) -> SourceFile:
    try:
        return SourceFile.of(file)
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}). Fix: check the file and its permissions"
        ) from error


def _parquet_names(file: Path) -> list[str]:
    """Return all columns of a Parquet file, of which only some are read; [] for other files."""
    if form_of(file) != ".parquet":
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(file).names)
    except (OSError, pa.ArrowException):
        return []  # reading its records says what is wrong
