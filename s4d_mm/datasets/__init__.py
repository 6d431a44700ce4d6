# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From files to batches: datasets, pipeline steps and samplers."""
# ruff: noqa: F401

from . import transforms
from .expression import BaseExpressionDataset, ExpressionImageDataset, ExpressionVideoDataset
from .joint import (
    DualModalBatchSampler,
    DualModalDataset,
    DualModalSampler,
    SeedDraws,
    SeededIndex,
    SeededSampler,
)
from .lists import AnnotationError
from .public import (
    CAER,
    CAERS,
    CREMAD,
    DFEW,
    ENTERFACE05,
    MAFW,
    RAFDB,
    RAVDESS,
    AffectNet,
    FERPlus,
    FERV39k,
    VoxCeleb2,
)
