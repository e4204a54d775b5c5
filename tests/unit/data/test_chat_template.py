"""A chat template renders as transformers renders it, and within bounds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.tokenizers import chat_tokenizer
from quarry.data.chat_template import render_chat
from quarry.data.template_bounds import MAX_SIZE, TooLargeError, size_of
from quarry.errors import UserError

MESSAGES = [{"role": "user", "content": "Read a file  "}, {"role": "assistant", "content": "It:"}]

TEMPLATES = [
    "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}",
    "{%- for m in messages if m.role != 'tool' -%}\n  {{- loop.index0 ~ '/' ~ loop.length }}"
    "{%- if not loop.last %}, {% else %}.{% endif %}\n{%- endfor %}",
    "{% set ns = namespace(n=0, seen=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.seen = ns.seen + [m.role] %}{% endfor %}{{ ns.n }} {{ ns.seen | join('+') }}",
    "{% macro turn(m, end='</s>') %}<{{ m.role | upper }}>{{ m.content }}{{ end }}{% endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{{ turn(m, end='') }}{% endfor %}",
    "{{ messages | tojson(indent=2) }}{{ messages[0] | tojson | safe }}{{ '<é>' | tojson }}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}"
    "{% endfor %}",
    "{{ '%s-%5d' % ('a', 3) }}{{ '{:>4}{}'.format(1, 'b') }}{{ 'ab' * 3 }}{{ 2 ** 8 }}{{ 7 % 3 }}",
    "{{ messages[::-1][0].content.split(' ')[-1:] }}{{ messages[1]['content'].rstrip(':') }}",
    "{{ eos_token }}{{ undefined_name }}{{ (1, 2) == (1, 2) }}{{ {'a': [1]}.items() | list }}",
    "{% if tools %}x{% elif documents is none and not add_generation_prompt %}y{% endif %}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x ~ x }}{% filter upper %}c{% endfilter %}{{ [x, x] }}",
    "{{ messages | map(attribute='role') | list }}{{ messages | selectattr('role', 'eq', 'user') "
    "| map('upper') | list }}{{ messages | length }}{{ range(3) | list }}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% else %}none{% endfor %}",
    "   {% if true %}\n  x\n   {% endif %}\n y\n",
]


def tokenizer_of(template: str) -> PreTrainedTokenizerFast:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [None, *TEMPLATES])
def test_the_text_is_that_of_transformers(template: str | None) -> None:
    tokenizer = chat_tokenizer() if template is None else tokenizer_of(template)
    expected = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert render_chat(tokenizer, MESSAGES) == expected


def test_published_templates_render_as_transformers_renders_them(
    qwen_tokenizer_folder: Path,
) -> None:
    own = json.loads((qwen_tokenizer_folder / "tokenizer_config.json").read_text())
    templates = [own["chat_template"]]
    other = qwen_tokenizer_folder.parent / "deepseek-r1-distill-qwen" / "header.json"
    if other.is_file():
        metadata = json.loads(other.read_text())["metadata"]
        templates.append(metadata["tokenizer.chat_template"])
    for text in templates:
        for messages in (MESSAGES, MESSAGES[:1]):
            tokenizer = tokenizer_of(text)
            expected = tokenizer.apply_chat_template(messages, tokenize=False)
            assert render_chat(tokenizer, messages) == expected


def test_of_several_templates_the_default_one_is_taken() -> None:
    tokenizer = tokenizer_of("")
    tokenizer.chat_template = {"default": "a{{ messages[0].role }}", "tool_use": "b"}
    assert render_chat(tokenizer, MESSAGES) == "auser"


DOUBLED = "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}"
NESTED = "{% set x = [1, 1] %}" + "{% set x = [x, x] %}" * 40
ABSURD = {
    "a product": "{{ 'a' * 10**10 }}",
    "a product of products": "{{ 'a' * 1000 * 1000 * 1000 * 1000 }}",
    "a list": "{{ [0] * 999999 * 999999 }}",
    "a power": "{{ 9 ** 9 ** 9 }}",
    "a power of a power": "{% set x = 99999 ** 60 %}",
    "doubled text": DOUBLED,
    "added text": DOUBLED.replace("~", "+"),
    "nested lists": NESTED + "{{ x }}",
    "nested tuples as a key": NESTED.replace("[", "(").replace("]", ")") + "{{ {x: 1} }}",
    "nested lists compared": NESTED + "{{ x == x }}",
    "a namespace": "{% set ns = namespace(a=[1, 1]) %}"
    + "{% set ns.a = [ns.a, ns.a] %}" * 40
    + "{{ ns }}",
    "a set block": "{% set x %}ab{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40,
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that filter": "{% for i in range(99999) %}{% for j in range(99999) if false %}"
    "{% endfor %}{% endfor %}",
    "loops with text": "{% for i in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
    "a range": "{{ range(99999999) | list }}",
    "centered": "{{ 'a' | center(10000000000) }}",
    "centered by a method": "{{ 'a'.center(10000000000) }}",
    "replaced": "{% set x = 'a' * 900000 %}{{ x.replace('a', x) }}",
    "joined": "{% set x = 'a' * 900000 %}{{ x.join(x) }}",
    "joined by a filter": "{% set x = 'a' * 900000 %}{{ x | join(x) }}",
    "a format": "{{ '%10000000000d' % 1 }}",
    "a format by a filter": "{{ '%10000000000d' | format(1) }}",
    "a format by a method": "{{ '{:10000000000}'.format(1) }}",
    "a format with a width": "{{ '%*d' % (10000000000, 1) }}",
    "a format with a nested width": "{{ '{:{}}'.format(1, 10000000000) }}",
    "an indent": "{{ [1] | tojson(indent=10000000000) }}",
    "a time": "{{ strftime_now('%10000000000Y') }}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "branching": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "a recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "words": "{{ lipsum(n=100000) }}",
    "mapped": "{{ range(99999) | map('center', 99999) | list }}",
    "braces": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "blocks": "{% if a %}" * 500 + "{% endif %}" * 500,
    "a long template": "x" * 200_001,
}


@pytest.mark.parametrize("attack", ABSURD)
def test_an_absurd_template_is_refused_within_seconds(attack: str) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError, match="The chat template of .*Fix: ") as info:
        render_chat(tokenizer_of(ABSURD[attack]), MESSAGES)
    assert time.monotonic() - begin < 8  # under 3 s by itself: other tests run beside it
    assert len(str(info.value)) < 700


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('true') }}",
    "{{ messages.__class__ }}{{ messages.append(1) }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ ('' | attr('__cla' ~ 'ss__')).x }}",
    "{{ raise_exception('only user turns') }}",
    "{{ '{0.__class__.__mro__}'.format('') }}{{ ''.__class__() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ strftime_now.__globals__['x'] }}",
    "{{ joined.__globals__['x'] }}",
    "{% for %}",
    "{{ x | no_such_filter }}",
    "{{ 1 / 0 }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_what_the_sandbox_forbids_is_a_message(template: str) -> None:
    with pytest.raises(UserError, match="cannot be rendered: .*Fix: "):
        render_chat(tokenizer_of(template), MESSAGES)


def test_sizes_count_what_is_nested_as_often_as_it_stands() -> None:
    inner = ["abc", 4, None]  # 1 + 4 + 5 + 1
    assert size_of(inner) == 11
    assert size_of([inner, inner]) == 23
    assert size_of({"a": inner}) == 14
    assert size_of(True) == 1
    assert size_of(range(7)) == 8
    with pytest.raises(TooLargeError):
        size_of("x" * (MAX_SIZE + 1))
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(TooLargeError):
        size_of(circle)
