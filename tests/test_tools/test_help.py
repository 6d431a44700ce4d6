# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Every command says what it does, at once: ``-h`` does not wait for torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, process_env

from s4d_mm.converters.s4d import STAGES
from s4d_mm.converters.vit import SOURCES

COMMANDS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('tools', 'benchmarks')
    for path in Path(ROOT, folder).rglob('*.py')
    if "if __name__ == '__main__':" in path.read_text(encoding='utf-8')
)
# torchrun's own parser, and the package itself
WITH_TORCH = ('tools/torchrun.py', 'benchmarks/kills.py', 'benchmarks/run.py')

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


def test_the_commands_are_found():
    assert 'tools/train.py' in COMMANDS and 'tools/data/prepare.py' in COMMANDS
    assert set(WITH_TORCH) <= set(COMMANDS)


@pytest.mark.parametrize('command', COMMANDS)
def test_help(command, tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', RUN, str(Path(ROOT, command))],
        cwd=tmp_path,
        env=process_env(),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: ') and not done.stderr
    usage, _, rest = done.stdout.partition('\n\n')
    assert rest.strip() and not rest.startswith(('options:', 'positional')), 'no description'
    assert ('IMPORTED torch' in done.stdout) == (command in WITH_TORCH)


def test_the_choices_are_those_of_the_converters():
    import s4d_to_mm
    import vit_to_mm

    for stage in STAGES:
        assert s4d_to_mm.parse_args(['src', 'dst', '--stage', stage]).stage == stage
    assert vit_to_mm.SOURCES == SOURCES
