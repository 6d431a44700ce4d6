# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""``s4d_mm/media.py`` without the rest of the package, for worker processes.

``import s4d_mm`` brings in torch and the toolbox: 7 to 10 seconds and 0.9 GB in
each process. Reading, cropping and writing pictures needs none of it.
"""

import os.path as osp
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType


def load_media() -> ModuleType:
    """The module; that of the package if this process has it already.

    Raises:
        ImportError: If the package is not installed.
    """
    if 's4d_mm.media' in sys.modules:
        return sys.modules['s4d_mm.media']
    package = find_spec('s4d_mm')  # finds the package, but does not import it
    if package is None:
        raise ImportError('s4d_mm is not installed; in the source tree: pip install -e .')
    file = osp.join(package.submodule_search_locations[0], 'media.py')
    spec = spec_from_file_location('s4d_mm_media_alone', file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


media = load_media()
