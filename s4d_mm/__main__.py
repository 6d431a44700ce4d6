# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""``python -m s4d_mm`` is the command ``s4d``."""

import sys

from .predict.cli import main

sys.exit(main())
