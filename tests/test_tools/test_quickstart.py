# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/quickstart.sh, on a few drawn faces and for an epoch each."""

import os
import os.path as osp
import re
import subprocess
import sys

import pytest
from helpers import ROOT, process_env

# The interpreter of the script: nothing is installed, the data are those of the tests, and the
# trainings are short. `$BREAK` is a part of the command that fails.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
*onedl-*) exit 1 ;;
-I* | '-m pip'*) exit 0 ;;
*make_quickstart.py*) ln -sfn "$TEST_DATA" "$QUICKSTART_DIR/data" && exit ;;
esac
if [ -n "$BREAK" ] && [[ "$*" == *"$BREAK"* ]]; then
    echo 'an earlier line'
    echo 'this is why' >&2
    exit 3
fi
if [[ "$*" == *tools/train.py* ]]; then
    [[ "$*" == *--cfg-options* ]] || set -- "$@" --cfg-options
    set -- "$@" train_cfg.max_epochs=1 train_dataloader.num_workers=0 \
        train_dataloader.persistent_workers=False \
        train_dataloader.batch_sampler.batch_size.video=4 \
        train_dataloader.batch_sampler.batch_size.image=4
fi
exec "$REAL_PYTHON" "$@"
"""


@pytest.fixture
def quickstart_script(quickstart_data, tmp_path):
    """Runs the script; returns its exit code, output, errors and folder."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    python = folder / 'python'
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(broken=''):
        env = dict(
            process_env(),
            PATH=f'{folder}{os.pathsep}{os.environ["PATH"]}',
            REAL_PYTHON=sys.executable,
            TEST_DATA=str(quickstart_data / 'data'),
            QUICKSTART_DIR=str(tmp_path / 'out'),
            BREAK=broken,
        )
        command = ['bash', osp.join(ROOT, 'tools', 'quickstart.sh')]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=1200
        )
        return done.returncode, done.stdout, done.stderr, tmp_path / 'out'

    return run


@pytest.mark.skipif(
    not os.environ.get('S4D_SLOW_TESTS'), reason='takes minutes: S4D_SLOW_TESTS=1 runs it'
)
def test_it_ends_in_a_table_and_fits_on_two_screens(quickstart_script):
    code, output, errors, out = quickstart_script()
    assert code == 0, output + errors
    assert errors == ''
    for label in ('masked faces', 'with pre-training', 'without pre-training'):
        assert re.search(rf'^  {label}: epoch 1/1  loss \d\.\d+  0:00:00 left$', output, re.M)
    summary = output.split('=== summary ===')[1]
    for row in ('with pre-training', 'without pre-training', 'chance'):
        assert len(re.search(rf'^{row}((?: +[\d.]+)+)$', summary, re.M).group(1).split()) == 4
    for name in re.findall(rf'{re.escape(str(out))}/\S+', summary):
        assert osp.isfile(name), name
    assert 'tools/predict.py YOUR.mp4' in summary
    assert len(output.splitlines()) < 70  # with one epoch for each training
    # the rows are those of the two tests
    for name, loaded in (('finetune', True), ('finetune_from_scratch', False)):
        log = (out / 'logs' / f'{name}.log').read_text()
        assert ('tensors of the checkpoint found a place' in log) is loaded


def test_a_stage_that_fails_shows_why(quickstart_script):
    code, output, errors, out = quickstart_script('tools/train.py')
    assert code == 3
    assert 'an earlier line\nthis is why' in errors
    assert 'stopped in stage "pre-train"' in errors
    assert str(out / 'logs' / 'pretrain.log') in errors
    assert 'fine-tune' not in output
