"""Read the texts that are to be encoded, from any source, into one memory-mapped corpus."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quarry.data.corpus import Corpus, documents_digest, open_corpus
from quarry.data.document_places import DocumentPlace, find_documents
from quarry.data.document_reader import ENDING, MISSING, UNREAD, DocumentColumns, DocumentReader
from quarry.data.source_part import SourcePart
from quarry.data.text_files import NOT_READ
from quarry.data.text_splitter import TextSplitter
from quarry.errors import UserError
from quarry.runtime.files import write_json
from quarry.types import Document, Role

logger = logging.getLogger(__name__)

CAVEATS = ".caveats.json"
"""Suffix of the file beside a table with what was left out of it."""

MAX_SOURCES = 1000
"""Files that a table lists; the digest of all is in its key."""

MAX_ENDINGS = 10
"""Endings of binary files that a caveat names."""

_EMPTY = "documents are empty and are encoded as they are"
_SPLIT = "documents were split"


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The texts of a source.

    Attributes:
        corpus: memory-mapped; an empty tuple if this part of the source has no text.
        place: where they come from.
        caveats: sentences about what was left out or is unusual, with counts.
        digest: of the files (size, both ends), and of all that decides how they are read.
        modified: digest of the times when the files were changed.
        rules: splitter and columns, as plain data.
        part: the part that was read; None: all.
    """

    corpus: Sequence[Document]
    place: DocumentPlace
    caveats: tuple[str, ...]
    digest: str
    modified: str
    rules: Mapping[str, Any]
    part: SourcePart | None

    @cached_property
    def texts_digest(self) -> str:
        """SHA-256 of all ids, titles and texts in their order; they are read for it, once."""
        return documents_digest(self.corpus) if len(self.corpus) else ""


def read_documents(
    source: str,
    *,
    cache_dir: Path | str,
    splitter: TextSplitter | None = None,
    columns: DocumentColumns | None = None,
    role: Role = "document",
    kind: str = "auto",
    subset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    part: SourcePart | None = None,
) -> Documents:
    """Return the texts of a file, a BEIR folder, a folder of files or a data set of the hub.

    Ids must differ. Empty texts stay, and are counted in the caveats.

    Args:
        source: path or OWNER/NAME, see `find_documents` (with `kind`, `subset`, `split` and
            `revision`).
        cache_dir: folder of the memory-mapped table.
        splitter: rules by which documents are cut; None: those of `TextSplitter`.
        columns: names of the columns; None: the usual ones.
        role: "query": of a BEIR folder and a data set the queries are read.
        part: read only this part, see `read_records`; a text file belongs to one part.

    Raises:
        MissingPathError: there is nothing at the path.
        UserError: a malformed record, a repeated id, a lacking key, no text at all.
    """
    return read_source(
        find_source(
            source,
            splitter=splitter,
            columns=columns,
            role=role,
            kind=kind,
            subset=subset,
            split=split,
            revision=revision,
            part=part,
        ),
        cache_dir=cache_dir,
    )


def find_source(
    source: str,
    *,
    splitter: TextSplitter | None = None,
    columns: DocumentColumns | None = None,
    role: Role = "document",
    kind: str = "auto",
    subset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    part: SourcePart | None = None,
) -> DocumentReader:
    """Find the files of a source, and settle how they are read; arguments: `read_documents`.

    Both ends of each file are read, for the digest.

    Raises:
        MissingPathError, UserError: as `read_documents`, for what can be known without reading.
    """
    splitter, columns = splitter or TextSplitter(), columns or DocumentColumns()
    splitter.check()
    place = find_documents(
        source, role=role, kind=kind, subset=subset, split=split, revision=revision
    )
    _refuse_without_effect(place, splitter, columns)
    rules = splitter.settled(are_files=place.are_texts)
    return DocumentReader(place, rules, columns, role=role, part=part)


