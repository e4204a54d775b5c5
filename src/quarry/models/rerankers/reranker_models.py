"""Score tokenized pairs by a classifier's head, or by the logits of yes and no."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from quarry.errors import UserError
from quarry.models.backbones.huggingface import load_with_head
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.models.rerankers.reranker_files import RerankerFacts
from quarry.types import TokenBatch

logger = logging.getLogger(__name__)


class PackedReranker(nn.Module):
    """A decoder that reads packed pairs and scores the state of each last token.

    The score is a logit: that of the one label, or that of relevant (yes) minus that of irrelevant
    (no), whose log-sigmoid is the logarithm of the probability of yes.

    Args:
        backbone: without its head.
        direction: [dim] fp32, weights of the score.
        offset: fp32, added to it.
        padding_id: token that is not pooled where it ends a pair, as transformers' classifiers do;
            None: the last token is pooled, whatever it is.
    """

    def __init__(
        self,
        *,
        backbone: PreTrainedModel,
        direction: Tensor,
        offset: Tensor,
        padding_id: int | None = None,
    ) -> None:
        super().__init__()
        self.padding_id = padding_id
        self.encoder = BiEncoder(
            backbone=backbone, pooling=LastToken(), is_causal=None, normalize=False
        )
        self.register_buffer("direction", direction.detach().float())
        self.register_buffer("offset", offset.detach().float())

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Return the logit of each pair, [num_pairs], fp32."""
        states: Tensor = self.encoder(tokens)
        with torch.autocast(device_type=states.device.type, enabled=False):
            assert isinstance(self.direction, Tensor)
            assert isinstance(self.offset, Tensor)
            logits: Tensor = states.float() @ self.direction + self.offset
            return logits


class PaddedReranker(nn.Module):
    """A classifier of any architecture, which reads padded pairs.

    Args:
        model: with its head of one or two labels, and a padding token in its configuration.
    """

    def __init__(self, *, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        # decoders pool, and some encoders count positions, by the token in the configuration
        self.padding_id = int(model.config.get_text_config().pad_token_id)
        self.has_types = int(getattr(model.config, "type_vocab_size", 0) or 0) > 1

    def forward(self, ids: Tensor, mask: Tensor, type_ids: Tensor | None) -> Tensor:
        """Return the logit of each pair, [num_pairs], fp32.

        Args:
            ids, mask, type_ids: [num_pairs, length] int64, padded on the right.
        """
        types = {"token_type_ids": type_ids} if self.has_types and type_ids is not None else {}
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, **types).logits.float()
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


Reranker = PackedReranker | PaddedReranker


def load_reranker(
    facts: RerankerFacts,
    *,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    revision: str | None,
    yes_token: str,
    no_token: str,
    key: str,
) -> Reranker:
    """Load a reranker in eval mode, on the CPU.

    Args:
        tokenizer: knows the ids of yes and no.
        dtype: of the weights.
        yes_token, no_token: the tokens whose logits are compared.
        key: of the reranker in the configuration, for messages.

    Raises:
        UserError: a weight of the head is not in the files, or a token is not in the vocabulary.
    """
    if facts.kind == "yes_no":
        words = {"yes_token": yes_token, "no_token": no_token}
        rows = [_token_id(tokenizer, word, name, key) for name, word in words.items()]
        _check_stated(facts, rows, tokenizer, key=key)
    factory = AutoModelForCausalLM if facts.kind == "yes_no" else AutoModelForSequenceClassification
    model, missing = load_with_head(
        factory, facts.source, config=facts.config, dtype=dtype, revision=revision
    )
    if missing:
        raise UserError(
            f"{key}.path={facts.source}: is no reranker, its files lack {', '.join(missing[:3])} (a"
            f" head with random weights would score). Fix: {key}.path=DIR of a reranker"
        )
    model.requires_grad_(False)
    if facts.kind == "yes_no":
        return _of_language_model(model, *rows).eval()
    if facts.config.num_labels == 2:
        logger.info(
            "%s: two labels; the score is the logit of %r minus that of %r",
            facts.source, facts.config.id2label.get(1), facts.config.id2label.get(0),
        )  # fmt: skip
    return _of_classifier(model, tokenizer, key=key).eval()


