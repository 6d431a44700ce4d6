# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before the first step: config, checkpoint, data and model fit each other."""

import inspect
import os.path as osp
from collections.abc import Iterator, Sequence

import numpy as np
from mmaction.datasets import SampleFrames
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..evaluation.metric import FIGURES, ExpressionMetric
from ..files.errors import WeightsError
from ..models import DualModalHead, ViewsI3DHead, state_dict
from ..packed import is_there
from .checkpoint import changed_settings, settings_of
from .options import ConfigError, check_fold, dicts_in

MOST_CHANGES = 10  # named in a message
# what a training depends on
SECTIONS = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader')
# names of before, which configs of users have
NAMES = ['RunCheckHook', 'ClassCheckHook', 'CheckpointFitHook', 'DataCheckHook', 'ResumeCheckHook']

POSITIVE = ('above 0', lambda value: value > 0)
FROM_ONE = ('1 or more', lambda value: value >= 1)
SHARE = ('from 0 to 1', lambda value: 0 <= value <= 1)
AVERAGES = ('prob', 'score', None)
# settings that mmengine and mmaction2 accept, and what is allowed; the last ones of any step
LIMITS = {
    'optim_wrapper.optimizer.lr': ('0 or more', lambda value: value >= 0),
    'optim_wrapper.clip_grad.max_norm': POSITIVE,
    'optim_wrapper.clip_grad.clip_value': POSITIVE,
    'train_cfg.max_epochs': FROM_ONE,
    'train_cfg.val_interval': FROM_ONE,
    'model.cls_head.label_smooth_eps': SHARE,
    'model.cls_head.average_clips': (f'one of {AVERAGES}', AVERAGES.__contains__),
    'pipeline.flip_ratio': SHARE,
    **dict.fromkeys(('pipeline.clip_len', 'pipeline.frame_interval'), FROM_ONE),
    'pipeline.num_clips': FROM_ONE,
}
PATH_KEYS = ('filename', 'img_path', 'frame_dir')
LOOKED_AT = 20  # files of each validation set

# names in label order by modality, which is None if the dataset does not say it
Classes = dict[str | None, Sequence[str]]


