# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the import of the package and of its guard changes for others, in processes of their own."""

import ast
import json
import os.path as osp
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, process_env

HERE = osp.dirname(osp.abspath(__file__))
# more than a hook can do: mmengine knows a fixed list of packages (s4d_mm/compat.py)
OWN_CONFIGS = 'mmengine.Config._get_cfg_path'
GUARDED = {
    OWN_CONFIGS,
    'mmengine.LocalBackend.put',
    'mmengine.LocalBackend.put_text',
    'mmengine.runner.CheckpointLoader._schemes',
    "mmengine.runner.CheckpointLoader._schemes['']",
    'mmengine.runner.FlexibleRunner.resume',
    'mmengine.runner.Runner.resume',
    'mmengine.runner.checkpoint.load_from_http',
    'mmengine.runner.find_latest_checkpoint',
}


def last_line(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=process_env(), stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0
    return json.loads(done.stdout.splitlines()[-1])


def test_the_import_replaces_nothing():
    """No function, class, method, table entry, scheme, filter or log handler but one method."""
    assert last_line(f'{HERE}/picture.py', 's4d_mm') == [OWN_CONFIGS]


def test_the_guard_replaces_these_alone():
    assert set(last_line(f'{HERE}/picture.py', 's4d_mm', 's4d_mm.guard')) == GUARDED


@pytest.mark.parametrize('part, allowed', [('files', {'files', 'version'}), ('guard', {'files'})])
def test_reading_and_guard_import_nothing_of_the_rest(part, allowed):
    for path in Path(ROOT, 's4d_mm', part).glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                package = ['s4d_mm', part][: 3 - node.level] if node.level else []
                names = ['.'.join([*package, node.module or ''])]
            ours = {name.split('.')[1] for name in names if name.startswith('s4d_mm.')}
            assert ours <= allowed, f'{path}:{node.lineno}'
