# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Print what the import of the modules given replaces in the packages they stand on, as JSON."""

import contextlib
import importlib
import json
import logging
import sys
import types
import warnings

PACKAGES = ('mmengine', 'mmcv', 'mmaction', 'mmpretrain')
SINGLE = ('torch.hub', 'torch.serialization', 'warnings', 'logging')


def is_watched(name):
    return name in SINGLE or name.split('.')[0] in PACKAGES


def picture():
    """Every function, class, method, setting and entry of a table, by its full name."""
    found = {}

    def add(name, value):
        found[name] = value
        if isinstance(value, dict):  # registries, schemes, tables of names
            found.update({f'{name}[{key!r}]': entry for key, entry in value.items()})

    for module_name, module in list(sys.modules.items()):
        if not is_watched(module_name) or module is None:
            continue
        for name, value in list(vars(module).items()):
            if name.startswith('__') or isinstance(value, types.ModuleType):
                continue
            add(f'{module_name}.{name}', value)
            members = {}
            if isinstance(value, type) and is_watched(value.__module__):
                members = vars(value)
            elif type(value).__name__ == 'Registry':
                members = {'module_dict': value.module_dict}
            for member, content in list(members.items()):
                if member not in ('__dict__', '__weakref__', '__doc__', '_abc_impl'):
                    add(f'{module_name}.{name}.{member}', content)
    return found


def settings():
    """What is compared by value."""
    root = logging.getLogger()
    return dict(
        filters=list(warnings.filters),
        handlers=list(root.handlers),
        level=root.level,
        disabled=root.manager.disable,
    )


def provide_drn():
    """What the wheel of mmaction2 1.2.0 lacks, without which mmaction.models does not import."""
    package = types.ModuleType('mmaction.models.localizers.drn')
    child = types.ModuleType(f'{package.__name__}.drn')
    package.__path__, child.DRN = [], type('DRN', (), {})
    sys.modules.update({package.__name__: package, child.__name__: child})


def main(*modules):
    provide_drn()
    parts = 'config fileio hooks infer logging model optim registry runner visualization'
    names = [f'mmengine.{part}' for part in parts.split()] + ['mmcv', 'mmaction', 'mmpretrain']
    parts = 'apis datasets engine evaluation models registry structures utils'
    for part in parts.split():
        names += [f'mmaction.{part}', f'mmpretrain.{part}']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name in (*names, 'torch.hub', 'torch.serialization', 'torch.distributed.fsdp'):
            importlib.import_module(name)
    before, values = picture(), settings()
    with contextlib.redirect_stdout(sys.stderr):
        for module in modules:
            importlib.import_module(module)
    after = picture()
    replaced = {
        name for name, value in before.items() if name not in after or after[name] is not value
    }
    # a class is reached by each module that imports it
    kept = {(id(before[n]), id(after.get(n))): n for n in sorted(replaced, key=len, reverse=True)}
    changed = [name for name, value in settings().items() if value != values[name]]
    print(json.dumps(sorted(kept.values()) + changed))


if __name__ == '__main__':
    main(*sys.argv[1:])
