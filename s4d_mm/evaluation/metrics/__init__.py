# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .expression_metric import ExpressionMetric
from .predictions_file import PredictionsFile

__all__ = ['ExpressionMetric', 'PredictionsFile']
