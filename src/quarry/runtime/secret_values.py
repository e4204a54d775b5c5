"""Know what is secret, and take it out of everything that is written, logged or shown.

Secret are values under keys such as `api_key`, passwords in URLs, and values that come from
`${oc.env:NAME}`. Of the last the interpolation stays, so that whoever reads it knows the variable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

HIDDEN = "***"

MIN_CHARACTERS = 4
"""Characters of a secret that is looked for within other text."""

MIN_CHARACTERS_OF_VARIABLE = 6
"""The same for `${oc.env:NAME}`: shorter values (a split, a device) are ordinary words."""

MIN_CHARACTERS_OF_ENVIRONMENT = 8
"""The same for HF_TOKEN and its like, which a configuration need not have to do with."""

OWN_VARIABLES = "QUARRY_"
"""Prefix of environment variables that are no secrets: folders of caches and runs."""

_SECRET = re.compile(
    r"(^|[._-])((api|access|secret|private|auth)[_-]?key|secrets?|password|passwd|passphrase|"
    r"credentials?|authorization|((access|auth|hf|hub|api)_?)?token|(aws)?access[_-]?key[_-]?id)$",
    re.IGNORECASE,
)
_PWD = re.compile(r"(^|[._-])pwd$|_PWD$")
"""PWD and OLDPWD are folders of the shell."""
_SPECIAL_TOKEN = re.compile(r"(^|[._-])(begin|end|bos|eos|pad|unk)_token$")
"""Keys of special tokens, such as prompt.end_token. They are no secrets: resuming reads them."""

_INLINE_KEY = re.compile(r"([\w.-]+)['\"]?\s*:\s*")
"""A key inside an argument such as `settings={api_key:abc}`."""

_QUOTED = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
_WORD = r"(?:\$\{[^{}]*\}|[^\s,{}\[\]])+"
_INLINE_VALUE = re.compile(rf"{_QUOTED}|\[[^\]]*\]?|\{{[^}}]*\}}?|{_WORD}(?:\s+{_WORD})*")
_PIECE = re.compile(_QUOTED + r"|[^,{}\[\]]+")
_SCHEME = re.compile(r"(bearer|basic|token)\s+", re.IGNORECASE)
"""What stands before the secret in a value of `authorization`."""

_USER_INFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)(?P<to>:/{1,2})(?P<user>[^\s/'\"<>]+)@"
)
"""User and password of a URL, also of one that `Path` has made `https:/user:password@host`."""

_WIDE_USER_INFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)(?P<to>:/{1,2})"
    r"(?P<user>[^\s/:@'\"<>]+:(?!\d{1,5}[/?#])(?:(?![,;|]\w+:/)[^\s'\"<>])+)@"
)
"""The same up to the last `@`, for passwords with a slash; `host:8080/` has a port."""

_QUERY = re.compile(r"([?&])([\w.-]+)=([^&\s'\"]+)")
_SIGNATURE = re.compile(r"(^|[._-])sig(nature)?$", re.IGNORECASE)
"""Parameters of URLs that grant access, beside those with names of secrets."""

_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)")
_ONE_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)\s*(,[^{}]*)?\}")
_HARMLESS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|true|false|null|none", re.IGNORECASE)

_SWITCHES = ("true", "false", "null", "none")


class _Known(NamedTuple):
    """Describe a secret.

    Attributes:
        shown: in its place.
        is_of_environment: known by the name of its variable alone; it may be an ordinary word.
    """

    shown: str
    is_of_environment: bool


_known: dict[str, _Known] = {}
"""By their values."""


def is_secret(key: str) -> bool:
    """Return whether a value under this key must be hidden ("hf_token", "api_key", ...)."""
    found = _SECRET.search(key) or _PWD.search(key)
    return found is not None and _SPECIAL_TOKEN.search(key) is None


def remember(value: str, *, shown: str = HIDDEN, is_of_environment: bool = False) -> None:
    """Hide a value from now on, wherever it stands in a text.

    Args:
        is_of_environment: hide it where it is a complete word, and in configurations where it is a
            complete value or inside a URL.
    """
    if not value or value == HIDDEN or "${" in value:
        return
    known = _known.get(value)
    if known is None or (known.is_of_environment and not is_of_environment):
        _known[value] = _Known(shown, is_of_environment)


def remember_variable(name: str) -> None:
    """Hide the value of an environment variable, for which its interpolation is shown.

    Numbers, switches, folders and files that exist, and Quarry's own variables are no secrets.
    """
    value = os.environ.get(name, "")
    if not _is_harmless(name, value):
        remember(value, shown=f"${{oc.env:{name}}}")


def remember_environment() -> None:
    """Hide the values of variables with names such as HF_TOKEN, short and harmless ones excepted.

    HF_HUB_DISABLE_IMPLICIT_TOKEN is a switch, and 1 or yes is what it may be set to.
    """
    for name, value in os.environ.items():
        is_long = len(value) >= MIN_CHARACTERS_OF_ENVIRONMENT
        if is_long and is_secret(name) and "DISABLE" not in name and not _is_harmless(name, value):
            remember(value, is_of_environment=True)


def remember_arguments(arguments: Iterable[str]) -> None:
    """Hide the secrets of a command line: `key=value`, `key={inner:value}`, URLs, variables."""
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if separator and is_secret(key):
            _remember_value(value)
        for start, end in _inline_secrets(argument):
            _remember_value(argument[start:end])
        _remember_in(argument)


def remember_secrets(value: Any) -> None:
    """Hide the secrets of nested plain data, such as an unresolved configuration."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if is_secret(str(key)):
                for part in one if isinstance(one, list | tuple) else [one]:
                    remember(part if isinstance(part, str) else "")
            remember_secrets(one)
    elif isinstance(value, list | tuple):
        for one in value:
            remember_secrets(one)
    elif isinstance(value, str):
        _remember_in(value)


