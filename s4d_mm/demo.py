# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The former place of :mod:`s4d_mm.predict.page`, for one release."""

from .predict.page import build, serve

__all__ = ['build', 'serve']
