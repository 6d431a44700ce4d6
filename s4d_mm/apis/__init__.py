# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Python entry points, which ``import s4d_mm`` does not bring in."""

from .inference import init_model
from .inferencer import ExpressionInferencer
from .results import ExpressionRecord, ExpressionResult, FaceTrack, MediaResult
from .scorer import Scorer, Window
from .torch_scorer import TorchScorer

__all__ = [
    'ExpressionInferencer',
    'ExpressionRecord',
    'ExpressionResult',
    'FaceTrack',
    'MediaResult',
    'Scorer',
    'TorchScorer',
    'Window',
    'init_model',
]
