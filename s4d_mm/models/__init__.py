# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Models: the method in the paper's order.

``layers/tubelets.py`` (embedding, positions), ``layers/transformer.py`` (blocks),
``layers/moae.py`` (router, experts), ``backbones/s4d_vit.py`` (encoder),
``backbones/s4d_mae_vit.py``, ``necks/s4d_mae_decoder.py`` and ``heads/s4d_mae_head.py``
(masked auto-encoder), ``necks/moae_neck.py`` and ``heads/dual_modal_head.py`` (fine-tuning).

Letters that shapes are written with, in the whole package:

====  ==============================================================================
B     samples of a batch
V     views of a sample
T     frames of a clip
H, W  pixels in height and width
s, p  frames of a tubelet, pixels on its side
t     temporal slots of tokens, T / s
h, w  rows and columns of tokens, H / p and W / p
N     tokens of a sample, t * h * w
n     visible tokens of a masked sample
P     pixel values of a token, s * p * p * 3
C     channels of a token
S     tokens of a whole batch, B * N
E     experts
K     experts that a token uses
D     hidden width of an expert
A     assignments of a token to an expert, S * K
====  ==============================================================================
"""

from .backbones import (
    FrameWiseBackbone,
    LandmarkMobileFaceNet,
    S2DViT,
    S4DMAEViT,
    S4DViT,
)
from .classifiers import MoAEImageClassifier
from .data_preprocessors import (
    BatchRandAugment,
    BatchRandomErasing,
    BatchRandomResizedCrop,
    DualModalDataPreprocessor,
    ReversedCutmixBlending,
    ReversedMixupBlending,
)
from .heads import ClipTSNHead, DualModalHead, EmotionAnchorHead, S4DMAEHead, ViewsI3DHead
from .necks import MoAENeck, S4DMAEDecoder
from .recognizers import DualModalRecognizer, S2DRecognizer
from .selfsup import S4DMAE

__all__ = [
    'BatchRandAugment',
    'BatchRandomErasing',
    'BatchRandomResizedCrop',
    'ClipTSNHead',
    'DualModalDataPreprocessor',
    'DualModalHead',
    'DualModalRecognizer',
    'EmotionAnchorHead',
    'FrameWiseBackbone',
    'LandmarkMobileFaceNet',
    'MoAEImageClassifier',
    'MoAENeck',
    'ReversedCutmixBlending',
    'ReversedMixupBlending',
    'S2DRecognizer',
    'S2DViT',
    'S4DMAE',
    'S4DMAEDecoder',
    'S4DMAEHead',
    'S4DMAEViT',
    'S4DViT',
    'ViewsI3DHead',
]
