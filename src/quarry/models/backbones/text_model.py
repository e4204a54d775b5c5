"""Which part of a trunk reads text: all of it, or the language model between other towers."""

from __future__ import annotations

from typing import cast

from transformers import PreTrainedModel


def base_model(backbone: PreTrainedModel) -> PreTrainedModel:
    """The trunk itself, without the wrapper that peft puts around it."""
    get_base = getattr(backbone, "get_base_model", None)
    return cast(PreTrainedModel, get_base() if get_base is not None else backbone)


def text_model(backbone: PreTrainedModel) -> PreTrainedModel:
    """What texts go through: of a vision-language trunk its language model, else the whole trunk.

    The towers beside it (`visual`) are kept, so that a saved model is complete, and left alone.
    """
    base = base_model(backbone)
    return cast(PreTrainedModel, getattr(base, "language_model", base))


def text_model_name(backbone: PreTrainedModel) -> str | None:
    """Where in the trunk the language model lies ("language_model"); None: it is the trunk."""
    base, text = base_model(backbone), text_model(backbone)
    if text is base:
        return None
    names = (str(name) for name, module in base.named_modules() if module is text)
    return next(names)