def _refuse_without_effect(
    place: DocumentPlace, splitter: TextSplitter, columns: DocumentColumns
) -> None:
    """Refuse columns of text files, and rules of cutting where nothing is cut."""
    if place.are_texts:
        named = {key: value for key, value in asdict(columns).items() if value is not None}
        if given := ", ".join(f"task.columns.{key}={value}" for key, value in named.items()):
            raise UserError(
                f"{given}: has no effect on a folder of texts (each file is one). Fix: leave it "
                "out, or task.kind=table"
            )
    if not (changed := ", ".join(splitter.changed())):
        return
    if splitter.unit == "none":
        logger.warning("%s: no effect with task.splitter.unit=none. Leave it out.", changed)
    elif splitter.unit == "auto" and not place.are_texts:
        raise UserError(
            f"{changed}: has no effect on a table (task.splitter.unit=auto leaves its documents as "
            "they are). Fix: task.splitter.unit=characters or words, or leave it out"
        )


def read_source(reader: DocumentReader, *, cache_dir: Path | str) -> Documents:
    """Return the texts of a source: from the cache folder if cached there, else read.

    Raises:
        UserError: as `read_documents`.
    """
    corpus, counts = _opened(reader, Path(cache_dir).expanduser())
    place, part = reader.place, reader.part
    if part is None or part.number == 0:  # all parts find them, and one counts them
        counts.update(place.left_out)
    return Documents(
        corpus=corpus,
        place=place,
        caveats=_caveats(counts, corpus),
        digest=reader.digest,
        modified=reader.modified,
        rules=reader.rules,
        part=part,
    )


class _NothingReadError(Exception):
    """Error for a part without any document."""


def _opened(reader: DocumentReader, cache_dir: Path) -> tuple[Sequence[Document], Counter[str]]:
    """Return the corpus, and what was counted when it was read."""

    def rows() -> Iterator[tuple[int, Document]]:
        yield from reader.rows()
        if not reader.counts["pieces"]:
            raise _NothingReadError

    try:
        corpus = open_corpus(
            sources=list(reader.place.files[:MAX_SOURCES]),
            documents=rows(),
            cache_dir=cache_dir,
            settings=reader.settings,
        )
    except _NothingReadError:
        if reader.part is None:
            raise UserError(_nothing(reader)) from None
        return (), reader.counts
    except UserError as error:
        if reader.part is None:
            raise
        raise UserError(f"{error} (lines count from the first of shard {reader.part})") from error
    return corpus, _counted(reader, corpus)


def _counted(reader: DocumentReader, corpus: Corpus) -> Counter[str]:
    """Return the counts of a table: just made, or stored beside it."""
    path = corpus.table.with_suffix(CAVEATS)
    if not reader.is_done:
        try:
            return Counter(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # killed before it was written
            for _ in reader.rows():
                pass
    write_json(path, dict(reader.counts))
    return reader.counts


def _caveats(counts: Counter[str], corpus: Sequence[Document]) -> tuple[str, ...]:
    found = _left_out(counts)
    if counts["split"]:
        found.append(
            f"{counts['split']} of {counts['documents']} {_SPLIT}: {counts['pieces']} texts"
        )
    if counts["titles"]:
        found.append(f"{counts['titles']} queries have titles, which are not encoded")
    num_empty = int(corpus.is_empty().sum()) if isinstance(corpus, Corpus) else 0
    if num_empty:
        found.append(f"{num_empty} of {len(corpus)} {_EMPTY}")
    found += [key for key in counts if key.startswith((UNREAD, MISSING))]
    if found:
        logger.warning("%s", "; ".join(found))
    return tuple(found)


def _left_out(counts: Counter[str]) -> list[str]:
    """Return a sentence for each reason why files were left out."""
    found = {key: f"{counts[key]} {NOT_READ[key]}" for key in NOT_READ if counts[key]}
    endings = sorted(key.removeprefix(ENDING) for key in counts if key.startswith(ENDING))
    if endings:
        more = f" and {len(endings) - MAX_ENDINGS} more" if len(endings) > MAX_ENDINGS else ""
        found["binary"] += f" ({', '.join(endings[:MAX_ENDINGS])}{more})"
    return list(found.values())


def _nothing(reader: DocumentReader) -> str:
    left = _left_out(reader.counts)
    why = f" ({'; '.join(left)})" if left else ""
    return f"{reader.place.source}: holds no texts{why}. Fix: check task.corpus"
