# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Python entry points of :mod:`s4d_mm.predict`, which ``import s4d_mm`` does not bring in."""

from .former_names import keep_former_names
from .predict.inferencer import ExpressionInferencer
from .predict.models import init_model
from .predict.results import ExpressionRecord, ExpressionResult, FaceTrack, MediaResult
from .predict.scorers import OnnxScorer, Scorer, TorchScorer
from .predict.windows import Window

__all__ = [
    'ExpressionInferencer',
    'ExpressionRecord',
    'ExpressionResult',
    'FaceTrack',
    'MediaResult',
    'OnnxScorer',
    'Scorer',
    'TorchScorer',
    'Window',
    'init_model',
]
keep_former_names(
    {
        'predict.inferencer': 'apis.inferencer',
        'predict.models': 'apis.inference',
        'predict.results': 'apis.results',
        'predict.scorers': 'apis.scorer apis.torch_scorer apis.onnx_scorer',
    }
)
