# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Between dataset and pipeline: which samples could not be read."""

import torch

from ..media import MediaReadError


class TooManyFaultsError(MediaReadError):
    """More samples of a dataset are unreadable than the config allows."""


class FaultLedger:
    """Marks the samples of a dataset that could not be read.

    The marks lie in shared memory, a byte for each sample, so that the workers
    of a data loader and the main process see the same ones.

    Args:
        size (int): Number of samples of the dataset.
    """

    def __init__(self, size: int) -> None:
        self.marks = torch.zeros(size, dtype=torch.uint8).share_memory_()

    def add(self, idx: int) -> bool:
        """Mark a sample.

        Args:
            idx (int): Index of the sample.

        Returns:
            bool: Whether it was not marked before.
        """
        is_new = not self.marks[idx]
        self.marks[idx] = 1
        return is_new

    def indices(self) -> list[int]:
        """Indices of the marked samples, in order."""
        return self.marks.nonzero().flatten().tolist()

    def share(self) -> float:
        """Share of the samples that are marked, 0..1."""
        return float(self.marks.sum(dtype=torch.int64)) / max(1, len(self.marks))
