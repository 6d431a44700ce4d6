# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, after the model: names for its numbers, from the datasets of a config."""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

# the set that is tested comes first; images may be in the training alone
LOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')


def config_classes(cfg: Config) -> dict[str, tuple[str, ...]]:
    """Class names of the datasets of a config. No file of theirs is read.

    Args:
        cfg (Config): The config.

    Returns:
        dict[str, tuple[str]]: Names in label order of each modality, 'video' or 'image', that a
        dataset of the test, the validation or the training has, in this order.
    """
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    classes = {}
    for loader in LOADERS:
        dataset = (cfg.get(loader) or {}).get('dataset') or {}
        for modality, names in dataset_classes(dataset):
            classes.setdefault(modality, names)
    return classes


def dataset_classes(cfg: dict) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield modality and class names of a dataset of this package, or of those that it joins."""
    parts = [part for key, part in cfg.items() if key != 'pipeline']
    for part in parts:
        for inner in part if isinstance(part, (list, tuple)) else [part]:
            if isinstance(inner, dict):
                yield from dataset_classes(inner)
    kind = DATASETS.get(cfg['type']) if isinstance(cfg.get('type'), str) else cfg.get('type')
    if hasattr(kind, 'INPUT_TYPE'):
        dataset = DATASETS.build(dict(cfg, pipeline=[], lazy_init=True))
        names = dataset.metainfo.get('classes')
        if names:
            yield dataset.INPUT_TYPE, tuple(names)
