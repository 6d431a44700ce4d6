# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The former name of :mod:`s4d_mm.weights`, for one release."""

import sys

from .weights import io, s2d, s4d, vit

for _module in (io, s2d, s4d, vit):
    sys.modules[f'{__name__}.{_module.__name__.rpartition(".")[2]}'] = _module
