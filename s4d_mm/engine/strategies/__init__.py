# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How a model is spread over several processes, for mmengine's
``FlexibleRunner``.
"""

from .deepspeed_strategy import S4DDeepSpeedStrategy
from .fsdp_strategy import S4DFSDPStrategy
from .policies import is_transformer_block, wrap_transformer_blocks

__all__ = [
    'S4DDeepSpeedStrategy',
    'S4DFSDPStrategy',
    'is_transformer_block',
    'wrap_transformer_blocks',
]
