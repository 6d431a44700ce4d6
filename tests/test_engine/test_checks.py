# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What is refused before the first step: data, classes, and checkpoints that do not fit."""

import copy
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from runs import FINETUNE, PRETRAIN, short_config

from s4d_mm.engine.checkpoint import changed_settings, settings_of
from s4d_mm.engine.checks import check_order
from s4d_mm.engine.options import ConfigError
from s4d_mm.files.errors import WeightsError

SEVEN, TURNED = tuple('abcdefg'), tuple('gfedcba')
pytestmark = pytest.mark.usefixtures('quickstart')


@HOOKS.register_module()
class StopBeforeTheFirstStep(Hook):
    priority = 'LOWEST'

    def before_train_epoch(self, runner):
        raise InterruptedError


def run_of(path, work_dir, **options):
    cfg = short_config(path, work_dir, **options)
    cfg.custom_hooks.append(dict(type='StopBeforeTheFirstStep'))
    return Runner.from_cfg(cfg)


@pytest.fixture(scope='module')
def checkpoint(quickstart, tmp_path_factory):
    """Of a fine-tuning with a config in it, for each path of a config."""
    found = {}
    for path in (PRETRAIN, FINETUNE):
        folder = tmp_path_factory.mktemp('checkpoint')
        cfg = short_config(path, folder)
        runner = Runner.from_cfg(cfg)
        classes = dict(video=SEVEN, image=SEVEN)
        if path == FINETUNE:
            classes = runner.train_dataloader.dataset.metainfo['classes']
        dataset_meta = dict(classes=classes)
        meta = dict(epoch=0, iter=0, settings=settings_of(cfg), dataset_meta=dataset_meta)
        found[path] = dict(state_dict=runner.model.state_dict(), meta=meta)
    return found


# ------------------------------------------------------------------ data
STEP = 'train_dataloader.dataset.%s.pipeline.%d.%s'
TIMESFORMER = dict(_delete_=True, type='TimeSformerHead', num_classes=7, in_channels=128)
SETTINGS = [
    (
        *(FINETUNE, 'model.cls_head.num_classes', dict(video=7, image=8)),
        'train_dataloader has 7 image classes .*num_classes is .*8',
    ),
    (
        *(FINETUNE, 'model.cls_head.num_classes', dict(_delete_=True, video=7)),
        'image classes .*num_classes is ',
    ),
    (FINETUNE, 'val_dataloader.dataset.image.num_classes', 8, 'val_dataloader has 8 image classes'),
    (FINETUNE, 'model.cls_head', TIMESFORMER, 'pack_views=True needs .* the head is TimeSformer'),
    (
        *(FINETUNE, 'val_dataloader.dataset.image.metainfo', dict(classes=TURNED)),
        'val_dataloader has other image classes than train_dataloader',
    ),
    (PRETRAIN, STEP % ('video', 1, 'num_clips'), 0, 'video.pipeline.1.num_clips must be 1 or more'),
    (PRETRAIN, STEP % ('video', 1, 'frame_interval'), 0, 'frame_interval must be 1 or more'),
    (PRETRAIN, STEP % ('video', 1, 'frame_intervall'), 2, "has no argument 'frame_intervall'"),
    (PRETRAIN, STEP % ('video', 1, 'clip_len'), -4, 'clip_len must be 1 or more, but is -4'),
    (FINETUNE, STEP % ('image', 2, 'flip_ratio'), 1.5, 'flip_ratio must be from 0 to 1'),
    (FINETUNE, 'default_hooks.checkpoint.save_best', 'WAR', 'which gives .*image/WAR, image/U'),
    (FINETUNE, 'model.cls_head.label_smooth_eps', 1.5, 'label_smooth_eps must .* is 1.5'),
    (FINETUNE, 'model.cls_head.average_clips', 'mean', "average_clips must .* is 'mean'"),
    (FINETUNE, 'model.backbone.num_frames', 8, 'clip_len is 4, but model.backbone.num_frames'),
    (PRETRAIN, 'model.neck.num_frames', 8, 'clip_len is 4, but model.neck.num_frames is 8'),
    (PRETRAIN, 'optim_wrapper.clip_grad', dict(max_norm=-1), 'max_norm must be above 0'),
    (PRETRAIN, 'train_cfg.max_epochs', 0, 'max_epochs must be 1 or more, but is 0'),
    (FINETUNE, 'train_cfg.val_interval', 0, 'val_interval must be 1 or more, but is 0'),
    (FINETUNE, 'val_dataloader.dataset.image.data_prefix', dict(img='no'), 'AffectNet .*missing'),
]


@pytest.mark.parametrize('path, key, value, message', SETTINGS, ids=lambda value: str(value)[-25:])
def test_settings_that_cannot_be_show_before_the_first_step(path, key, value, message, tmp_path):
    cfg = short_config(path, tmp_path, default_hooks__checkpoint__rule='greater')
    cfg.merge_from_dict({key: value})
    cfg.custom_hooks.append(dict(type='StopBeforeTheFirstStep'))
    with pytest.raises(ConfigError, match=message):
        Runner.from_cfg(cfg).train()
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('name', ['image/WAR', 'video/recall/anger', 'auto'])
def test_metrics_that_the_validation_gives_may_choose(name, tmp_path):
    options = dict(default_hooks__checkpoint__save_best=name)
    with pytest.raises(InterruptedError):
        run_of(FINETUNE, tmp_path, **options, default_hooks__checkpoint__rule='greater').train()


