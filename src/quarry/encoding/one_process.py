"""Encode the blocks of a job in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quarry.assembly.loaded_encoder import PreparedEncoder
from quarry.encoding.block_encoder import BlockEncoder
from quarry.encoding.encode_job import EncodeJob
from quarry.encoding.manifest import StoredBlock
from quarry.runtime.progress import Progress


def in_one_process(
    job: EncodeJob, numbers: Sequence[int], prepared: PreparedEncoder
) -> Iterator[tuple[int, StoredBlock]]:
    """Yield each block when it is finished.

    Args:
        numbers: the open blocks.
        prepared: the settled model; its weights load with the first block.
    """
    blocks = BlockEncoder(job, prepared)
    num_open = sum(len(job.texts_of(number)) for number in numbers)
    with Progress(
        label=job.label,
        total=len(job.corpus),
        units="texts",
        num_done=len(job.corpus) - num_open,
    ) as progress:
        for number in numbers:
            block = blocks.encode(number)
            progress.add(block.num_texts)
            yield number, block
