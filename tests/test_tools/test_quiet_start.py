# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A run says what was chosen, and nothing that misleads."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT, process_env

# what the toolbox says of itself, or of a package that must not be installed
MISLEADING = ('mmcv-lite', 'MultiScaleDeformableAttention', 'deprecated', 'Warning', 'HardDisk')
CONFIG = 'configs/quickstart/s4d_quickstart_finetune.py'


def run(folder, data, *command):
    env = process_env(QUICKSTART_DIR=str(data))
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def trained(quickstart_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('quiet')
    options = ('train_cfg.max_epochs=1', 'optim_wrapper.type=CpuFallbackAmpOptimWrapper')
    command = (f'{ROOT}/tools/train.py', f'{ROOT}/{CONFIG}', '--work-dir', str(folder / 'run'))
    text = run(folder, quickstart_data, *command, '--cfg-options', *options)
    return folder, text


def messages(text):
    """The log without the config, which may name anything."""
    return '\n'.join(x for x in text.splitlines() if not x.startswith((' ', ')', ']')))


def test_a_training_is_quiet(trained):
    _, text = trained
    assert not [word for word in MISLEADING if word in messages(text)]


def test_the_terminal_is_short_and_the_log_file_has_everything(trained):
    folder, text = trained
    (epoch,) = [line for line in text.splitlines() if ' - epoch ' in line]
    assert re.search(r'epoch 1/1  loss \d\.\d{4}  0:00:00 left$', epoch)
    (path,) = (folder / 'run').glob('*/*.log')
    assert str(path) in text  # says where the rest is
    for part in ('Config:', 'System environment', 'Hooks will'):
        assert part in path.read_text() and part not in text, part
    table = text.index('Run summary')
    assert table < text.index('epoch 1/1')
    part = text[table:].partition(' - mmengine - ')[0]
    for row in ('device ', 'processes ', 'train data ', 'optimizer '):
        assert f'\n  {row}' in part, row
