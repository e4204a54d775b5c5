"""Read a request's body and its fields, with a clear refusal of whatever is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from starlette.requests import Request

from quarry.serving.api_errors import ApiError
from quarry.serving.limits import Limits

NUM_DRAINED = 4
"""Of a body that is too large so many times the limit is read: clients read the answer after it."""

NUM_OPEN_BODIES = 32
"""Bodies of the largest size that the server holds at once, those of waiting requests included."""


class Bodies:
    """Reads bodies, each within the limits, and all together within `NUM_OPEN_BODIES` of them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._num_bytes = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request, whether its length is declared or not.

        Inside, its size counts among that of all.

        Raises:
            ApiError: 413, it is too large; 408, the client is too slow; 429, the server holds too
                many.
            ClientDisconnect: the client has left.
        """
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._limits.client_timeout_s):
                    await self._read(request, parts)
            except TimeoutError:
                raise self._too_slow() from None
            yield b"".join(parts)
        finally:
            self._num_bytes -= sum(map(len, parts))

    async def _read(self, request: Request, parts: list[bytes]) -> None:
        most, size = self._limits.max_body_bytes, 0
        async for part in request.stream():
            size += len(part)
            if size > NUM_DRAINED * most:
                break
            if size <= most:
                if self._num_bytes + len(part) > NUM_OPEN_BODIES * most:
                    raise _too_many()
                parts.append(part)
                self._num_bytes += len(part)
        if size > most:
            raise ApiError(
                413,
                f"The body is larger than {most:,} bytes (task.max_body_mib). Fix: send fewer or "
                "shorter texts in a request.",
                code="body_too_large",
                closes=True,
            )

    def _too_slow(self) -> ApiError:
        return ApiError(
            408,
            f"The body did not arrive within {self._limits.client_timeout_s:g} s. Fix: send it at "
            "once.",
            code="timeout",
            closes=True,
        )


def _too_many() -> ApiError:
    return ApiError(
        429,
        "The server holds too many requests. Fix: send it again after the time in Retry-After.",
        code="queue_full",
        retry_after_s=1,
        closes=True,
    )


def json_object(body: bytes, *, known: Sequence[str]) -> Mapping[str, Any]:
    """Return the JSON object that a body holds.

    Args:
        known: the fields that it may have.

    Raises:
        ApiError: it is no JSON, no object, has NaN or an unknown field, or is nested too deeply.
    """
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _malformed(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _malformed("nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _malformed(f"not JSON ({error.msg}, {where})") from None
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise _malformed(str(error)[:200]) from None
    if not isinstance(content, dict):
        raise _malformed(f"a JSON object is expected, not {type_name(content)}")
    for name in content:
        if name not in known:
            raise ApiError(
                400,
                f"{name[:80]}: there is no such field (fields: {', '.join(known)}). Fix: leave it "
                "out.",
                code="unknown_field",
                param=name[:80],
            )
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _malformed(what: str) -> ApiError:
    return ApiError(400, f"The body cannot be read: {what}.", code="malformed_body")


def type_name(value: object) -> str:
    """Return the name that JSON has for a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    names |= {list: "an array", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def checked_text(value: object, *, param: str, limits: Limits) -> str:
    """Return a value that is a text within the limits.

    Raises:
        ApiError: it is no string, empty, too long, or has half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise invalid(param, f"a string is expected, not {type_name(value)}")
    if not value:
        raise invalid(param, "is empty", code="empty_text")
    if len(value) > limits.max_characters_per_text:
        raise invalid(
            param,
            f"has {len(value):,} characters (at most {limits.max_characters_per_text:,}, "
            "task.max_characters_per_text). Fix: send a shorter text, or pieces of it",
            code="text_too_long",
        )
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            problem = f"has half of a surrogate pair at character {error.start}"
            raise invalid(param, problem, code="invalid_text") from None
    return value


def checked_choice(value: object, *, param: str, choices: Sequence[str]) -> str:
    """Return a value that is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise invalid(param, f"{json.dumps(value)[:80]} is none of {', '.join(choices)}")
    return value


def checked_integer(value: object, *, param: str, low: int, high: int) -> int:
    """Return a value that is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise invalid(param, f"an integer from {low} to {high:,} is expected")
    return value


def checked_bool(value: object, *, param: str) -> bool:
    """Return a value that is true or false."""
    if not isinstance(value, bool):
        raise invalid(param, f"true or false is expected, not {type_name(value)}")
    return value


def invalid(param: str, problem: str, *, code: str = "invalid_value") -> ApiError:
    """Return the refusal of a field's value."""
    return ApiError(400, f"{param}: {problem}.", code=code, param=param)
