# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What is looked for before the first step: batches, files, and the model that is resumed."""

import os.path as osp
import re
import runpy
import shutil
import sys

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.runner import Runner

from s4d_mm.engine.messages import is_of_config
from s4d_mm.engine.saved_config import changed_settings, saved_config

FINETUNE = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')
PRETRAIN = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_pretrain.py')
pytestmark = pytest.mark.usefixtures('quickstart')


def short_config(path, work_dir, **options):
    cfg = Config.fromfile(path)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if key in cfg:
            cfg[key].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_epochs = 1
    cfg.train_dataloader.batch_sampler.batch_size = dict(video=4, image=8)
    cfg.merge_from_dict({k.replace('__', '.'): v for k, v in options.items()})
    cfg.update(work_dir=str(work_dir), launcher='none')
    return cfg


def nothing_happened(work_dir):
    """No step was made: there are neither losses nor checkpoints."""
    scalars = list(work_dir.rglob('scalars.json'))
    return not list(work_dir.rglob('*.pth')) and not any(p.read_text() for p in scalars)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_loader_without_a_batch_is_refused(by_epoch, tmp_path, monkeypatch, capsys):
    """With schedules of iterations mmengine would stop with a riddle, else train nothing."""
    cfg = short_config(FINETUNE, tmp_path / 'work')
    plain = dict(batch_size=999, num_workers=0, drop_last=True)
    plain['dataset'] = cfg.train_dataloader.dataset.video
    cfg.train_dataloader = dict(plain, sampler=dict(type='DefaultSampler', shuffle=True))
    message = 'train_dataloader gives no batch: .* batch_size=999 and drop_last=True. Lower'
    if by_epoch:  # also under other tools
        cfg.param_scheduler = None
        with pytest.raises(ValueError, match=message):
            Runner.from_cfg(cfg).train()
    cfg.dump(tmp_path / 'x.py')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(tmp_path / 'x.py')])
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(SystemExit) as end:
        runpy.run_path(osp.join(ROOT, 'tools', 'train.py'))['main']()
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert nothing_happened(tmp_path)


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('what', ['annotations', 'files', 'one file'])
def test_missing_data_shows_before_the_first_step(what, stage, tmp_path, quickstart, capsys):
    """Of the validation as an error; a training can do without test data, so as a warning."""
    cfg = short_config(FINETUNE, tmp_path / 'work')
    part = cfg[f'{stage}_dataloader'].dataset.image
    if what == 'annotations':
        part.ann_file, message = 'annotations/none.txt', 'none.txt of AffectNet does not exist'
    else:
        folder = tmp_path / 'images'
        if what == 'one file':
            shutil.copytree(quickstart / 'data' / 'images', folder)
            with open(osp.join(part.data_root, part.ann_file)) as f:
                last = f.read().split()[-2]
            (folder / last).unlink()
        part.data_prefix = dict(img=str(folder))
        message = rf'{stage}_dataloader: \d+ of \d+ files of AffectNet .* missing, such as .*images'
    cfg.train_cfg.val_interval = 5
    cfg.custom_hooks.append(dict(type='StopBeforeTheFirstStep', priority='LOWEST'))
    runner = Runner.from_cfg(cfg)
    if stage == 'val':
        with pytest.raises(FileNotFoundError, match=message):
            runner.train()
    else:
        with pytest.raises(InterruptedError):
            runner.train()
        with pytest.raises(Exception, match=f'(?s)cannot be tested here: .*{message}'):
            raise ValueError(capsys.readouterr().out)
    assert nothing_happened(tmp_path / 'work')


@pytest.mark.parametrize(
    'path, key, value, message',
    [
        (FINETUNE, 'default_hooks.checkpoint.save_best', 'WARR', 'which gives image/WAR, image/U'),
        (FINETUNE, 'default_hooks.checkpoint.save_best', 'WAR', 'which gives image/WAR, image/U'),
        (FINETUNE, 'model.cls_head.label_smooth_eps', 1.5, 'label_smooth_eps must .* is 1.5'),
        (FINETUNE, 'model.cls_head.average_clips', 'mean', "average_clips must .* is 'mean'"),
        (FINETUNE, 'model.backbone.num_frames', 8, 'clip_len is 4, but model.backbone.num_frames'),
        (PRETRAIN, 'model.neck.num_frames', 8, 'clip_len is 4, but model.neck.num_frames is 8'),
    ],
)
def test_settings_that_cannot_be_show_before_the_first_step(path, key, value, message, tmp_path):
    cfg = short_config(path, tmp_path, default_hooks__checkpoint__rule='greater')
    cfg.merge_from_dict({key: value})
    cfg.custom_hooks.append(dict(type='StopBeforeTheFirstStep', priority='LOWEST'))
    with pytest.raises(ValueError, match=message) as error:
        Runner.from_cfg(cfg).train()
    assert is_of_config(error.value) and nothing_happened(tmp_path)


