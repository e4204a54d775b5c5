"""Render a tokenizer's chat template, a program that came with the model, within bounds.

The template sees what transformers shows it, in jinja's sandbox. Here its values, its work and its
output are bounded, too: a template of one line could otherwise fill the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from transformers import PreTrainedTokenizerBase

from quarry.data.template_bounds import (
    LEFT_OUT,
    MAX_FORMAT,
    MAX_PRODUCT,
    MAX_SIZE,
    MAX_TEMPLATE,
    MAX_WORK,
    STEP,
    TooLargeError,
    check_format,
    size_of,
    too_large,
)
from quarry.errors import UserError

MAX_INDENT = 16
"""Characters of tojson's indent."""


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """Return the messages as the tokenizer's chat template renders them.

    The text is that of `tokenizer.apply_chat_template(messages, tokenize=False)`.

    Raises:
        UserError: the template is malformed, refuses the messages, does what the sandbox forbids,
            or exceeds a bound.
    """
    source = f"The chat template of {tokenizer.name_or_path!r}"
    template = tokenizer.get_chat_template()
    if len(template) > MAX_TEMPLATE:
        raise UserError(
            f"{source} has {len(template):,} characters (at most {MAX_TEMPLATE:,}). {_REMEDY}"
        )
    try:
        return (
            _BoundedEnvironment()
            .from_string(template)
            .render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=False,
                **tokenizer.special_tokens_map,
            )
        )
    except Exception as error:  # the program may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{source} cannot be rendered: {reason}. {_REMEDY}") from error


_REMEDY = (
    "Fix: correct the chat_template in its tokenizer_config.json (or chat_template.jinja), or use "
    "a prompt without it: prompt=repllama"
)


class _Generation(Extension):
    """Show what is inside `{% generation %}`, by which transformers finds the assistant's turns."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own form)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which counts what each operation of a template is given and makes.

    Nothing is computed while a template is compiled, so that nothing escapes the count.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, LoopControlExtension],
            optimized=False,
            finalize=_shown,
        )
        self.work = 0
        self.filters = {
            name: self._bounded(name, function)
            for name, function in {**self.filters, "tojson": _tojson}.items()
            if name not in LEFT_OUT
        }
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counted().visit(super()._parse(source, name, filename))
        return tree

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the template, a method of a value or a macro."""
        given = [getattr(function, "__self__", None), *args, *kwargs.values()]
        if getattr(function, "__name__", "") in ("format", "format_map"):
            given.append("x" * MAX_FORMAT)
        self._take(given)
        return self.weighed(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` if its result is bounded by them."""
        sizes = self._take([left, right])
        if operator == "*" and sizes > MAX_SIZE:
            raise too_large("a product")
        if operator == "**" and not (abs(left) <= MAX_SIZE and abs(right) <= 64):
            raise too_large("a power")
        if operator == "%" and isinstance(left, str):
            check_format(left)
        return self.weighed(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute, or entry, of a value."""
        if isinstance(obj, str):
            if attribute in ("striptags", "unescape"):
                raise TooLargeError(f"{attribute} is not available")
            if attribute in ("format", "format_map"):
                check_format(obj)
        self._spend(0)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an entry, an attribute or a slice of a value."""
        if isinstance(argument, str) and isinstance(obj, str):
            return self.getattr(obj, argument)
        self._spend(size_of(obj) if isinstance(argument, slice) else size_of(argument))
        return super().getitem(obj, argument)

    def weighed(self, value: Any) -> Any:
        """Return a value, counted; it is refused if it is too large."""
        self._spend(size_of(value))
        return value

    def joined(self, *values: Any) -> str:
        """Return `a ~ b ~ c`."""
        return "".join(map(str, values))

    def tick(self, num_characters: int) -> bool:
        """Count one pass of a loop, with the text in its body."""
        self._spend(num_characters)
        return True

    def _bounded(self, name: str, function: Any) -> Any:
        """Return a filter that counts what it is given and makes."""
        passes = getattr(function, "jinja_pass_arg", None)

        def bounded(*args: Any, **kwargs: Any) -> Any:
            given = args[1:] if passes is not None else args
            self._take([*given, *kwargs.values()])
            if name == "format" and given and isinstance(given[0], str):
                check_format(given[0])
            return self.weighed(function(*args, **kwargs))

        if passes is not None:
            bounded.jinja_pass_arg = passes  # type: ignore[attr-defined]
        return bounded

    def _take(self, values: Iterable[Any]) -> int:
        """Count what an operation is given; return the product of the sizes."""
        product = 1
        for value in values:
            size = size_of(value)
            self._spend(size)
            product *= size
        if product > MAX_PRODUCT:
            raise too_large("an operation")
        return product

    def _spend(self, work: int) -> None:
        self.work += work + STEP
        if self.work > MAX_WORK:
            raise TooLargeError("it takes too much work (loops, or large values)")


@pass_context
def _shown(context: Context, value: Any) -> Any:
    """Count what is put out."""
    environment: Any = context.environment
    return environment.weighed(value)


class _Counted(NodeTransformer):
    """Let a template's loops, texts that are joined, comparisons and literals be counted."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (jinja's name)
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        tick = _call("tick", [nodes.Const(text)])
        if node.test is not None:
            node.test = nodes.And(tick, node.test)
        node.body = [nodes.ExprStmt(tick).set_lineno(node.lineno), *node.body]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("joined", node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _call("weighed", [node.expr])
        for operand in node.ops:
            operand.expr = _call("weighed", [operand.expr])
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("weighed", [node])

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("weighed", [node])

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("weighed", [node]) if node.ctx == "load" else node


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    check_format(form)
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    width = len(indent) if isinstance(indent, str) else indent or 0
    if width > MAX_INDENT:
        raise too_large("an indent")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
