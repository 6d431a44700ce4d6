# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files as the authors' trainers write them, with classes that readers do not have."""

import argparse
import collections
import contextlib
import sys
import types
import typing
from unittest import mock

import numpy as np
import torch

# classes of omegaconf and the modules that they are in
HOMES = dict(ListConfig='listconfig', DictConfig='dictconfig', AnyNode='nodes')
HOMES.update(ContainerMetadata='base', Metadata='base')


@contextlib.contextmanager
def fake_omegaconf():
    """A package ``omegaconf`` for as long as a file is written; readers do not find it.

    It yields a function that makes a ListConfig of numbers, which leaves in a pickle what those of
    omegaconf 2.3 leave there.
    """
    modules, classes = {'omegaconf': types.ModuleType('omegaconf')}, {}
    for name, home in HOMES.items():
        module = modules.setdefault(f'omegaconf.{home}', types.ModuleType(f'omegaconf.{home}'))
        classes[name] = type(name, (), dict(__module__=module.__name__))
        setattr(module, name, classes[name])

    def make(name, **state):
        value = classes[name]()
        value.__dict__.update(state)
        return value

    def metadata(name, **more):
        flags = collections.defaultdict(dict, struct=True)
        kinds = dict(ref_type=typing.Any, object_type=list, key_type=int)
        return make(name, flags=flags, optional=True, **kinds, **more)

    def list_config(numbers):
        root = make('DictConfig', _metadata=metadata('ContainerMetadata'), _parent=None)
        nodes = [
            make('AnyNode', _metadata=metadata('Metadata', key=i), _parent=root, _val=x)
            for i, x in enumerate(numbers)
        ]
        root._content = dict(betas=nodes)
        return make(
            'ListConfig',
            _metadata=metadata('ContainerMetadata', element_type=typing.Any),
            _parent=root,
            _content=nodes,
        )

    with mock.patch.dict(sys.modules, modules):
        yield list_config


def save_pretraining(weights, path) -> str:
    """Write what the authors' pre-training writes: AdamW's ``betas`` are a list of omegaconf."""
    with fake_omegaconf() as list_config:
        group = dict(lr=np.float64(1e-3), betas=list_config([0.9, 0.95]), params=[0])
        optimizer = dict(state={0: dict(step=torch.tensor(3.0))}, param_groups=[group])
        rest = dict(epoch=99, loss=0.5, steps=7, scaler=dict(scale=65536.0))
        torch.save(dict(model=weights, optimizer=optimizer, **rest), path)
    return str(path)


def save_finetuning(weights, path) -> str:
    """Write what the authors' fine-tuning writes: parsed arguments, numpy's numbers."""
    args = argparse.Namespace(lr=np.float64(4e-5), layer_decay=np.float32(0.75), seed=np.int64(1))
    rest = dict(optimizer=None, epoch=99, scaler=dict(scale=65536.0), args=args)
    torch.save(dict(model=weights, **rest), path)
    return str(path)
