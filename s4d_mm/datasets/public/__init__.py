# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Public datasets: their classes in label order, and their annotation files
as they are distributed.
"""

from .acted import CREMAD, ENTERFACE05, RAVDESS
from .base import LabelInName, PublicDataset
from .images import CAERS, RAFDB, AffectNet, FERPlus
from .videos import CAER, DFEW, MAFW, FERV39k, VoxCeleb2

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
    'FERPlus',
    'FERV39k',
    'LabelInName',
    'PublicDataset',
    'VoxCeleb2',
]
