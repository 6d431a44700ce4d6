# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .s4d_mae import S4DMAE

__all__ = ['S4DMAE']
