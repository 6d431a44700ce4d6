# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""``--cfg-options`` that nothing reads, and environment values in our configs."""

import glob
import os.path as osp
import runpy
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from mmengine.config import Config

from s4d_mm.engine.config_variables import find_uses
from s4d_mm.engine.launch import load_config
from s4d_mm.engine.options import OptionError

QUICKSTART = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')
PRETRAIN = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_pretrain.py')
DFEW = osp.join(ROOT, 'configs', 's4d_finetune_dfew.py')


@pytest.mark.parametrize(
    'key, message',
    [
        ('optim_wraper.optimizer.lr', r"nothing reads 'optim_wraper'. Did you mean optim_wrapper"),
        ('base_lr', r'variable of .*optim_wrapper.optimizer.lr \(now 4e-05\)'),
        ('optim_wrapper.optimzer.lr', "has no 'optimzer'. Did you mean optimizer"),
        ('env_cfg.cudnn_benchmrk', 'Did you mean cudnn_benchmark'),
        ('env_cfg.mp_cfg.threads', "nothing reads 'threads' of env_cfg.mp_cfg"),
        ('default_hooks.chekpoint.interval', "has no 'chekpoint'. Did you mean checkpoint"),
        ('test_pipeline.1.num_views', r'dataloader.dataset.pipeline.1.num_views \(now 2\)'),
        ('mine', "nothing reads 'mine'. If code of yours"),
    ],
)
def test_options_that_nothing_reads_are_refused(key, message):
    with pytest.raises(OptionError, match=rf'--cfg-options {key}=1: .*{message}'):
        load_config(DFEW, {key: 1}, also=())


def test_options_that_are_read_pass():
    options = {
        'visualizer.vis_backends.0.init_kwargs.mode': 'offline',
        'model.backbone.init_cfg.type': 'Pretrained',
        'train_dataloader.dataset.video.ann_file': 'x/set_1.csv',
        'model_wrapper_cfg.type': 'X',
        'default_hooks.logger.interval': 1,
        'env_cfg.dist_cfg.timeout': 5,
        'compile': True,
        'fold': 2,
    }
    cfg = load_config(DFEW, options, also=())
    assert cfg.visualizer.vis_backends[0].init_kwargs.mode == 'offline'
    # what prediction reads
    assert load_config(DFEW, {'test_pipeline.1.num_views': 5}).test_pipeline[1].num_views == 5


@pytest.mark.parametrize('extra', ['mine', ['other', 'mine']])
def test_names_of_ones_own_pass(extra, tmp_path):
    cfg = load_config(DFEW, {'mine.rate': 3, 'extra_options': extra}, also=())
    assert cfg.mine.rate == 3
    path = tmp_path / 'mine.py'
    path.write_text(f'mine = 2\nother = 3\nextra_options = {extra!r}')
    assert load_config(str(path), dict(mine=4), also=()).mine == 4


def test_where_a_variable_went(tmp_path):
    known = {'model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'optim_wrapper'}

    def uses(name, path=QUICKSTART):
        return find_uses(path, name, known)

    scales = uses('img_size')
    assert len(scales) == 6 and all(place.endswith('.scale') for place in scales)
    cfg = Config.fromfile(QUICKSTART)
    assert cfg.val_dataloader.dataset.pipeline[3].scale == (80, 80)
    assert 'val_dataloader.dataset.pipeline.3.scale' in scales
    assert uses('size', PRETRAIN) == ['model.backbone', 'model.neck']
    base = tmp_path / 'base.py'
    text = 'rate, width = 1e-3, 8\nlayers = [dict(width=width * 2)]\nmodel = {"a": layers}'
    base.write_text(text)
    path = tmp_path / 'child.py'
    path.write_text("_base_ = './base.py'\noptim_wrapper = dict(lr=_base_.rate / 2)")
    assert uses('width', str(path)) == ['model.a.0.width']
    assert uses('rate', str(path)) == ['optim_wrapper.lr']
    assert uses('nowhere', str(path)) == []


@pytest.mark.parametrize('tool', ['train', 'test', 'kfold'])
def test_the_command_says_it_in_one_sentence(tool, capsys, monkeypatch, tmp_path):
    argv = [DFEW, *([__file__] if tool == 'test' else []), '--work-dir', str(tmp_path)]
    argv += ['--cfg-options', 'base_lr=0.5']
    monkeypatch.setattr(sys, 'argv', [f'tools/{tool}.py', *argv])
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(SystemExit) as end:
        runpy.run_path(osp.join(ROOT, 'tools', f'{tool}.py'))['main']()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and f'{tool}.py: --cfg-options base_lr=0.5' in error


@pytest.mark.parametrize(
    'tool, config, option, message',
    [
        ('test', PRETRAIN, 'log_level=INFO', 'has no test_dataloader.*one of fine-tuning'),
        ('train', QUICKSTART, 'optim_wrapper.optimizer.lr=fast', "optimizer.lr must .* 'fast'"),
        ('train', QUICKSTART, 'optim_wrapper.clip_grad.max_norm=-1', 'max_norm must .* is -1'),
        ('train', QUICKSTART, 'train_cfg.max_epochs=0', 'max_epochs of train_cfg .* is 0'),
        ('train', QUICKSTART, 'train_cfg.val_interval=0', 'val_interval of train_cfg .* is 0'),
        ('train', QUICKSTART, 'default_hooks.checkpoint.intervall=1', "no 'intervall'"),
        ('train', QUICKSTART, 'model.backbone.dept=3', "unexpected keyword argument 'dept'"),
        ('train', QUICKSTART, 'model.backbone.tubelet_size=0', 'tubelet_size of S4DViT'),
    ],
)
def test_settings_that_cannot_be_are_one_sentence_too(
    tool, config, option, message, capsys, monkeypatch, tmp_path
):
    argv = [config, *([__file__] if tool == 'test' else []), '--work-dir', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', [f'tools/{tool}.py', *argv, '--cfg-options', option])
    monkeypatch.setenv('LOCAL_RANK', '0')
    main = runpy.run_path(osp.join(ROOT, 'tools', f'{tool}.py'))['main']
    with pytest.raises(SystemExit) as end:
        main()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2 and error.startswith(f'{tool}.py: ')
    with pytest.raises(Exception, match=message):
        raise ValueError(error)
    monkeypatch.setenv('S4D_MM_TRACEBACK', '1')
    with pytest.raises((ValueError, TypeError), match=message):
        main()


# ----------------------------------------------------------- environment values
@pytest.mark.parametrize('value', ["/x/o'brien", '/x/"y"', "/x'+str(1/0)+'", 'a\\', 'Ü (1)'])
def test_environment_values_in_our_configs_are_values(value, monkeypatch):
    monkeypatch.setenv('QUICKSTART_DIR', value)
    paths = glob.glob(osp.join(ROOT, 'configs', '**', '*.py'), recursive=True)
    paths = [path for path in paths if 'QUICKSTART_DIR' in Path(path).read_text()]
    assert len(paths) >= 5
    for path in paths:
        cfg = Config.fromfile(path)
        found = [cfg.get('work_dir'), cfg.get('data_root')]
        assert any(text and text.startswith(f'{value}/') for text in found)
        again = Config.fromstring(cfg.pretty_text, '.py')  # what a run writes down
        assert again.get('data_root') == cfg.get('data_root')
