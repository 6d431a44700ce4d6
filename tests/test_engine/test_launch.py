# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The config of a run: its options, its fold, its batch size."""

import argparse
import glob
import os
import os.path as osp

import pytest
from helpers import ROOT
from mmengine.config import Config
from run_arguments import add_run_arguments

from s4d_mm.engine.launch import (
    batch_sampler_of,
    check_batch_size,
    check_fold,
    count_accumulation,
    fold_datasets,
    load_config,
    load_run_config,
    set_fold,
)


def config_path(name):
    return osp.join(ROOT, 'configs', f'{name}.py')


def all_ann_files(cfg):
    """Of a fine-tuning config: train video, train image, val, test."""
    train = cfg.train_dataloader.dataset
    loaders = (cfg.val_dataloader, cfg.test_dataloader)
    return [d.ann_file for d in (train.video, train.image, *[x.dataset.video for x in loaders])]


@pytest.mark.parametrize('name', ['s4d_finetune_dfew', 's4d_finetune_mafw'])
@pytest.mark.parametrize('fold', [1, 3, 12])
def test_fold_option_chooses_the_files(name, fold):
    cfg = load_config(config_path(name), dict(fold=fold))
    assert all_ann_files(cfg) == [
        f'annotations/set_{fold}_train.csv',
        'annotations/train_7.txt',
        f'annotations/set_{fold}_test.csv',
        f'annotations/set_{fold}_test.csv',
    ]
    assert cfg.fold == fold
    set_fold(cfg, 2)  # from any fold to any other
    assert all_ann_files(cfg)[3] == 'annotations/set_2_test.csv' and cfg.fold == 2


def test_other_options_leave_the_fold_alone():
    options = {'train_dataloader.dataset.video.ann_file': 'mine/set_4_train.csv'}
    cfg = load_config(config_path('s4d_finetune_dfew'), options)
    assert all_ann_files(cfg)[0] == 'mine/set_4_train.csv'
    assert all_ann_files(cfg)[2] == 'annotations/set_1_test.csv'


def test_folds_are_found_in_file_names_only():
    dataset = dict(
        type='ConcatDataset',
        datasets=[
            dict(ann_file='set_7_root/set_1_train.csv', data_root='a'),
            dict(ann_file='set_7_root/train.csv'),
            dict(ann_file='my_set_1_train.csv'),
            dict(ann_file='dataset_1_x.csv'),
            dict(ann_file='set_1x.csv'),
            dict(ann_file='set_7/set_1_train.csv'),
        ],
        pipeline=[dict(type='X', ann_file='set_1_train.csv')],
    )
    cfg = Config(dict(train_dataloader=dict(dataset=dataset), val_dataloader=None))
    found = [(key, n) for key, _, n in fold_datasets(cfg)]
    start = 'train_dataloader.dataset.datasets'
    assert found == [(f'{start}.{i}.ann_file', 1) for i in (0, 2, 5)]
    set_fold(cfg, 2)
    assert [d.ann_file for d in cfg.train_dataloader.dataset.datasets] == [
        'set_7_root/set_2_train.csv',
        'set_7_root/train.csv',
        'my_set_2_train.csv',
        'dataset_1_x.csv',
        'set_1x.csv',
        'set_2/set_2_train.csv',
    ]


@pytest.mark.parametrize(
    'ann_file',
    [
        'annotations/set_{}_train.csv',
        'EmoLabel_DataSplit/train(single-labeled)/train_set_{}.csv',
        'EmoLabel_DataSplit/train(single-labeled)/set_{}.csv',
        'anno/single/no_caption/set_{}/train.txt',
        'set_{}/train.csv',
        'set_{0}/train_set_{0}.csv',
    ],
)
def test_names_of_a_fold(ann_file):
    loader = dict(dataset=dict(ann_file=ann_file.format(1)))
    cfg = Config(dict(train_dataloader=loader, test_dataloader=loader))
    for fold in (12, 3):  # from any fold to any other
        set_fold(cfg, fold)
        assert cfg.train_dataloader.dataset.ann_file == ann_file.format(fold)
        assert [number for _, _, number in fold_datasets(cfg)] == [fold] * 2
        check_fold(cfg)


@pytest.mark.parametrize(
    'name', ['dataset_1_x.csv', 'dataset_1/x.csv', 'my_set_1/x.csv', 'a/set_1/b/x']
)
def test_names_of_no_fold(name):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(ann_file=name))))
    assert list(fold_datasets(cfg)) == []


