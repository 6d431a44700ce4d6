# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Flags of tools/train.py and tools/test.py: the config that they make."""

import os.path as osp
import runpy

import pytest
from helpers import ROOT

DFEW = osp.join(ROOT, 'configs', 's4d_finetune_dfew.py')
TRAIN, TEST = (runpy.run_path(osp.join(ROOT, 'tools', f'{n}.py')) for n in ('train', 'test'))


@pytest.fixture(autouse=True)
def rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


def train(*argv, config=DFEW):
    return TRAIN['make_config'](TRAIN['parse_args']([config, *argv]))


def config_of_test(*argv, config=DFEW, checkpoint=__file__):
    return TEST['make_config'](TEST['parse_args']([config, checkpoint, *argv]))


def test_no_validate():
    cfg = train('--no-validate', '--cfg-options', 'val_dataloader.num_workers=0')
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    assert train().val_dataloader is not None


def test_resume():
    cfg = train()
    assert not cfg.get('resume') and cfg.load_from is None
    cfg = train('--resume', '--cfg-options', 'load_from=pretrained.pth')
    assert cfg.resume is True and cfg.load_from is None
    # the flag wins over the option
    cfg = train('--resume', __file__, '--cfg-options', 'load_from=pretrained.pth')
    assert cfg.resume is True and cfg.load_from == __file__
    assert train('--resume', 'https://x/y.pth').load_from == 'https://x/y.pth'


def test_amp():
    options = ['--cfg-options', 'optim_wrapper.type=OptimWrapper', 'optim_wrapper.loss_scale=512.']
    assert train(*options).optim_wrapper.type == 'OptimWrapper'
    cfg = train('--amp', *options)
    assert cfg.optim_wrapper.type == 'CpuFallbackAmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 512
    with pytest.raises(ValueError, match='--amp is not supported with .*OtherWrapper.*dfew'):
        train('--amp', '--cfg-options', 'optim_wrapper.type=OtherWrapper')


def test_auto_scale_lr():
    assert not train().get('auto_scale_lr', {}).get('enable')
    quickstart = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_pretrain.py')
    options = ['--auto-scale-lr', '--cfg-options', 'auto_scale_lr.base_batch_size=64']
    cfg = train(*options, 'train_dataloader.batch_size=32', config=quickstart)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=64)
    with pytest.raises(ValueError, match='has no "auto_scale_lr'):
        train('--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None')


def test_auto_scale_lr_of_a_total_batch():
    """By the total alone: the lr of the config is right for any number of processes."""
    total = 'train_dataloader.batch_sampler.total_batch_size'
    flags = ['--auto-scale-lr', '--cfg-options']
    for factor in (1, 2, 0.25):
        sizes = [f'{total}.video={int(32 * factor)}', f'{total}.image={int(64 * factor)}']
        cfg = train(*flags, *sizes, 'auto_scale_lr.enable=True')
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(4e-5 * factor)
        assert not cfg.auto_scale_lr.enable  # mmengine would scale once more
        assert train(flags[1], *sizes).optim_wrapper.optimizer.lr == pytest.approx(4e-5)
    for option in (f'{total}.video=64', f'{total}=64', 'auto_scale_lr.base_batch_size=32'):
        with pytest.raises(ValueError, match='total_batch_size=.* times one factor for all'):
            train(*flags, option)


def test_seed_and_its_companions():
    file = train().randomness
    options = ['--cfg-options', 'randomness.seed=3', 'randomness.deterministic=True']
    assert train(*options).randomness == {**file, 'seed': 3, 'deterministic': True}
    assert train('--seed', '0', *options).randomness['seed'] == 0
    cfg = train('--diff-rank-seed', '--deterministic')
    assert cfg.randomness == {**file, 'diff_rank_seed': True, 'deterministic': True}
    # processes differ without the flag, and whatever else is given
    for argv in ([], ['--seed', '3'], ['--deterministic'], options):
        assert train(*argv).randomness['diff_rank_seed'] is True


def test_fold():
    assert train('--cfg-options', 'fold=4').train_dataloader.dataset.video.ann_file == (
        'annotations/set_4_train.csv'
    )
    cfg = config_of_test('--cfg-options', 'fold=4')
    assert cfg.test_dataloader.dataset.video.ann_file == 'annotations/set_4_test.csv'


def test_dump_is_added_to_the_metrics():
    dump = dict(type='DumpResults', out_file_path='x.pkl')
    one = config_of_test('--dump', 'x.pkl', '--cfg-options', 'test_evaluator.out_csv=y.csv')
    assert one.test_evaluator[0].out_csv == 'y.csv' and one.test_evaluator[1] == dump
    plain = dict(type='PredictionsFile', out_file_path='x.json')
    assert one.test_evaluator[2:] == [plain]
    several = config_of_test('--dump', 'x.pkl', '--cfg-options', 'test_evaluator=["a","b"]')
    assert several.test_evaluator == ['a', 'b', dump, plain]
    assert not isinstance(config_of_test().test_evaluator, list)


@pytest.mark.parametrize(
    'tool, argv, message',
    [
        (TRAIN, [DFEW, '--resume', 'none.pth'], 'none.pth does not exist'),
        (TEST, ['configs/none.py', __file__], 'configs/none.py does not exist'),
        (TEST, [DFEW, __file__, '--dump', 'x.txt'], 'x.txt: must end in .pkl'),
    ],
)
def test_wrong_arguments_are_named(tool, argv, message, capsys):
    with pytest.raises(SystemExit):
        tool['parse_args'](argv)
    assert message in capsys.readouterr().err
