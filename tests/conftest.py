# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What all tests share: few threads, and the package's registrations."""
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch  # noqa: E402

import s4d_mm  # noqa: E402,F401

torch.set_num_threads(1)
