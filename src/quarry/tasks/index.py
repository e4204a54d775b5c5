"""Encode a corpus, or take vectors that are encoded, and build an index folder of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from omegaconf import DictConfig

from quarry.config.model_overrides import own_overrides, repeatable
from quarry.config.overrides import refuse_other_overrides, warn_of_run_directory
from quarry.config.validation import validate
from quarry.data.corpus import Corpus
from quarry.data.document_reader import DocumentColumns
from quarry.data.document_source import Documents, read_documents
from quarry.data.text_splitter import TextSplitter
from quarry.errors import UserError
from quarry.retrieval.embeddings import Embeddings
from quarry.retrieval.unique_texts import ChosenItems
from quarry.runtime.disk_errors import readable_size
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.own_command import own_command
from quarry.runtime.task_output import show
from quarry.search.building import IndexSettings, Origin, build_index, check_target
from quarry.search.contract_check import contract_differences
from quarry.search.index_kinds import Exact, FaissFlat, FaissHNSW, FaissIVFPQ, require_faiss
from quarry.search.index_manifest import IndexManifest, plain
from quarry.search.query_reader import read_queries
from quarry.search.recall import RecallQueries
from quarry.search.search_index import SearchIndex
from quarry.types import Content

if TYPE_CHECKING:  # they import transformers
    from quarry.assembly.loaded_encoder import LoadedEncoder
    from quarry.encoding.vector_folder import VectorFolder

logger = logging.getLogger(__name__)

DTYPES = ("float16", "float32")
KINDS = (Exact, FaissFlat, FaissIVFPQ, FaissHNSW)

KEYS = (
    "task", "model", "prompt", "trainer.precision", "trainer.accelerator", "paths", "hydra",
    "evaluation.max_tokens_per_batch", "evaluation.store", "evaluation.store_dtype",
    "trusted_packages",
)  # fmt: skip


def index(
    config: DictConfig,
    *,
    output: str | None,
    corpus: str | None,
    vectors: str | None,
    index: Any,
    dtype: str,
    bm25: Content | None,
    queries: str | None,
    num_recall_queries: int,
    columns: DocumentColumns,
    splitter: TextSplitter,
    **source: Any,
) -> dict[str, float]:
    """Build the index `task.output`; return its size and recall.

    Args:
        index: an `IndexKind`.
        columns, splitter, source: how the corpus is read, see `read_documents`.

    Raises:
        UserError: a value is wrong, or the corpus, the model or the folder cannot be used.
    """
    quiet_libraries()
    refuse_other_overrides(
        KEYS, why="has no effect on task=index, which measures no benchmark. Fix: leave it out."
    )
    warn_of_run_directory(config, task="index")
    target = _target(output)
    _check(corpus, vectors, index, dtype=dtype, bm25=bm25)
    if vectors is None or queries is not None:
        validate(config, primary="eval")
    check_target(target)
    asked = None if queries is None else read_queries(queries)
    folder = None if vectors is None else _folder(vectors, explicit=corpus)
    read = read_documents(
        str(corpus if folder is None or corpus is not None else folder.manifest.source["source"]),
        cache_dir=config.paths.cache_dir,
        splitter=splitter,
        columns=columns,
        **source,
    )
    loaded = None
    if folder is None or asked is not None:
        from quarry.assembly.loaded_encoder import load_encoder  # late: refusals come before

        loaded = load_encoder(config)
    if folder is None:
        assert loaded is not None
        origin, documents = _origin(config, loaded, read), read.corpus
        matrix: Embeddings = _encoder(config, loaded).encode(
            read.corpus, "document", label="corpus"
        )
    else:
        origin, documents = _stored_origin(folder, read), _matching(read, folder)
        matrix = folder.embeddings
    recall = None
    if asked is not None:
        assert loaded is not None
        _check_same(config, loaded, origin)
        encoded = _encoder(config, loaded).encode(asked, "query", label="queries")[:]
        recall = RecallQueries(vectors=encoded.float().numpy(), source=str(queries))
    built = build_index(
        target,
        documents=documents,
        vectors=matrix,
        settings=IndexSettings(
            kind=index, dtype=dtype, bm25=bm25, num_recall_queries=num_recall_queries
        ),
        origin=origin,
        queries=recall,
    )
    return _shown(built)


def _target(output: str | None) -> Path:
    if output is None:
        raise UserError("task.output=null: it is not set (a new folder). Fix: task.output=DIR")
    return Path(output).expanduser().absolute()


def _check(
    corpus: str | None, vectors: str | None, index: Any, *, dtype: str, bm25: str | None
) -> None:
    """Refuse values before anything is read."""
    if corpus is None and vectors is None:
        raise UserError(
            "task.corpus=null: nothing says what is to be indexed (a corpus, or vectors of "
            "task=encode). Fix: task.corpus=DIR or task.vectors=DIR"
        )
    if not isinstance(index, KINDS):
        names = ", ".join(kind.name for kind in KINDS)
        raise UserError(
            f"task.index={index}: is no kind of index ({names}). Fix: task/index="
            f"{index if index in [kind.name for kind in KINDS] else 'exact'}"
        )
    if dtype not in DTYPES:
        raise UserError(f"task.dtype={dtype}: unknown ({', '.join(DTYPES)}). Fix: leave it out")
    if bm25 is not None and bm25 not in get_args(Content):
        raise UserError(
            f"task.bm25={bm25}: unknown ({', '.join(get_args(Content))}, or null for none). Fix: "
            "task.bm25=text"
        )
    if index.uses_faiss:
        require_faiss(index.name)


def _encoder(config: DictConfig, loaded: LoadedEncoder) -> Any:
    return loaded.stored(config) if config.evaluation.store else loaded.encoder


def _origin(config: DictConfig, loaded: LoadedEncoder, read: Documents) -> Origin:
    contract = loaded.embedding_contract(config)
    dtype = str(contract["query"]["dtype"]).removeprefix("torch.")
    own = [each for each in repeatable(own_overrides()) if not each.startswith("model.dtype=")]
    return Origin(
        model={
            "path": loaded.parts.spec.source.location(),
            # auto would be another one on a machine with a GPU
            "overrides": [*own, f"model.dtype={dtype}"],
        },
        contract=plain(contract),
        source=_source(read),
    )


def _source(read: Documents) -> dict[str, Any]:
    place = read.place
    named = Path(place.source).expanduser()
    return {
        "corpus": str(named.absolute()) if named.exists() else place.source,
        "kind": place.kind,
        "digest": read.digest,
        "caveats": list(read.caveats),
    }


def _folder(vectors: str, *, explicit: str | None) -> VectorFolder:
    from quarry.encoding.vector_folder import VectorFolder

    folder = VectorFolder.open(vectors)
    if folder.manifest.role != "document":
        raise UserError(
            f"task.vectors={vectors}: are of queries (an index is of documents). Fix: encode the "
            "corpus with task.role=document"
        )
    if explicit is None and "source" not in folder.manifest.source:
        raise UserError(
            f"task.vectors={vectors}: its manifest does not say where the texts are. Fix: "
            "task.corpus=DIR beside task.vectors"
        )
    return folder


def _stored_origin(folder: VectorFolder, read: Documents) -> Origin:
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
        source=_source(read) | {"vectors": str(folder.path.absolute())},
    )


def _matching(read: Documents, folder: VectorFolder) -> Sequence[Any]:
    """Return the documents in the order of the vectors.

    Raises:
        UserError: a vector's document is not in the corpus.
    """
    corpus = read.corpus
    assert isinstance(corpus, Corpus)
    rows = corpus.rows_of(folder.ids)
    if (rows < 0).any():
        missing = folder.ids[int((rows < 0).argmax())]
        raise UserError(
            f"task.vectors={folder.path}: {int((rows < 0).sum())} of {len(rows)} vectors are of "
            f"documents that {read.place.source} lacks, such as {missing!r}: the corpus was "
            "changed, or is split otherwise. Fix: task.corpus and task.splitter as they were "
            "encoded, or encode again"
        )
    return ChosenItems(corpus, rows)


def _check_same(config: DictConfig, loaded: LoadedEncoder, origin: Origin) -> None:
    """Refuse queries of another model than the vectors."""
    own = loaded.embedding_contract(config)
    if lines := list(contract_differences(origin.contract, plain(own))):
        raise UserError(
            "task.queries: the model is another one than that of task.vectors:\n"
            + "\n".join(f"- {line}" for line in lines)
            + f"\nFix: {' '.join(origin.model['overrides'])}"
        )


def _shown(built: SearchIndex) -> dict[str, float]:
    manifest = built.manifest
    size = sum(file.num_bytes for file in manifest.files.values())
    lines = [
        f"Index: {built.folder}",
        f"{manifest.num_documents:,} documents, vectors {manifest.dim} wide in {manifest.dtype}, "
        f"{readable_size(size)}",
        f"{manifest.index['kind']} {_parameters(manifest)}".rstrip(),
    ]
    recall = {key: value for key, value in manifest.recall.items() if key.startswith("recall@")}
    if recall:
        shown = ", ".join(f"{key} {value:.4f}" for key, value in recall.items())
        lines.append(
            f"{shown} against exact search ({manifest.recall['num_queries']} queries: "
            f"{manifest.recall['queries']}), {manifest.recall['median_ms']:.1f} ms a query"
        )
    lines += manifest.source.get("caveats", [])
    search = f"Search it: quarry-search {built.folder} 'TEXT', or {own_command('eval')} task=search"
    show(
        "\n".join(lines),
        f"{search} task.index={built.folder}",
        result_line=" ".join(
            [f"index documents={manifest.num_documents}"]
            + [f"{key}={value:.4f}" for key, value in recall.items()]
        ),
    )
    return {"index/documents": float(len(built))} | {
        f"index/{key}": float(value) for key, value in recall.items()
    }


def _parameters(manifest: IndexManifest) -> str:
    return " ".join(
        f"{key}={value}" for key, value in manifest.index["parameters"].items() if value is not None
    )
