"""BOS and EOS that only tokenizer_config.json asks for stand beside those of tokenizer.json."""

from __future__ import annotations

from itertools import product

import pytest
from tokenizers import processors

from helpers.models import BOS, EOS, letter_ids, letter_tokenizer
from quarry.models.backbones.special_tokens import put_wanted_ends

SPECIALS = [("<bos>", BOS), ("<eos>", EOS)]


@pytest.mark.parametrize(
    ("template", "bos", "eos"),
    [
        (template, bos, eos)
        for template in ("$A", "<bos> $A", "$A <eos>", "<bos> $A <eos>")
        for bos, eos in product((None, True, False), repeat=2)
    ],
)
def test_what_is_wanted_is_there_once_and_nothing_is_lost(
    template: str, bos: bool | None, eos: bool | None
) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=SPECIALS
    )
    put_wanted_ends(tokenizer, {"add_bos_token": bos, "add_eos_token": eos})
    start = [BOS] if bos or "<bos>" in template else []
    end = [EOS] if eos or "<eos>" in template else []
    assert tokenizer.encode("ab c") == [*start, *letter_ids("abc"), *end]


def test_a_token_that_the_tokenizer_does_not_name_is_not_put() -> None:
    tokenizer = letter_tokenizer(has_eos=False)
    put_wanted_ends(tokenizer, {"add_eos_token": True})
    assert tokenizer.encode("ab") == letter_ids("ab")
