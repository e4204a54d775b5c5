"""Whether the hub can be asked: without a network its library would retry for minutes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

logger = logging.getLogger(__name__)

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")


def settle_offline(*, timeout_s: float = 5.0) -> None:
    """Turns the hub's library to its cache alone where the hub's host cannot be reached.

    Behind a proxy nothing is asked: whether it reaches the hub only a request can tell.
    """
    if constants.HF_HUB_OFFLINE or any(os.environ.get(name) for name in PROXIES):
        return
    endpoint = urlsplit(constants.ENDPOINT)
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        socket.create_connection((endpoint.hostname or "", port), timeout=timeout_s).close()
    except OSError as error:
        logger.warning(
            "The hub (%s) cannot be reached (%s): only what is in its cache is used",
            constants.ENDPOINT,
            error,
        )
        constants.HF_HUB_OFFLINE = True


@contextmanager
def from_cache_alone() -> Iterator[None]:
    """Inside, the hub's library takes what its cache has, and downloads nothing."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