@pytest.mark.parametrize('name', ['image/WAR', 'video/recall/anger', 'auto'])
def test_metrics_that_the_validation_gives_may_choose(name, tmp_path):
    save = dict(
        default_hooks__checkpoint__save_best=name, default_hooks__checkpoint__rule='greater'
    )
    cfg = short_config(FINETUNE, tmp_path, **save)
    cfg.custom_hooks.append(dict(type='StopBeforeTheFirstStep', priority='LOWEST'))
    with pytest.raises(InterruptedError):
        Runner.from_cfg(cfg).train()


@pytest.fixture(autouse=True)
def stop_hook():
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    class StopBeforeTheFirstStep(Hook):
        def before_train_epoch(self, runner):
            raise InterruptedError

    HOOKS.register_module(module=StopBeforeTheFirstStep, force=True)


@pytest.mark.parametrize(
    'path, change, message',
    [
        (
            FINETUNE,
            {'model.neck.num_experts': 2},
            'another model: model.neck.num_experts is 2, in the checkpoint 4.',
        ),
        (
            FINETUNE,
            {'model.backbone.depth': 1, 'model.neck.num_layers': 3},
            'model.backbone.depth is 1, in the checkpoint 2; model.neck.num_layers is 3',
        ),
        (PRETRAIN, {'model.neck.arch.num_layers': 1}, 'model.neck.arch.num_layers is 1, in the'),
    ],
)
def test_the_training_of_another_model_is_not_resumed(path, change, message, tmp_path):
    cfg = short_config(path, tmp_path / 'a')
    runner = Runner.from_cfg(cfg)
    meta = dict(epoch=0, iter=0, cfg=cfg.pretty_text)
    checkpoint = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(state_dict=runner.model.state_dict(), meta=meta), checkpoint)
    cfg = short_config(path, tmp_path / 'b', load_from=checkpoint, resume=True)
    cfg.merge_from_dict(change)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=f'epoch_1.pth is the checkpoint of {message}|{message}'):
        runner.train()
    assert nothing_happened(tmp_path / 'b')
    # without a config in it, a name and no more is said
    del meta['cfg']
    torch.save(dict(state_dict=runner.model.state_dict(), meta=meta), checkpoint)
    cfg = short_config(path, tmp_path / 'c', load_from=checkpoint, resume=True)
    with pytest.raises(ValueError, match='of its weights have another name or shape, such as'):
        Runner.from_cfg(cfg).train()


def test_the_saved_config_is_read_and_not_run(tmp_path):
    cfg = Config.fromfile(FINETUNE)
    found = saved_config(dict(meta=dict(cfg=cfg.pretty_text)))
    assert found == cfg.to_dict()
    marker = tmp_path / 'ran'
    text = f"a = dict(b=[1, (2, -3.5)])\nc = __import__('os').system('touch {marker}')\n1 + 1"
    assert saved_config(dict(meta=dict(cfg=text))) == dict(a=dict(b=[1, (2, -3.5)]))
    for meta in (None, {}, dict(cfg='a = ('), dict(cfg=cfg)):
        assert saved_config(dict(meta=meta)) == {}
    assert not marker.exists()
    named = Config(dict(a={'1': -1, 'b': 2})).pretty_text  # written as dict({'1': -1}, b=2)
    assert saved_config(dict(meta=dict(cfg=named))) == dict(a={'1': -1, 'b': 2})
    changes = changed_settings(dict(a=1, b=[1, 2], c=[1]), dict(a=1, b=(1, 3), c=[], d=4), 'x')
    assert list(changes) == [
        'x.b.1 is 3, in the checkpoint 2',
        'x.c has 0 entries, in the checkpoint 1',
        "x.d is 4, in the checkpoint '(not set)'",
    ]
