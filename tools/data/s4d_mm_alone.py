# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Modules of ``s4d_mm`` without the rest of the package, for worker processes.

``import s4d_mm`` brings in torch and the toolbox: 7 to 10 seconds and 0.9 GB in each process. This
module stands for the package and runs nothing of its ``__init__.py``. An error class of
``s4d_mm_alone.media`` is not that of ``s4d_mm.media``.
"""

from importlib.util import find_spec

_package = find_spec('s4d_mm')  # finds the package, but does not import it
if _package is None:
    raise ImportError('s4d_mm is not installed; in the source tree: pip install -e .')
__path__ = list(_package.submodule_search_locations)
