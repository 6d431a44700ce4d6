# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights of other codes. What is imported here tells the models how to recognise them."""

from . import s2d, s4d, vit

__all__ = ['s2d', 's4d', 'vit']
