# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Which modules are sharded, and recomputed, as one unit: the blocks."""

from mmengine.registry import FUNCTIONS
from torch import nn

from ...models.layers import TransformerBlock


@FUNCTIONS.register_module()
def is_transformer_block(module: nn.Module) -> bool:
    """Whether a module is a block of encoder, decoder or MoAE neck."""
    return isinstance(module, TransformerBlock)


@FUNCTIONS.register_module()
def wrap_transformer_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """FSDP's ``auto_wrap_policy``: a unit for each block; what is left
    (embedding, norms, heads) belongs to the whole model's unit.
    """
    return recurse or is_transformer_block(module)
