# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .frame_wise_backbone import FrameWiseBackbone
from .landmark_net import LandmarkMobileFaceNet
from .s2d_vit import S2DViT
from .s4d_mae_vit import S4DMAEViT
from .s4d_vit import S4DViT

__all__ = ['FrameWiseBackbone', 'LandmarkMobileFaceNet', 'S2DViT', 'S4DMAEViT', 'S4DViT']
