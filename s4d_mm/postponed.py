# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Slow imports of the toolbox, put off until somebody needs them.

Importing torch, torchvision, mmengine and mmaction2 brings in modules for a name or two that hardly
anybody calls. They are a quarter of the time of ``import s4d_mm``.
"""

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# module: what is imported from it by name, and called later if at all
SLOW = {
    'scipy.stats': 'mode',  # by mmaction.datasets.transforms.pose_transforms
    'torch._dynamo.utils': 'is_compile_supported',  # torch's compiler, by torchvision.ops.roi_align
}


class Postponed:
    """A function or class that is imported when it is called. It is pickled as the real one."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __call__(self, *args, **kwargs) -> Any:
        """Import and call it."""
        return fetch(self.module, self.name)(*args, **kwargs)

    def __reduce__(self) -> tuple:
        return fetch, (self.module, self.name)


class StandIn(types.ModuleType):
    """What is imported in place of a slow module.

    It has one name, a :class:`Postponed`. Whatever else is asked for comes from the real module.
    """

    def __init__(self, module: str, name: str) -> None:
        super().__init__(module)
        setattr(self, name, Postponed(module, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):  # what Python's import asks for
            raise AttributeError(name)
        return fetch(self.__name__, name)


def fetch(module: str, name: str) -> Any:
    """Import a name from a module, the real one."""
    if isinstance(sys.modules.get(module), StandIn):
        del sys.modules[module]
    return getattr(importlib.import_module(module), name)


@contextmanager
def postponed_imports() -> Iterator[None]:
    """Within the block, slow modules that are not there yet are represented by stand-ins.

    Who imports the name from one keeps the stand-in's. After the block ``import`` gives the real
    module.
    """
    stand_ins = {module: StandIn(module, name) for module, name in SLOW.items()}
    for module, stand_in in stand_ins.items():
        sys.modules.setdefault(module, stand_in)
    try:
        yield
    finally:
        for module, stand_in in stand_ins.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]
