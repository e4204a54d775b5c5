"""Mine hard negatives for training data from a model, BM25, a run file or a teacher's scores.

Libraries are imported when they are needed: a refusal comes before them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from quarry.config.mining_source import GivenSource
from quarry.config.overrides import (
    KEYS_OF_BATCHES,
    refuse_other_overrides,
    warn_without_effect,
)
from quarry.config.validation import validate
from quarry.distributed import world
from quarry.errors import MissingPathError, UserError
from quarry.mining.mined_file import MINED_FILE, MinedFile
from quarry.mining.negative_choice import NegativeChoice, Sampling
from quarry.mining.negative_filter import NegativeFilter
from quarry.runtime.failed_start import removes_failed_start
from quarry.runtime.files import sha256_of, write_json
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.own_command import own_command
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.task_output import show
from quarry.tasks.continued_run import begun_or_continued_run

if TYPE_CHECKING:  # they import torch, and the model's libraries
    from quarry.assembly.loaded_encoder import LoadedEncoder
    from quarry.data.train_examples import ExampleSource
    from quarry.mining.mining_job import MiningJob

logger = logging.getLogger(__name__)

MINING_FILE = "mining.json"
"""File with what was mined, with which settings, and what was left out; written at the end."""

VERSION = 1
"""Raise it when a code change alters mined lines: a call of before must not be continued."""


def mine(
    config: DictConfig,
    *,
    corpus: str | None,
    run_file: str | None,
    use_scores: bool,
    content: str,
    top_k: int,
    rank_range: Sequence[int] | None,
    num_negatives: int,
    sampling: Sampling,
    filter: NegativeFilter,
    keep_queries: bool,
) -> dict[str, float]:
    """Mine hard negatives into a run directory; return its counts.

    Rank 0 works; a further rank returns at once. A call whose run directory has the beginning of
    the same work continues it.

    Raises:
        UserError: settings that cannot work, a file that is missing or does not fit the data, or
            no query has a hard negative.
    """
    quiet_libraries()
    source = GivenSource(corpus=corpus, run_file=run_file, use_scores=use_scores, content=content)
    _check(config, source)
    choice = NegativeChoice(
        top_k=top_k,
        rank_range=_pair(rank_range),
        num_negatives=num_negatives,
        sampling=sampling,
        filter=filter,
        seed=config.seed,
    )
    if not world.is_launched_first():
        return {}
    from quarry.assembly.loaded_encoder import prepare_encoder
    from quarry.assembly.mining import MiningInputs, build_mining
    from quarry.assembly.mining_corpus import read_mining_corpus
    from quarry.assembly.run_start import record_resume, record_start
    from quarry.assembly.train_examples import build_examples

    prepared = prepare_encoder(config) if source.needs_model(config) else None  # settles config
    with (
        begun_or_continued_run(config, result=MINING_FILE) as run,
        removes_failed_start(run) as begins,
    ):
        examples = build_examples(config.data)
        documents = None
        if corpus is not None:
            cache_dir = config.paths.cache_dir
            documents = read_mining_corpus(Path(corpus), cache_dir=cache_dir, key="task.corpus")
        loaded = None if prepared is None else prepared.load(config)
        with logs_to(run.log):
            is_left = run.provenance.exists()
            if not is_left:
                record_start(config, run, contract=None if loaded is None else loaded.contract)
            inputs = MiningInputs(examples=examples, documents=documents, loaded=loaded)
            work = build_mining(config, source, inputs, choice, keep_queries=keep_queries)
            key, facts = _key(config, work, loaded)
            file = MinedFile(run.path, key=key)
            if is_left:
                record_resume(run, accepted_changes=())
                logger.info("Continuing after %d of %d queries", file.num_done, len(examples))
            try:
                percentile = work.percentile_score()
                work.write(file, examples, percentile_score=percentile, after_output=begins)
            finally:
                file.close()
            begins()
            return _finish(run, file, facts | {"percentile_score": percentile}, work, examples)


def _check(config: DictConfig, source: GivenSource) -> None:
    """Refuse what cannot work together, before anything loads."""
    refuse_other_overrides(
        (
            "task", "model", "prompt", "data", "seed", "paths", "retriever", "trusted_packages",
            "tags", "evaluation.max_tokens_per_batch", "evaluation.store_dtype", "hydra",
        ),
        why="has no effect on task=mine, which trains and evaluates nothing. Fix: leave it out.",
    )  # fmt: skip
    checked = copy.deepcopy(config)
    checked.evaluation.store, checked.evaluation.store_dtype = False, "float32"  # of evaluations
    validate(checked, primary="train")
    if source.content not in ("text", "code"):
        raise UserError(
            f"task.content={source.content}: unknown (text, code). Fix: task.content=text"
        )
    if source.run_file is not None and source.use_scores:
        raise UserError(
            "task.use_scores=true: task.run_file has the scores already (one of the two). Fix: "
            "leave one out"
        )
    if source.use_scores and source.corpus is not None:
        raise UserError(
            f"task.corpus={source.corpus}: has no effect with task.use_scores=true, whose "
            "candidates are the lines' own. Fix: task.corpus=null"
        )
    if source.run_file is not None and not Path(source.run_file).expanduser().is_file():
        raise MissingPathError(f"task.run_file={source.run_file}: no such file. Fix: its path")
    if source.corpus is not None:
        from quarry.assembly.mining_corpus import check_mining_corpus

        check_mining_corpus(source.corpus, key="task.corpus")
    target = str(config.retriever.get("_target_")).rpartition(".")[2]
    if source.searches and target not in ("DenseRetriever", "BM25Retriever"):
        raise UserError(
            "retriever: candidates come from a model or from BM25. Fix: retriever=dense or "
            "retriever=bm25, or task.run_file=FILE with the ranking of any other"
        )
    if source.needs_model(config):
        model = config.model
        if model.get("path") is None and model.get("replica") is None and not model.get("hub_id"):
            raise UserError(
                "model.path=null: nothing can be encoded (a run directory, a folder or a hub id). "
                "Fix: model.path=RUN, or retriever=bm25"
            )
    _warn_without_effect(config, source)


def _warn_without_effect(config: DictConfig, source: GivenSource) -> None:
    """Warn of overrides that another source of candidates would read."""
    warn_without_effect(
        KEYS_OF_BATCHES, reason="task=mine, which reads all passages of each example"
    )
    if not source.searches:
        other = "task.use_scores=true" if source.use_scores else "task.run_file"
        warn_without_effect(
            ["retriever", "task.content"], reason=f"{other}, which has the candidates"
        )
    elif source.needs_model(config):
        warn_without_effect(["task.content"], reason="candidates that a model finds")
    if not source.needs_model(config):
        warn_without_effect(
            ["model", "prompt", "evaluation.max_tokens_per_batch", "evaluation.store_dtype"],
            reason="candidates that need no model",
        )


def _pair(rank_range: Sequence[int] | None) -> tuple[int, int] | None:
    if rank_range is None:
        return None
    if len(rank_range) != 2 or not all(type(rank) is int for rank in rank_range):
        raise UserError(
            f"task.rank_range={list(rank_range)}: must be the first and the last rank, from 1. "
            "Fix: task.rank_range=[10,50]"
        )
    return rank_range[0], rank_range[1]


def _key(
    config: DictConfig, work: MiningJob, loaded: LoadedEncoder | None
) -> tuple[str, dict[str, Any]]:
    """Return the digest of all that the lines depend on, and the facts for mining.json."""
    facts: dict[str, Any] = {
        "mined_with": work.source.name,
        "settings": OmegaConf.to_container(config.task, resolve=True),
        "seed": config.seed,
        "num_queries": len(work.texts),
        "num_passages": work.texts.num_searched,
        "texts_digest": work.texts.digest,
        "source": work.source.facts(),
    }
    if loaded is not None:
        facts["model"] = {
            "location": str(loaded.parts.spec.source.location()),
            "embedding": loaded.embedding_contract(config),
            "store_dtype": config.evaluation.store_dtype,
        }
    elif work.source.name == "bm25":
        facts["retriever"] = OmegaConf.to_container(config.retriever, resolve=True)
        facts["retriever"].pop("cache_dir", None)
    known = {name: facts[name] for name in facts if name != "settings"}
    if work.source.name == "bm25":
        known["content"] = config.task.content
    known |= {"choice": asdict(work.choice), "version": VERSION}
    if work.keep_queries:
        known["keep_queries"] = True
    if "model" in known:
        known["model"] = {**known["model"], "location": None}
    if work.source.name == "run":
        known["run_file"] = sha256_of(Path(str(config.task.run_file)).expanduser())
    text = json.dumps(known, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest(), facts


def _finish(
    run: RunDirectory,
    file: MinedFile,
    facts: dict[str, Any],
    work: MiningJob,
    examples: ExampleSource,
) -> dict[str, float]:
    """Name the file, write mining.json, and show what was mined."""
    from quarry.mining.mining_report import mining_report, report_lines

    report = mining_report(file.path, file.counts)
    path = file.finish()
    write_json(run.path / MINING_FILE, {**facts, **report})
    file.clear()
    lines = report_lines(report, work)
    for line in lines:
        logger.info("%s", line)
    more = ""
    if examples[0].weight is not None:
        more = " data.columns.weight=weight"
    counts = report["counts"]
    without = counts["queries_in"] - counts["queries_out"]
    show(
        "\n".join(lines),
        f"Run directory: {run.path}",
        f"Train with it: {own_command('train')} data=file data.path={path}{more}",
        result_line=f"mined queries={counts['queries_out']} negatives={counts['negatives']} "
        f"{'without' if work.keep_queries else 'left_out'}={without}",
    )
    return {f"mine/{name}": float(counts[name]) for name in ("queries_out", "negatives")}


__all__ = ["MINED_FILE", "MINING_FILE", "mine"]