def test_lists_of_the_authors_by_options():
    """A recipe with the authors' list, and the fold, by ``--cfg-options`` alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_run_arguments(parser)
    name = 'EmoLabel_DataSplit/train(single-labeled)/train_set_1.csv'
    option = f'train_dataloader.dataset.video.ann_file={name}'
    args = [config_path('s4d_finetune_dfew'), '--cfg-options', option, 'fold=3']
    cfg = load_run_config(parser.parse_args(args))
    assert all_ann_files(cfg)[0] == name.replace('_1', '_3')


@pytest.mark.parametrize('name', ['s4d_finetune_ferv39k', 's4d_pretrain'])
def test_fold_of_a_config_without_folds_is_refused(name):
    with pytest.raises(ValueError, match=f'fold=2: .*{name}.py names no fold in train_dataloader'):
        load_config(config_path(name), dict(fold=2))


def test_fold_that_testing_does_not_know_is_refused():
    cfg = Config.fromfile(config_path('s4d_finetune_dfew'))
    cfg.val_dataloader.dataset.video.ann_file = 'fixed.csv'
    set_fold(cfg, 2)  # this is allowed
    cfg.test_dataloader.dataset.video.ann_file = 'fixed.csv'
    with pytest.raises(ValueError, match='names no fold in test_dataloader'):
        set_fold(cfg, 3)


@pytest.mark.parametrize('fold', ['x', '1-5', None, 2.5])
def test_fold_must_be_a_number(fold):
    with pytest.raises(ValueError, match=f'fold={fold!r} is not a number.*fold=3'):
        load_config(config_path('s4d_finetune_dfew'), dict(fold=fold))


def test_fold_that_differs_from_the_files_is_found():
    """As after ``--cfg-options fold=3`` of a tool that is not ours."""
    cfg = Config.fromfile(config_path('s4d_finetune_dfew'))
    check_fold(cfg)
    cfg.merge_from_dict(dict(fold=3))
    with pytest.raises(ValueError, match='fold=3, but train_dataloader.*set_1_train.*tools/train'):
        check_fold(cfg)
    set_fold(cfg, 3)
    check_fold(cfg)
    cfg.test_dataloader.dataset.video.ann_file = 'annotations/set_1_test.csv'
    with pytest.raises(ValueError, match='fold=3, but test_dataloader.dataset.video.ann_file is'):
        check_fold(cfg)
    cfg.pop('fold')
    check_fold(cfg)


CONFIGS = glob.glob(osp.join(ROOT, 'configs', '**', '*.py'), recursive=True)


def test_all_configs_load():
    """Each config loads, and its fold is that of its files."""
    finals = [path for path in CONFIGS if '_base_' not in path]
    assert len(finals) >= 14
    for path in finals:
        cfg = Config.fromfile(path)
        assert cfg.default_scope, path
        check_fold(cfg)


# ------------------------------------------------------------ the command line
def run_config(tmp_path, text='', argv=()):
    (tmp_path / 'mine.py').write_text(text)
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_run_arguments(parser)
    return load_run_config(parser.parse_args([str(tmp_path / 'mine.py'), *argv]))


def test_work_dir_is_of_the_command_line_then_of_the_file(tmp_path):
    assert run_config(tmp_path).work_dir == './work_dirs/mine'
    text = "work_dir = 'a'"
    assert run_config(tmp_path, text).work_dir == 'a'
    option = ['--cfg-options', 'work_dir=b']
    assert run_config(tmp_path, text, option).work_dir == 'b'
    assert run_config(tmp_path, text, ['--work-dir', 'c', *option]).work_dir == 'c'


def test_launcher_and_rank(tmp_path, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    cfg = run_config(tmp_path, "launcher = 'slurm'", ['--local-rank', '3'])
    assert cfg.launcher == 'none'
    assert os.environ['LOCAL_RANK'] == '3'
    run_config(tmp_path, '', ['--launcher', 'pytorch', '--local_rank', '1'])
    assert os.environ['LOCAL_RANK'] == '3'  # torchrun's own wins


def test_batch_size_that_the_sampler_does_not_have_is_refused():
    cfg = Config.fromfile(config_path('quickstart/s4d_quickstart_finetune'))
    check_batch_size(cfg)
    cfg.merge_from_dict({'train_dataloader.batch_sampler.batch_size.image': 32})
    with pytest.raises(ValueError, match='batch_size=16, which is none of'):
        check_batch_size(cfg)


@pytest.mark.parametrize('name', ['s4d_pretrain', 'quickstart/s4d_quickstart_pretrain', 'other'])
def test_accumulation_is_counted_in(name):
    """The batch sampler of a total batch cuts it in as many parts as the optimizer adds up."""
    cfg = Config(dict(test_dataloader=dict()))
    if name != 'other':
        cfg = Config.fromfile(config_path(name))
        cfg.merge_from_dict({'optim_wrapper.accumulative_counts': 4})
    count_accumulation(cfg)
    counts = batch_sampler_of(cfg).get('accumulative_counts')
    assert counts == (4 if name == 's4d_pretrain' else None)


# configs of the authors' recipe: lr, samples of a step
PRETRAIN, FINETUNE = (1.2e-3, dict(video=96, image=384)), (4e-5, dict(video=32, image=64))
RECIPES = {
    's4d_pretrain': PRETRAIN,
    's4d_pretrain_device-crops': PRETRAIN,
    's4d_pretrain_batch1536': (4.8e-3, dict(video=384, image=1536)),
    's4d_finetune_dfew': FINETUNE,
    's4d_finetune_dfew_device-augment': FINETUNE,
    's4d_finetune_ferv39k': FINETUNE,
    's4d_finetune_mafw': FINETUNE,
    's4d_finetune_dfew_as-trained': FINETUNE,
    's4d_finetune_ferv39k_as-trained': FINETUNE,
    's4d_finetune_mafw_as-trained': FINETUNE,
}


@pytest.mark.parametrize('name', RECIPES)
def test_batch_and_learning_rate_of_the_recipes(name):
    cfg = Config.fromfile(config_path(name))
    lr, total = RECIPES[name]
    batch_sampler = cfg.train_dataloader.batch_sampler
    assert batch_sampler.total_batch_size == total == cfg.auto_scale_lr.base_batch_size
    assert batch_sampler.drop_last and 'batch_size' not in batch_sampler
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr)
    (schedule,) = cfg.param_scheduler
    ends = [lr * schedule.get(key, 0) for key in ('start_ratio', 'end_ratio')]
    assert ends == pytest.approx([1e-6, 0] if 'pretrain' in name else [0, 1.25e-7])
    assert cfg.randomness.diff_rank_seed is True
