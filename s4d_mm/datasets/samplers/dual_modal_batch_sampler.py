# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, sampling: batches of one modality, in one order for all
processes.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Union

import torch
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from .dual_modal_sampler import DualModalSampler


@DATA_SAMPLERS.register_module()
class DualModalBatchSampler(Sampler):
    """Batches of one modality.

    With a shuffling :class:`DualModalSampler` the video and image batches
    come in one random order, in which every process has a batch of the same
    modality and size in the same step. With a sampler that does not shuffle
    (that one, or mmengine's ``DefaultSampler(shuffle=False)``) the order of
    the samples is kept, and a batch ends where the modality changes.

    Args:
        sampler (DualModalSampler | DefaultSampler): Sampler of a
            :class:`DualModalDataset`.
        batch_size (int | dict[str, int]): Samples in a batch, the same for
            both modalities or ``dict(video=16, image=32)``.
        drop_last (bool): Whether to leave out the last batch of a modality
            if it is not full. Defaults to False.
        batching (str): 'alternate' for batches of one modality, or 'mixed'
            for a batch of each in every step of training, as long as both
            have batches left; a step that has no partner remains of one
            modality. Needs ``DualModalRecognizer`` (or S4D's masked
            auto-encoder) and ``DualModalDataPreprocessor(mixed=True)``.
            Defaults to 'alternate'.

    Raises:
        TypeError: If the dataset is not a :class:`DualModalDataset`.
        ValueError: If the sampler shuffles but is no
            :class:`DualModalSampler`, a batch size is missing or not
            positive, or ``drop_last`` would leave out samples in testing or a
            whole modality.
    """

    BATCHINGS = ('alternate', 'mixed')

    def __init__(
        self,
        sampler: Sampler,
        batch_size: Union[int, dict[str, int]],
        drop_last: bool = False,
        batching: str = 'alternate',
    ) -> None:
        self.dataset = sampler.dataset
        if not hasattr(self.dataset, 'input_type_of'):
            raise TypeError(
                'DualModalBatchSampler needs a DualModalDataset, '
                f'but got {type(self.dataset).__name__}. Leave '
                'batch_sampler out of the data loader for it.'
            )
        self.sampler = sampler
        self.shuffle = sampler.shuffle
        if self.shuffle and not isinstance(sampler, DualModalSampler):
            raise ValueError(
                f'{type(sampler).__name__}(shuffle=True) gives processes '
                'different numbers of videos and images. Use '
                "sampler=dict(type='DualModalSampler')."
            )
        self.batch_size = self._check_batch_size(batch_size)
        if drop_last and not self.shuffle:
            raise ValueError(
                'drop_last=True of DualModalBatchSampler would leave out '
                'samples of a test. Set drop_last=False, or shuffle=True in '
                'the sampler for training.'
            )
        self.drop_last = drop_last
        if batching not in self.BATCHINGS:
            raise ValueError(f'batching={batching!r} is not one of {self.BATCHINGS}.')
        if batching == 'mixed' and not self.shuffle:
            raise ValueError(
                "batching='mixed' is for training, with sampler=dict(type='DualModalSampler')."
            )
        self.batching = batching
        self._length = self._count()

    def _check_batch_size(self, batch_size) -> dict[str, int]:
        names = self.dataset.modalities
        if not isinstance(batch_size, dict):
            batch_size = dict.fromkeys(names, batch_size)
        if set(batch_size) != set(names) or not all(
            isinstance(n, int) and n > 0 for n in batch_size.values()
        ):
            raise ValueError(
                'batch_size of DualModalBatchSampler must be a positive int '
                f'or a dict of those with the keys {names}, but is '
                f'{batch_size!r}.'
            )
        return dict(batch_size)

    def _count(self) -> int:
        if not self.shuffle:
            return sum(1 for _ in self)
        counts = []
        for name, samples in self.sampler.num_samples_of.items():
            batches = samples / self.batch_size[name]
            batches = (math.floor if self.drop_last else math.ceil)(batches)
            if batches == 0:
                raise ValueError(
                    f'A process has {samples} samples of type {name!r} in an '
                    f'epoch, less than batch_size[{name!r}]='
                    f'{self.batch_size[name]}, and drop_last=True leaves them '
                    'all out. Lower the batch size or set drop_last=False.'
                )
            counts.append(batches)
        return max(counts) if self.batching == 'mixed' else sum(counts)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of this process."""
        if not self.shuffle:
            groups = itertools.groupby(self.sampler, self.dataset.input_type_of)
            for name, indices in groups:
                yield from self._cut(name, list(indices))
            return
        batches_of = [
            list(self._cut(name, indices)) for name, indices in self.sampler.draw().items()
        ]
        if self.batching == 'mixed':
            batches = [sum(parts, []) for parts in itertools.zip_longest(*batches_of, fillvalue=[])]
        else:
            batches = sum(batches_of, [])
        # the same in all processes
        generator = torch.Generator()
        generator.manual_seed(self.sampler.seed + self.sampler.epoch)
        for i in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[i]

    def _cut(self, name: str, indices: list[int]) -> Iterator[list[int]]:
        size = self.batch_size[name]
        end = len(indices) // size * size if self.drop_last else len(indices)
        return (indices[i : i + size] for i in range(0, end, size))

    def __len__(self) -> int:
        """Number of batches of this process in an epoch."""
        return self._length
