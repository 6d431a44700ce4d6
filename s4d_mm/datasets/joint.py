# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, sampling: clips and images behind one index, and who reads which of them when.

Nothing is sent between processes: each one draws the plan of all from the same seed and epoch, and
takes its own part. Each draw of a sample has its own seed, so that it makes no difference which
process or worker reads it, and what it read before.
"""

import contextlib
import itertools
import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, force_full_init
from mmengine.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from torch import Tensor
from torch.utils.data import Sampler, get_worker_info

from ..packed import in_parts

MODALITIES = ('video', 'image')


# ----------------------------------------------------------------------- seeds
class SeededIndex(int):
    """Index of a sample with the seed (0 to 2**64 - 1) of its augmentation."""

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple:
        return type(self), (int(self), self.seed)


def draw_seeds(number: int, *key: int) -> np.ndarray:
    """Seeds (uint64) of samples that are drawn one after the other, a function of the key.

    The first ones are the same for any number.
    """
    # numpy promises that PCG64 gives the same numbers in all its versions
    return np.random.PCG64(key).random_raw(number)


def seed_generators(seed: int) -> None:
    """Seed what draws numbers on the CPU: Python's ``random``, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # all that it takes
    # torch.manual_seed also looks for devices, which takes a hundred times as long
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def seeded_by(seed: int) -> Iterator[None]:
    """Draw under a seed; the generators of the main process are left as they were."""
    if get_worker_info() is not None:  # a worker draws for samples alone
        seed_generators(seed)
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_generators(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class SeededItems:
    """Base class of datasets that read a :class:`SeededIndex` under its seed."""

    def __getitem__(self, idx: int) -> dict:
        with seeded_by(idx.seed) if isinstance(idx, SeededIndex) else contextlib.nullcontext():
            return super().__getitem__(int(idx))


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, whose shuffled indices carry seeds.

    The seed of a sample is a function of the run's seed, the epoch, and the place of the draw in
    the order of all processes. The datasets of s4d_mm augment under it; in the pipeline of any
    other one, :class:`SeedDraws` does that.
    """

    def __iter__(self) -> Iterator[int]:
        indices = super().__iter__()
        if not self.shuffle:
            return indices
        seeds = draw_seeds(self.total_size, self.seed, self.epoch)
        return map(SeededIndex, indices, seeds[self.rank :: self.world_size].tolist())


@TRANSFORMS.register_module()
class SeedDraws(BaseTransform):
    """First step of the pipeline of a dataset of mmaction2 or mmpretrain: the sample's own seed.

    All later steps then draw the same numbers for the same sample, epoch and run seed, in any
    worker. The index must come from a sampler of s4d_mm, such as :class:`SeededSampler`.
    """

    def transform(self, results: dict) -> dict:
        index = results.get('sample_idx')
        if isinstance(index, SeededIndex):
            seed_generators(index.seed)
        return results


# --------------------------------------------------------------------- dataset
@DATASETS.register_module()
class DualModalDataset(SeededItems, ConcatDataset):
    """One video dataset and one image dataset behind one index, videos first.

    Args:
        video (dict | BaseDataset): The video dataset.
        image (dict | BaseDataset): The image dataset.
        pipeline (list[dict], optional): Steps for the config of the video dataset, if it has none.
            mmaction2's inferencers look for the test pipeline in this place. Defaults to None.
        lazy_init (bool): Whether to read the annotations later. Defaults to False.
        modalities (Sequence[str]): Those that it holds, in this order. With ``('video',)`` a run on
            clips alone has the samplers and the metric of joint runs. Defaults to
            ``('video', 'image')``.
    """

    def __init__(
        self,
        video: dict | BaseDataset | None = None,
        image: dict | BaseDataset | None = None,
        pipeline: list[dict] | None = None,
        lazy_init: bool = False,
        modalities: Sequence[str] = MODALITIES,
    ) -> None:
        self.modalities = tuple(modalities)
        if pipeline is not None and isinstance(video, dict):
            video = dict(dict(pipeline=pipeline), **video)
        given = {k: v for k, v in dict(video=video, image=image).items() if v is not None}
        if not given or tuple(given) != self.modalities:
            raise ValueError(
                f'DualModalDataset has modalities={self.modalities} and the keys {tuple(given)}. '
                'It needs video=dict(type=..., ann_file=...) and image=dict(...); for a run with '
                "one of them, also modalities=('video',) or ('image',)."
            )
        # what ConcatDataset.__init__ does, without its demand for equal meta information
        self.datasets = [
            DATASETS.build(part) if isinstance(part, dict) else part for part in given.values()
        ]
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """``classes``: for each modality the class names in label order."""
        classes = [tuple(dataset.metainfo.get('classes', ())) for dataset in self.datasets]
        return dict(classes=dict(zip(self.modalities, classes)))

    @force_full_init
    def modality_range(self, modality: str) -> range:
        which = self.modalities.index(modality)
        end = self.cumulative_sizes[which]
        return range(end - len(self.datasets[which]), end)

    def input_type_of(self, idx: int) -> str:
        """Modality of a sample, without reading it."""
        return self.modalities[self._get_ori_dataset_idx(idx)[0]]

    @force_full_init
    def get_gt_labels(self, modality: str) -> np.ndarray:
        """Label ids (int64) of a modality, without decoding it."""
        dataset = self.datasets[self.modalities.index(modality)]
        if hasattr(dataset, 'get_gt_labels'):
            return np.asarray(dataset.get_gt_labels(), np.int64)
        return np.array([dataset.get_data_info(i)['label'] for i in range(len(dataset))], np.int64)

    @force_full_init
    def get_parts(self, modality: str) -> list[list[int]]:
        """Samples of a modality, counted from 0, in each part of its packed data."""
        dataset = self.datasets[self.modalities.index(modality)]
        return in_parts([dataset.get_data_info(i)['filename'] for i in range(len(dataset))])


# -------------------------------------------------------------------- samplers
@DATA_SAMPLERS.register_module()
class DualModalSampler(DefaultSampler):
    """Sampler of a :class:`DualModalDataset`.

    Each epoch draws a share of each modality anew. Every process gets the same number of samples
    of each modality; where the number of samples is not a multiple of the number of processes, a
    few more are drawn. An index is a :class:`SeededIndex`, with a seed from run seed, epoch,
    modality and place in the order of all processes. Without shuffling it is mmengine's
    ``DefaultSampler(shuffle=False)``.

    Args:
        dataset (DualModalDataset): The dataset.
        seed (int, optional): Seed, the same in all processes. Defaults to None, which means a
            random one that the processes agree on.
        shuffle (bool): Whether to draw samples at random. Defaults to True.
        share (dict[str, float], optional): Share of a modality that is used in an epoch, above 0
            and at most 1, such as ``dict(image=0.5)``. Defaults to None, all of both.
        balance (Sequence[str]): Modalities that are drawn with replacement and inverse
            class-frequency weights, so that each class is drawn equally often, such as
            ``('image', )``. Defaults to ().
        node_parts (Sequence[str]): Modalities whose packed data (``tools/data/pack.py``) have as
            many parts as the job has nodes, such as ``('video', )``: the processes of the first
            node draw from the first part alone, and so on, equally many from each part. It must
            be no modality of ``balance``. Defaults to ().
    """

    def __init__(
        self,
        dataset: DualModalDataset,
        seed: int | None = None,
        shuffle: bool = True,
        share: dict[str, float] | None = None,
        balance: Sequence[str] = (),
        node_parts: Sequence[str] = (),
    ) -> None:
        share = dict(share or {})
        balance = (balance,) if isinstance(balance, str) else tuple(balance)
        node_parts = (node_parts,) if isinstance(node_parts, str) else tuple(node_parts)
        named, shares = {*share, *balance, *node_parts}, share.values()
        if not named <= set(dataset.modalities) or not all(0 < value <= 1 for value in shares):
            raise ValueError(
                f'share={share!r} (above 0, at most 1), balance={balance!r} and '
                f'node_parts={node_parts!r} of DualModalSampler are for the modalities '
                f'{dataset.modalities}.'
            )
        if set(balance) & set(node_parts) or (named and not shuffle):
            raise ValueError(
                'share, balance and node_parts of DualModalSampler need shuffle=True, and '
                f'balance={balance!r} and node_parts={node_parts!r} no modality in common.'
            )
        super().__init__(dataset, shuffle, seed)
        # samples of an epoch, of all processes together and of each one
        self.num_used_of, self.num_samples_of = {}, {}
        self._weights = {}  # of the samples that are drawn with replacement
        self._parts = {}  # samples of each node
        for name in dataset.modalities:
            size = len(dataset.modality_range(name))
            if name in node_parts:
                self._parts[name] = self._parts_of(name)
                size = min(map(len, self._parts[name])) * len(self._parts[name])
            used = max(1, round(size * share.get(name, 1.0)))
            self.num_used_of[name] = used
            self.num_samples_of[name] = math.ceil(used / self.world_size)
            if name in balance:
                labels = torch.from_numpy(dataset.get_gt_labels(name))
                counts = torch.bincount(labels)
                self._weights[name] = 1.0 / counts[labels].double()

    def _parts_of(self, name: str) -> list[Tensor]:
        parts = list(map(torch.tensor, self.dataset.get_parts(name)))
        if self.world_size % len(parts) or min(map(len, parts)) * len(parts) < self.world_size:
            raise ValueError(
                f'The packed data of {name!r} have parts of {[len(part) for part in parts]} '
                f'samples, but the job has {self.world_size} processes. Pack with --parts NODES.'
            )
        return parts

    def draw_all(self) -> dict[str, tuple[list[int], np.ndarray]]:
        """Draw the indices of all processes in the current epoch, and their seeds (uint64).

        The first ``num_used_of`` of a modality depend on seed and epoch alone. The rest, less than
        the number of processes, makes it a multiple of that number.
        """
        # one generator, and so one draw, for all processes
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        drawn = {}
        for stream, (name, number) in enumerate(self.num_samples_of.items()):
            indices = self.dataset.modality_range(name)
            total = number * self.world_size
            if name in self._weights:
                order = torch.multinomial(
                    self._weights[name], self.num_used_of[name], True, generator=generator
                )
            elif name in self._parts:
                # the processes of a node follow one another, and so do their samples
                parts = self._parts[name]
                rows = [part[torch.randperm(len(part), generator=generator)] for part in parts]
                per_node = self.world_size // len(rows)
                least = min(map(len, rows)) // per_node * per_node
                order = torch.stack([row[:least].view(-1, per_node) for row in rows], 1).flatten()
            else:
                order = torch.randperm(len(indices), generator=generator)
            order = order.repeat(math.ceil(total / len(order)))[:total]
            seeds = draw_seeds(total, self.seed, self.epoch, stream)
            drawn[name] = (order + indices.start).tolist(), seeds
        return drawn

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return super().__iter__()
        own = slice(self.rank, None, self.world_size)
        return itertools.chain(*(_seeded(*drawn, own) for drawn in self.draw_all().values()))

    def __len__(self) -> int:
        return sum(self.num_samples_of.values()) if self.shuffle else super().__len__()


@DATA_SAMPLERS.register_module()
class DualModalBatchSampler(Sampler):
    """Batches of one modality.

    With a shuffling :class:`DualModalSampler` the video and image batches come in one random order,
    in which every process has a batch of the same modality and size in the same step. With a
    sampler that does not shuffle the order of the samples is kept, and a batch ends where the
    modality changes.

    With ``total_batch_size`` and ``drop_last`` the optimizer steps are the same ones, of the same
    samples, on any number of processes and in any number of parts.

    Args:
        sampler (DualModalSampler | DefaultSampler): Sampler of a :class:`DualModalDataset`.
        batch_size (int | dict[str, int], optional): Samples of one process in a batch, the same
            for both modalities or ``dict(video=16, image=32)``. Defaults to None; mmengine gives
            that of the data loader.
        drop_last (bool): Whether to leave out the last batch of a modality if it is not full.
            Defaults to False.
        total_batch_size (int | dict[str, int], optional): Samples of all processes in an optimizer
            step, in place of ``batch_size``. Each process takes its share, total / (processes *
            ``accumulative_counts``), in a batch. Defaults to None.
        accumulative_counts (int): Batches in an optimizer step. They follow one another and are of
            one modality. It must be that of ``optim_wrapper``, from where ``tools/train.py`` copies
            it. Defaults to 1.
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
        self.sampler = sampler
        self.shuffle = sampler.shuffle
        if self.shuffle and not isinstance(sampler, DualModalSampler):
            raise ValueError(
                f'{type(sampler).__name__}(shuffle=True) gives processes different numbers of '
                "videos and images. Use sampler=dict(type='DualModalSampler')."
            )
        if accumulative_counts > 1 and (total_batch_size is None or not drop_last):
            raise ValueError(
                f'accumulative_counts={accumulative_counts} of DualModalBatchSampler needs '
                'total_batch_size and drop_last=True: all batches of an optimizer step are full.'
            )
        self.drop_last = drop_last
        self.accumulative_counts = accumulative_counts
        if total_batch_size is None:
            self.total_batch_size = None
            self.batch_size = self._by_modality('batch_size', batch_size)
        else:
            self.total_batch_size = self._by_modality('total_batch_size', total_batch_size)
            self.batch_size = self._share_of_process()
        # optimizer steps of each modality in an epoch, where the sampler shuffles
        self.steps = {n: self._steps_of(n) for n in self.dataset.modalities if self.shuffle}
        self._length = sum(self.steps.values()) * accumulative_counts
        if not self.shuffle:
            self._length = sum(1 for _ in self)

    def _by_modality(self, key: str, sizes: int | dict[str, int] | None) -> dict[str, int]:
        names = self.dataset.modalities
        if not isinstance(sizes, dict):
            sizes = dict.fromkeys(names, sizes)
        positive = all(isinstance(n, int) and n > 0 for n in sizes.values())
        if set(sizes) != set(names) or not positive:
            raise ValueError(
                f'{key} of DualModalBatchSampler must be a positive int or a dict of those with '
                f'the keys {names}, but is {sizes!r}.'
            )
        return dict(sizes)

    def _share_of_process(self) -> dict[str, int]:
        parts = self.sampler.world_size * self.accumulative_counts
        divisor = math.gcd(*self.total_batch_size.values())
        if divisor % parts:
            fitting = [str(n) for n in range(1, divisor + 1) if divisor % n == 0]
            raise ValueError(
                f'total_batch_size={self.total_batch_size} of DualModalBatchSampler is not a '
                f'multiple of {self.sampler.world_size} processes * accumulative_counts='
                f'{self.accumulative_counts}. That product can be one of {", ".join(fitting)}.'
            )
        return {name: total // parts for name, total in self.total_batch_size.items()}

    def _steps_of(self, name: str) -> int:
        if self.total_batch_size is None:
            samples, size = self.sampler.num_samples_of[name], self.batch_size[name]
        else:
            samples, size = self.sampler.num_used_of[name], self.total_batch_size[name]
        steps = samples // size if self.drop_last else math.ceil(samples / size)
        if steps == 0:
            raise ValueError(
                f'An epoch has {samples} samples of type {name!r}, less than the batch size of '
                f'{size}, and drop_last=True leaves them all out. Lower batch_size or '
                'total_batch_size, or set drop_last=False.'
            )
        return steps

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            for name, group in itertools.groupby(self.sampler, self.dataset.input_type_of):
                indices, size = list(group), self.batch_size[name]
                yield from (indices[i : i + size] for i in range(0, len(indices), size))
            return
        parts = self.sampler.world_size * self.accumulative_counts
        drawn = self.sampler.draw_all()
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
                yield _seeded(*drawn[name], slice(start + part, stop, parts))

    def __len__(self) -> int:
        return self._length


def _seeded(order: list[int], seeds: np.ndarray, part: slice) -> list[SeededIndex]:
    return list(map(SeededIndex, order[part], seeds[part].tolist()))
