# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, randomness: each draw of a sample has its own seed, and is augmented under it.

Which process or worker reads the sample, and what it read before, then makes no difference.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS, TRANSFORMS
from torch.utils.data import get_worker_info


class SeededIndex(int):
    """Index of a sample with the seed of its augmentation, which it keeps on its way to a worker.

    Args:
        index (int): Index in the dataset.
        seed (int): 0 to 2**64 - 1.
    """

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        """Make an index."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple:
        return type(self), (int(self), self.seed)


def draw_seeds(number: int, *key: int) -> np.ndarray:
    """Seeds of the samples that are drawn one after the other.

    numpy promises that PCG64 gives the same numbers in all its versions.

    Args:
        number (int): How many. The first ones are the same for any number.
        *key (int): What they are a function of, such as run seed and epoch, from 0.

    Returns:
        np.ndarray: (number, ), uint64.
    """
    return np.random.PCG64(key).random_raw(number)


def seed_generators(seed: int) -> None:
    """Seed what draws numbers on the CPU: Python's ``random``, numpy and torch.

    Args:
        seed (int): 0 to 2**64 - 1.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # all that it takes
    # torch.manual_seed also looks for devices, which takes a hundred times as long
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def seeded_by(index: int) -> Iterator[None]:
    """Draw under the seed of an index.

    The generators of the main process are left as they were. A worker draws for samples alone.

    Args:
        index (int): A :class:`SeededIndex`; any other int changes nothing.
    """
    if not isinstance(index, SeededIndex):
        yield
        return
    if get_worker_info() is not None:
        seed_generators(index.seed)
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_generators(index.seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, whose shuffled indices carry seeds.

    The seed of a sample is a function of the run's seed, the epoch, and the place of the draw in
    the order of all processes. The datasets of s4d_mm draw their augmentations under it; in the
    pipeline of any other one, :class:`SeedDraws` does that.

    Args:
        dataset (Sized): The dataset.
        shuffle (bool): Whether to shuffle; if not, no index has a seed. Defaults to True.
        seed (int, optional): Seed, the same in all processes. Defaults to None.
        round_up (bool): Whether all processes get the same number of samples. Defaults to True.
    """

    def __iter__(self) -> Iterator[int]:
        """Indices of this process."""
        indices = super().__iter__()
        if not self.shuffle:
            return indices
        seeds = draw_seeds(self.total_size, self.seed, self.epoch)
        return map(SeededIndex, indices, seeds[self.rank :: self.world_size].tolist())


@TRANSFORMS.register_module()
class SeedDraws(BaseTransform):
    """First step of the pipeline of a dataset of mmaction2 or mmpretrain: the sample's own seed.

    All later steps then draw the same numbers for the same sample, epoch and run seed, in any
    worker. The index must come from a sampler of s4d_mm, such as :class:`SeededSampler`; without
    it nothing is done. The datasets of s4d_mm do not need this step.

    Required Keys:

    - sample_idx (mmengine's ``BaseDataset`` gives it)
    """

    def transform(self, results: dict) -> dict:
        """Seed the generators.

        Args:
            results (dict): Result of the dataset.

        Returns:
            dict: The same.
        """
        index = results.get('sample_idx')
        if isinstance(index, SeededIndex):
            seed_generators(index.seed)
        return results
