# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From predictions to the numbers that are reported."""
# ruff: noqa: F401

from .functional import classification_report, confusion_matrix, f1_scores, recalls
from .metric import ExpressionMetric
from .predictions import PredictionsFile
