# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, sampling: which videos and images a process reads, in which batches.

Nothing is sent between processes: each one draws the plan of all from the same
seed and epoch, and takes its own part.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Optional, Union

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class DualModalSampler(Sampler):
    """Sampler of a :class:`DualModalDataset`.

    Each epoch draws a share of each modality anew. Every process gets the
    same number of samples of each modality, so that
    :class:`DualModalBatchSampler` can give all of them a batch of the same
    modality in every step. Where the number of samples is not a multiple of
    the number of processes, a few more are drawn.

    Without shuffling it is mmengine's ``DefaultSampler(shuffle=False)``: all
    videos, then all images, in turn over the processes.

    Args:
        dataset (DualModalDataset): The dataset.
        seed (int, optional): Seed, the same in all processes. Defaults to
            None, which means a random one that the processes agree on.
        shuffle (bool): Whether to draw samples at random. Defaults to True.
        share (dict[str, float], optional): Share of a modality that is used
            in an epoch, above 0 and at most 1, such as
            ``dict(video=1.0, image=0.5)``. Defaults to None, which means all
            of both.
        balance (Sequence[str]): Modalities that are drawn with replacement
            and inverse class-frequency weights, so that each class is drawn
            equally often, such as ``('image', )``. Defaults to ().

    Raises:
        TypeError: If the dataset is not a :class:`DualModalDataset`.
        ValueError: If ``share`` or ``balance`` names no modality, a share is
            out of range, or either is given without shuffling.
    """

    def __init__(
        self,
        dataset,
        seed: Optional[int] = None,
        shuffle: bool = True,
        share: Optional[dict[str, float]] = None,
        balance: Sequence[str] = (),
    ) -> None:
        if not hasattr(dataset, 'modality_range'):
            raise TypeError(
                'DualModalSampler needs a DualModalDataset, but '
                f"got {type(dataset).__name__}. Use mmengine's "
                'DefaultSampler for it.'
            )
        share = dict(share or {})
        balance = (balance,) if isinstance(balance, str) else tuple(balance)
        for key, names in dict(share=share, balance=balance).items():
            unknown = [n for n in names if n not in dataset.modalities]
            if unknown:
                raise ValueError(
                    f'{key} of DualModalSampler names {unknown[0]!r}, but '
                    f'the modalities are {dataset.modalities}.'
                )
            if names and not shuffle:
                raise ValueError(
                    f'{key}={names!r} of DualModalSampler needs shuffle=True. '
                    'Without shuffling every sample is used once.'
                )
        for name, value in share.items():
            if not 0 < value <= 1:
                raise ValueError(
                    f'share[{name!r}] of DualModalSampler must be above 0 and '
                    f'at most 1, but is {value!r}.'
                )
        self.dataset = dataset
        self.shuffle = shuffle
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

        # samples per process and epoch
        self.num_samples_of = {}
        # weights of the samples that are drawn with replacement
        self._weights = {}
        for name in dataset.modalities:
            size = len(dataset.modality_range(name))
            used = max(1, round(size * share.get(name, 1.0)))
            self.num_samples_of[name] = math.ceil(used / self.world_size)
            if name in balance:
                labels = torch.from_numpy(dataset.get_gt_labels(name))
                counts = torch.bincount(labels)
                self._weights[name] = 1.0 / counts[labels].double()

    def draw(self) -> dict[str, list[int]]:
        """Draw this process's indices of the current epoch.

        Returns:
            dict[str, list[int]]: Indices of each modality, in random order.
        """
        # one generator, and so one draw, for all processes
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        drawn = {}
        for name, number in self.num_samples_of.items():
            indices = self.dataset.modality_range(name)
            total = number * self.world_size
            if name in self._weights:
                order = torch.multinomial(self._weights[name], total, True, generator=generator)
            else:
                order = torch.randperm(len(indices), generator=generator)
                order = order.repeat(math.ceil(total / len(order)))[:total]
            order = order[self.rank :: self.world_size] + indices.start
            drawn[name] = order.tolist()
        return drawn

    def __iter__(self) -> Iterator[int]:
        """Indices of this process, videos first."""
        if self.shuffle:
            return itertools.chain(*self.draw().values())
        size, number = len(self.dataset), len(self)
        return (i % size for i in range(self.rank, number * self.world_size, self.world_size))

    def __len__(self) -> int:
        """Number of samples of this process in an epoch."""
        if self.shuffle:
            return sum(self.num_samples_of.values())
        return math.ceil(len(self.dataset) / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, of which the draw depends.

        Args:
            epoch (int): Epoch, from 0.
        """
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class DualModalBatchSampler(Sampler):
    """Batches of one modality.

    With a shuffling :class:`DualModalSampler` the video and image batches
    come in one random order, in which every process has a batch of the same
    modality and size in the same step. With a sampler that does not shuffle
    (that one, or mmengine's ``DefaultSampler(shuffle=False)``) the order of
    the samples is kept, and a batch ends where the modality changes in any process, so that
    all have the same number of batches: a model in shards would wait for the missing one.

    Args:
        sampler (DualModalSampler | DefaultSampler): Sampler of a
            :class:`DualModalDataset`.
        batch_size (int | dict[str, int]): Samples in a batch, the same for
            both modalities or ``dict(video=16, image=32)``.
        drop_last (bool): Whether to leave out the last batch of a modality
            if it is not full. Defaults to False.

    Raises:
        TypeError: If the dataset is not a :class:`DualModalDataset`.
        ValueError: If the sampler shuffles but is no
            :class:`DualModalSampler`, a batch size is missing or not
            positive, or ``drop_last`` would leave out samples in testing or a
            whole modality.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: Union[int, dict[str, int]],
        drop_last: bool = False,
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
        count = 0
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
            count += batches
        return count

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of this process."""
        if not self.shuffle:
            steps = enumerate(self.sampler)
            for _, group in itertools.groupby(steps, lambda step: self._modalities_at(step[0])):
                indices = [index for _, index in group]
                yield from self._cut(self.dataset.input_type_of(indices[0]), indices)
            return
        batches = []
        for name, indices in self.sampler.draw().items():
            batches.extend(self._cut(name, indices))
        # the same in all processes
        generator = torch.Generator()
        generator.manual_seed(self.sampler.seed + self.sampler.epoch)
        for i in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[i]

    def _modalities_at(self, position: int) -> tuple[str, ...]:
        """What all processes read at a position of their unshuffled orders."""
        size, world_size = len(self.dataset), self.sampler.world_size
        return tuple(
            self.dataset.input_type_of((position * world_size + rank) % size)
            for rank in range(world_size)
        )

    def _cut(self, name: str, indices: list[int]) -> Iterator[list[int]]:
        size = self.batch_size[name]
        end = len(indices) // size * size if self.drop_last else len(indices)
        return (indices[i : i + size] for i in range(0, end, size))

    def __len__(self) -> int:
        """Number of batches of this process in an epoch."""
        return self._length
