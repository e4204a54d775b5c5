"""A byte-pair tokenizer with merges, specials and a chat template, made like Qwen2.5's own."""

from __future__ import annotations

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

END, START_TURN, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{{ '<|im_start|>system\\nBe helpful.<|im_end|>\\n' }}{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
)

_TEXTS = (
    'This sentence: "the quick brown fox" means, in one word: "fox". Query: "which fox?". Passage: '
    '"a brown fox.". def f(x): return x ** 2, and so on: (quoted) text; "text." is text. Query:',
    "the query and the passage of the retrieval task are in lowercase. Use one word to represent",
)


@cache
def _backend() -> str:
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"),
                "isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=420,
        special_tokens=[END, START_TURN, END_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return str(tokenizer.to_str())


def chat_tokenizer(**more: object) -> PreTrainedTokenizerFast:
    """421 tokens at most. It lower-cases, which Qwen2's own tokenizer class would drop."""
    settings: dict[str, object] = {"eos_token": END, "pad_token": END}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend()), **(settings | more)
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
