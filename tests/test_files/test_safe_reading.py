# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a checkpoint holds beside its weights: inert, or refused by name."""

import builtins
import importlib
import io
import os
import sys

import pytest
import torch
from authors_files import save_finetuning, save_pretraining

from s4d_mm.files.checkpoint import StandIn, is_harmless, load_weights, read_checkpoint

WEIGHTS = dict(a=torch.arange(3.0), b=torch.ones(1))


class Call:
    """Unpickling this without ``weights_only`` calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('save', [save_pretraining, save_finetuning])
def test_the_authors_files_are_read_without_their_packages(save, tmp_path):
    path = save({f'module.{k}': v for k, v in WEIGHTS.items()}, tmp_path / 'x.pth')
    before = set(sys.modules)
    weights = load_weights(path)
    assert set(weights) == set(WEIGHTS)
    assert all(torch.equal(weights[k], WEIGHTS[k]) for k in WEIGHTS)
    assert not [name for name in set(sys.modules) - before if name.startswith('omegaconf')]


def test_stand_ins_hold_nothing_and_are_known_for_one_load_only(tmp_path):
    path = save_pretraining(WEIGHTS, tmp_path / 'x.pth')
    before = set(torch.serialization.get_safe_globals())
    group = read_checkpoint(path)['optimizer']['param_groups'][0]
    assert type(group['betas']) is StandIn and not vars(group['betas'])
    assert group['lr'] == 1e-3  # mmengine's checkpoints have numpy's numbers too
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(Exception, match='omegaconf'):
        torch.load(path, weights_only=True)


def test_a_real_omegaconf_list_if_there_is_one(tmp_path):
    try:
        omegaconf = importlib.import_module('omegaconf')
    except ImportError:
        pytest.skip('omegaconf is not installed')
    betas = omegaconf.OmegaConf.create(dict(betas=[0.9, 0.95], name='x')).betas
    torch.save(dict(model=WEIGHTS, optimizer=dict(betas=betas)), tmp_path / 'x.pth')
    assert set(load_weights(tmp_path / 'x.pth')) == set(WEIGHTS)


@pytest.mark.parametrize(
    'function, args, name',
    [
        (builtins.open, ('{harm}', 'w'), r'_?io\.open'),
        (builtins.eval, ('open({harm!r}, "w")',), r'builtins\.eval'),
        (os.mkdir, ('{harm}',), r'(posix|nt)\.mkdir'),
        (importlib.import_module, ('os',), r'importlib\.import_module'),
        (io.FileIO, ('{harm}', 'w'), r'_io\.FileIO'),
    ],
)
def test_no_code_of_a_file_runs(function, args, name, tmp_path):
    harm = str(tmp_path / 'harm')
    args = [arg.format(harm=harm) for arg in args]
    torch.save(dict(model=WEIGHTS, hook=Call(function, *args)), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=f'x.pth cannot be read.*{name}') as error:
        load_weights(str(tmp_path / 'x.pth'))
    text = str(error.value)
    assert 'False' not in text and 'add_safe_globals' not in text
    assert not os.path.exists(harm)


@pytest.mark.parametrize('name', ['numpy.testing.runstring', 'pathlib.Path.write_text'])
def test_a_function_of_a_harmless_package_is_not_called(name, tmp_path, monkeypatch):
    """A stand-in takes its place, so that nothing of the package is imported."""
    path, harm = tmp_path / 'x.pth', tmp_path / 'harm'
    package, function = name.rsplit('.', 1)

    def trap(*args):
        harm.write_text('')

    trap.__module__, trap.__qualname__ = package.split('.')[0], function
    monkeypatch.setattr(importlib.import_module(trap.__module__), function, trap, raising=False)
    torch.save(dict(model=WEIGHTS, hook=Call(trap, 'x')), path)
    assert type(read_checkpoint(str(path))['hook']) is StandIn
    assert not harm.exists()


def test_an_unreadable_file_says_why_and_gives_no_advice_to_run_it(tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(b'PK\x03\x04 no zip')
    torch.save(dict(model=WEIGHTS), tmp_path / 'y.pth', pickle_protocol=4)
    # protocol 4 has operations that torch does not read
    for name, cause in (('x.pth', 'zip archive'), ('y.pth', 'Unsupported operand')):
        with pytest.raises(ValueError, match=f'{name} is no checkpoint .*: .*{cause}') as error:
            read_checkpoint(str(tmp_path / name))
        assert 'False' not in str(error.value)


def test_names_that_only_begin_like_a_harmless_package():
    assert is_harmless('omegaconf.base.Metadata') and is_harmless('builtins.list')
    for name in ('omegaconfig.x', 'builtins.getattr', 'typing_extensions.x', 'numpyro.x'):
        assert not is_harmless(name)
