# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The config of a run: its file, its ``--cfg-options`` and its fold."""

import difflib
import inspect
import re
from collections.abc import Collection, Iterable, Iterator

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

# beside what the runners take: what mmengine, mmaction2 and launch.py read of a config
ALSO_READ = {
    *('runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'fold'),
    *('activation_checkpointing', 'efficient_conv_bn_eval', 'compile', 'extra_options'),
    'init_weights_for_test_or_val',
}
PIPELINES = ('test_pipeline', 'image_test_pipeline')  # what prediction reads
# parts of a config whose other keys mmengine ignores
OPEN_DICTS = {
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': ('mp_start_method', 'opencv_num_threads'),
    'auto_scale_lr': ('enable', 'base_batch_size'),
}
# set_<n> in the name of an annotation file (set_1_train.csv, train_set_1.csv, set_1.csv), or as
# the folder that it lies in (set_1/train.csv)
FOLD = re.compile(
    r'(?<![A-Za-z])set_\d+(?![A-Za-z0-9])(?=[^/]*$)'  # no dataset_1
    r'|(?<![^/])set_\d+(?=/[^/]*$)'
)


class ConfigError(ValueError):
    """A setting that cannot be right, found before the first step."""


def load_config(
    path: str, options: dict | None = None, also: Collection[str] = PIPELINES
) -> Config:
    """Read a config file and change it as the parsed ``--cfg-options`` say.

    The option ``fold`` also chooses the annotation files. ``also`` are names that the tool reads
    beside those of a training or a test.
    """
    cfg = Config.fromfile(path)
    if options:
        check_options(cfg, options, also)
        cfg.merge_from_dict(options)
        if 'fold' in options:
            set_fold(cfg, options['fold'])
    return cfg


def check_options(cfg: Config, options: dict, also: Collection[str] = ()) -> None:
    """Refuse options that nothing would read, with the nearest key.

    A class refuses arguments that it does not know when it is built. Names in ``extra_options``, of
    the config or of the options, pass.
    """
    extra = set()
    for names in (cfg.get('extra_options') or [], options.get('extra_options') or []):
        extra |= {names} if isinstance(names, str) else set(names)
    known = ALSO_READ | set(also)
    for runner in (Runner, FlexibleRunner):
        known |= set(inspect.signature(runner.__init__).parameters) - {'self', 'cfg'}
    for key, value in options.items():
        top, *parts = key.split('.')
        if top in extra:
            continue
        option = f'--cfg-options {key}={value}'
        if top not in known:
            reason = f'nothing reads {top!r}.{_nearest(top, known)}'
            if top in cfg:
                reason = f'{top} is a variable of {cfg.filename}, used up. Set the key made of it.'
            raise ConfigError(
                f'{option}: {reason} If code of yours reads it, add extra_options={top}.'
            )
        node = cfg.get(top)
        for i, part in enumerate(parts):
            above = '.'.join([top, *parts[:i]])
            if part not in OPEN_DICTS.get(above, (part,)):
                names = ', '.join(OPEN_DICTS[above])
                raise ConfigError(f'{option}: {above} has no {part!r}; it has {names}.')
            if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                near = _nearest(part, node) if isinstance(node, dict) else ''
                if near and i < len(parts) - 1:  # the last one is an argument of a class
                    raise ConfigError(f'{option}: {above} has no {part!r}.{near}')
                break


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1)
    return f' Did you mean {found[0]}?' if found else ''


def dicts_in(node: object, key: str = '') -> Iterator[tuple[str, dict]]:
    """Yield the dicts in a part of a config, each with its key."""
    if isinstance(node, dict):
        yield key, node
    if isinstance(node, (dict, list, tuple)):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from dicts_in(value, f'{key}.{name}' if key else str(name))


def fold_datasets(
    cfg: Config, stages: tuple = ('train', 'val', 'test')
) -> Iterator[tuple[str, dict, int]]:
    """Yield the datasets whose annotation file is that of a fold: key, dataset, number."""
    for stage in stages:
        loader = f'{stage}_dataloader'
        for key, node in dicts_in(cfg.get(loader), loader):
            name = node.get('ann_file')
            found = FOLD.findall(name) if isinstance(name, str) else None
            if found and '.pipeline.' not in key:  # in folder and file, that of the file counts
                yield f'{key}.ann_file', node, int(found[-1].split('_')[1])


def set_fold(cfg: Config, fold: int) -> None:
    """Choose the annotation files of a fold: ``set_<n>`` in the name of the file or its folder.

    A variable of a config file is only read when the file is, so the option ``fold=3`` alone
    would change nothing.
    """
    if not isinstance(fold, int):
        raise ConfigError(f'fold={fold!r} is not a number. Write, for example, fold=3.')
    for stage in ('train', 'val', 'test'):
        datasets = list(fold_datasets(cfg, (stage,)))
        # the validation may be on a fixed set
        if not datasets and stage != 'val' and cfg.get(f'{stage}_dataloader'):
            raise ConfigError(
                f'fold={fold}: {cfg.filename} names no fold in {stage}_dataloader: no ann_file has '
                'set_<n> in its name or as its folder. If the data have no folds, leave it out.'
            )
        for _, dataset, _ in datasets:
            dataset['ann_file'] = FOLD.sub(f'set_{fold}', dataset['ann_file'])
    cfg.fold = fold


def check_fold(cfg: Config) -> None:
    """Refuse annotation files of another fold than the config's.

    That happens if ``--cfg-options fold=3`` was given to a tool that does not know what it means,
    such as mmaction2's ``train.py``.
    """
    fold = cfg.get('fold')
    for key, dataset, number in fold_datasets(cfg):
        if fold is not None and number != fold:
            raise ConfigError(
                f'The config says fold={fold}, but {key} is {dataset["ann_file"]!r}. Use '
                'tools/train.py, test.py or kfold.py of s4d_mm, or set each ann_file.'
            )
