# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Names of the two checkpoints of a training, so that their figures are not confused."""

import os.path as osp
import re
from collections.abc import Iterator

from mmengine.config import Config

LAST = 'last'


def name_of_best(cfg: Config) -> str:
    """Name of the epoch that the validation chose.

    Args:
        cfg (Config): Config of the training.

    Returns:
        str: 'best on the validation split' if no annotation file of the validation is one of
        the test, else 'best on the test split'.
    """
    validation = set(annotation_files(cfg.get('val_dataloader')))
    test = set(annotation_files(cfg.get('test_dataloader')))
    apart = validation and validation.isdisjoint(test)
    return f'best on the {"validation" if apart else "test"} split'


def annotation_files(node) -> Iterator[str]:
    """Paths of all annotation files in a part of a config."""
    if isinstance(node, dict):
        if node.get('ann_file'):
            yield osp.join(node.get('data_root') or '', node['ann_file'])
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from annotation_files(part)


def kind_of_checkpoint(path: str, cfg: Config) -> str | None:
    """Which of the two a checkpoint is, as far as the name of its file tells.

    Args:
        path (str): The file, as mmengine's ``CheckpointHook`` names it.
        cfg (Config): Config of its training.

    Returns:
        str, optional: :data:`LAST`, :func:`name_of_best`, or None if it is neither or the name
        does not tell.
    """
    name = osp.basename(path)
    if name.startswith('best_'):
        return name_of_best(cfg)
    epoch = re.fullmatch(r'epoch_(\d+)\.pth', name)
    if epoch and int(epoch[1]) == (cfg.get('train_cfg') or {}).get('max_epochs'):
        return LAST
    return None
