"""Put a server together around an encoder, and end its threads with it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.encoder import Encoder
from quarry.serving.app import Routes, build_app
from quarry.serving.batching import Batcher
from quarry.serving.blocking_encoder import BlockingEncoder
from quarry.serving.door import Door
from quarry.serving.http_server import HttpServer
from quarry.serving.limits import Limits
from quarry.serving.search_service import SearchService, ServedIndex
from quarry.serving.search_writer import SearchWriter
from quarry.serving.served_model import ServedModel
from quarry.serving.server_metrics import ServerMetrics

LAST_BATCH_S = 60
"""How long the end waits for the batch, or the search, that has begun."""


@contextmanager
def assembled_server(
    encoder: Encoder,
    *,
    model: ServedModel,
    open_index: Callable[[TextEncoder], ServedIndex] | None,
    token: str | None,
    limits: Limits,
    listener: socket.socket,
    grace_s: float,
) -> Iterator[HttpServer]:
    """Yield a server that is ready to run.

    Args:
        encoder: of the model; the server's thread alone uses it inside.
        open_index: returns what `/search` searches, with the encoder for its queries; None: there
            is no index.
        token, listener, grace_s: see `Door` and `HttpServer`.
    """
    metrics = ServerMetrics(num_waiting=lambda: batcher.num_waiting)
    batcher = Batcher(encoder, max_waiting_texts=limits.max_waiting_texts, observer=metrics)
    writer = SearchWriter(model=model.name)
    search: SearchService | None = None

    def close(*, timeout_s: float) -> None:
        batcher.close(timeout_s=timeout_s)  # first: the search may wait for it
        if search is not None:
            search.close(timeout_s=timeout_s)
        writer.close()

    try:
        if open_index is not None:
            search = SearchService(open_index(BlockingEncoder(batcher, device=encoder.device)))

        routes = Routes(
            model=model, batcher=batcher, search=search, writer=writer, metrics=metrics,
            limits=limits,
        )  # fmt: skip
        yield HttpServer(
            Door(build_app(routes), token=token, metrics=metrics),
            listener=listener,
            client_timeout_s=limits.client_timeout_s,
            grace_s=grace_s,
            give_up=partial(close, timeout_s=0),
        )
    finally:
        close(timeout_s=LAST_BATCH_S)
