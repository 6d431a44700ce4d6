# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The command that converts the authors' checkpoints."""

import argparse
import os.path as osp
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

TOOL = osp.join(ROOT, 'tools', 'model_converters', 's4d_to_mm.py')


def reference(stage):
    path = osp.join(ROOT, 'tests', 'data', f'{stage}_a.pt')
    return torch.load(path, weights_only=True)['state_dict']


def convert(*args):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', TOOL, *map(str, args)], capture_output=True, text=True
    )


def test_there_and_back(tmp_path):
    theirs = reference('finetune')
    extra = dict(theirs, step_counter=torch.zeros(1))
    src, mid, back = (tmp_path / n for n in ('a.pth', 'b.pth', 'c.pth'))
    # as the authors' training scripts store it
    torch.save(dict(model=extra, epoch=3, args=argparse.Namespace(x=1)), src)
    run = convert(src, mid, '--stage', 'finetune')
    assert run.returncode == 0, run.stderr
    assert '1 keys' in run.stdout and 'step_counter' in run.stdout
    run = convert(mid, back, '--stage', 'finetune', '--reverse')
    assert run.returncode == 0, run.stderr
    result = torch.load(back, weights_only=True)['model']
    assert set(result) == set(theirs)
    assert all(torch.equal(result[k], theirs[k]) for k in theirs)


@pytest.mark.parametrize(
    'content,match',
    [
        (dict(model=reference('pretrain')), 'looks like a checkpoint of: authors pretrain'),
        (dict(weight=torch.zeros(2)), 'not a finetune checkpoint of authors'),
        (dict(epoch=3), 'holds no weights'),
    ],
)
def test_refuses_other_files(tmp_path, content, match):
    torch.save(content, tmp_path / 'x.pth')
    run = convert(tmp_path / 'x.pth', tmp_path / 'y.pth', '--stage', 'finetune')
    assert run.returncode == 1 and match in run.stderr, run.stderr
    assert not (tmp_path / 'y.pth').exists()


def test_refuses_what_is_no_checkpoint(tmp_path):
    (tmp_path / 'x.pth').write_text('no checkpoint')
    run = convert(tmp_path / 'x.pth', tmp_path / 'y.pth', '--stage', 'finetune')
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert 'no checkpoint that can be read' in run.stderr


def test_missing_file(tmp_path):
    run = convert(tmp_path / 'no.pth', tmp_path / 'y.pth', '--stage', 'pretrain')
    assert run.returncode == 1 and 'There is no checkpoint' in run.stderr
