"""Restrict the Hub's library to its cache without a network, where it would retry for minutes."""

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
    """Set the Hub's library to its cache alone if the Hub's host cannot be reached.

    Behind a proxy nothing is checked: only a request can tell whether the proxy reaches the Hub.
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
    """Make the Hub's library use its cache and download nothing inside."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
