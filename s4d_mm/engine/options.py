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
UNCHECKED = ('env_cfg', 'auto_scale_lr')  # mmengine ignores unknown keys of these
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
    extra = [cfg.get('extra_options') or [], options.get('extra_options') or []]
    extra = [name for names in extra for name in ([names] if isinstance(names, str) else names)]
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
                reason = (
                    f'{top} is a variable of {cfg.filename}, used up when the file is read. Set '
                    'the key that was made of it (the config in the work directory has all keys).'
                )
            raise ConfigError(
                f'{option}: {reason} If code of yours reads it, add extra_options={top}.'
            )
        node = cfg.get(top)
        for i, part in enumerate(parts):
            if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                is_argument = i == len(parts) - 1 and top not in UNCHECKED
                near = _nearest(part, node) if isinstance(node, dict) else ''
                if near and not is_argument:
                    above = '.'.join([top, *parts[:i]])
                    raise ConfigError(f'{option}: {above} has no {part!r}.{near}')
                break


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1)
    return f' Did you mean {found[0]}?' if found else ''


def fold_datasets(
    cfg: Config, stages: tuple = ('train', 'val', 'test')
) -> Iterator[tuple[str, dict, int]]:
    """Yield the datasets whose annotation file is that of a fold: key, dataset, number."""

    def visit(node, key: str) -> Iterator:
        name = node.get('ann_file') if isinstance(node, dict) else None
        found = FOLD.findall(name) if isinstance(name, str) else None
        if found:  # in folder and file, that of the file counts
            yield f'{key}.ann_file', node, int(found[-1].split('_')[1])
        for part, value in node.items() if isinstance(node, dict) else enumerate(node):
            if part != 'pipeline' and isinstance(value, (dict, list, tuple)):
                yield from visit(value, f'{key}.{part}')

    for stage in stages:
        yield from visit(cfg.get(f'{stage}_dataloader') or {}, f'{stage}_dataloader')


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
                f'fold={fold}: {cfg.filename} names no fold in {stage}_dataloader, because no '
                'ann_file there has set_<n> in its name or as its folder. Leave the option out: a '
                'data set with one split, such as FERV39k, has no folds.'
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
                f'The config says fold={fold}, but {key} is {dataset["ann_file"]!r}. Only '
                'tools/train.py, tools/test.py and tools/kfold.py of s4d_mm choose the files by '
                '--cfg-options fold=N; use them, or set fold and each ann_file to the same fold.'
            )
