"""Search index folders by texts, with the model that they were built with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from quarry.config.model_overrides import is_of_model, own_overrides, with_stored_model
from quarry.config.overrides import refuse_other_overrides, warn_of_run_directory
from quarry.errors import UserError
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.override_text import key_of
from quarry.search.contract_check import check_contract
from quarry.search.index_manifest import plain
from quarry.search.joined_indexes import JoinedIndexes
from quarry.search.query_reader import read_queries
from quarry.search.search_index import SearchIndex, check_top_k
from quarry.search.searcher import Hit, Searcher, check_texts
from quarry.search.shown_hits import print_tables, write_json_lines
from quarry.types import Query

if TYPE_CHECKING:
    import torch

    from quarry.retrieval.encoder import Encoder

ALSO = ("paths", "evaluation.max_tokens_per_batch", "trusted_packages")
"""Keys beside the model's that a search reads."""


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What is searched, where, and how it is shown.

    Attributes:
        folders: of task=index; of several the results are merged.
        queries: with ids.
        top_k: documents a query.
        hybrid: fuse with the ranking of BM25.
        overrides: of the configuration, as on eval.py's command line; without a model in them that
            of the index is used.
        as_json: JSON lines or tables; None: tables in a terminal alone.
        check: compare all checksums first.
    """

    folders: Sequence[str]
    queries: Sequence[Query]
    top_k: int = 10
    hybrid: bool = False
    overrides: Sequence[str] = ()
    as_json: bool | None = None
    check: bool = False


def search(
    config: DictConfig,
    *,
    index: str | Sequence[str] | None,
    query: str | None,
    queries: str | None,
    top_k: int,
    hybrid: bool,
    json: bool | None,
    check: bool,
) -> dict[str, float]:
    """Search `task.index` and print what is found; return the number of queries.

    Raises:
        UserError: a value is wrong, the index cannot be read, or is of another model.
    """
    refuse_other_overrides(
        ("task", "model", "prompt", "trainer.precision", *ALSO, "hydra"),
        why="has no effect on task=search, which shows documents and scores. Fix: leave it out.",
    )
    warn_of_run_directory(config, task="search")
    asked = queries_of(query, queries)
    run_search(
        SearchRequest(
            folders=folders_of(index),
            queries=asked,
            top_k=top_k,
            hybrid=hybrid,
            overrides=[
                each for each in own_overrides() if is_of_model(each) or _is_also(key_of(each))
            ],
            as_json=json,
            check=check,
        )
    )
    return {"search/num_queries": float(len(asked))}


def folders_of(index: str | Sequence[str] | None) -> list[str]:
    """Return the folders that are searched."""
    folders = [index] if isinstance(index, str) else list(index or ())
    if not folders:
        raise UserError(
            "task.index=null: it is not set (a folder of task=index). Fix: task.index=DIR"
        )
    return [str(folder) for folder in folders]


def queries_of(query: str | None, queries: str | None) -> list[Query]:
    """Return the one query that is given, or those of a file."""
    if (query is None) == (queries is None):
        raise UserError(
            f"task.query={query} task.queries={queries}: one of the two is needed (a text, or a "
            "file). Fix: task.query=TEXT, task.queries=FILE, or task.queries=- for standard input"
        )
    if query is None:
        return read_queries(str(queries))
    return [Query(query_id="1", text=str(query))]


def run_search(request: SearchRequest) -> None:
    """Search, and print what is found to standard output."""
    results = found(request)
    as_json = request.as_json
    if not sys.stdout.isatty() if as_json is None else as_json:
        write_json_lines(sys.stdout, request.queries, results)
    else:
        print_tables(sys.stdout, request.queries, results)
    sys.stdout.flush()


def found(request: SearchRequest) -> list[list[Hit]]:
    """Return the best documents of each query.

    Raises:
        UserError: as in `search`; before a model loads, where that does not matter.
    """
    quiet_libraries()
    check_top_k(request.top_k)
    texts = [query.text for query in request.queries]
    check_texts(texts)
    searcher = open_searcher(
        request.folders,
        overrides=request.overrides,
        needs_bm25=request.hybrid,
        check=request.check,
    )
    from quarry.search.truncation import warn_of_truncation  # late: transformers

    warn_of_truncation(searcher.encoder.tokenizer, texts)
    return searcher.search(texts, request.top_k, request.hybrid)


class OpenedSearcher(Searcher):
    """A searcher whose encoder holds the model that it was opened with."""

    encoder: Encoder


def open_searcher(
    folders: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    needs_bm25: bool = False,
    check: bool = False,
    device: str | torch.device | None = None,
) -> OpenedSearcher:
    """Open indexes as one, and load their model.

    Args:
        folders: of task=index, one or more.
        overrides: of the configuration; without a model in them that of the index is used.
        needs_bm25: refuse what has none before the model loads.
        check: compare all checksums first.
        device: None: a GPU where there is one.

    Raises:
        UserError: an index cannot be read, the model cannot be loaded, or is another one.
    """
    opened = [SearchIndex.open(folder, verify=check) for folder in folders_of(folders)]
    index = JoinedIndexes(opened)
    index.check_hybrid(needs_bm25)
    first = opened[0].manifest
    # late: transformers
    from quarry.assembly.loaded_encoder import load_encoder
    from quarry.config.composing import composed_job
    from quarry.config.validation import validate

    own = [each for each in overrides if is_of_model(each)]
    others = [each for each in overrides if not is_of_model(each)]
    composed = with_stored_model(own, first.model.get("overrides", ()))
    with composed_job("eval", [*composed, *others]) as config:
        validate(config, primary="eval")
        loaded = load_encoder(config, device=device)
        contract = plain(loaded.embedding_contract(config))
    check_contract(first, contract, folder=opened[0].folder)
    return OpenedSearcher(index, loaded.encoder)


def _is_also(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in ALSO)
