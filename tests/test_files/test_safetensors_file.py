# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoints as safetensors: the same weights, class names and config, and nothing that runs."""

import json
import os

import pytest
import torch
from helpers import truncate
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.converters.io import publish, save_checkpoint
from s4d_mm.converters.s4d import to_authors
from s4d_mm.files.checkpoint import load_weights, read_checkpoint
from s4d_mm.files.errors import WeightsError

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
    save_file(theirs, tmp_path / 'x.safetensors', dict(format='pt', meta='no JSON'))
    os.rename(tmp_path / 'x.safetensors', tmp_path / 'x.bin')
    address = server.url('/download', (tmp_path / 'x.bin').read_bytes())
    for place in (str(tmp_path / 'x.bin'), address):
        read = CheckpointLoader.load_checkpoint(place)
        assert set(read['state_dict']) == set(load_weights(place)) == set(theirs)
        again = build(PRETRAIN, seed=4)
        load_checkpoint(again, place, strict=True)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('where', ['meta', torch.device('meta'), {'cpu': 'meta'}])
def test_the_device_is_that_which_is_asked_for(where, tmp_path):
    save_file(dict(a=torch.ones(2)), tmp_path / 'x.safetensors')
    path = str(tmp_path / 'x.safetensors')
    assert read_checkpoint(path, where)['state_dict']['a'].device.type == 'meta'
    for keep in (None, 'cpu', lambda storage, location: storage):
        assert read_checkpoint(path, keep)['state_dict']['a'].device.type == 'cpu'


def test_views_and_tensors_that_occur_twice(tmp_path):
    one = torch.arange(6.0).reshape(2, 3)
    path = str(tmp_path / 'x.safetensors')
    save_checkpoint(dict(state_dict=dict(a=one, b=one.t(), c=one), meta={}), path)
    assert torch.equal(load_file(path)['b'], one.t()) and torch.equal(load_file(path)['c'], one)


def test_what_safetensors_cannot_hold(tmp_path):
    content = dict(state_dict=dict(a=torch.ones(1), b=[1]))
    with pytest.raises(WeightsError, match='tensors only, but b is of type list'):
        save_checkpoint(content, str(tmp_path / 'x.safetensors'))
    assert not os.listdir(tmp_path)


def test_torn_and_damaged_files(tmp_path):
    path = str(tmp_path / 'x.safetensors')
    save_checkpoint(dict(state_dict=dict(a=torch.ones(1000)), meta=META), path)
    with open(path, 'rb') as f:
        content = f.read()
    truncate(path)
    with pytest.raises(WeightsError, match=f'{path} is no whole file of safetensors'):
        read_checkpoint(path)
    with open(path, 'wb') as f:
        f.write(content.replace(b'"epoch', b' epoch').replace(b'\\"epoch', b' \\epoch'))
    with pytest.raises(WeightsError, match='damaged|no whole file'):
        read_checkpoint(path)
    torch.save(dict(a=torch.ones(1)), path)  # another kind of file under this name
    with pytest.raises(WeightsError, match='no whole file of safetensors'):
        read_checkpoint(path)
