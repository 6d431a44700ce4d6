# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a config says of its data: class names and data sets. No file of theirs is read."""

from collections.abc import Iterator, Sequence

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

# the set that is tested comes first; images may be in the training alone
LOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')


def config_classes(cfg: Config, loaders: Sequence[str] = LOADERS) -> dict[str, tuple[str, ...]]:
    """Class names in label order of each modality, of its first dataset in these loaders."""
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    classes = {}
    for loader in loaders:
        dataset = (cfg.get(loader) or {}).get('dataset') or {}
        for modality, names in _dataset_classes(dataset):
            classes.setdefault(modality, names)
    return classes


def class_names_of_test(cfg: Config) -> dict[str, tuple[str, ...]]:
    """Class names in label order of each modality of the test data."""
    return config_classes(cfg, LOADERS[:1])


def trained_on(settings: dict) -> str:
    """What the model of a config, or of a checkpoint's ``meta``, has seen, as a short text."""
    loader = settings.get('train_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, dict) else None
    names = _training_sets(dataset) if isinstance(dataset, dict) else ()
    text = settings.get('trained_on') or ', '.join(dict.fromkeys(names))
    return ''.join(c for c in str(text) if c.isprintable())[:100]


def _parts_of(cfg: dict, unused: Sequence[str] = ()) -> list[dict]:
    parts = [part for key, part in cfg.items() if key != 'pipeline' and key not in unused]
    inner = [p for part in parts for p in (part if isinstance(part, (list, tuple)) else [part])]
    return [part for part in inner if isinstance(part, dict)]


def _training_sets(cfg: dict) -> Iterator[str]:
    """The names of the public sets that a dataset joins, and the folders of other ones."""
    unused = {'video', 'image'} - set(cfg.get('modalities') or ('video', 'image'))
    inner = [part for part in _parts_of(cfg, unused) if 'type' in part]
    for part in inner:
        yield from _training_sets(part)
    if not inner and 'type' in cfg:
        name = str(getattr(cfg['type'], '__name__', cfg['type']))
        yield str(cfg.get('data_root') or name) if name.endswith('Dataset') else name


def _dataset_classes(cfg: dict) -> Iterator[tuple[str, tuple[str, ...]]]:
    for part in _parts_of(cfg):
        yield from _dataset_classes(part)
    kind = DATASETS.get(cfg['type']) if isinstance(cfg.get('type'), str) else cfg.get('type')
    if hasattr(kind, 'INPUT_TYPE'):
        dataset = DATASETS.build(dict(cfg, pipeline=[], lazy_init=True))
        names = dataset.metainfo.get('classes')
        if names:
            yield dataset.INPUT_TYPE, tuple(names)