@HOOKS.register_module(name=NAMES)
class RunCheckHook(Hook):
    """Refuse a run that cannot be right, before its first step.

    - The annotation files are those of the config's fold; numbers are within :data:`LIMITS`.
    - Every data loader gives a batch. Files of the validation data exist, as far as 20 show.
    - Clips have the frames that the model is built for; ``save_best`` is a metric.
    - The classes of the data are as many as those of the model; in a training those of the
      validation data have the order of the training data.
    - The checkpoint fits the model, at least in part; in testing it has the head. One that is
      tested or resumed was trained on these classes, in this order. One that is resumed is of
      this model; other settings that changed are a warning.

    Raises:
        ConfigError: With the key to change.
        WeightsError: If it is the checkpoint that does not fit.
    """

    def before_run(self, runner: Runner) -> None:
        """Check the config."""
        check_fold(runner.cfg)
        check_limits(runner.cfg)

    def before_train(self, runner: Runner) -> None:
        """Check the data of training and validation."""
        require_batches(runner.train_dataloader, 'train_dataloader')
        check_data(runner.model, runner.train_dataloader, 'train_dataloader')
        if runner.val_loop is not None:
            self.before_val(runner)
            trained, validated = map(classes_of, (runner.train_dataloader, runner.val_dataloader))
            check_order(trained, 'train_dataloader', validated, 'val_dataloader')
            require_files(runner.val_dataloader.dataset, 'val_dataloader')
            check_save_best(runner)

    def before_val(self, runner: Runner) -> None:
        """Check the validation data."""
        check_data(runner.model, runner.val_dataloader, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Check the test data."""
        check_data(runner.model, runner.test_dataloader, 'test_dataloader')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint before it is loaded; the authors' names become ours."""
        checkpoint.update(state_dict.as_own_checkpoint(checkpoint))
        meta = checkpoint.get('meta') or {}
        if runner._resume:
            check_resumed(runner, checkpoint)
        state_dict.check_fit(runner.model, checkpoint, runner.logger, runner._load_from)
        # a loop is a config until the run begins it; validation may be part of a training
        loops = dict(test=runner._test_loop, train=runner._train_loop, val=runner._val_loop)
        begun = [name for name, loop in loops.items() if isinstance(loop, BaseLoop)]
        if not begun:
            return
        stage = begun[0]
        if stage != 'train':
            state_dict.check_head_weights(runner.model, checkpoint)
        if stage != 'train' or runner._resume:
            theirs = (meta.get('dataset_meta') or {}).get('classes') or {}
            theirs = theirs if isinstance(theirs, dict) else {None: theirs}
            ours = classes_of(loops[stage].dataloader)
            check_order(theirs, 'the checkpoint', ours, f'{stage}_dataloader')


def check_limits(cfg: Config) -> None:
    """Refuse numbers with which a training would do nothing, or the wrong thing."""
    for above, node in dicts_in(dict(cfg.items())):
        in_pipeline = '_dataloader.' in above and '.pipeline.' in above
        kind = str(node.get('type')).rstrip("'>").split('.')[-1]
        if in_pipeline and kind == 'SampleFrames':  # which takes any argument
            known = ['type', '_scope_', *inspect.signature(SampleFrames).parameters]
            for name in node.keys() - known:
                raise ConfigError(f'{above}: SampleFrames has no argument {name!r}.')
        for name, value in node.items():
            key = f'{above}.{name}'
            allowed, fits = LIMITS.get(f'pipeline.{name}' if in_pipeline else key, ('', None))
            if fits is not None and not fits(value):
                raise ConfigError(f'{key} must be {allowed}, but is {value!r}.')


def check_save_best(runner: Runner) -> None:
    """Refuse a ``save_best`` that is no figure of :class:`ExpressionMetric`."""
    given = (runner.cfg.get('default_hooks') or {}).get('checkpoint', {}).get('save_best') or []
    for metric in runner.val_loop.evaluator.metrics:
        if not isinstance(metric, ExpressionMetric) or metric.prefix:
            return  # other names
    kinds = list(classes_of(runner.val_dataloader))
    parts = [f'{kind}/' for kind in kinds] if len(kinds) > 1 else ['']
    names = [f'{part}{figure}' for part in parts for figure in FIGURES]
    for name in [given] if isinstance(given, str) else given:
        if name not in ('auto', *names) and 'recall/' not in name:
            raise ConfigError(
                f'default_hooks.checkpoint.save_best={name!r} is no metric of the validation, '
                f'which gives {", ".join(names)}.'
            )


def require_files(dataset: Dataset, name: str) -> None:
    """Look for the files of some samples, without reading them."""
    for part in parts_of(dataset):
        places = np.linspace(0, len(part) - 1, min(LOOKED_AT, len(part))).astype(int).tolist()
        infos = [part.get_data_info(i) for i in places if hasattr(part, 'get_data_info')]
        paths = [info[key] for info in infos for key in PATH_KEYS if key in info]
        missing = [path for path in paths if '://' not in path and not is_there(path)]
        tolerated = getattr(part, 'allow_test_faults', False) and len(missing) < len(paths)
        if missing and not tolerated:
            raise ConfigError(
                f'{name}: {len(missing)} of {len(paths)} files of {type(part).__name__} are '
                f'missing, such as {osp.abspath(missing[0])}. Check data_root, data_prefix, suffix.'
            )


def parts_of(dataset: Dataset) -> Iterator[Dataset]:
    """The datasets inside of wrappers such as ``ConcatDataset``, or the dataset itself."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        yield from [dataset] if part is None else parts_of(part)


def check_resumed(runner: Runner, checkpoint: dict) -> None:
    """Refuse a checkpoint of another model, and warn of other settings that changed."""
    if 'epoch' not in (checkpoint.get('meta') or {}):
        raise WeightsError(
            'The checkpoint to be resumed has no state of a training. To start one from its '
            'weights, leave --resume out and give --cfg-options load_from=CHECKPOINT.'
        )
    saved, now = checkpoint['meta'].get('settings') or {}, settings_of(runner.cfg)
    sections = [key for key in SECTIONS if key in saved]
    parts = [p for key in sections for p in changed_settings(saved[key], now.get(key), key)]
    changed = '\n  '.join([*parts[:MOST_CHANGES], *['...'] * (len(parts) > MOST_CHANGES)])
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    weights = checkpoint.get('state_dict', checkpoint)
    weights = {k.removeprefix('module.'): v for k, v in weights.items()}
    fit = state_dict.match_names(model.state_dict(), weights)
    other = [*fit.left_over, *fit.missing]
    if other:
        raise WeightsError(
            f'{runner._load_from or "It"} is the checkpoint of another model: {len(other)} weights '
            f'have another name or shape, such as {other[0]}. These settings changed:\n  {changed}'
            '\nSet them as they were, or give load_from=CHECKPOINT and no --resume.'
        )
    if changed:
        runner.logger.warning(
            'The settings are not those of the checkpoint. Learning rates and schedules continue '
            f'as saved; everything else is as given now:\n  {changed}'
        )


def check_data(model: nn.Module, loader: DataLoader, name: str) -> None:
    """Refuse data that do not fit the model; ``name`` is the key of the loader in the config."""
    model = model.module if is_model_wrapper(model) else model
    packs = getattr(getattr(model, 'data_preprocessor', None), 'pack_views', False)
    head = getattr(model, 'cls_head', None)
    if packs and not isinstance(head, (DualModalHead, ViewsI3DHead)):
        raise ConfigError(
            'model.data_preprocessor.pack_views=True needs DualModalHead or ViewsI3DHead, but the '
            f'head is {type(head).__name__}. Set pack_views=False, and merge_equal=False of '
            'SampleClipViews.'
        )
    for key in ('backbone', 'neck'):
        frames = getattr(getattr(model, key, None), 'num_frames', None)
        for part in parts_of(loader.dataset) if frames else ():
            for step in getattr(getattr(part, 'pipeline', None), 'transforms', ()):
                if getattr(step, 'clip_len', 1) not in (1, frames):  # one frame is an image
                    raise ConfigError(
                        f'{name}: {type(step).__name__}.clip_len is {step.clip_len}, but '
                        f'model.{key}.num_frames is {frames}. Set both to the same number.'
                    )
    head_name, head = state_dict.classification_head(model)
    for kind, classes in classes_of(loader).items() if head is not None else ():
        key, expected = f'model.{head_name}.num_classes', head.num_classes
        count = expected.get(kind) if isinstance(expected, dict) else expected
        if len(classes) != count:
            raise ConfigError(
                f'{name} has {len(classes)} {kind or ""} classes {tuple(classes)}, but {key} is '
                f'{expected}. Make them agree.'
            )


def require_batches(loader: DataLoader, name: str) -> None:
    """Refuse a data loader that gives no batch."""
    if isinstance(loader.sampler, InfiniteSampler) or len(loader):
        return
    samples = len(loader.sampler)
    raise ConfigError(
        f'{name} gives no batch: a process has {samples} samples, batch_size={loader.batch_size} '
        f'and drop_last={loader.drop_last}. Lower batch_size, or set drop_last=False.'
    )


def classes_of(loader: DataLoader) -> Classes:
    """The classes of data, as the ``metainfo`` of their dataset says."""
    classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
    if isinstance(classes, dict):
        return classes
    return {getattr(loader.dataset, 'INPUT_TYPE', None): classes} if classes else {}


def check_order(expected: Classes, source: str, found: Classes, name: str) -> None:
    """Compare classes by name and order: in another order a right answer would count as wrong."""
    for kind, names in found.items():
        theirs = expected.get(kind, expected.get(None))
        if not theirs or not names or list(theirs) == list(names):
            continue
        order = ', the same names in another order' * (sorted(theirs) == sorted(names))
        raise ConfigError(
            f'{name} has other {kind or ""} classes than {source}{order}:\n'
            f'  {source}: {", ".join(map(str, theirs))}\n  {name}: {", ".join(map(str, names))}\n'
            'A label id must mean the same in both. To test on another data set, give its dataset '
            'metainfo=dict(classes=(...)) of the first, and label_map=dict(...) of other names.'
        )
