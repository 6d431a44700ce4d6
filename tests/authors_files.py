# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files as the authors' trainers write them, with classes that readers do not have."""

import argparse
import collections
import sys
import types
import typing
from unittest import mock

import numpy as np
import torch

# classes of omegaconf, and the modules that they are in
HOMES = dict(ListConfig='listconfig', DictConfig='dictconfig', AnyNode='nodes', Metadata='base')


def save_pretraining(weights, path) -> str:
    """Write what the authors' pre-training writes: AdamW's ``betas`` are a list of omegaconf.

    The package ``omegaconf`` is made up while the file is written; the list leaves in the pickle
    what that of omegaconf 2.3 leaves there.
    """
    modules, classes = {'omegaconf': types.ModuleType('omegaconf')}, {}
    for name, home in HOMES.items():
        module = modules[f'omegaconf.{home}'] = types.ModuleType(f'omegaconf.{home}')
        classes[name] = type(name, (), dict(__module__=module.__name__))
        setattr(module, name, classes[name])

    def make(name, **state):
        value = classes[name]()
        value.__dict__.update(state)
        return value

    flags = collections.defaultdict(dict, struct=True)
    kinds = dict(ref_type=typing.Any, object_type=list, key_type=int)
    metadata = make('Metadata', flags=flags, optional=True, **kinds)
    root = make('DictConfig', _metadata=metadata, _parent=None)
    nodes = [make('AnyNode', _metadata=metadata, _parent=root, _val=x) for x in (0.9, 0.95)]
    root._content = dict(betas=nodes)
    betas = make('ListConfig', _metadata=metadata, _parent=root, _content=nodes)
    group = dict(lr=np.float64(1e-3), betas=betas, params=[0])
    optimizer = dict(state={0: dict(step=torch.tensor(3.0))}, param_groups=[group])
    rest = dict(epoch=99, loss=0.5, steps=7, scaler=dict(scale=65536.0))
    with mock.patch.dict(sys.modules, modules):
        torch.save(dict(model=weights, optimizer=optimizer, **rest), path)
    return str(path)


def save_finetuning(weights, path) -> str:
    """Write what the authors' fine-tuning writes: parsed arguments, numpy's numbers."""
    args = argparse.Namespace(lr=np.float64(4e-5), layer_decay=np.float32(0.75), seed=np.int64(1))
    rest = dict(optimizer=None, epoch=99, scaler=dict(scale=65536.0), args=args)
    torch.save(dict(model=weights, **rest), path)
    return str(path)
