"""Find the part of a backbone that encodes text: all of it, or a vision-language model's LM."""

from __future__ import annotations

from typing import cast

from transformers import PreTrainedModel


def base_model(backbone: PreTrainedModel) -> PreTrainedModel:
    """Return the backbone without peft's wrapper."""
    get_base = getattr(backbone, "get_base_model", None)
    return cast(PreTrainedModel, get_base() if get_base is not None else backbone)


def text_model(backbone: PreTrainedModel) -> PreTrainedModel:
    """Return the language model of a vision-language backbone, else the full backbone.

    Other towers (`visual`) stay in the backbone unchanged, so that a saved model is complete.
    """
    base = base_model(backbone)
    return cast(PreTrainedModel, getattr(base, "language_model", base))


def text_model_name(backbone: PreTrainedModel) -> str | None:
    """Return the language model's name in the backbone; None if it is the full backbone."""
    base, text = base_model(backbone), text_model(backbone)
    if text is base:
        return None
    names = (str(name) for name, module in base.named_modules() if module is text)
    return next(names)
