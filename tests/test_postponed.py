# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Slow modules are imported when they are needed, and then they are the real ones."""

import subprocess
import sys

from helpers import process_env

from s4d_mm.postponed import SLOW


def run(code):
    """Output and errors of Python code in a process of its own."""
    done = subprocess.run(
        [sys.executable, '-c', code], env=process_env(), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_import_brings_in_no_slow_module_and_warns_of_nothing():
    # a torch whose own fsdp brings in the compiler would do so anyway
    code = (
        'import sys, torch.distributed.fsdp; known = set(sys.modules); import s4d_mm;'
        f'names = {list(SLOW)}; print([n for n in names if n in set(sys.modules) - known])'
    )
    assert run(code) == ('[]\n', '')


def test_postponed_functions_are_the_real_ones():
    code = """
import pickle, sys, numpy, torch
import s4d_mm
from mmaction.datasets.transforms import pose_transforms
print(pose_transforms.mode(numpy.array([1, 2, 2])).mode)
print('scipy.stats' in sys.modules)
from torchvision.ops import roi_align
print(roi_align(torch.ones(1, 1, 4, 4), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 1).item())
import scipy.stats
print(pickle.loads(pickle.dumps(pose_transforms.mode)) is scipy.stats.mode)
print(scipy.stats.norm.cdf(0))

from s4d_mm.postponed import StandIn  # of which another name is asked, too
sys.modules['colorsys'] = StandIn('colorsys', 'rgb_to_hls')
from colorsys import rgb_to_hls, rgb_to_hsv
import colorsys
print(rgb_to_hsv.__name__, type(colorsys).__name__, *rgb_to_hls(1, 1, 1))
"""
    expected = '2 True 1.0 True 0.5 rgb_to_hsv module 0.0 1.0 0.0'
    assert run(code)[0].split() == expected.split()
