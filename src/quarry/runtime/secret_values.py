"""Know what is secret, and take it out of everything that is written, logged or shown.

Secret are values under keys such as `api_key`, passwords in URLs, and values that come from
`${oc.env:NAME}`. Of the last the interpolation stays, so that whoever reads it knows the variable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "***"

MIN_CHARACTERS = 4
"""Characters of a secret that is looked for within other text."""

MIN_CHARACTERS_OF_VARIABLE = 6
"""The same for an environment variable: shorter values (a split, a device) are ordinary words."""

OWN_VARIABLES = "QUARRY_"
"""Prefix of environment variables that are no secrets: folders of caches and runs."""

_SECRET = re.compile(
    r"(^|[._-])((api|access|secret|private|auth)[_-]?key|secrets?|password|passwd|passphrase|"
    r"credentials?|authorization|((access|auth|hf|hub|api)_?)?token)$",
    re.IGNORECASE,
)
_SPECIAL_TOKEN = re.compile(r"(^|[._-])(begin|end|bos|eos|pad|unk)_token$")
"""Keys of special tokens, such as prompt.end_token. They are no secrets: resuming reads them."""

_INLINE = re.compile(r"([\w.-]+)(\s*:\s*)([^\s,}\]]+)")
"""A key and its value inside an argument such as `settings={api_key:abc}`."""

_USER_INFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)(?P<to>:/{1,2})(?P<user>[^\s/'\"<>]+)@"
)
"""User and password of a URL, also of one that `Path` has made `https:/user:password@host`."""

_QUERY = re.compile(r"([?&])([\w.-]+)=([^&\s'\"]+)")
_SIGNATURE = re.compile(r"(^|[._-])sig(nature)?$", re.IGNORECASE)
"""Parameters of URLs that grant access, beside those with names of secrets."""

_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)")
_ONE_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)\s*(,[^{}]*)?\}")
_HARMLESS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|true|false|null|none", re.IGNORECASE)

_known: dict[str, str] = {}
"""Secret value -> what is shown in its place."""


def is_secret(key: str) -> bool:
    """Return whether a value under this key must be hidden ("hf_token", "api_key", ...)."""
    return _SECRET.search(key) is not None and _SPECIAL_TOKEN.search(key) is None


def remember(value: str, *, shown: str = HIDDEN) -> None:
    """Hide a value from now on, wherever it stands in a text."""
    if value and value != HIDDEN and "${" not in value:
        _known.setdefault(value, shown)


def remember_variable(name: str) -> None:
    """Hide the value of an environment variable, for which its interpolation is shown.

    Numbers, switches, folders and files that exist, and Quarry's own variables are no secrets.
    """
    value = os.environ.get(name, "")
    if name.startswith(OWN_VARIABLES) or _HARMLESS.fullmatch(value) or _is_place(value):
        return
    remember(value, shown=f"${{oc.env:{name}}}")


def remember_environment() -> None:
    """Hide the values of variables with names such as HF_TOKEN."""
    for name, value in os.environ.items():
        if is_secret(name) and not _is_place(value):
            remember(value)


def remember_arguments(arguments: Iterable[str]) -> None:
    """Hide the secrets of a command line: `key=value`, `key={inner:value}`, URLs, variables."""
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if separator and is_secret(key):
            for one in {value, *value.split(",")}:
                remember(one.strip("'\""))
        for inner, _, given in _INLINE.findall(argument):
            if is_secret(inner):
                remember(given.strip("'\""))
        _remember_in(argument)


def remember_secrets(value: Any) -> None:
    """Hide the secrets of nested plain data, such as an unresolved configuration."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if is_secret(str(key)) and isinstance(one, str):
                remember(one)
            remember_secrets(one)
    elif isinstance(value, list | tuple):
        for one in value:
            remember_secrets(one)
    elif isinstance(value, str):
        _remember_in(value)


def without_secrets(text: str) -> str:
    """Return a text with all known secrets, and all passwords of URLs, hidden."""
    for value, shown in sorted(_known.items(), key=lambda item: -len(item[0])):
        is_variable = shown != HIDDEN
        if len(value) >= (MIN_CHARACTERS_OF_VARIABLE if is_variable else MIN_CHARACTERS):
            for form in _forms(value):
                text = text.replace(form, shown)
    if ":/" not in text:
        return text
    text = _USER_INFO.sub(_without_password, text)
    return _QUERY.sub(_without_parameter, text)


def scrub_argument(argument: str) -> str:
    """Return `key=value` with the value hidden if the key, or a key inside, names a secret."""
    key, separator, value = argument.partition("=")
    if separator and is_secret(key):
        return f"{key}={_shown(value)}"
    inner = _INLINE.sub(
        lambda match: f"{match[1]}{match[2]}{HIDDEN}" if is_secret(match[1]) else match[0], argument
    )
    return without_secrets(inner)


def scrub(value: Any) -> Any:
    """Return a copy of nested plain data with secrets hidden."""
    if isinstance(value, dict):
        return {k: _shown(v) if is_secret(str(k)) and v else scrub(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(scrub, value))
    if isinstance(value, str):
        return _known[value] if value in _known else without_secrets(value)
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
    known = _known.get(value, HIDDEN) if isinstance(value, str) else HIDDEN
    return known


def _remember_in(text: str) -> None:
    for name in variables_in(text):
        remember_variable(name)
    for match in _USER_INFO.finditer(text):
        remember(match["user"].partition(":")[2])


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
