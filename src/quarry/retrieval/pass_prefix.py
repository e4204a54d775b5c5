"""The prefix that the texts of a pass share, encoded once where that is worth it and exact."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from quarry.data.packing import pack
from quarry.models.bi_encoder import BiEncoder
from quarry.models.shared_prefix import SharedPrefix

logger = logging.getLogger(__name__)

MIN_SHARED_TOKENS = 8
"""A shorter prefix is encoded with each text: its keys and values are laid before every text."""

MIN_COSINE = 0.99
"""Of an embedding in bf16 made in two ways; with a wrong mask it is far below."""


def is_worth_sharing(num_tokens: int) -> bool:
    """Return whether a prefix of that length goes through the model once."""
    return num_tokens >= MIN_SHARED_TOKENS


class PassPrefixes:
    """Encode what the texts of a pass begin with; check once that the device masks it exactly.

    Two short texts tell whether its attention does: their embeddings have to be the same with the
    prefix and without. Where they are not, which is a warning, no later pass has a prefix either.

    Args:
        model: what encodes.
    """

    def __init__(self, model: BiEncoder) -> None:
        self._model = model
        self._is_exact: bool | None = None

    def encode(self, ids: NDArray[np.int64], *, device: torch.device) -> SharedPrefix | None:
        """Return what the model makes of the tokens that texts begin with.

        None: they are few, the model cannot share them (see `BiEncoder.encode_prefix`), or this
        device's attention masks otherwise.

        Args:
            ids: [num_tokens] int64.
            device: of the model.
        """
        if not is_worth_sharing(len(ids)) or self._is_exact is False:
            return None
        with torch.inference_mode():
            prefix = self._model.encode_prefix(pack([ids]))
            if prefix is None:
                return None
            if self._is_exact is None:
                self._is_exact = _is_exact(self._model, prefix, device)
        if self._is_exact:
            return prefix
        logger.warning(
            "A shared prefix does not give the same embeddings on %s; every text is encoded with "
            "its own",
            device,
        )
        return None


def _is_exact(model: BiEncoder, prefix: SharedPrefix, device: torch.device) -> bool:
    """Whether two short texts have the same embeddings with the prefix and without."""
    ids = prefix.ids
    texts = [np.append(ids, ids[:1]), np.append(ids, ids[-3:])]
    tokens, rest = pack(texts), pack(texts, num_shared=len(ids))
    with torch.compiler.set_stance("force_eager"):  # it is the kernels that are in question
        plain, shared = model(tokens.to(device)), model(rest.to(device), prefix)
    return bool(torch.cosine_similarity(plain, shared).min() > MIN_COSINE)
