# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
# ruff: noqa: F401
"""Models: the method in the paper's order.

``tokens.py`` (tubelets, positions), ``encoder.py``, ``mae.py`` (masked auto-encoder), ``moae.py``
(router, experts, block, neck), ``joint.py`` (fine-tuning); ``preprocessor.py`` and
``blending.py`` feed them; ``mix.py`` joins them with other models; ``s2d.py`` and
``landmark_net.py`` are S2D; ``state_dict.py`` has what happens when weights are loaded.

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
m     masked tokens that a masked decoder predicts
P     pixel values of a token, s * p * p * 3
C     channels of a token
S     tokens of a whole batch, B * N
E     experts
K     experts that a token uses
D     hidden width of an expert
A     assignments of a token to an expert, S * K
====  ==============================================================================
"""

from .blending import ReversedCutmixBlending, ReversedMixupBlending
from .encoder import S4DViT
from .joint import DualModalHead, DualModalRecognizer
from .landmark_net import LandmarkMobileFaceNet
from .mae import S4DMAE, S4DMAEDecoder, S4DMAEHead, S4DMAEViT
from .mix import ClipTSNHead, FrameWiseBackbone, MoAEImageClassifier, ViewsI3DHead
from .moae import MoAENeck, NoisyTopKRouter, Routing
from .preprocessor import DualModalDataPreprocessor
from .s2d import EmotionAnchorHead, S2DRecognizer, S2DViT
