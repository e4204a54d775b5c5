"""Lightning's MLflow logger, which takes hyperparameters that are settled later."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger


class MLFlowRun(MLFlowLogger):
    """MLflow refuses a parameter that has another value: each section is handed over once.

    What `auto` has settled after the start of the run stands in its run directory alone.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._sections: set[str] = set()

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        given = vars(params) if isinstance(params, Namespace) else params
        new = {key: value for key, value in given.items() if key not in self._sections}
        self._sections |= new.keys()
        if new:
            super().log_hyperparams(new)
