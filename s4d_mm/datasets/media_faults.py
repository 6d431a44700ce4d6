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


class FaultTolerantDataset(BaseDataset):
    """Dataset that goes on after a sample whose files cannot be read.

    A subclass says ``INPUT_TYPE``, gives ``filename`` and ``sample_id`` in
    ``get_data_info``, and calls :meth:`replace_unreadable` where its pipeline
    raises an OSError.

    Args:
        max_fault_share (float): Share of the samples, 0..1, that may be
            unreadable in training. A sample whose files are missing, empty or
            broken is logged once and replaced by another one, always the same;
            past this share training stops with the list. Defaults to 0.01.
        allow_test_faults (bool): Whether an unreadable sample in testing
            counts as a wrong prediction. Defaults to False, which means that
            it is an error.
        **kwargs: Arguments of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        ValueError: If ``max_fault_share`` is no share.
    """

    INPUT_TYPE: str  # 'video' or 'image'

    def __init__(
        self, *, max_fault_share: float = 0.01, allow_test_faults: bool = False, **kwargs
    ) -> None:
        if not 0 <= max_fault_share <= 1:
            raise ValueError(
                f'max_fault_share of {type(self).__name__} must be a share '
                f'from 0 to 1, but is {max_fault_share!r}.'
            )
        self.max_fault_share = max_fault_share
        self.allow_test_faults = allow_test_faults
        super().__init__(**kwargs)

    def full_init(self) -> None:
        """Read the annotations."""
        super().full_init()
        if not hasattr(self, 'faults'):
            self.faults = FaultLedger(len(self))

    def replace_unreadable(self, idx: int, error: OSError) -> dict:
        """Run the pipeline on another sample, in place of one that cannot be read.

        Args:
            idx (int): Index of the unreadable sample.
            error (OSError): What its pipeline raised.

        Returns:
            dict: Output of the pipeline. In testing it has the name and label of
            the unreadable sample, and ``unreadable=True``, by which
            ``ExpressionMetric`` counts its prediction as wrong.

        Raises:
            OSError: ``error``, in testing, unless ``allow_test_faults``.
            TooManyFaultsError: If more than ``max_fault_share`` of the samples
                cannot be read (in testing, if all cannot).
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
            return self._as_unreadable(data, idx) if self.test_mode else data
        raise TooManyFaultsError(
            f'{self.ann_file}: no readable sample was found in '
            f'{REPLACEMENTS + 1} attempts. Check data_root '
            f'({self.data_root!r}), data_prefix and suffix of '
            f'{type(self).__name__}.\n{self.describe_faults()}'
        )

    def _record_fault(self, idx: int, error: OSError) -> None:
        if self.faults.add(idx):
            outcome = 'it counts as wrong' if self.test_mode else 'another sample takes its place'
            print_log(
                f'Unreadable {self.INPUT_TYPE} sample, {outcome}: {error}',
                logger='current',
                level=logging.WARNING,
            )
        if not self.test_mode:
            self.check_faults(error)

    def check_faults(self, cause: BaseException | None = None) -> None:
        """Stop if too many samples are unreadable.

        Args:
            cause (BaseException, optional): The last fault.

        Raises:
            TooManyFaultsError: If they are more than ``max_fault_share``.
        """
        share = self.faults.share()
        if share > self.max_fault_share:
            last = '' if cause is None else f' The last one: {cause}'
            raise TooManyFaultsError(
                f'{share:.2%} of the samples of {self.ann_file} are '
                f'unreadable, more than max_fault_share='
                f'{self.max_fault_share:.2%} of {type(self).__name__}. '
                'Repair or remove them, or raise max_fault_share.'
                f'{last}\n{self.describe_faults()}'
            ) from cause

    def describe_faults(self) -> str:
        """The unreadable samples found so far, a path a line."""
        bad = self.faults.indices()
        lines = [f'  {self.get_data_info(i)["filename"]}' for i in bad[:LISTED_FAULTS]]
        if len(bad) > LISTED_FAULTS:
            lines.append(f'  ... and {len(bad) - LISTED_FAULTS} more')
        return '\n'.join(lines)

    def _as_unreadable(self, data: dict, idx: int) -> dict:
        """Give the pixels of another sample the name and label of this one."""
        info = self.get_data_info(idx)
        sample = data['data_samples']
        sample.set_metainfo(dict(sample_id=info['sample_id'], unreadable=True))
        if 'label' in info:
            sample.set_gt_label(info['label'])
        return data


def datasets_with_faults(dataset: Dataset) -> Iterator[Dataset]:
    """The datasets of s4d_mm inside of wrappers such as ``ConcatDataset``.

    Args:
        dataset (Dataset): A dataset, or a wrapper with ``dataset`` or ``datasets``.

    Yields:
        Dataset: Each one that keeps a ledger of its unreadable samples.
    """
    if hasattr(dataset, 'faults'):
        yield dataset
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        if part is not None:
            yield from datasets_with_faults(part)
