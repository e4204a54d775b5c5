"""Build the tokenizer of an exported folder, which adds the tokens that `TextTokenizer` adds."""

from __future__ import annotations

import copy

from transformers import PreTrainedTokenizerBase

from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.backbones.special_tokens import around
from quarry.types import ROLES, Role


def is_prefix(tokenizer: TextTokenizer, role: Role) -> bool:
    """Return whether a prefix, the text and end ids give the tokens of a text of this role.

    They do if truncation may simply cut the end: nothing follows the text, and the length counts
    everything (a length of the text alone excludes tokens that merge with a template). A prefix
    neither strips a text nor has a space for a missing title.
    """
    frame = tokenizer.frames[role]
    if frame.strip or frame.keeps_empty_title:
        return False
    is_open = frame.num_copies == 1 and not frame.literals[1]
    return is_open and (tokenizer.prompt.length_counts == "all" or not frame.literals[0])


def needs_code(tokenizer: TextTokenizer) -> bool:
    """Return whether the prompts are more than prefixes."""
    return not all(is_prefix(tokenizer, role) for role in ROLES)


def max_length(tokenizer: TextTokenizer, role: Role) -> int:
    """Return the maximal number of tokens of a text of this role, given `is_prefix`."""
    frame, limit = tokenizer.frames[role], tokenizer.prompt.max_length(role)
    counts_all = tokenizer.prompt.length_counts == "all"
    return limit if counts_all else limit + len(frame.start_ids) + len(frame.end_ids)


def exported_tokenizer(tokenizer: TextTokenizer) -> PreTrainedTokenizerBase:
    """Return a copy that pads on the right.

    If the prompts are prefixes, it adds start and end ids after truncation. If not, the folder's
    code does that, and the tokenizer adds by itself what it did before.

    Raises:
        UserError: it has no token for padding.
    """
    exported = copy.deepcopy(tokenizer.tokenizer)
    if exported.pad_token is None:
        exported.pad_token = _padding(exported)
    exported.padding_side = exported.truncation_side = "right"
    exported.model_max_length = max(max_length(tokenizer, role) for role in ROLES)
    # either key, even false, makes transformers replace the post-processor by one of its own
    for key in ("add_bos_token", "add_eos_token"):
        exported.init_kwargs.pop(key, None)
    # for Qwen2, AutoTokenizer picks a class that builds its own pre-tokenizer, whatever
    # tokenizer_class says; sentence-transformers asks AutoProcessor, which follows this name
    exported._set_processor_class("PreTrainedTokenizerFast")
    backend = exported.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if not needs_code(tokenizer):
        frame = tokenizer.frames["query"]  # both roles have the same
        backend.post_processor = around(exported, frame.start_ids, frame.end_ids)
    return exported


def _padding(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a special token to pad with: any will do, since attention never reaches padding."""
    found = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    if found is None:
        raise UserError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no token to pad with, and "
            "sentence-transformers pads. Name one of its special tokens as pad_token in its "
            "tokenizer_config.json."
        )
    return str(found)
