"""What training and evaluation build alike from a configuration: tokeniser, encoder, evaluation."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger

from quarry.config.contract import check_frames, chosen_options, explicit_keys, has_own_prompt
from quarry.config.instantiate import build, build_named
from quarry.config.settled_contract import SettledContract, settle
from quarry.data.tokenization import TextTokenizer
from quarry.distributed import world
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.models.bi_encoder import BiEncoder
from quarry.models.factory import BiEncoderFactory
from quarry.models.limits import check_lengths, check_vocabulary
from quarry.models.remedies import CannotLoadError
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.retriever import Retriever
from quarry.runtime.files import write_json
from quarry.runtime.provenance import collect_provenance, scrub
from quarry.runtime.renamed_keys import with_renamed_keys
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.threads import hand_over_quickly
from quarry.tasks.golden_tokens import check_golden_tokens
from quarry.tasks.wandb_identity import WandbIdentity, with_identity
from quarry.types import ROLES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """A model that can be built, and the tokeniser that feeds it."""

    factory: BiEncoderFactory
    tokenizer: TextTokenizer

    def encoder_builder(self, *, max_tokens_per_batch: int) -> Callable[[BiEncoder], Encoder]:
        return partial(
            _encoder, tokenizer=self.tokenizer, max_tokens_per_batch=max_tokens_per_batch
        )


def settle_contract(config: DictConfig) -> SettledContract:
    """Settle how texts are fed, in `config`; see `config.settled_contract`."""
    asked = [config.prompt.query, config.prompt.document]
    settled = settle(
        config, build(config.model), explicit=explicit_keys(), options=chosen_options()
    )
    if [config.prompt.query, config.prompt.document] != asked:
        logger.info(
            "The model's own prompts are used: %s and %s. Others have to stand on the command line "
            "(prompt=NAME); those of an experiment do not count",
            config.prompt.query,
            config.prompt.document,
        )
    return settled


def build_model_parts(config: DictConfig) -> ModelParts:
    """Loads the tokeniser (not the weights) and checks it against the model's contract.

    Raises:
        UserError: end token, rendered prompts or golden token ids are not those that the model was
            saved with.
    """
    factory: BiEncoderFactory = build(config.model)
    tokenizer = factory.load_tokenizer()
    contract = factory.contract()
    if contract is not None and contract.get("eos_token_id") != tokenizer.eos_token_id:
        raise UserError(
            f"The tokenizer in {factory.source()} ends texts with id {tokenizer.eos_token_id}, the "
            f"model's contract says {contract.get('eos_token_id')}: the folder was changed after "
            "it was saved. Restore its tokenizer files."
        )
    text_tokenizer = TextTokenizer(tokenizer=tokenizer, prompt=build(config.prompt))
    _check_copies(factory, text_tokenizer)
    _check_limits(factory, text_tokenizer)
    if contract is not None and has_own_prompt(contract, config.prompt):
        check_frames(contract, text_tokenizer, source=factory.source())
        check_golden_tokens(contract, text_tokenizer, source=factory.source())
    return ModelParts(factory=factory, tokenizer=text_tokenizer)


def _check_copies(factory: BiEncoderFactory, tokenizer: TextTokenizer) -> None:
    """Refuses a pooling over the second copy of texts that have none."""
    copies = [frame.num_copies for frame in tokenizer.frames.values()]
    if getattr(factory.pooling, "pools_last_copy", False) and min(copies) < 2:
        raise UserError(
            f"model/pooling={type(factory.pooling).__name__} looks at the second copy of a text, "
            "and this prompt does not repeat texts. Use prompt=echo, or model/pooling=mean."
        )


def _check_limits(factory: BiEncoderFactory, tokenizer: TextTokenizer) -> None:
    """Refuse widths, lengths and token ids that the model has no room for."""
    source = factory.base_source()
    try:
        config = factory.trunk_config()
        factory.check_widths()
    except CannotLoadError:
        return  # loading the weights will say so
    check_vocabulary(config, tokenizer.tokenizer, source=source)
    lengths = {f"prompt.max_{role}_length": tokenizer.longest(role) for role in ROLES}
    check_lengths(config, lengths, source=source)


def build_evaluator(config: DictConfig) -> Evaluator | None:
    """None where there is no benchmark."""
    benchmark = build(config.benchmark)
    if benchmark is None:
        return None
    evaluation = config.evaluation
    return Evaluator(
        benchmark=benchmark,
        measures=list(evaluation.measures),
        top_k=evaluation.top_k,
        convention=build(config.convention),
        corpus_dtype=evaluation.store_dtype if evaluation.store else evaluation.corpus_dtype,
    )


def build_baseline(config: DictConfig, *, beside: str) -> Retriever | None:
    """What results are compared with; None for baseline=none.

    Args:
        beside: the name of what is compared.

    Raises:
        UserError: it needs a model, or is what it is compared with.
    """
    baseline: Retriever | None = build(config.baseline)
    if baseline is None:
        return None
    if baseline.uses_encoder:
        raise UserError(
            f"baseline={baseline.name} needs a model, and the model is what it is compared with: "
            "choose baseline=bm25, or baseline=none."
        )
    if baseline.name == beside:
        raise UserError(
            f"baseline={baseline.name} would compare {beside} with itself: leave it out."
        )
    return baseline


def build_trainer(
    config: DictConfig, *, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger], **more: Any
) -> pl.Trainer:
    """Lightning's Trainer with what is not a matter of taste filled in."""
    hand_over_quickly()
    trainer: pl.Trainer = build(
        config.trainer,
        callbacks=list(callbacks),
        logger=list(loggers),
        default_root_dir=config.paths.run_dir,
        use_distributed_sampler=False,  # our sampler alone decides the order
        enable_model_summary=False,
        enable_progress_bar=False,  # ours are training_progress.py and runtime/progress.py
        num_sanity_val_steps=0,
        **more,
    )
    # Lightning's handler of SIGTERM would start a collective in the midst of another one
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
    return trainer


