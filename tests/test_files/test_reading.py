# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files of weights of others: read without running code, as torch or safetensors has them."""

import argparse
import builtins
import importlib
import json
import os
import sys

import pytest
import torch
from authors_files import save_finetuning, save_pretraining
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.files.checkpoint import StandIn, is_harmless, load_weights, read_checkpoint
from s4d_mm.files.errors import WeightsError
from s4d_mm.weights.io import publish, save_checkpoint
from s4d_mm.weights.s4d import to_authors

WEIGHTS = dict(a=torch.arange(3.0), b=torch.ones(1))


class Call:
    """Unpickling this without ``weights_only`` calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'content',
    [
        WEIGHTS,
        dict(state_dict=WEIGHTS, meta={}),
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


@pytest.mark.parametrize('save', [save_pretraining, save_finetuning])
def test_the_authors_files_are_read_without_their_packages(save, tmp_path):
    path = save(WEIGHTS, tmp_path / 'x.pth')
    modules, known = set(sys.modules), set(torch.serialization.get_safe_globals())
    assert set(load_weights(path)) == set(WEIGHTS)
    assert not [name for name in set(sys.modules) - modules if name.startswith('omegaconf')]
    assert set(torch.serialization.get_safe_globals()) == known  # for one load only
    if save is save_pretraining:
        group = read_checkpoint(path)['optimizer']['param_groups'][0]
        assert type(group['betas']) is StandIn and not vars(group['betas'])
        assert group['lr'] == 1e-3  # mmengine's checkpoints have numpy's numbers too


@pytest.mark.parametrize(
    'function, args, name',
    [
        (builtins.open, ('{harm}', 'w'), r'_?io\.open'),
        (builtins.eval, ('open({harm!r}, "w")',), r'builtins\.eval'),
        (importlib.import_module, ('os',), r'importlib\.import_module'),
    ],
)
def test_no_code_of_a_file_runs(function, args, name, tmp_path):
    harm = str(tmp_path / 'harm')
    args = [arg.format(harm=harm) for arg in args]
    torch.save(dict(model=WEIGHTS, hook=Call(function, *args)), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match=f'x.pth cannot be read.*{name}'):
        load_weights(str(tmp_path / 'x.pth'))
    with pytest.raises(WeightsError, match='cannot be read'):
        publish(str(tmp_path / 'x.pth'), str(tmp_path / 'model.pth'))
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


def test_names_that_only_begin_like_a_harmless_package():
    assert is_harmless('omegaconf.base.Metadata') and is_harmless('builtins.list')
    for name in ('omegaconfig.x', 'builtins.getattr', 'typing_extensions.x', 'numpyro.x'):
        assert not is_harmless(name)


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / 'x.pth'
    with pytest.raises(FileNotFoundError, match=f'no checkpoint {path}'):
        load_weights(path)
    for content in (b'no checkpoint', b'PK\x03\x04 no zip', b''):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=f'{path} is no checkpoint that can be'):
            load_weights(path)
    torch.save([WEIGHTS], path)
    with pytest.raises(WeightsError, match=f'{path} holds no weights: it is a list'):
        load_weights(path)


# ---------------------------------------------------------------- safetensors
CLASSES = dict(video=('a', 'b'), image=('a', 'ü'))
META = dict(epoch=3, seed=7, dataset_meta=dict(classes=CLASSES), cfg='model = dict(x=1)\n')


def test_published_weights_come_back_with_their_meta(tmp_path):
    weights = build(FINETUNE).state_dict()
    torch.save(dict(state_dict=weights, meta=META, optimizer=1), tmp_path / 'x.pth')
    out = publish(str(tmp_path / 'x.pth'), str(tmp_path / 'y.safetensors'))
    assert sorted(os.listdir(tmp_path)) == ['x.pth', os.path.basename(out)]
    assert out.startswith(str(tmp_path / 'y_20')) and out.endswith('.safetensors')
    read = CheckpointLoader.load_checkpoint(out)
    assert all(torch.equal(read['state_dict'][k], v) for k, v in weights.items())
    assert set(read['state_dict']) == set(weights)
    classes = {k: list(v) for k, v in CLASSES.items()}
    assert read['meta'] == {**META, 'dataset_meta': dict(classes=classes)}
    with safe_open(out, 'pt') as f:
        texts = f.metadata()
    assert texts['cfg'] == META['cfg'] and texts['format'] == 'pt'
    assert json.loads(texts['dataset_meta'])['classes'] == classes


def test_files_of_others_under_any_name(tmp_path, server):
    model = build(PRETRAIN, seed=3)
    theirs, _ = to_authors(model.state_dict(), 'pretrain')
    theirs = {k: v.contiguous() for k, v in theirs.items()}
    save_file(theirs, tmp_path / 'x.bin', dict(format='pt', meta='no JSON'))
    address = server.url('/download', (tmp_path / 'x.bin').read_bytes())
    for place in (str(tmp_path / 'x.bin'), address):
        again = build(PRETRAIN, seed=4)
        load_checkpoint(again, place, strict=True)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    read = read_checkpoint(str(tmp_path / 'x.bin'), torch.device('meta'))
    assert {v.device.type for v in read['state_dict'].values()} == {'meta'}


def test_safetensors_of_shared_and_transposed_tensors(tmp_path):
    one, path = torch.arange(6.0).reshape(2, 3), str(tmp_path / 'x.safetensors')
    save_checkpoint(dict(state_dict=dict(a=one, b=one.t(), c=one), meta={}), path)
    assert torch.equal(load_file(path)['b'], one.t()) and torch.equal(load_file(path)['c'], one)


def test_torn_and_damaged_files(tmp_path):
    path = str(tmp_path / 'x.safetensors')
    save_checkpoint(dict(state_dict=dict(a=torch.ones(1000)), meta=META), path)
    with open(path, 'rb') as f:
        content = f.read()
    for spoilt in (content[: len(content) // 2], content.replace(b'\\"epoch', b' \\epoch')):
        with open(path, 'wb') as f:
            f.write(spoilt)
        with pytest.raises(WeightsError, match=f'{path} is no checkpoint'):
            read_checkpoint(path)