def usual_dtype(facts: RerankerFacts) -> torch.dtype:
    """Return bfloat16 for decoders if there is a GPU, else float32."""
    is_half = torch.cuda.is_available() and _is_decoder(facts)
    return torch.bfloat16 if is_half else torch.float32


def _is_decoder(facts: RerankerFacts) -> bool:
    if facts.kind == "yes_no":
        return True
    found = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(facts.config), None)
    return isinstance(found, type) and issubclass(found, GenericForSequenceClassification)


def _of_language_model(model: PreTrainedModel, yes: int, no: int) -> PackedReranker:
    head = model.get_output_embeddings()
    weight = head.weight.detach().float()
    bias = getattr(head, "bias", None)
    offset = torch.zeros(()) if bias is None else bias.detach().float()[yes] - bias[no].float()
    return _packed(model.base_model, weight[yes] - weight[no], offset)


def _of_classifier(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, key: str
) -> Reranker:
    if not isinstance(model, GenericForSequenceClassification):
        _set_padding(model, tokenizer, key=key)
        return PaddedReranker(model=model)
    own_attention = model.config._attn_implementation
    rows = model.score.weight.detach().float()
    direction = rows[0] if len(rows) == 1 else rows[1] - rows[0]
    try:
        return _packed(
            model.base_model,
            direction,
            torch.zeros(()),
            padding_id=model.config.get_text_config().pad_token_id,
        )
    except UserError:  # its layers cannot read packed rows
        model.set_attn_implementation(own_attention)
        _set_padding(model, tokenizer, key=key)
        return PaddedReranker(model=model)


def _packed(
    backbone: PreTrainedModel, direction: Tensor, offset: Tensor, *, padding_id: int | None = None
) -> PackedReranker:
    """Return a packed reranker that has read a pair of two tokens.

    Raises:
        UserError: the architecture cannot take packed batches; some show it in a pass only.
    """
    reranker = PackedReranker(
        backbone=backbone, direction=direction, offset=offset, padding_id=padding_id
    )
    tokens = TokenBatch(
        input_ids=torch.zeros(2, dtype=torch.int64),
        position_ids=torch.arange(2),
        cu_seqlens=torch.tensor([0, 2], dtype=torch.int32),
        max_seqlen=2,
        pool_starts=torch.zeros(1, dtype=torch.int32),
    )
    with torch.inference_mode():
        reranker(tokens)
    return reranker


def _set_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, key: str) -> None:
    """Set the padding token of a padded model to the tokenizer's, if the model has none."""
    config = model.config.get_text_config()
    if config.pad_token_id not in range(model.get_input_embeddings().num_embeddings):
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise UserError(
            f"{key}.path: {type(model).__name__} is padded, and neither config.json nor the "
            "tokenizer has a padding token. Fix: name one in config.json (pad_token_id)"
        )


def _check_stated(
    facts: RerankerFacts, rows: list[int], tokenizer: PreTrainedTokenizerBase, *, key: str
) -> None:
    """Refuse tokens other than those that the model's files name."""
    if facts.token_ids is None or list(facts.token_ids) == rows:
        return
    true, false = (tokenizer.decode([each]) for each in facts.token_ids)
    raise UserError(
        f"{key}.path={facts.source}: its files compare the token {true!r} with {false!r}, and "
        f"{key}.yes_token and {key}.no_token name others. Fix: {key}.yes_token={true} "
        f"{key}.no_token={false}"
    )


def _token_id(tokenizer: PreTrainedTokenizerBase, word: str, name: str, key: str) -> int:
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UserError(
            f"{key}.{name}={word!r}: is no single token of the tokenizer of {key}.path, so its "
            f"logit is not one number. Fix: {key}.{name}=TOKEN, or a reranker that answers by it"
        )
    return int(ids[0])
