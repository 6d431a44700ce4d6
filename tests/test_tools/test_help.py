# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The commands of a run answer ``-h`` at once, without torch."""

import subprocess
import sys

import pytest
from helpers import ROOT, process_env

# runs a script with -h, then says what it has imported
RUN = """
import runpy, sys
script = sys.argv[1]
sys.argv = [script, '-h']
sys.path.insert(0, script.rpartition('/')[0])
try:
    runpy.run_path(script, run_name='__main__')
finally:
    print('\\nIMPORTED torch' if 'torch' in sys.modules else '\\nIMPORTED no torch')
"""


@pytest.mark.parametrize('command', ['train', 'test', 'kfold', 'data/prepare', 'data/verify'])
def test_help(command):
    done = subprocess.run(
        [sys.executable, '-c', RUN, f'{ROOT}/tools/{command}.py'],
        env=process_env(),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: ') and not done.stderr
    assert 'IMPORTED no torch' in done.stdout
