# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files: read without running code, written whole or not at all."""

import argparse
import os
import os.path as osp
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from s4d_mm.converters.io import Conversion, convert_file, publish, save_checkpoint
from s4d_mm.files.checkpoint import load_weights

WEIGHTS = dict(a=torch.arange(3.0), b=torch.ones(1))


class Touch:
    """Unpickling this without ``weights_only`` makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize(
    'content',
    [
        WEIGHTS,
        dict(state_dict=WEIGHTS, meta={}),
        # as the S4D authors' training scripts store it
        dict(model=WEIGHTS, epoch=3, args=argparse.Namespace(x=1)),
        dict(module=WEIGHTS),
        dict(state_dict={f'module.{k}': v for k, v in WEIGHTS.items()}),
    ],
    ids=['bare', 'state_dict', 'model', 'module', 'distributed'],
)
def test_weights_are_found(content, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    result = load_weights(tmp_path / 'x.pth')
    assert set(result) == set(WEIGHTS)
    assert all(torch.equal(result[k], WEIGHTS[k]) for k in WEIGHTS)


def test_no_code_of_a_file_is_run(tmp_path):
    path, harm = tmp_path / 'x.pth', tmp_path / 'harm'
    torch.save(dict(model=WEIGHTS, hook=Touch(harm)), path)
    with pytest.raises(ValueError, match=f'{path} .*weights_only=True'):
        load_weights(path)
    assert not harm.exists()


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / 'x.pth'
    with pytest.raises(FileNotFoundError, match=f'no checkpoint {path}'):
        load_weights(path)
    path.write_text('no checkpoint')
    with pytest.raises(ValueError, match=f'{path} is no checkpoint that can be read'):
        load_weights(path)
    for content, kind in ((dict(epoch=1), 'dict'), ([WEIGHTS], 'list')):
        torch.save(content, path)
        with pytest.raises(ValueError, match=f'{path} holds no weights: it is a {kind}'):
            load_weights(path)


def test_a_failed_writing_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / 'x.pth'
    path.write_text('precious')

    def fail_halfway(checkpoint, target):
        with open(target, 'w') as f:
            f.write('half')
        raise RuntimeError('the disk is full')

    monkeypatch.setattr(torch, 'save', fail_halfway)
    with pytest.raises(OSError, match=f'{path} cannot be written: the disk is full'):
        save_checkpoint(WEIGHTS, str(path))
    assert path.read_text() == 'precious' and os.listdir(tmp_path) == ['x.pth']


def test_conversion_of_a_file(tmp_path, capsys):
    src, dst = str(tmp_path / 'src.pth'), str(tmp_path / 'dst.pth')
    torch.save(WEIGHTS, src)
    result = Conversion(dict(c=WEIGHTS['a']), ['b'], 'letters', ['1 letter renamed'])
    assert convert_file(src, dst, lambda weights: result) == 0
    assert capsys.readouterr().out.splitlines() == [
        f'{dst}: wrote 1 parameters (letters).',
        '  1 letter renamed',
        f'1 keys of {src} have no place in it:',
        '  b',
    ]
    written = torch.load(dst, weights_only=True)
    assert torch.equal(written['state_dict']['c'], WEIGHTS['a'])
    assert written['meta']['family'] == 'letters'


def test_errors_of_a_conversion_are_printed(tmp_path, capsys):
    src, dst = str(tmp_path / 'src.pth'), str(tmp_path / 'dst.pth')

    def refuse(weights):
        raise ValueError(f'{len(weights)} keys do not fit')

    def keep(weights):
        return Conversion(weights, [], 'letters')

    def error(*args):
        assert convert_file(*args) == 1
        return capsys.readouterr().err

    assert error(src, dst, keep) == f'There is no checkpoint {src}.\n'
    torch.save(WEIGHTS, src)
    assert error(src, dst, refuse) == f'{src}: 2 keys do not fit\n'
    missing = str(tmp_path / 'no' / 'x.pth')
    assert error(src, missing, keep).startswith(f'{missing} cannot be written')
    assert os.listdir(tmp_path) == ['src.pth']


def test_published_checkpoint(tmp_path):
    src = tmp_path / 'src.pth'
    training = dict.fromkeys(('message_hub', 'optimizer', 'param_schedulers', 'hook_msgs'), 1)
    torch.save(dict(state_dict=WEIGHTS, meta=dict(epoch=3), **training), src)
    out = publish(str(src), str(tmp_path / 'model.pth'))
    assert {p.name for p in tmp_path.iterdir()} == {'src.pth', osp.basename(out)}
    assert set(torch.load(out, weights_only=True)) == {'state_dict', 'meta'}
    torch.save(dict(state_dict=WEIGHTS, hook=Touch(tmp_path / 'harm')), src)
    with pytest.raises(Exception, match='weights_only'):
        publish(str(src), str(tmp_path / 'model.pth'))
    assert not (tmp_path / 'harm').exists()


def test_a_command_in_a_process_of_its_own(tmp_path):
    torch.save(WEIGHTS, tmp_path / 'x.pth')
    tool = osp.join(ROOT, 'tools', 'model_converters', 'vit_to_mm.py')
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', tool, str(tmp_path / 'x.pth'), str(tmp_path / 'y.pth')],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert 'not the keys of a family' in run.stderr
    assert os.listdir(tmp_path) == ['x.pth']
