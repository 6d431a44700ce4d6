# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The config of a run: ``--cfg-options``, its fold, its work directory, and the recipes."""

import glob
import os.path as osp
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT, config_path, read_config
from mmengine.config import Config
from runs import FINETUNE, PRETRAIN

from s4d_mm.engine import RunCheckHook
from s4d_mm.engine.options import ConfigError, check_fold, fold_datasets, load_config, set_fold

DFEW = config_path('s4d_finetune_dfew')


# ------------------------------------------------------------------ options
@pytest.mark.parametrize(
    'key, message',
    [
        ('optim_wraper.optimizer.lr', r"nothing reads 'optim_wraper'. Did you mean optim_wrapper"),
        ('base_lr', 'base_lr is a variable of .*dfew.py, used up'),
        ('optim_wrapper.optimzer.lr', "has no 'optimzer'. Did you mean optimizer"),
        ('env_cfg.cudnn_benchmrk', 'it has cudnn_benchmark, mp_cfg'),
        ('env_cfg.mp_start_method', "env_cfg has no 'mp_start_method'"),
        ('mine', "nothing reads 'mine'. If code of yours"),
    ],
)
def test_options_that_nothing_reads_are_refused(key, message):
    with pytest.raises(ConfigError, match=rf'--cfg-options {key}=1: .*{message}'):
        load_config(DFEW, {key: 1}, also=())


def test_options_that_are_read_pass():
    options = {
        'visualizer.vis_backends.0.init_kwargs.mode': 'offline',
        'model.backbone.init_cfg.type': 'Pretrained',
        'train_dataloader.dataset.video.ann_file': 'x/set_1.csv',
        'model_wrapper_cfg.type': 'X',
        'default_hooks.logger.interval': 1,
        'env_cfg.dist_cfg.timeout': 5,
        'val_dataloader.batch_sampler': None,
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


@pytest.mark.parametrize(
    'tool, config, option, message',
    [
        ('kfold', DFEW, 'base_lr=0.5', '--cfg-options base_lr=0.5'),
        ('test', PRETRAIN, 'log_level=INFO', 'has no test_dataloader'),
        ('train', FINETUNE, 'default_hooks.checkpoint.intervall=1', "no argument 'intervall'"),
        ('train', FINETUNE, 'model.backbone.dept=3', "unexpected keyword argument 'dept'"),
    ],
)
@pytest.mark.usefixtures('quickstart')
def test_the_command_says_it_in_one_sentence(
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
    if tool == 'train':
        monkeypatch.setenv('S4D_MM_TRACEBACK', '1')
        with pytest.raises((ValueError, TypeError, OSError), match=message):
            main()


@pytest.mark.parametrize('value', ['/x/"y"', "/x'+str(1/0)+'", 'a\\', 'Ü (1)'])
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


# ------------------------------------------------------------------ folds
def all_ann_files(cfg):
    """Of a fine-tuning config: train video, train image, val, test."""
    train = cfg.train_dataloader.dataset
    loaders = (cfg.val_dataloader, cfg.test_dataloader)
    return [d.ann_file for d in (train.video, train.image, *[x.dataset.video for x in loaders])]


def test_fold_option_chooses_the_files():
    fold = 12
    cfg = load_config(DFEW, dict(fold=fold))
    assert all_ann_files(cfg) == [
        f'annotations/set_{fold}_train.csv',
        'annotations/train_7.txt',
        f'annotations/set_{fold}_test.csv',
        f'annotations/set_{fold}_test.csv',
    ]
    assert cfg.fold == fold


@pytest.mark.parametrize(
    'ann_file',
    [
        'annotations/set_{}_train.csv',
        'my_set_{}_train.csv',
        'EmoLabel_DataSplit/train(single-labeled)/train_set_{}.csv',
        'anno/single/no_caption/set_{}/train.txt',
        'set_{0}/train_set_{0}.csv',
    ],
)
def test_names_of_a_fold(ann_file):
    pipeline = [dict(type='X', ann_file='set_9.csv')]  # not looked at
    dataset = dict(datasets=[dict(ann_file=ann_file.format(1), pipeline=pipeline)])
    loader = dict(dataset=dataset)
    cfg = Config(dict(train_dataloader=loader, val_dataloader=None, test_dataloader=loader))
    for fold in (12, 3):  # from any fold to any other
        set_fold(cfg, fold)
        found = list(fold_datasets(cfg))
        assert [key for key, _, _ in found] == [
            f'{stage}_dataloader.dataset.datasets.0.ann_file' for stage in ('train', 'test')
        ]
        for _, part, number in found:
            assert part['ann_file'] == ann_file.format(fold) and number == fold
        check_fold(cfg)


@pytest.mark.parametrize(
    'name',
    ['dataset_1_x.csv', 'dataset_1/x.csv', 'my_set_1/x.csv', 'a/set_1/b/x', 'set_1x.csv'],
)
def test_names_of_no_fold(name):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(ann_file=name))))
    assert list(fold_datasets(cfg)) == []


