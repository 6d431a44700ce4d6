# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From files to batches: datasets, pipeline steps and samplers."""

from .acted import CREMAD, ENTERFACE05, RAVDESS
from .affectnet import AffectNet
from .annotations import Annotation, AnnotationError
from .caer import CAER, CAERS
from .dfew import DFEW
from .dual_modal_dataset import DualModalDataset
from .expression_dataset import (
    BaseExpressionDataset,
    ExpressionImageDataset,
    ExpressionVideoDataset,
)
from .ferplus import FERPlus
from .ferv39k import FERV39k
from .label_in_name import LabelInName
from .mafw import MAFW
from .public_dataset import PublicDataset
from .rafdb import RAFDB
from .samplers import DualModalBatchSampler, DualModalSampler
from .seeding import SeedDraws, SeededIndex, SeededSampler
from .transforms import *  # noqa: F401,F403
from .transforms import __all__ as _transforms
from .voxceleb2 import VoxCeleb2

__all__ = [
    'CAER',
    'CAERS',
    'CREMAD',
    'DFEW',
    'ENTERFACE05',
    'MAFW',
    'RAFDB',
    'RAVDESS',
    'AffectNet',
    'Annotation',
    'AnnotationError',
    'BaseExpressionDataset',
    'DualModalBatchSampler',
    'DualModalDataset',
    'DualModalSampler',
    'ExpressionImageDataset',
    'ExpressionVideoDataset',
    'FERPlus',
    'FERV39k',
    'LabelInName',
    'PublicDataset',
    'SeedDraws',
    'SeededIndex',
    'SeededSampler',
    'VoxCeleb2',
    *_transforms,
]
