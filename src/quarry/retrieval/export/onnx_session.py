"""Run an exported ONNX file over rows of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.errors import UserError
from quarry.retrieval.export.onnx_graph import INPUTS, OUTPUT

ONNX_FILE = "model.onnx"


class OnnxSession:
    """An ONNX file on the CPU.

    Raises:
        UserError: onnxruntime cannot load it, or its inputs and outputs are not an export's.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        file = folder / ONNX_FILE
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes share no base but Exception
            raise UserError(f"onnxruntime cannot load {file}: {error}") from error
        names = [each.name for each in self._session.get_inputs()]
        outputs = [each.name for each in self._session.get_outputs()]
        if names != list(INPUTS) or outputs != [OUTPUT]:
            raise UserError(
                f"{file}: takes {', '.join(names)} and gives {', '.join(outputs)}, which is no "
                "file that task=export wrote. Fix: export again"
            )

    def embed(
        self, rows: Sequence[NDArray[np.int64]], *, pads_left: bool = False, pad_id: int = 0
    ) -> Tensor:
        """Return the embeddings of one padded batch, [num_rows, dim] fp32."""
        width = max(map(len, rows))
        ids = np.full((len(rows), width), pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            span = slice(width - len(row), width) if pads_left else slice(0, len(row))
            ids[place, span], mask[place, span] = row, 1
        (found,) = self._session.run([OUTPUT], dict(zip(INPUTS, (ids, mask), strict=True)))
        return torch.from_numpy(found)
