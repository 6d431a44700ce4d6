# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, sampling: which videos and images a process reads, in which batches.

Nothing is sent between processes: each one draws the plan of all from the same
seed and epoch, and takes its own part.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from .seeding import SeededIndex, draw_seeds


@DATA_SAMPLERS.register_module()
class DualModalSampler(Sampler):
    """Sampler of a :class:`DualModalDataset`.

    Each epoch draws a share of each modality anew. Every process gets the
    same number of samples of each modality, so that
    :class:`DualModalBatchSampler` can give all of them a batch of the same
    modality in every step. Where the number of samples is not a multiple of
    the number of processes, a few more are drawn.

    An index is a :class:`~s4d_mm.datasets.seeding.SeededIndex`: each draw has a seed of its own for
    the augmentation, a function of seed, epoch, modality and place in the order of all processes.

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
        seed: int | None = None,
        shuffle: bool = True,
        share: dict[str, float] | None = None,
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

        # samples of an epoch, of all processes together and of each one
        self.num_used_of, self.num_samples_of = {}, {}
        # weights of the samples that are drawn with replacement
        self._weights = {}
        for name in dataset.modalities:
            size = len(dataset.modality_range(name))
            used = max(1, round(size * share.get(name, 1.0)))
            self.num_used_of[name] = used
            self.num_samples_of[name] = math.ceil(used / self.world_size)
            if name in balance:
                labels = torch.from_numpy(dataset.get_gt_labels(name))
                counts = torch.bincount(labels)
                self._weights[name] = 1.0 / counts[labels].double()

    def draw_all(self) -> dict[str, list[int]]:
        """Draw the indices of all processes in the current epoch.

        The first ``num_used_of`` of them depend on seed and epoch alone. The rest, less than the
        number of processes, makes it a multiple of that number.

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
                order = torch.multinomial(
                    self._weights[name], self.num_used_of[name], True, generator=generator
                )
            else:
                order = torch.randperm(len(indices), generator=generator)
            order = order.repeat(math.ceil(total / len(order)))[:total]
            drawn[name] = (order + indices.start).tolist()
        return drawn

    def draw_seeds(self) -> dict[str, np.ndarray]:
        """The seed of each draw of :meth:`draw_all`.

        Returns:
            dict[str, np.ndarray]: uint64, for each modality.
        """
        return {
            name: draw_seeds(number * self.world_size, self.seed, self.epoch, stream)
            for stream, (name, number) in enumerate(self.num_samples_of.items())
        }

    def draw(self) -> dict[str, list[SeededIndex]]:
        """Draw this process's indices of the current epoch.

        Returns:
            dict[str, list[SeededIndex]]: Indices of each modality, in random order.
        """
        seeds, own = self.draw_seeds(), slice(self.rank, None, self.world_size)
        return {
            name: list(map(SeededIndex, order[own], seeds[name][own].tolist()))
            for name, order in self.draw_all().items()
        }

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
    all have the same number of batches.

    A recipe states its ``total_batch_size``. With ``drop_last`` its steps are then the same
    ones, of the same samples, on any number of processes and in any number of parts.

    Args:
        sampler (DualModalSampler | DefaultSampler): Sampler of a
            :class:`DualModalDataset`.
        batch_size (int | dict[str, int], optional): Samples of one process in a batch, the same
            for both modalities or ``dict(video=16, image=32)``. Defaults to None; mmengine gives
            that of the data loader.
        drop_last (bool): Whether to leave out the last batch of a modality
            if it is not full. Defaults to False.
        total_batch_size (int | dict[str, int], optional): Samples of all processes in an
            optimizer step, in place of ``batch_size``. Each process takes its share, total /
            (processes * ``accumulative_counts``), in a batch. Defaults to None.
        accumulative_counts (int): Batches in an optimizer step. They follow one another and are
            of one modality. It goes with ``total_batch_size`` and must be that of
            ``optim_wrapper``, from where ``tools/train.py`` copies it. Defaults to 1.

    Raises:
        TypeError: If the dataset is not a :class:`DualModalDataset`.
        ValueError: If the sampler shuffles but is no
            :class:`DualModalSampler`, a batch size is missing or not
            positive, ``drop_last`` would leave out samples in testing or a
            whole modality, the processes do not divide ``total_batch_size``, or
            ``accumulative_counts`` comes without ``total_batch_size`` or ``drop_last``.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int | dict[str, int] | None = None,
        drop_last: bool = False,
        total_batch_size: int | dict[str, int] | None = None,
        accumulative_counts: int = 1,
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
        if drop_last and not self.shuffle:
            raise ValueError(
                'drop_last=True of DualModalBatchSampler would leave out '
                'samples of a test. Set drop_last=False, or shuffle=True in '
                'the sampler for training.'
            )
        self.drop_last = drop_last
        self.accumulative_counts = accumulative_counts
        if total_batch_size is None:
            self.total_batch_size = None
            self.batch_size = self._check_sizes('batch_size', batch_size)
        else:
            self.total_batch_size = self._check_sizes('total_batch_size', total_batch_size)
            self.batch_size = self._share_of_process()
        self._check_accumulation()
        # optimizer steps of each modality in an epoch, where the sampler shuffles
        self.steps = {n: self._steps_of(n) for n in self.dataset.modalities if self.shuffle}
        self._length = self._count()

    def _check_sizes(self, key: str, sizes) -> dict[str, int]:
        names = self.dataset.modalities
        if not isinstance(sizes, dict):
            sizes = dict.fromkeys(names, sizes)
        if set(sizes) != set(names) or not all(
            isinstance(n, int) and n > 0 for n in sizes.values()
        ):
            raise ValueError(
                f'{key} of DualModalBatchSampler must be a positive int '
                f'or a dict of those with the keys {names}, but is '
                f'{sizes!r}.'
            )
        return dict(sizes)

    def _share_of_process(self) -> dict[str, int]:
        """Samples of a batch of this process, by ``total_batch_size``."""
        if not self.shuffle:
            raise ValueError(
                'total_batch_size of DualModalBatchSampler is for training, but the sampler has '
                'shuffle=False. Set batch_size in its place.'
            )
        parts = self.sampler.world_size * self.accumulative_counts
        divisor = math.gcd(*self.total_batch_size.values())
        if divisor % parts:
            fitting = [n for n in range(1, divisor + 1) if divisor % n == 0]
            raise ValueError(
                f'total_batch_size={self.total_batch_size} of DualModalBatchSampler is not a '
                f'multiple of {self.sampler.world_size} processes * accumulative_counts='
                f'{self.accumulative_counts}. That product can be one of '
                f'{", ".join(map(str, fitting))}.'
            )
        return {name: total // parts for name, total in self.total_batch_size.items()}

    def _check_accumulation(self) -> None:
        if self.accumulative_counts == 1:
            return
        if self.total_batch_size is None or not self.drop_last:
            raise ValueError(
                f'accumulative_counts={self.accumulative_counts} of DualModalBatchSampler needs '
                'total_batch_size and drop_last=True: all batches of an optimizer step are full.'
            )

    def _count(self) -> int:
        """Number of batches of this process in an epoch."""
        if not self.shuffle:
            return sum(1 for _ in self)
        return sum(self.steps.values()) * self.accumulative_counts

    def _steps_of(self, name: str) -> int:
        """Number of optimizer steps of a modality in an epoch."""
        if self.total_batch_size is None:
            samples, size = self.sampler.num_samples_of[name], self.batch_size[name]
            whose, key = 'A process has', 'batch_size'
        else:
            samples, size = self.sampler.num_used_of[name], self.total_batch_size[name]
            whose, key = 'All processes have', 'total_batch_size'
        steps = samples // size if self.drop_last else math.ceil(samples / size)
        if steps == 0:
            raise ValueError(
                f'{whose} {samples} samples of type {name!r} in an '
                f'epoch, less than {key}[{name!r}]='
                f'{size}, and drop_last=True leaves them '
                'all out. Lower the batch size or set drop_last=False.'
            )
        return steps

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of this process."""
        if not self.shuffle:
            steps = enumerate(self.sampler)
            for _, group in itertools.groupby(steps, lambda step: self._modalities_at(step[0])):
                indices = [index for _, index in group]
                size = self.batch_size[self.dataset.input_type_of(indices[0])]
                yield from (indices[i : i + size] for i in range(0, len(indices), size))
            return
        parts = self.sampler.world_size * self.accumulative_counts
        drawn, seeds = self.sampler.draw_all(), self.sampler.draw_seeds()
        steps = []  # where all processes read in an optimizer step
        for name in drawn:
            size = self.batch_size[name] * parts
            steps += [(name, i * size, (i + 1) * size) for i in range(self.steps[name])]
        # the same in all processes
        generator = torch.Generator()
        generator.manual_seed(self.sampler.seed + self.sampler.epoch)
        for i in torch.randperm(len(steps), generator=generator).tolist():
            name, start, stop = steps[i]
            for part in range(self.sampler.rank, parts, self.sampler.world_size):
                own = slice(start + part, stop, parts)
                yield list(map(SeededIndex, drawn[name][own], seeds[name][own].tolist()))

    def _modalities_at(self, position: int) -> tuple[str, ...]:
        """What all processes read at a position of their unshuffled orders."""
        size, world_size = len(self.dataset), self.sampler.world_size
        return tuple(
            self.dataset.input_type_of((position * world_size + rank) % size)
            for rank in range(world_size)
        )

    def __len__(self) -> int:
        """Number of batches of this process in an epoch."""
        return self._length
