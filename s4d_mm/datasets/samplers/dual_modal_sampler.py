# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, sampling: which videos and images a process reads in an epoch."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Optional

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
