# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .moae_image_classifier import MoAEImageClassifier

__all__ = ['MoAEImageClassifier']
