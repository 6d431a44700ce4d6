# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Python entry points, which ``import s4d_mm`` does not bring in."""

from .inference import init_model, predict_expression

__all__ = ['init_model', 'predict_expression']