def test_a_loader_without_a_batch(tmp_path):
    """Which would train nothing."""
    cfg = short_config(FINETUNE, tmp_path, param_scheduler=None)
    data = cfg.train_dataloader.dataset.video
    sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.train_dataloader = dict(
        batch_size=999, num_workers=0, drop_last=True, dataset=data, sampler=sampler
    )
    message = 'train_dataloader gives no batch: .* batch_size=999 and drop_last=True. Lower'
    with pytest.raises(ConfigError, match=message):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize(
    'theirs, ours, fits',
    [
        (dict(video=SEVEN, image=TURNED), dict(video=SEVEN, image=TURNED), True),
        (dict(video=SEVEN, image=TURNED), dict(video=SEVEN, image=SEVEN), False),
        (dict(image=SEVEN), dict(video=TURNED), True),  # nothing is said of videos
        ({None: SEVEN}, dict(video=TURNED), False),
        ({None: SEVEN}, dict(video=('A', *SEVEN[1:])), False),
    ],
)
def test_classes_are_compared_by_name_and_order(theirs, ours, fits):
    if fits:
        check_order(theirs, 'the checkpoint', ours, 'test_dataloader')
        return
    with pytest.raises(ConfigError, match='another order' if 'A' not in str(ours) else 'label_map'):
        check_order(theirs, 'the checkpoint', ours, 'test_dataloader')


# ------------------------------------------------------------------ checkpoints
def test_classes_of_the_checkpoint(checkpoint, tmp_path):
    """In testing and resuming; a training may start from one with other classes."""
    content = copy.deepcopy(checkpoint[FINETUNE])
    classes = content['meta']['dataset_meta']['classes']
    classes['video'] = classes['video'][::-1]
    torch.save(content, tmp_path / 'x.pth')
    options = dict(load_from=str(tmp_path / 'x.pth'))
    with pytest.raises(ConfigError, match='test_dataloader has other video classes.*another order'):
        run_of(FINETUNE, tmp_path / 'test', **options).test()
    with pytest.raises(ConfigError, match='train_dataloader has other video.*another order'):
        run_of(FINETUNE, tmp_path / 'resumed', resume=True, **options).train()
    with pytest.raises(InterruptedError):
        run_of(FINETUNE, tmp_path / 'new', **options).train()


def test_testing_needs_the_head(checkpoint, tmp_path):
    torch.save(checkpoint[PRETRAIN], tmp_path / 'pre.pth')
    torch.save(checkpoint[FINETUNE], tmp_path / 'fine.pth')
    with pytest.raises(WeightsError, match='has no cls_head'):
        run_of(FINETUNE, tmp_path, load_from=str(tmp_path / 'pre.pth')).test()
    options = dict(model__cls_head__num_classes=dict(video=7, image=8))
    options['test_dataloader__dataset__image__num_classes'] = 8
    with pytest.raises(WeightsError, match=r'classifiers.image.weight is \(7, 128\)'):
        run_of(FINETUNE, tmp_path, load_from=str(tmp_path / 'fine.pth'), **options).test()


def test_a_checkpoint_of_which_nothing_fits(tmp_path):
    torch.save(dict(state_dict={'x.weight': torch.ones(1)}, meta={}), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='none finds a place in DualModalRecognizer'):
        run_of(FINETUNE, tmp_path, load_from=str(tmp_path / 'x.pth')).train()


@pytest.mark.parametrize(
    'path, options, message',
    [
        (FINETUNE, dict(model__neck__num_experts=2), 'model.neck.num_experts is 2, was 4'),
        (
            FINETUNE,
            dict(model__backbone__depth=1, model__neck__num_layers=3),
            'model.backbone.depth is 1, was 2\n  model.neck.num_layers is 3',
        ),
        (PRETRAIN, dict(model__neck__arch__num_layers=1), 'model.neck.arch.num_layers is 1, was'),
    ],
)
def test_the_training_of_another_model_is_not_resumed(checkpoint, path, options, message, tmp_path):
    torch.save(checkpoint[path], tmp_path / 'epoch_1.pth')
    options.update(load_from=str(tmp_path / 'epoch_1.pth'), resume=True)
    runner = run_of(path, tmp_path / 'run', **options)
    with pytest.raises(WeightsError) as error:
        runner.train()
    text = str(error.value)
    assert re.search('epoch_1.pth is the checkpoint of another model', text) and message in text
    assert not list((tmp_path / 'run').rglob('*.pth'))


def test_other_settings_are_said(checkpoint, tmp_path, capsys):
    torch.save(checkpoint[PRETRAIN], tmp_path / 'epoch_1.pth')
    options = dict(optim_wrapper__optimizer__lr=0.5, train_dataloader__num_workers=1)
    options.update(load_from=str(tmp_path / 'epoch_1.pth'), resume=True)
    with pytest.raises(Exception):  # noqa: B017  the file has no state of an optimizer
        run_of(PRETRAIN, tmp_path / 'run', **options).train()
    warning = capsys.readouterr().out.split('The settings are not those of the checkpoint')[1]
    assert 'optim_wrapper.optimizer.lr is 0.5, was ' in warning and 'workers is' not in warning


def test_weights_alone_are_no_training_to_resume(checkpoint, tmp_path):
    torch.save(dict(state_dict=checkpoint[FINETUNE]['state_dict']), tmp_path / 'x.pth')
    options = dict(load_from=str(tmp_path / 'x.pth'), resume=True)
    with pytest.raises(WeightsError, match='no state of a training.*load_from=CHECKPOINT'):
        run_of(FINETUNE, tmp_path, **options).train()


def test_changed_settings():
    assert changed_settings(dict(a=1, b=[1, 2], c=[1]), dict(a=1, b=(1, 3), c=[], d=4), 'x') == [
        'x.b.1 is 3, was 2',
        "x.c.0 is '(not set)', was 1",
        "x.c is [], was '(not set)'",
        "x.d is 4, was '(not set)'",
    ]