@contextmanager
def built_loggers(
    config: DictConfig, *, identity: WandbIdentity, hyperparameters: dict[str, Any]
) -> Iterator[list[Logger]]:
    """The configured loggers, told the configuration; closed whatever happens. Only the first
    process has any.

    A W&B run that is not finished would swallow the next job of a sweep.

    Args:
        identity: which run it is for W&B.
    """
    loggers: list[Logger] = []
    if world.is_launched_first():
        loggers = build_named(with_identity(config.logger, identity))
    status = "failed"
    try:
        for pl_logger in loggers:
            pl_logger.log_hyperparams(hyperparameters)
        yield loggers
        status = "success"
    finally:
        for pl_logger in loggers:
            pl_logger.finalize(status)
            if isinstance(pl_logger, WandbLogger):
                pl_logger.experiment.finish(exit_code=0 if status == "success" else 1)


def record_start(
    config: DictConfig, run: RunDirectory, *, contract: SettledContract | None
) -> dict[str, Any]:
    """Writes configuration and provenance; returns the resolved configuration, secrets hidden.

    Args:
        contract: of the model; None: there is none.
    """
    composed = scrub(OmegaConf.to_container(config, resolve=False))
    resolved: dict[str, Any] = scrub(OmegaConf.to_container(config, resolve=True))
    OmegaConf.save(OmegaConf.create(composed), run.config)
    OmegaConf.save(OmegaConf.create(resolved), run.resolved_config)
    more: dict[str, Any] = {"options": chosen_options(), "contract_differences": {}}
    if contract is not None:
        more |= {"contract": contract.as_data(), "contract_differences": contract.differences}
    write_json(run.provenance, {**collect_provenance(), **more})
    logger.info("Run directory: %s", run.path)
    return resolved


def recorded_contract(run: RunDirectory) -> dict[str, Any]:
    """Return how texts are fed, as the start of the run has recorded it; empty if it has not."""
    if not run.provenance.exists():  # of several processes the first one writes it
        return {}
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    return with_renamed_keys(provenance.get("contract", {}))


def record_resume(run: RunDirectory) -> None:
    """Adds this process to the provenance of a run that goes on."""
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    provenance.setdefault("resumed", []).append(collect_provenance())
    write_json(run.provenance, provenance)


def _encoder(model: BiEncoder, *, tokenizer: TextTokenizer, max_tokens_per_batch: int) -> Encoder:
    return Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=max_tokens_per_batch)
