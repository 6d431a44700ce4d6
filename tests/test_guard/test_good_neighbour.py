# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the import of the package and of its guard changes for others, in processes of their own."""

import ast
import json
import os
import os.path as osp
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
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


def test_the_guard_replaces_what_its_page_lists():
    assert set(last_line(f'{HERE}/picture.py', 's4d_mm', 's4d_mm.guard')) == GUARDED
    with open(osp.join(ROOT, 'docs', 'reliability.md'), encoding='utf-8') as f:
        page = f.read()
    for name in GUARDED - {OWN_CONFIGS}:
        parts = [part for part in name.split('.') if '_schemes' not in part][-2:]
        assert f'`{".".join(parts)}' in page or f'`{parts[-1]}' in page, name


@pytest.fixture(scope='module')
def without(tmp_path_factory):
    folder = tmp_path_factory.mktemp('foreign')
    return folder, last_line(f'{HERE}/foreign_weights.py', folder)


@pytest.mark.parametrize('modules', [['s4d_mm'], ['s4d_mm', 's4d_mm.guard']], ids=len)
def test_weights_of_others_arrive_as_without_us(without, modules):
    """Through the loading code of mmaction2 and mmpretrain, in files of their own layouts."""
    folder, expected = without
    assert last_line(f'{HERE}/foreign_weights.py', folder, *modules) == expected
    arrived = {name: f'{found[0]} of {found[1]}' for name, found in expected.items()}
    assert arrived == dict(
        uniformer='92 of 93',  # one kernel is inflated
        uniformerv2='65 of 65',
        video_swin='67 of 71',  # its tables of positions are repeated
        tsn_resnet='120 of 120',
        mvit='55 of 55',
        videomae='31 of 31',
        mae='38 of 38',
        milan='38 of 38',
    )


PLAIN = """
_base_ = ['mmaction::_base_/models/tsn_r50.py', 'mmaction::_base_/default_runtime.py']
model = dict(
    backbone=dict(depth=18, pretrained=None), cls_head=dict(in_channels=512, num_classes=7)
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='VideoDataset',
        ann_file='list.txt',
        data_prefix=dict(video='data/clips'),
        pipeline=[
            dict(type='DecordInit'),
            dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=2),
            dict(type='DecordDecode'),
            dict(type='Resize', scale=(32, 32), keep_ratio=False),
            dict(type='FormatShape', input_format='NCHW'),
            dict(type='PackActionInputs'),
        ],
    ),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
"""


IMPORTS = re.compile(r'^custom_imports = dict\(.*?\)\n', re.S | re.M)


def test_a_plain_run_of_the_toolbox_is_the_same(tmp_path, quickstart_data):
    """With ``custom_imports`` and without: checkpoints, log lines, config."""
    os.symlink(quickstart_data / 'data', tmp_path / 'data')
    clips = sorted((tmp_path / 'data' / 'clips').glob('*.mp4'))[:8]
    (tmp_path / 'list.txt').write_text(''.join(f'{c.name} {i % 7}\n' for i, c in enumerate(clips)))
    (tmp_path / 'plain.py').write_text(PLAIN)
    imports = "custom_imports = dict(imports=['s4d_mm'], allow_failed_imports=False)\n"
    (tmp_path / 'ours.py').write_text(f"_base_ = 'plain.py'\n{imports}")
    tool = osp.join(osp.dirname(find_spec('mmaction').origin), '.mim', 'tools', 'train.py')
    code = (
        'import runpy, sys; from foreign_weights import provide_drn; provide_drn(); '
        'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__"); '
        'assert ("s4d_mm" in sys.modules) == (sys.argv[1] == "ours.py")'
    )
    runs = {}
    for name in ('plain', 'ours'):
        command = [sys.executable, '-W', 'ignore', '-c', code, tool, f'{name}.py']
        paths = os.pathsep.join([HERE, process_env()['PYTHONPATH']])
        done = subprocess.run(
            [*command, '--work-dir', 'run'],
            cwd=tmp_path,
            env={**process_env(), 'PYTHONPATH': paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        work_dir = tmp_path / 'run'
        checkpoint = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
        config = (work_dir / f'{name}.py').read_text()
        log = next(work_dir.glob('*/*.log')).read_text()
        files = sorted(p.name for p in work_dir.iterdir() if p.is_file())
        runs[name] = (checkpoint, config, plain_lines(IMPORTS.sub('', log)), files)
        work_dir.rename(tmp_path / f'run_{name}')
    (one, config, log, files), (two, config_two, log_two, files_two) = runs['plain'], runs['ours']
    assert IMPORTS.search(config_two) and config == IMPORTS.sub('', config_two)
    assert log == log_two and any('loss' in line for line in log)
    assert files == [name.replace('ours', 'plain') for name in files_two]
    assert one.keys() == two.keys() and one['meta'].keys() == two['meta'].keys()
    assert all(torch.equal(v, two['state_dict'][k]) for k, v in one['state_dict'].items())


def plain_lines(log):
    """Lines of a log without what differs between two runs: times, addresses, names of files."""
    lines = []
    for line in log.splitlines():
        line = re.sub(r'^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d - ', '', line)
        line = re.sub(r'(eta|time|data_time|memory): *[\d:.]+', '', line)
        lines.append(re.sub(r'\d{8}_\d{6}|0x[0-9a-f]+|plain|ours', '', line))
    return lines


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
