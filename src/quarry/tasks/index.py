"""Encode a corpus, or take vectors that are encoded, and build an index folder of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from omegaconf import DictConfig

from quarry.config.model_overrides import own_overrides, repeatable
from quarry.config.overrides import (
    refuse_other_overrides,
    warn_of_run_directory,
    warn_without_effect,
)
from quarry.config.validation import validate
from quarry.data.document_reader import DocumentColumns
from quarry.data.document_source import Documents, read_documents
from quarry.data.text_splitter import TextSplitter
from quarry.errors import UserError
from quarry.retrieval.embeddings import Embeddings
from quarry.runtime.disk_errors import readable_size
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.own_command import own_command
from quarry.runtime.task_output import show
from quarry.search.contract_check import contract_differences
from quarry.search.index_building import IndexSettings, Origin, build_index, check_target
from quarry.search.index_kinds import Exact, FaissFlat, FaissHNSW, FaissIVFPQ, require_faiss
from quarry.search.index_manifest import IndexManifest, plain
from quarry.search.query_reader import read_queries
from quarry.search.recall import RecallQueries
from quarry.search.search_index import SearchIndex
from quarry.types import Content

if TYPE_CHECKING:  # they import transformers
    from quarry.assembly.loaded_encoder import LoadedEncoder

logger = logging.getLogger(__name__)

DTYPES = ("float16", "float32")
KINDS = (Exact, FaissFlat, FaissIVFPQ, FaissHNSW)

_RULES = (
    *(f"task.splitter.{name}" for name in ("unit", "size", "overlap", "borders")),
    *(f"task.columns.{name}" for name in ("id", "title", "text")),
    "task.kind",
)
"""Rules that vectors of task=encode bring."""

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
    where = {"corpus": corpus, "cache_dir": str(config.paths.cache_dir), **source}
    loaded = None
    if vectors is not None:
        from quarry.search.stored_vectors import in_order_of, open_vectors, origin_of, texts_of

        warn_without_effect(_RULES, reason="task.vectors, whose texts are read as they were then")
        where.pop("kind")
        folder = open_vectors(vectors)
        read = texts_of(folder, **where)
        origin, documents = origin_of(folder, _source(read)), in_order_of(folder, read)
        matrix: Embeddings = folder.embeddings
    else:
        named = where.pop("corpus")
        read = read_documents(named, splitter=splitter, columns=columns, **where)
        loaded = _loaded(config)
        origin, documents = _origin(config, loaded, read), read.corpus
        matrix = _encoder(config, loaded).encode(documents, "document", label="corpus")
    recall = None
    if asked is not None:
        loaded = loaded or _loaded(config)
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


def _loaded(config: DictConfig) -> LoadedEncoder:
    from quarry.assembly.loaded_encoder import load_encoder  # late: refusals come before

    return load_encoder(config)


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
