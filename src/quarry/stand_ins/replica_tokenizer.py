"""Write the tokenizer of a replica: Qwen2.5's own, or a small stand-in, in a variant's dialect.

The variants share vocabulary and merges. They differ in their dialect: special tokens, end token
and chat template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from quarry.errors import UserError
from quarry.models.backbones.huggingface import load_tokenizer, resolve_tokenizer
from quarry.runtime.files import write_json

SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Qwen2.5's special tokens in the order of their ids; `NON_SPECIALS` follow."""

NON_SPECIALS = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
"""Added tokens that are not special: they are never split, and decoding does not skip them."""

_SYSTEM_LINE = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^'<]+)<\|im_end\|>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Vocabulary, merges and added tokens that all variants share.

    Attributes:
        description: content of tokenizer.json.
        chat_template: the chat template published with it; None for the stand-in.
    """

    description: dict[str, Any]
    chat_template: str | None = None

    @property
    def added_tokens(self) -> list[dict[str, Any]]:
        """Return special and other added tokens, sorted by id."""
        return sorted(self.description["added_tokens"], key=lambda token: int(token["id"]))

    def __len__(self) -> int:
        return 1 + int(self.added_tokens[-1]["id"])


class Dialect(Protocol):
    """Special tokens and tokenizer settings of one variant."""

    def specials(self) -> tuple[str, ...]:
        """Return its special tokens, in the order of `SPECIALS`."""

    def settings(self, published_template: str | None) -> dict[str, Any]:
        """Return the settings of tokenizer_config.json that differ between variants.

        Args:
            published_template: Qwen2.5's chat template; None for the stand-in.
        """


@dataclass(frozen=True, kw_only=True)
class ChatML:
    """Qwen's dialect: turns between <|im_start|> and <|im_end|>, with a default system message.

    Attributes:
        end_token: the EOS token.
        system_line: the chat template's default system message.
    """

    end_token: str
    system_line: str

    def specials(self) -> tuple[str, ...]:
        return SPECIALS

    def settings(self, published_template: str | None) -> dict[str, Any]:
        return {
            "add_bos_token": False,
            "bos_token": None,
            "chat_template": self._template(published_template),
            "eos_token": self.end_token,
            "pad_token": SPECIALS[0],
            "tokenizer_class": "Qwen2Tokenizer",
        }

    def _template(self, published: str | None) -> str:
        line = self.system_line.replace("\\", r"\\").replace("'", r"\'")
        if published is None:
            return (
                "{%- if messages[0].role != 'system' %}"
                "{{- '<|im_start|>system\\n" + line + "<|im_end|>\\n' }}{% endif %}"
                "{%- for message in messages %}"
                "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
                "{%- endfor %}"
                "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"
            )
        found = _SYSTEM_LINE.search(published)
        if found is None:
            raise UserError(
                "The chat template of model.tokenizer_path has no default system line between "
                "<|im_start|>system and <|im_end|>, so the variant's own cannot be put there. Fix: "
                "give a Qwen2.5 tokenizer, or model.tokenizer_path=null for a stand-in."
            )
        return published.replace(found[1], line)


@dataclass(frozen=True, kw_only=True)
class DeepSeekR1:
    """The dialect of DeepSeek-R1-Distill-Qwen: other names at the same ids, and a BOS.

    Every text begins with the BOS: tokenizer_config.json asks for it, and the chat template writes
    it. There is no default system message, and the assistant's turns end with the EOS.

    Attributes:
        begin_token: the BOS token.
        end_token: the EOS token.
    """

    begin_token: str
    end_token: str

    def specials(self) -> tuple[str, ...]:
        renamed = (
            self.end_token, "<｜User｜>", "<｜Assistant｜>", self.begin_token, "<|EOT|>",
            "<think>", "</think>",
        )  # fmt: skip
        return renamed + SPECIALS[len(renamed) :]

    def settings(self, published_template: str | None) -> dict[str, Any]:
        return {
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": self.begin_token,
            "chat_template": (
                "{{- bos_token }}"
                "{%- for message in messages %}"
                "{%- if message.role == 'system' %}{{- message.content }}"
                "{%- elif message.role == 'user' %}{{- '<｜User｜>' + message.content }}"
                "{%- else %}{{- '<｜Assistant｜>' + message.content + eos_token }}{% endif %}"
                "{%- endfor %}"
                "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{% endif %}"
            ),
            "eos_token": self.end_token,
            "pad_token": self.end_token,
            "tokenizer_class": "LlamaTokenizerFast",
        }


def published_vocabulary(path: str) -> Vocabulary:
    """Load Qwen2.5's own vocabulary from a folder or hub id that has it.

    Raises:
        UserError: the tokenizer cannot be loaded, or its special tokens are not Qwen2.5's.
    """
    tokenizer: Any = load_tokenizer(resolve_tokenizer(path))
    vocabulary = Vocabulary(
        description=json.loads(tokenizer.backend_tokenizer.to_str()),
        chat_template=tokenizer.chat_template,
    )
    found = tuple(token["content"] for token in vocabulary.added_tokens)
    if found[: len(SPECIALS)] != SPECIALS:
        raise UserError(
            f"model.tokenizer_path={path} is no Qwen2.5 tokenizer: its special tokens begin with "
            f"{', '.join(found[:3]) or 'none'}, expected are {', '.join(SPECIALS[:3])}. Fix: give "
            "a Qwen2.5 tokenizer, or model.tokenizer_path=null for a stand-in."
        )
    return vocabulary


def stand_in_vocabulary(texts: Sequence[str], *, vocab_size: int) -> Vocabulary:
    """Train a byte-level BPE vocabulary on `texts`, and append Qwen2.5's special tokens.

    Case and white space are preserved, as in Qwen2.5.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in NON_SPECIALS])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return Vocabulary(description=json.loads(tokenizer.to_str()))


def write_tokenizer(
    folder: Path, *, vocabulary: Vocabulary, dialect: Dialect, max_length: int
) -> None:
    """Write tokenizer.json and tokenizer_config.json in the form of the hub's files."""
    tokens, names = vocabulary.added_tokens, dialect.specials()
    renamed = [
        token | {"content": name} for token, name in zip(tokens, names, strict=False)
    ] + tokens[len(names) :]
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    description = vocabulary.description | {
        "added_tokens": renamed,
        "post_processor": plain | {"use_regex": False},
    }
    text = json.dumps(description, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = dialect.settings(vocabulary.chat_template)
    common = {"clean_up_tokenization_spaces": False, "model_max_length": max_length}
    write_json(folder / "tokenizer_config.json", settings | common)
