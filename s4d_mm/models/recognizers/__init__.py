# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .dual_modal_recognizer import DualModalRecognizer
from .s2d_recognizer import S2DRecognizer

__all__ = ['DualModalRecognizer', 'S2DRecognizer']
