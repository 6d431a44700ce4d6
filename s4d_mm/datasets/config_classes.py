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


def trained_on(settings: dict) -> str:
    """What a model has seen, as a short text: the key ``trained_on``, or the training sets.

    Args:
        settings (dict): A config, or the ``meta`` of a checkpoint.

    Returns:
        str: '' if it says nothing.
    """
    loader = settings.get('train_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, dict) else None
    names = training_sets(dataset) if isinstance(dataset, dict) else ()
    text = settings.get('trained_on') or ', '.join(dict.fromkeys(names))
    return ''.join(c for c in str(text) if c.isprintable())[:100]


def training_sets(cfg: dict) -> Iterator[str]:
    """Yield the names of the public sets that a dataset joins, and the folders of other ones."""
    unused = {'video', 'image'} - set(cfg.get('modalities') or ('video', 'image'))
    parts = [part for key, part in cfg.items() if key != 'pipeline' and key not in unused]
    inner = [p for part in parts for p in (part if isinstance(part, (list, tuple)) else [part])]
    inner = [part for part in inner if isinstance(part, dict) and 'type' in part]
    for part in inner:
        yield from training_sets(part)
    if not inner and 'type' in cfg:
        name = str(getattr(cfg['type'], '__name__', cfg['type']))
        yield str(cfg.get('data_root') or name) if name.endswith('Dataset') else name


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
