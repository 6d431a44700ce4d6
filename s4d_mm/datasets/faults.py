# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, where a sample cannot be read: another one takes its place."""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch.utils.data import Dataset

from ..media import MediaReadError

REPLACEMENTS = 20  # tried for a sample that cannot be read
LISTED_FAULTS = 20  # named in an error message


class TooManyFaultsError(MediaReadError):
    """More samples of a dataset are unreadable than the config allows."""


class FaultLedger:
    """Marks the samples that could not be read, in memory that all workers of a loader share."""

    def __init__(self, size: int) -> None:
        self.marks = torch.zeros(size, dtype=torch.uint8).share_memory_()

    def add(self, idx: int) -> bool:
        """Mark a sample; whether it was not marked before."""
        is_new = not self.marks[idx]
        self.marks[idx] = 1
        return is_new

    def indices(self) -> list[int]:
        """Indices of the marked samples, in order."""
        return self.marks.nonzero().flatten().tolist()


class FaultTolerantDataset(BaseDataset):
    """Dataset that replaces a sample whose files cannot be read.

    Args:
        max_fault_share (float): Share of the samples, 0..1, that may be unreadable in training.
            Such a sample is logged once and replaced by another one, always the same; past this
            share training stops with the list. Defaults to 0.01.
        allow_test_faults (bool): Whether an unreadable sample in testing counts as a wrong
            prediction. Defaults to False: it is an error.
        **kwargs: Arguments of the other base classes.
    """

    def __init__(
        self, *args, max_fault_share: float = 0.01, allow_test_faults: bool = False, **kwargs
    ) -> None:
        if not 0 <= max_fault_share <= 1:
            raise ValueError(f'max_fault_share={max_fault_share!r} must be from 0 to 1.')
        self.max_fault_share = max_fault_share
        self.allow_test_faults = allow_test_faults
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Read the annotations."""
        super().full_init()
        if not hasattr(self, 'faults'):
            self.faults = FaultLedger(len(self))

    def replace_unreadable(self, idx: int, error: OSError) -> dict:
        """Run the pipeline on another sample, in place of one that cannot be read.

        In testing ``error`` is raised, unless ``allow_test_faults``.
        """
        if self.test_mode and not self.allow_test_faults:
            raise error
        self._record_fault(idx, error)
        # the same ones in every run: a function of the index alone
        rng = np.random.default_rng(idx)
        for other in rng.integers(len(self), size=REPLACEMENTS).tolist():
            try:
                data = BaseDataset.prepare_data(self, other)
            except OSError as e:
                if not self.test_mode:
                    self._record_fault(other, e)
                continue
            if self.test_mode:  # the pixels of the other one with name and label of this one
                info, sample = self.get_data_info(idx), data['data_samples']
                sample.set_metainfo(dict(sample_id=info['sample_id'], unreadable=True))
                if 'label' in info:
                    sample.set_gt_label(info['label'])
            return data
        raise TooManyFaultsError(
            f'{self.ann_file}: no readable sample was found in {REPLACEMENTS + 1} attempts. Check '
            f'data_root ({self.data_root!r}), data_prefix and suffix.\n{self.describe_faults()}'
        )

    def _record_fault(self, idx: int, error: OSError) -> None:
        if self.faults.add(idx):
            print_log(f'Unreadable: {error}', logger='current', level=logging.WARNING)
        if not self.test_mode:
            self.check_faults(error)

    def check_faults(self, cause: BaseException | None = None) -> None:
        """Raise a :class:`TooManyFaultsError` if too many samples are unreadable."""
        share = len(self.faults.indices()) / len(self)
        if share > self.max_fault_share:
            raise TooManyFaultsError(
                f'{share:.2%} of the samples of {self.ann_file} are unreadable, more than '
                f'max_fault_share={self.max_fault_share:.2%}. Repair or remove them, or raise '
                f'max_fault_share. The last one: {cause or "see below"}\n{self.describe_faults()}'
            ) from cause

    def describe_faults(self) -> str:
        """The first unreadable samples, a path a line."""
        infos = map(self.get_data_info, self.faults.indices()[:LISTED_FAULTS])
        return '\n'.join(f'  {info["filename"]}' for info in infos)


def datasets_with_faults(dataset: Dataset) -> Iterator[Dataset]:
    """Yield each dataset that marks its unreadable samples, also inside of wrappers."""
    if hasattr(dataset, 'faults'):
        yield dataset
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        if part is not None:
            yield from datasets_with_faults(part)
