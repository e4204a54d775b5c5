"""Serve a model over HTTP: embeddings as in OpenAI's API, and the search of an index."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from quarry.config.composing import composed_job
from quarry.config.model_overrides import is_of_model, own_overrides, with_stored_model
from quarry.config.overrides import refuse_other_overrides, warn_of_run_directory
from quarry.config.signature_rules import signature_violations
from quarry.config.validation import validate
from quarry.config.value_ranges import range_violations
from quarry.errors import ConfigurationError, UserError
from quarry.runtime.extras import require
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.override_text import key_of
from quarry.runtime.secret_values import remember
from quarry.runtime.task_output import tell
from quarry.search.contract_check import check_contract
from quarry.search.index_manifest import plain
from quarry.search.search_index import SearchIndex
from quarry.serving.limits import Limits
from quarry.serving.listening import is_loopback, listening_socket, url_of
from quarry.serving.served_model import ServedModel
from quarry.types import ROLES

if TYPE_CHECKING:
    from quarry.retrieval.encoder import Encoder

MIN_TOKEN_CHARACTERS = 8

ALSO = ("paths", "evaluation.max_tokens_per_batch", "trusted_packages")
"""Keys beside the model's that a server reads."""

LIBRARIES = ("fastapi", "uvicorn", "prometheus_client")


def serve(
    config: DictConfig,
    *,
    host: str,
    port: int,
    token: str | None,
    index: str | None,
    name: str | None,
    max_body_mib: int,
    max_texts_per_request: int,
    max_characters_per_text: int,
    max_waiting_texts: int,
    client_timeout_s: float,
    grace_s: float,
) -> dict[str, float]:
    """Serve `config.model` until SIGTERM or Ctrl-C.

    Args:
        host, port: where it listens; port 0: a free one.
        token: that requests carry; None: none, on loopback alone.
        index: folder of `task=index`; None: no search.
        name: of the model, in requests; None: the last part of its path.
        grace_s: for the requests that have begun at the end.
        others: see `serving.limits.Limits`.

    Raises:
        UserError: the address cannot be used, a token is missing, or the model or the index cannot
            be loaded.
    """
    quiet_libraries()
    refuse_other_overrides(
        ("task", "model", "prompt", "trainer.precision", *ALSO, "hydra"),
        why="has no effect on task=serve, which loads a model and answers requests. Fix: leave it "
        "out.",
    )  # fmt: skip
    warn_of_run_directory(config, task="serve")
    _check_keys(config, has_index=index is not None)
    for library in LIBRARIES:
        require(library, what="task=serve")
    check_address(host, token)
    if max_texts_per_request > max_waiting_texts:
        raise UserError(
            f"task.max_texts_per_request={max_texts_per_request}: more than may wait "
            f"(task.max_waiting_texts={max_waiting_texts}). Fix: "
            f"task.max_texts_per_request={max_waiting_texts}"
        )
    limits = Limits(
        max_body_bytes=max_body_mib * 2**20,
        max_texts_per_request=max_texts_per_request,
        max_characters_per_text=max_characters_per_text,
        max_waiting_texts=max_waiting_texts,
        client_timeout_s=client_timeout_s,
    )
    opened = None if index is None else SearchIndex.open(index)
    with closing(listening_socket(host, port)) as listener:
        # not above: a refusal should not wait for these
        from quarry.serving.assembled_server import assembled_server
        from quarry.serving.index_search import IndexSearch

        encoder, model = _loaded(config, opened, name=name)
        with assembled_server(
            encoder,
            model=model,
            open_index=None if opened is None else partial(IndexSearch, opened),
            token=token,
            limits=limits,
            listener=listener,
            grace_s=grace_s,
        ) as server:
            tell(f"Serving {url_of(listener)} (Ctrl-C ends)")
            server.run()
    tell("The server has ended.")
    return {}


def check_address(host: str, token: str | None) -> None:
    """Refuse to listen elsewhere than on this machine without a token, and tokens to be guessed.

    The token is hidden in all that this process writes.
    """
    if token is None:
        if not is_loopback(host):
            raise UserError(
                f"task.host={host}: others could use the model, and read the index (without a "
                "token only this machine, 127.0.0.1). Fix: task.token='${oc.env:SERVE_TOKEN}', or "
                "leave task.host out"
            )
        return
    remember(token)
    is_plain = token.isascii() and token.isprintable() and " " not in token
    if len(token) < MIN_TOKEN_CHARACTERS or not is_plain:
        raise UserError(
            f"task.token: has {len(token)} characters, or others than printable ASCII (at least "
            f"{MIN_TOKEN_CHARACTERS}). Fix: export SERVE_TOKEN=$(openssl rand -hex 16), and "
            "task.token='${oc.env:SERVE_TOKEN}'"
        )


def _check_keys(config: DictConfig, *, has_index: bool) -> None:
    """Check the configuration; the model's part later where it may be that of an index.

    Raises:
        ConfigurationError: lists all that is wrong.
    """
    if not has_index:
        validate(config, primary="eval")
    elif lines := [*signature_violations(config.task, "task"), *range_violations(config)]:
        raise ConfigurationError("\n".join(f"- {line}" for line in lines))


def _loaded(
    config: DictConfig, index: SearchIndex | None, *, name: str | None
) -> tuple[Encoder, ServedModel]:
    """Return the encoder, and the model as clients see it.

    Without a model on the command line that of the index is loaded.

    Raises:
        UserError: the model cannot be loaded, or the index is of another one.
    """
    from quarry.assembly.loaded_encoder import load_encoder

    given = own_overrides()
    own = [each for each in given if is_of_model(each)]
    overrides = own if index is None else with_stored_model(own, index.manifest.model["overrides"])
    with ExitStack() as stack:
        if overrides != own:
            others = [each for each in given if key_of(each).startswith(ALSO)]
            config = stack.enter_context(composed_job("eval", [*overrides, *others]))
        validate(config, primary="eval")
        loaded = load_encoder(config)
        if index is not None:
            contract = plain(loaded.embedding_contract(config))
            check_contract(index.manifest, contract, folder=index.folder)
        choice = HydraConfig.get().runtime.choices["model"]
    path = config.model.get("path")
    prompt = loaded.encoder.tokenizer.prompt
    model = ServedModel(
        name=name or (str(choice) if path is None else Path(str(path)).name),
        dim=loaded.encoder.model.embedding_dim,
        max_lengths={role: prompt.max_length(role) for role in ROLES},
        created=int(time.time()),
    )
    return loaded.encoder, model
