# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A run says what was chosen, and nothing that misleads."""

import re
import subprocess
import sys

from helpers import ROOT, process_env

# what the toolbox says of itself, or of a package that must not be installed
MISLEADING = ('mmcv-lite', 'MultiScaleDeformableAttention', 'deprecated', 'Warning', 'HardDisk')
CONFIG = f'{ROOT}/configs/quickstart/s4d_quickstart_finetune.py'


def test_the_terminal_is_short_and_the_log_file_has_everything(quickstart_data, tmp_path):
    command = [sys.executable, f'{ROOT}/tools/train.py', CONFIG, '--work-dir', tmp_path / 'run']
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
    assert not [word for word in MISLEADING if word in text]
    assert len(re.findall(r'epoch 1/1  loss \d\.\d{4}  0:00:00 left\n', text)) == 1
    (path,) = (tmp_path / 'run').glob('*/*.log')
    assert str(path) in text  # says where the rest is
    for part in ('Config:', 'System environment', 'Hooks will'):
        assert part in path.read_text() and part not in text, part
    for row in ('device ', 'processes ', 'train data ', 'optimizer '):
        assert f'\n  {row}' in text.partition('Run summary')[2], row
