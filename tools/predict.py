# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The command ``s4d predict``, for ``mim run s4d_mm predict`` and a source tree.

python tools/predict.py MEDIA --model CONFIG --weights CHECKPOINT --out DIR
"""

import os.path as osp
import runpy
import sys
from importlib.util import find_spec

if __name__ == '__main__':
    package = find_spec('s4d_mm')  # is not imported by that: see s4d_mm/predict/cli.py
    if package is None:
        sys.exit('s4d_mm is not installed: run `bash tools/install.sh faces`')
    sys.argv.insert(1, 'predict')
    runpy.run_path(osp.join(osp.dirname(package.origin), 'predict', 'cli.py'), run_name='__main__')
