# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .dual_modal_recognizer import DualModalRecognizer

__all__ = ['DualModalRecognizer']
