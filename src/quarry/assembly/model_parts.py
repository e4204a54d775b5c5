"""Build the spec and the tokenizer of a configured model, checked against its contract."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from omegaconf import DictConfig

from quarry.config.contract import check_frames, chosen_options, explicit_keys, has_own_prompt
from quarry.config.instantiate import build
from quarry.config.settled_contract import SettledContract, settle
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.models.limits import check_lengths, check_vocabulary
from quarry.models.model_options import AUTO
from quarry.models.model_spec import ModelSpec
from quarry.models.remedies import CannotLoadError
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.golden_texts import check_golden_tokens
from quarry.types import ROLES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """The spec of a model and the tokenizer that prepares its inputs."""

    spec: ModelSpec
    tokenizer: TextTokenizer

    def encoder_builder(
        self, *, max_tokens_per_batch: int, compiles_long_passes: bool = False
    ) -> Callable[[BiEncoder], Encoder]:
        """Return a function that builds an encoder for a model with these parts.

        Args:
            max_tokens_per_batch: see `Encoder`.
            compiles_long_passes: compile long passes where `model.compile=auto`.
        """
        return partial(
            _encoder,
            tokenizer=self.tokenizer,
            max_tokens_per_batch=max_tokens_per_batch,
            compiles_long_passes=compiles_long_passes and self.spec.options.compile == AUTO,
        )


def settle_contract(config: DictConfig) -> SettledContract:
    """Settle in `config` how texts are fed to the model, see `config.settled_contract`."""
    asked = [config.prompt.query, config.prompt.document]
    settled = settle(
        config, build(config.model), explicit=explicit_keys(), options=chosen_options()
    )
    if [config.prompt.query, config.prompt.document] != asked:
        logger.info(
            "The model's own prompts are used: %s and %s. To use others, name them on "
            "the command line (prompt=NAME); an experiment's prompt does not count",
            config.prompt.query,
            config.prompt.document,
        )
    return settled


def build_model_parts(config: DictConfig) -> ModelParts:
    """Load the tokenizer, without the weights, and check it against the model's contract.

    Raises:
        UserError: end token, rendered prompts or golden token ids differ from those that the model
            was saved with.
    """
    spec: ModelSpec = build(config.model)
    tokenizer, location = spec.source.load_tokenizer(), spec.source.location()
    contract = spec.source.contract()
    if contract is not None and contract.get("eos_token_id") != tokenizer.eos_token_id:
        raise UserError(
            f"The tokenizer in {location} ends texts with id {tokenizer.eos_token_id}, the model's "
            f"contract says {contract.get('eos_token_id')}: the folder was changed after it was "
            "saved. Restore its tokenizer files."
        )
    text_tokenizer = TextTokenizer(tokenizer=tokenizer, prompt=build(config.prompt))
    _check_copies(spec, text_tokenizer)
    _check_limits(spec, text_tokenizer)
    if contract is not None and has_own_prompt(contract, config.prompt):
        check_frames(contract, text_tokenizer, source=location)
        check_golden_tokens(contract, text_tokenizer, source=location)
    return ModelParts(spec=spec, tokenizer=text_tokenizer)


def _check_copies(spec: ModelSpec, tokenizer: TextTokenizer) -> None:
    """Refuse a pooling over the second copy of a text where the prompt does not repeat it."""
    copies = [frame.num_copies for frame in tokenizer.frames.values()]
    pooling = spec.options.pooling
    if getattr(pooling, "pools_last_copy", False) and min(copies) < 2:
        raise UserError(
            f"model/pooling={type(pooling).__name__} looks at the second copy of a text, "
            "and this prompt does not repeat texts. Use prompt=echo, or model/pooling=mean."
        )


def _check_limits(spec: ModelSpec, tokenizer: TextTokenizer) -> None:
    """Refuse widths, lengths and token ids that exceed the model's."""
    source = spec.source.base_location()
    try:
        config = spec.source.backbone_config()
        spec.source.check_widths()
        spec.embedding_dim(config)
    except CannotLoadError:
        return  # loading the weights will say so
    check_vocabulary(config, tokenizer.tokenizer, source=source)
    lengths = {f"prompt.max_{role}_length": tokenizer.longest(role) for role in ROLES}
    check_lengths(config, lengths, source=source)


def _encoder(model: BiEncoder, **settings: Any) -> Encoder:
    return Encoder(model=model, **settings)
