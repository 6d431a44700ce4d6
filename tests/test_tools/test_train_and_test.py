# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/train.py and tools/test.py: the config that their flags make, and what a run says."""

import os.path as osp
import re
import runpy
import subprocess
import sys

import pytest
from helpers import ROOT, config_path, process_env
from runs import FINETUNE

DFEW = config_path('s4d_finetune_dfew')
TRAIN, TEST = (runpy.run_path(osp.join(ROOT, 'tools', f'{n}.py')) for n in ('train', 'test'))


@pytest.fixture(autouse=True)
def rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


def train(*argv):
    return TRAIN['make_config'](TRAIN['parse_args']([DFEW, *argv]))


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


def test_amp():
    options = ['--cfg-options', 'optim_wrapper.type=OptimWrapper', 'optim_wrapper.loss_scale=512.']
    cfg = train('--amp', *options)
    assert cfg.optim_wrapper.type == 'CpuFallbackAmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 512
    with pytest.raises(ValueError, match='--amp is not supported with .*OtherWrapper.*dfew'):
        train('--amp', '--cfg-options', 'optim_wrapper.type=OtherWrapper')


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


def test_seed():
    file = train().randomness
    options = ['--cfg-options', 'randomness.seed=3', 'randomness.deterministic=True']
    assert train(*options).randomness == {**file, 'seed': 3, 'deterministic': True}
    cfg = train('--seed', '0', '--deterministic', *options)
    assert cfg.randomness == {**file, 'seed': 0, 'deterministic': True}
    assert file['diff_rank_seed'] is True  # processes differ without the flag


def test_dump_is_added_to_the_metrics():
    dump = dict(type='DumpResults', out_file_path='x.pkl')
    argv = ['--dump', 'x.pkl', '--cfg-options', 'test_evaluator.out_csv=y.csv']
    one = TEST['make_config'](TEST['parse_args']([DFEW, __file__, *argv]))
    assert one.test_evaluator[0].out_csv == 'y.csv' and one.test_evaluator[1] == dump
    plain = dict(type='PredictionsFile', out_file_path='x.json')
    assert one.test_evaluator[2:] == [plain]


def test_wrong_arguments_are_named(capsys):
    for argv, message in (
        ([DFEW, 'none.pth'], 'none.pth does not exist'),
        ([DFEW, __file__, '--dump', 'x.txt'], 'x.txt: must end in .pkl'),
    ):
        with pytest.raises(SystemExit):
            TEST['parse_args'](argv)
        assert message in capsys.readouterr().err


def test_the_terminal_is_short_and_the_log_file_has_everything(quickstart_data, tmp_path):
    command = [sys.executable, f'{ROOT}/tools/train.py', FINETUNE, '--work-dir', tmp_path / 'run']
    options = ('train_cfg.max_epochs=1', 'optim_wrapper.type=CpuFallbackAmpOptimWrapper')
    done = subprocess.run(
        [*command, '--cfg-options', *options],
        cwd=tmp_path,
        env=process_env(QUICKSTART_DIR=str(quickstart_data)),
        text=True,
        capture_output=True,
        timeout=300,
    )
    text = done.stdout
    assert done.returncode == 0 and not done.stderr, text + done.stderr
    # what the toolbox says of itself, or of a package that must not be installed
    misleading = ('mmcv-lite', 'MultiScaleDeformableAttention', 'deprecated', 'Warning', 'HardDisk')
    assert not [word for word in misleading if word in text]
    assert len(re.findall(r'epoch 1/1  loss \d\.\d{4}  0:00:00 left\n', text)) == 1
    (path,) = (tmp_path / 'run').glob('*/*.log')
    assert str(path) in text  # says where the rest is
    for part in ('Config:', 'System environment', 'Hooks will'):
        assert part in path.read_text() and part not in text, part
    for row in ('device ', 'processes ', 'train data ', 'optimizer '):
        assert f'\n  {row}' in text.partition('Run summary')[2], row
