"""Refuse requests with errors in the form of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Mapping

TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""Status -> type of the error; of others `invalid_request_error`."""


class ApiError(Exception):
    """A refusal that the client receives.

    Args:
        status: of the HTTP response.
        message: names the field, what is wrong, what is allowed, and the remedy.
        param: the field; None: no single one.
        code: a word for programs.
        retry_after_s: after which time the same request may succeed; None: never.
        closes: whether the connection ends with the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_s: int | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.closes = closes

    def body(self) -> bytes:
        """Return the response's body, JSON."""
        error = {
            "message": self.message,
            "type": TYPES.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    def headers(self) -> dict[str, str]:
        """Return the headers beside those of every response."""
        found = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        return found | ({"connection": "close"} if self.closes else {})


def stopping(*, retry_after_s: int = 5) -> ApiError:
    """Return the answer to a request while the server ends."""
    return ApiError(
        503,
        "The server is stopping. Fix: send the request again, to another server or later.",
        code="stopping",
        retry_after_s=retry_after_s,
        closes=True,
    )
