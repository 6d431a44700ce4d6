# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files that are converted and published: written whole or not at all."""

import os

import pytest
import torch

from s4d_mm.weights.io import Conversion, convert_file, save_checkpoint

WEIGHTS = dict(a=torch.arange(3.0), b=torch.ones(1))


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

    def refuse(weights):
        raise ValueError(f'{len(weights)} keys do not fit')

    assert convert_file(src, dst, refuse) == 1
    assert capsys.readouterr().err == f'There is no checkpoint {src}.\n'
    torch.save(WEIGHTS, src)
    assert convert_file(src, dst, refuse) == 1
    assert capsys.readouterr().err == f'{src}: 2 keys do not fit\n'
    assert os.listdir(tmp_path) == ['src.pth']
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