def test_folds_that_are_not_there():
    with pytest.raises(ConfigError, match='fold=2: .*ferv39k.py names no fold in train_'):
        load_config(config_path('s4d_finetune_ferv39k'), dict(fold=2))
    with pytest.raises(ConfigError, match="fold='x' is not a number.*fold=3"):
        load_config(DFEW, dict(fold='x'))
    cfg = Config.fromfile(DFEW)
    cfg.val_dataloader.dataset.video.ann_file = 'fixed.csv'
    set_fold(cfg, 2)  # this is allowed
    cfg.test_dataloader.dataset.video.ann_file = 'fixed.csv'
    with pytest.raises(ConfigError, match='names no fold in test_dataloader'):
        set_fold(cfg, 3)


def test_fold_that_differs_from_the_files_is_found():
    """As after ``--cfg-options fold=3`` of a tool that is not ours."""
    cfg = Config.fromfile(DFEW)
    check_fold(cfg)
    cfg.merge_from_dict(dict(fold=3))
    with pytest.raises(ConfigError, match='fold=3, but train_dataloader.*set_1_train.*tools/train'):
        RunCheckHook().before_run(SimpleNamespace(cfg=cfg))
    set_fold(cfg, 3)
    check_fold(cfg)


# ------------------------------------------------------------------ recipes
# configs of the authors' recipe: lr, samples of a step
OF_PRETRAINING = (1.2e-3, dict(video=96, image=384))
OF_FINETUNING = (4e-5, dict(video=32, image=64))
RECIPES = {
    's4d_pretrain': OF_PRETRAINING,
    's4d_pretrain_batch1536': (4.8e-3, dict(video=384, image=1536)),
    's4d_finetune_dfew': OF_FINETUNING,
    's4d_finetune_ferv39k': OF_FINETUNING,
    's4d_finetune_mafw': OF_FINETUNING,
    's4d_finetune_dfew_as-trained': OF_FINETUNING,
    's4d_finetune_ferv39k_as-trained': OF_FINETUNING,
    's4d_finetune_mafw_as-trained': OF_FINETUNING,
}


@pytest.mark.parametrize('name', RECIPES)
def test_batch_and_learning_rate_of_the_recipes(name):
    cfg = read_config(name)
    lr, total = RECIPES[name]
    batch_sampler = cfg.train_dataloader.batch_sampler
    assert batch_sampler.total_batch_size == total == cfg.auto_scale_lr.base_batch_size
    assert batch_sampler.drop_last and 'batch_size' not in batch_sampler
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr)
    (schedule,) = cfg.param_scheduler
    ends = [lr * schedule.get(key, 0) for key in ('start_ratio', 'end_ratio')]
    assert ends == pytest.approx([1e-6, 0] if 'pretrain' in name else [0, 1.25e-7])
    assert cfg.randomness.diff_rank_seed is True


def test_all_configs_load():
    """Each config loads, and its settings are right."""
    paths = glob.glob(osp.join(ROOT, 'configs', '**', '*.py'), recursive=True)
    finals = [path for path in paths if '_base_' not in path]
    assert len(finals) >= 14
    for path in finals:
        cfg = Config.fromfile(path)
        assert cfg.default_scope, path
        RunCheckHook().before_run(SimpleNamespace(cfg=cfg))
