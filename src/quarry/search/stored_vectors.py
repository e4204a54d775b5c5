"""Take vectors of task=encode instead of encoding: their texts, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.config.model_overrides import repeatable
from quarry.data.arrow_table import ROWS_PER_BATCH
from quarry.data.corpus import Corpus, documents_digest
from quarry.data.document_reader import DocumentColumns
from quarry.data.document_source import Documents, read_documents
from quarry.data.text_splitter import TextSplitter
from quarry.encoding.vector_folder import VectorFolder
from quarry.errors import UserError
from quarry.retrieval.unique_texts import ChosenItems
from quarry.search.index_building import Origin
from quarry.types import Document


def open_vectors(path: str) -> VectorFolder:
    """Open a folder of task=encode, or all shards of one.

    Raises:
        UserError: it is damaged or incomplete, or its vectors are of queries.
    """
    folder = VectorFolder.open(path)
    if folder.manifest.role != "document":
        raise UserError(
            f"task.vectors={path}: are of queries (an index is of documents). Fix: encode the "
            "corpus with task.role=document"
        )
    return folder


def texts_of(folder: VectorFolder, *, corpus: str | None, cache_dir: str, **hub: Any) -> Documents:
    """Read the texts of vectors, by the rules by which they were read then.

    Args:
        corpus: where they are now; None: where they were.
        hub: `subset`, `split` and `revision` of a data set of the hub.

    Raises:
        UserError: they are no longer there, or were changed.
    """
    source = folder.manifest.source
    try:
        splitter = TextSplitter(**source["splitter"])
        columns = DocumentColumns(**source["columns"])
        named, kind, digest = str(source["corpus"]), str(source["kind"]), source["digest"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"task.vectors={folder.path}: its manifest does not say how the texts were read "
            f"({error}). Fix: encode the corpus again"
        ) from error
    if corpus is None and kind == "hub":
        raise UserError(
            f"task.vectors={folder.path}: the texts are those of {named} on the hub, which have to "
            "be named again. Fix: task.corpus=OWNER/NAME, with task.revision"
        )
    read = read_documents(
        named if corpus is None else corpus,
        cache_dir=cache_dir,
        splitter=splitter,
        columns=columns,
        kind=kind,
        **hub,
    )
    if read.digest != digest:
        raise _other_texts(folder, read, "other files, or other contents")
    return read


def in_order_of(folder: VectorFolder, read: Documents) -> Sequence[Document]:
    """Return the documents in the order of the vectors.

    Raises:
        UserError: a vector is of no document, documents have no vector, or a text was changed
            since it was encoded.
    """
    corpus = read.corpus
    assert isinstance(corpus, Corpus)
    rows = corpus.rows_of(folder.ids)
    if (rows < 0).any() or len(rows) != len(corpus):
        raise UserError(
            f"task.vectors={folder.path}: has {len(rows):,} vectors, {int((rows >= 0).sum()):,} of "
            f"them of the {len(corpus):,} documents of {read.place.source} (each needs one). Fix: "
            "encode the corpus again"
        )
    documents = ChosenItems(corpus, rows)
    for manifest, own in folder.shards():
        found = documents_digest(_in_pieces(documents, own))
        if own and manifest.source.get("texts_digest") != found:
            where = "" if manifest.part is None else f"shard {manifest.part}: "
            raise _other_texts(folder, read, f"{where}a text was changed since")
    return documents


def _in_pieces(documents: Sequence[Document], rows: range) -> Iterator[Document]:
    """Yield the documents of rows; a piece at a time is read much faster than each alone."""
    for start in range(rows.start, rows.stop, ROWS_PER_BATCH):
        yield from documents[start : min(start + ROWS_PER_BATCH, rows.stop)]


def _other_texts(folder: VectorFolder, read: Documents, why: str) -> UserError:
    return UserError(
        f"task.vectors={folder.path}: the texts in {read.place.source} are not those that were "
        f"encoded ({why}). Fix: task.corpus=PATH of the same corpus, or encode again"
    )


def origin_of(folder: VectorFolder, source: dict[str, Any]) -> Origin:
    """Return model and contract of the vectors.

    Args:
        source: of the texts, for people.
    """
    manifest = folder.manifest
    dtype = str(manifest.contract["query"]["dtype"]).removeprefix("torch.")
    path = Path(manifest.model).expanduser()
    shown = str(path.absolute()) if path.exists() else manifest.model
    return Origin(
        model={
            "path": shown,
            "overrides": repeatable([f"model.path={shown}", f"model.dtype={dtype}"]),
        },
        contract=manifest.contract,
        source=source | {"vectors": str(folder.path.absolute())},
    )
