# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, datasets: one video and one image dataset behind one index."""

from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset, ConcatDataset, force_full_init
from mmengine.registry import DATASETS

from .seeding import seeded_by


@DATASETS.register_module()
class DualModalDataset(ConcatDataset):
    """One video dataset and one image dataset, videos first.

    Index ``i`` is video ``i`` while ``i`` is below the number of videos, and
    image ``i - number of videos`` from there on.

    Args:
        video (dict | BaseDataset): The video dataset.
        image (dict | BaseDataset): The image dataset.
        pipeline (list[dict], optional): Steps for the config of the video dataset, if it has none.
            mmaction2's inferencers look for the test pipeline in this place. Defaults to None.
        lazy_init (bool): Whether to read the annotations later. Defaults to
            False.
        modalities (Sequence[str]): Those that it holds, in this order. With ``('video',)`` a run on
            clips alone has the samplers and the metric of joint runs. Defaults to
            ``('video', 'image')``.

    Raises:
        ValueError: If ``modalities`` is another one, or one of its datasets is missing, has no
            samples, or is of the other modality.
    """

    def __init__(
        self,
        video: dict | BaseDataset | None = None,
        image: dict | BaseDataset | None = None,
        pipeline: list[dict] | None = None,
        lazy_init: bool = False,
        modalities: Sequence[str] = ('video', 'image'),
    ) -> None:
        self.modalities = tuple(modalities)
        if self.modalities not in (('video', 'image'), ('video',), ('image',)):
            raise ValueError(
                "modalities of DualModalDataset must be ('video', 'image'), ('video',) or "
                f"('image',), but is {modalities!r}."
            )
        datasets = dict(video=video, image=image)
        given = {name: datasets[name] for name in self.modalities}
        for name in set(datasets) - set(given):
            if datasets[name] is not None:
                raise ValueError(
                    f'DualModalDataset has modalities={self.modalities}, but got the key {name!r}. '
                    'Leave one of the two out.'
                )
        for name, dataset in given.items():
            if dataset is None:
                raise ValueError(
                    f'DualModalDataset needs the key {name!r}, but it is '
                    f'missing: give {name}=dict(type=..., ann_file=...). '
                    'For a run with one modality, set modalities, such as '
                    "modalities=('video',), or use its dataset itself in "
                    'place of DualModalDataset.'
                )
        if pipeline is not None and isinstance(given.get('video'), dict):
            given['video'] = dict(dict(pipeline=pipeline), **video)
        # what ConcatDataset.__init__ does, less its demand that the two have
        # the same meta information
        self.datasets = [
            DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
            for dataset in given.values()
        ]
        self._fully_initialized = False
        for name, dataset in zip(given, self.datasets):
            found = getattr(dataset, 'INPUT_TYPE', name)
            if found != name:
                raise ValueError(
                    f'DualModalDataset got {type(dataset).__name__}, a '
                    f'dataset of type {found!r}, under the key {name!r}. Put '
                    f'it under the key {found!r}.'
                )
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """dict: ``classes``, with the class names in label order, by modality."""
        return dict(
            classes={
                name: tuple(dataset.metainfo.get('classes', ()))
                for name, dataset in zip(self.modalities, self.datasets)
            }
        )

    def full_init(self) -> None:
        """Read the annotations."""
        super().full_init()
        for name, dataset in zip(self.modalities, self.datasets):
            if len(dataset) == 0:
                raise ValueError(
                    f'The {name} dataset of DualModalDataset, '
                    f'{type(dataset).__name__} of '
                    f'{getattr(dataset, "ann_file", None)!r}, has no samples.'
                )

    def __getitem__(self, idx: int) -> dict:
        """Read a sample.

        Args:
            idx (int): Its index. A :class:`~s4d_mm.datasets.seeding.SeededIndex` has the seed under
                which its pipeline draws, of any class of dataset.

        Returns:
            dict: Output of the pipeline.
        """
        with seeded_by(idx):
            return super().__getitem__(int(idx))

    @force_full_init
    def modality_range(self, modality: str) -> range:
        """Indices of a modality.

        Args:
            modality (str): 'video' or 'image'.

        Returns:
            range: The indices.
        """
        which = self._which(modality)
        end = self.cumulative_sizes[which]
        return range(end - len(self.datasets[which]), end)

    def input_type_of(self, idx: int) -> str:
        """Modality of a sample, without reading it.

        Args:
            idx (int): Index of the sample.

        Returns:
            str: 'video' or 'image'.
        """
        return self.modalities[self._get_ori_dataset_idx(idx)[0]]

    @force_full_init
    def get_gt_labels(self, modality: str) -> np.ndarray:
        """Labels of a modality, without decoding it.

        Args:
            modality (str): 'video' or 'image'.

        Returns:
            np.ndarray: int64, label ids, in the order of
            :meth:`modality_range`.
        """
        dataset = self.datasets[self._which(modality)]
        if hasattr(dataset, 'get_gt_labels'):
            return np.asarray(dataset.get_gt_labels(), np.int64)
        return np.array([dataset.get_data_info(i)['label'] for i in range(len(dataset))], np.int64)

    def _which(self, modality: str) -> int:
        if modality not in self.modalities:
            raise ValueError(f'modality must be one of {self.modalities}, but is {modality!r}.')
        return self.modalities.index(modality)
