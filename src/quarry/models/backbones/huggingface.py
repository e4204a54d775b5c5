"""Load the backbone and tokenizer of a Hugging Face folder or hub id, checking what was loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import normalizers
from tokenizers.normalizers import Lowercase
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import (
    TOKENIZER_MAPPING_NAMES,
    get_tokenizer_config,
    tokenizer_class_from_name,
)

from quarry.errors import MissingPathError, UserError
from quarry.models.backbones.config_sizes import check_sizes
from quarry.models.backbones.special_tokens import put_wanted_ends
from quarry.runtime.hub_access import settle_offline

logger = logging.getLogger(__name__)

HEAD_PREFIXES = (
    "lm_head.",
    "embed_out.",
    "score.",
    "classifier.",
    "cls.",
    "head.",
    "decoder.",
    "pooler.",
)
"""Prefixes of weights that a backbone does not use: heads of (masked) language models and of
classifiers. Any other unexpected weight is an error."""

MODEL_FILES = ("config.json", "adapter_config.json", "modules.json")
"""Files of which any one marks a folder as a model."""

VOCABULARY_FILES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model",
                    "tokenizer.model")  # fmt: skip
"""Vocabulary files that a folder may have instead of a tokenizer.json."""

POOLER_PREFIX = "pooler."
"""Prefix of the pooler that some encoders add after their last layer; Quarry does not use it."""

_LOADING_ERRORS = (
    OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, AttributeError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip


def resolve_source(path: str, *, key: str = "model.path") -> str:
    """Return the folder or hub id that a path names; for a run directory its saved model.

    Args:
        key: of the path in the configuration, for messages.

    Raises:
        MissingPathError: the folder is no model, or `path` neither exists nor can be a hub id.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        for candidate in (folder, folder / "model"):
            if any((candidate / name).exists() for name in MODEL_FILES):
                return str(candidate.absolute())
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
        if any(folder.glob("*.onnx")):
            raise MissingPathError(
                f"{key}={path}: is an ONNX export, which Quarry only writes and verifies (found: "
                f"{found}). Fix: name the model that it was made of; task=verify run=RUN_DIR "
                "verifies RUN_DIR/onnx with it."
            )
        raise MissingPathError(
            f"{key}={path}: neither this folder nor its subfolder model/ holds a config.json, "
            f"adapter_config.json or modules.json (found: {found}). Fix: give a run directory, a "
            "Hugging Face or sentence-transformers folder, or a hub id."
        )
    is_hub_id = path.count("/") <= 1 and not path.startswith((".", "/", "~"))
    if not is_hub_id:
        raise MissingPathError(f"{key}={path}: no such folder. Fix: check the path.")
    return path


def resolve_tokenizer(path: str) -> str:
    """Return the folder or hub id of a tokenizer; it needs no weights beside it.

    Raises:
        MissingPathError: there is no tokenizer.json.
    """
    folder = Path(path).expanduser()
    if (folder / "tokenizer.json").exists():
        return str(folder.absolute())
    if not folder.is_dir():
        return resolve_source(path)
    if (folder / "model" / "tokenizer.json").exists():
        return str((folder / "model").absolute())
    raise MissingPathError(
        f"model.tokenizer_path={path}: neither this folder nor its subfolder model/ holds a "
        "tokenizer.json. Fix: give a folder that does, or a hub id."
    )


