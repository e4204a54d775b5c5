"""MS MARCO passage ranking as RepLLaMA trains on it: Tevatron's file with mined hard negatives."""

from __future__ import annotations

from pathlib import Path

from quarry.data.train_examples import TableExamples
from quarry.data.train_files import read_train_files
from quarry.errors import UserError
from quarry.runtime.hub_access import settle_offline
from quarry.runtime.hub_files import HubFiles, reads_hub

HUB_ID = "Tevatron/msmarco-passage-aug"
HUB_FILE = "train.jsonl.gz"
NUM_BYTES = 2_155_342_997
NUM_EXAMPLES = 491_007
"""Of the file, as the hub states them (the lines about)."""


class NotDownloadedError(UserError):
    """The training set is not here and the hub could not give it.

    Attributes:
        num_examples, num_bytes: what it is known to have.
    """

    num_examples = NUM_EXAMPLES
    num_bytes = NUM_BYTES


def msmarco_hub_files(*, path: Path | str | None, **_: object) -> tuple[HubFiles, ...]:
    """Return what `msmarco_examples` fetches from the hub: nothing where there is a copy."""
    if path is not None:
        return ()
    return (HubFiles(repo=HUB_ID, kind="dataset", used_by="training set", names=(HUB_FILE,)),)


@reads_hub(msmarco_hub_files)
def msmarco_examples(*, path: Path | str | None, cache_dir: Path | str) -> TableExamples:
    """The training set, from a copy of its file, or from the hub (kept in the hub's cache).

    Hard negatives come from the top 200 of BM25 and of coCondenser, mixed.

    Raises:
        NotDownloadedError: the hub cannot be reached.
        MissingPathError: there is no such file.
    """
    if path is None:
        path = _download()
    return read_train_files(path=path, cache_dir=cache_dir)


def _download() -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    settle_offline()
    try:
        return hf_hub_download(HUB_ID, HUB_FILE, repo_type="dataset")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise NotDownloadedError(
            f"data=msmarco: {HUB_FILE} of {HUB_ID} is not in the hub's cache and the hub could not "
            f"give it ({' '.join(str(error).split())[:200]}). Download the file elsewhere and give "
            "data.path=FILE."
        ) from error
