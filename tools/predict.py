# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The command ``s4d predict``, for ``mim run s4d_mm predict`` and a source tree.

python tools/predict.py MEDIA --model CONFIG --weights CHECKPOINT --out DIR
"""

import sys

from s4d_mm.cli import main

if __name__ == '__main__':
    sys.exit(main(['predict', *sys.argv[1:]]))