def load_tokenizer(
    source: str, *, revision: str | None = None, lower_case: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a tokenizer.json, with special tokens and template from beside it.

    AutoTokenizer is used only for folders without a tokenizer.json. For some architectures (Qwen2
    among them) it builds that architecture's class, whose normalizer and pre-tokenizer silently
    replace those of tokenizer.json. A BOS or EOS that only tokenizer_config.json asks for, which
    transformers 5 ignores, is added.

    Args:
        lower_case: lowercase texts first, if the tokenizer does not do so anyway.

    Raises:
        UserError: there are no tokenizer files, or they hold no vocabulary.
    """
    has_vocabulary = any((Path(source) / name).exists() for name in VOCABULARY_FILES)
    has_file = (Path(source) / "tokenizer.json").exists()
    factory = AutoTokenizer if has_vocabulary and not has_file else PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerBase = _from_pretrained(
        factory, source, revision=revision, what="tokenizer"
    )
    # if files are missing, transformers may silently return an empty tokenizer
    known = set(tokenizer.encode("what is love", add_special_tokens=False))
    if known <= set(tokenizer.all_special_ids) or not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of {source!r} has no vocabulary: is its tokenizer.json missing? Fix: "
            "copy the tokenizer files of the base model there."
        )
    put_wanted_ends(tokenizer, get_tokenizer_config(source, revision=revision))
    if lower_case and tokenizer.backend_tokenizer.normalizer is None:
        tokenizer.backend_tokenizer.normalizer = Lowercase()
    elif lower_case:
        _put_lower_case_first(tokenizer)
    return tokenizer


def model_input_names(
    source: str, config: PretrainedConfig, *, revision: str | None = None
) -> list[str]:
    """Return the inputs that the tokenizer's class has, which AutoTokenizer would make.

    `load_tokenizer` builds no such class, whose default decides whether a model reads types.
    """
    settings = get_tokenizer_config(source, revision=revision)
    if settings.get("model_input_names"):
        return list(settings["model_input_names"])
    stated = settings.get("tokenizer_class") or getattr(config, "tokenizer_class", None)
    name = stated or TOKENIZER_MAPPING_NAMES.get(config.model_type)
    found = None if name is None else tokenizer_class_from_name(name)
    return list((found or PreTrainedTokenizerFast).model_input_names)


def _put_lower_case_first(tokenizer: PreTrainedTokenizerBase) -> None:
    backend = tokenizer.backend_tokenizer
    if backend.normalizer.normalize_str("A") == "A":
        backend.normalizer = normalizers.Sequence([Lowercase(), backend.normalizer])


def load_config(
    source: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PretrainedConfig:
    """Load the config.json of a folder or hub id.

    Raises:
        UserError: it cannot be loaded, or states sizes that no model has.
    """
    config: PretrainedConfig = _from_pretrained(
        AutoConfig, source, revision=revision, what="model", trust_remote_code=trust_remote_code
    )
    check_sizes(config, source=source)
    return config


def load_backbone(
    source: str,
    *,
    dtype: torch.dtype,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load the backbone of a folder or hub id, without its language-model head.

    Only safetensors are read: a pickled checkpoint could execute code.

    Raises:
        UserError: the architecture is unknown, or a weight is missing, unexpected or of another
            shape.
    """
    config = load_config(source, revision=revision, trust_remote_code=trust_remote_code)
    model, info = _from_pretrained(
        AutoModel,
        source,
        revision=revision,
        what="model",
        config=config,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
    )
    missing = sorted(k for k in info["missing_keys"] if not k.startswith(POOLER_PREFIX))
    unexpected = sorted(k for k in info["unexpected_keys"] if not k.startswith(HEAD_PREFIXES))
    mismatched = sorted(str(entry[0]) for entry in info.get("mismatched_keys", ()))
    if missing or unexpected or mismatched:
        raise UserError(
            f"The weights in {source} do not fit its config.json ({type(model).__name__}): "
            f"missing {missing[:3] or 'none'}, left over {unexpected[:3] or 'none'}, of another "
            f"shape {mismatched[:3] or 'none'}. Is this a checkpoint of another architecture?"
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its weights may be random: drop them, so that they are not saved
    model_: PreTrainedModel = model
    return model_


def load_with_head(
    factory: Any,
    source: str,
    *,
    config: PretrainedConfig,
    dtype: torch.dtype,
    revision: str | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model with its head; return it and the weights that its files lack.

    Only safetensors are read, and no code of the repository runs.

    Args:
        factory: one of transformers' `AutoModelFor...`.

    Raises:
        UserError: it cannot be loaded, or a weight has another shape.
    """
    model, info = _from_pretrained(
        factory,
        source,
        revision=revision,
        what="model",
        config=config,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
    )
    return model, sorted(info["missing_keys"])


def _from_pretrained(factory: Any, source: str, *, what: str, **kwargs: Any) -> Any:
    if not Path(source).exists():
        settle_offline()
    try:
        with _quiet_loading():
            return factory.from_pretrained(source, **kwargs)
    except _LOADING_ERRORS as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 300 else reason[:300] + " ..."
        if Path(source).exists():
            remedy = "The folder must hold config.json, *.safetensors and tokenizer.json."
        else:
            remedy = (
                "It is no local folder, and the hub did not return it: check the spelling and the "
                "network, or download it elsewhere and give model.path=DIR"
                + (" or model.tokenizer_path=DIR." if what == "tokenizer" else ".")
            )
        raise UserError(
            f"Cannot load the {what} of {source!r}. {remedy} Reason: {reason}"
        ) from error


class _quiet_loading:  # noqa: N801 (a context manager)
    """Context manager that silences transformers' load report, whose findings are checked here."""

    def __enter__(self) -> None:
        from transformers.utils import logging as hf_logging

        self._logging = hf_logging
        self._verbosity = hf_logging.get_verbosity()
        hf_logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._verbosity)
