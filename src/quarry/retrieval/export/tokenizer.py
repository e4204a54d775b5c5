"""The tokenizer of an exported folder: it adds by itself what `TextTokenizer` adds by id."""

from __future__ import annotations

import copy

from transformers import PreTrainedTokenizerBase

from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.backbones.special_tokens import around
from quarry.types import ROLES, Role


def is_prefix(tokenizer: TextTokenizer, role: Role) -> bool:
    """Whether a text of this role becomes the same tokens as a prefix, the text and end ids do.

    It does where the end may simply be cut off: nothing follows the text, and the length is that
    of everything (a length of the text alone is counted without the tokens that merge with a
    template). A prefix neither strips a text nor has a space for a title that is missing.
    """
    frame = tokenizer.frames[role]
    if frame.strip or frame.keeps_empty_title:
        return False
    is_open = frame.num_copies == 1 and not frame.literals[1]
    return is_open and (tokenizer.prompt.length_counts == "all" or not frame.literals[0])


def needs_code(tokenizer: TextTokenizer) -> bool:
    """Whether the prompts are more than prefixes."""
    return not all(is_prefix(tokenizer, role) for role in ROLES)


def max_length(tokenizer: TextTokenizer, role: Role) -> int:
    """Tokens in all that a text of this role may have, where `is_prefix` holds."""
    frame, limit = tokenizer.frames[role], tokenizer.prompt.max_length(role)
    is_whole = tokenizer.prompt.length_counts == "all"
    return limit if is_whole else limit + len(frame.start_ids) + len(frame.end_ids)


def exported_tokenizer(tokenizer: TextTokenizer) -> PreTrainedTokenizerBase:
    """A copy that pads on the right, and where the prompts are prefixes puts start and end ids
    around a text after it was cut.

    Where they are not, code does that, and the tokenizer adds by itself what it did before.

    Raises:
        UserError: it has no token to pad with.
    """
    exported = copy.deepcopy(tokenizer.tokenizer)
    if exported.pad_token is None:
        exported.pad_token = _padding(exported)
    exported.padding_side = exported.truncation_side = "right"
    exported.model_max_length = max(max_length(tokenizer, role) for role in ROLES)
    # either key, even false, makes transformers replace the post-processor by one of its own
    for key in ("add_bos_token", "add_eos_token"):
        exported.init_kwargs.pop(key, None)
    # for Qwen2 AutoTokenizer takes a class that builds its own pre-tokeniser, whatever the
    # tokenizer_class here; sentence-transformers asks AutoProcessor, which heeds this name
    exported._set_processor_class("PreTrainedTokenizerFast")
    backend = exported.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if not needs_code(tokenizer):
        frame = tokenizer.frames["query"]  # both roles have the same
        backend.post_processor = around(exported, frame.start_ids, frame.end_ids)
    return exported


def _padding(tokenizer: PreTrainedTokenizerBase) -> str:
    """A special token that it has: which one is of no matter, attention never reaches padding."""
    found = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    if found is None:
        raise UserError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no token to pad with, and "
            "sentence-transformers pads. Name one of its special tokens as pad_token in its "
            "tokenizer_config.json."
        )
    return str(found)
