"""Load MS MARCO passage ranking as RepLLaMA uses it: Tevatron's file with hard negatives."""

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
"""Size of the file and number of its examples as the hub states them (examples: about)."""


class NotDownloadedError(UserError):
    """Error for a training set that is not in the cache and that the hub could not provide.

    Attributes:
        num_examples, num_bytes: its known size.
    """

    num_examples = NUM_EXAMPLES
    num_bytes = NUM_BYTES


def msmarco_hub_files(*, path: Path | str | None, **_: object) -> tuple[HubFiles, ...]:
    """Return what `msmarco_examples` fetches from the hub: nothing if there is a local copy."""
    if path is not None:
        return ()
    return (HubFiles(repo=HUB_ID, kind="dataset", used_by="training set", names=(HUB_FILE,)),)


@reads_hub(msmarco_hub_files)
def msmarco_examples(*, path: Path | str | None, cache_dir: Path | str) -> TableExamples:
    """Return the training set from a local copy of its file, or from the hub and its cache.

    Hard negatives are mixed from the top 200 of BM25 and of coCondenser.

    Raises:
        NotDownloadedError: the hub cannot be reached.
        MissingPathError: `path` does not exist.
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