def without_secrets(text: str) -> str:
    """Return a text with all known secrets, and all passwords of URLs, hidden."""
    return _hidden(text, of_environment=True)


def scrub_argument(argument: str) -> str:
    """Return `key=value` with the value hidden if the key, or a key inside, names a secret."""
    key, separator, value = argument.partition("=")
    if separator and is_secret(key):
        return f"{key}={_shown(value)}"
    inner = argument
    for start, end in reversed(list(_inline_secrets(argument))):
        inner = f"{inner[:start]}{_shown(inner[start:end])}{inner[end:]}"
    return without_secrets(inner)


def scrub(value: Any) -> Any:
    """Return a copy of nested plain data with secrets hidden."""
    if isinstance(value, dict):
        return {k: _shown(v) if is_secret(str(k)) and v else scrub(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(scrub, value))
    if isinstance(value, str):
        known = _known.get(value)
        return _hidden(value, of_environment=":/" in value) if known is None else known.shown
    return value


def variables_in(text: str) -> list[str]:
    """Return the names of environment variables that a text interpolates."""
    return _VARIABLE.findall(text)


def as_shell_variables(text: str) -> str:
    """Return a text with `$NAME` in the place of `${oc.env:NAME}`."""
    return _ONE_VARIABLE.sub(r"$\1", text)


def _shown(value: Any) -> str:
    """Return what is shown of a secret: the interpolation that it is, else `HIDDEN`."""
    match = _ONE_VARIABLE.fullmatch(value.strip("'\"")) if isinstance(value, str) else None
    if match is not None:
        return f"${{oc.env:{match[1]}}}"
    known = _known.get(value) if isinstance(value, str) else None
    return HIDDEN if known is None else known.shown


def _hidden(text: str, *, of_environment: bool) -> str:
    """Return a text without secrets; those of the environment are left where that is said."""
    for value, known in sorted(_known.items(), key=lambda item: -len(item[0])):
        if known.is_of_environment:
            if of_environment and any(form in text for form in _forms(value)):
                text = _as_word(value).sub(known.shown, text)
            continue
        is_variable = known.shown != HIDDEN
        if len(value) >= (MIN_CHARACTERS_OF_VARIABLE if is_variable else MIN_CHARACTERS):
            for form in _forms(value):
                text = text.replace(form, known.shown)
    if ":/" not in text:
        return text
    text = _USER_INFO.sub(_without_password, text)
    text = _WIDE_USER_INFO.sub(_without_password, text)
    return _QUERY.sub(_without_parameter, text)


def _as_word(value: str) -> re.Pattern[str]:
    """Return what matches a value at the borders of words; escapes in JSON and URLs are borders."""
    forms = "|".join(re.escape(form) for form in sorted(_forms(value), key=len, reverse=True))
    before = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-F]{2}))" if value[0].isalnum() else ""
    after = r"(?![A-Za-z0-9])" if value[-1].isalnum() else ""
    return re.compile(f"{before}(?:{forms}){after}")


def _inline_secrets(argument: str) -> Iterator[tuple[int, int]]:
    """Yield where the values of secret keys inside an argument begin and end."""
    end = 0
    for match in _INLINE_KEY.finditer(argument):
        if match.start() >= end and is_secret(match[1]):
            value = _INLINE_VALUE.match(argument, match.end())
            if value is not None:
                end = value.end()
                yield value.span()


def _remember_value(value: str) -> None:
    """Hide a secret as Hydra's grammar has it: quoted, or several in a list, mapping or sweep."""
    for one in (value, *_PIECE.findall(value)):
        bare = one.strip()
        if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
            bare = bare[1:-1].replace(f"\\{bare[0]}", bare[0])
        if bare.lower() not in _SWITCHES:
            remember(bare)
            remember(_SCHEME.sub("", bare, count=1))


def _remember_in(text: str) -> None:
    for name in variables_in(text):
        remember_variable(name)
    for pattern in (_USER_INFO, _WIDE_USER_INFO):
        for match in pattern.finditer(text):
            remember(match["user"].partition(":")[2])


def _is_harmless(name: str, value: str) -> bool:
    is_own = name.startswith(OWN_VARIABLES)
    return is_own or _HARMLESS.fullmatch(value) is not None or _is_place(value)


def _is_place(value: str) -> bool:
    try:
        return value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _forms(value: str) -> set[str]:
    """Return a value as it stands in text, JSON, a traceback and a URL."""
    plain = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return plain | {repr(value)[1:-1], quote(value, safe=""), quote_plus(value)}


def _without_password(match: re.Match[str]) -> str:
    user, scheme = match["user"], match["scheme"]
    if "${" in user:
        return match[0]
    name, separator, _ = user.partition(":")
    if separator:
        return f"{scheme}{match['to']}{name}:{HIDDEN}@"
    # a name alone is a token where nobody logs in by name
    return f"{scheme}{match['to']}{HIDDEN}@" if scheme.lower() in ("http", "https") else match[0]


def _without_parameter(match: re.Match[str]) -> str:
    is_hidden = is_secret(match[2]) or _SIGNATURE.search(match[2]) is not None
    return f"{match[1]}{match[2]}={HIDDEN}" if is_hidden and "${" not in match[3] else match[0]
