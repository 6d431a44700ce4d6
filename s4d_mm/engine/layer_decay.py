# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning: layer-wise learning-rate decay across backbone and neck."""

from collections.abc import Callable

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

# norms after the blocks: ours, mmaction2's and mmpretrain's ViTs
LAST_NORMS = ('norm', 'fc_norm', 'ln1', 'ln2')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class S4DLayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer-wise decay; the neck's blocks count after the backbone's.

    A model of 6 + 6 blocks has 14 depths: the embedding (0), the blocks (1..12), and the
    rest (13), whose learning rate is scaled by ``layer_decay_rate ** (13 - depth)``. The
    options of ``paramwise_cfg`` are mmpretrain's.

    Examples:
        >>> optim_wrapper = dict(
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     constructor='S4DLayerDecayOptimWrapperConstructor',
        ...     paramwise_cfg=dict(
        ...         layer_decay_rate=0.75,
        ...         norm_decay_mult=0.,
        ...         bias_decay_mult=0.,
        ...         custom_keys={'_bias': dict(decay_mult=0.)}))
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth: Callable | None = None,
        **kwargs,
    ) -> None:
        """Add all parameters of a module to the list of groups.

        Args:
            params (list[dict]): Groups, extended in place.
            module (nn.Module): The model, or a part of it.
            prefix (str): Name of the part with a dot. Defaults to ''.
            get_layer_depth (Callable, optional): Depth of a parameter name and number of
                depths. Defaults to None, which counts the blocks of ``module.backbone`` and
                ``module.neck``.
            **kwargs: As mmpretrain's constructor.
        """
        if get_layer_depth is None:
            get_layer_depth = layer_depth_of(module)
        super().add_params(params, module, prefix, get_layer_depth=get_layer_depth, **kwargs)


def layer_depth_of(model: nn.Module) -> Callable[[str], tuple[int, int]]:
    """Make the function from a parameter's name to its depth and the number of depths.

    Args:
        model (nn.Module): Model with a ``backbone`` of ``blocks`` (or ``layers``, as
            mmpretrain's ViT, also inside of :class:`FrameWiseBackbone`), and maybe a ``neck``
            of ``blocks``.

    Returns:
        Callable: E.g. ``'neck.blocks.0.norm1.weight'`` -> (7, 14).

    Raises:
        ValueError: If the backbone has neither.
    """
    backbone, stem = getattr(model, 'backbone', None), 'backbone.'
    if hasattr(backbone, 'backbone'):
        backbone, stem = backbone.backbone, 'backbone.backbone.'
    attribute = 'blocks' if hasattr(backbone, 'blocks') else 'layers'
    blocks_of_backbone = len(getattr(backbone, attribute, ()))
    if not blocks_of_backbone:
        raise ValueError(
            'S4DLayerDecayOptimWrapperConstructor needs a model whose backbone keeps its layers '
            f'in `blocks` or `layers`, but got {type(backbone).__name__}. Remove `constructor` '
            'from optim_wrapper for this model.'
        )
    blocks_of_neck = len(getattr(getattr(model, 'neck', None), 'blocks', ()))
    last = blocks_of_backbone + blocks_of_neck + 1

    def depth_of(name: str) -> int:
        for blocks, before in ((f'{stem}{attribute}.', 0), ('neck.blocks.', blocks_of_backbone)):
            if name.startswith(blocks):
                return before + int(name[len(blocks) :].split('.')[0]) + 1
        if name.startswith(stem) and name[len(stem) :].split('.')[0] not in LAST_NORMS:
            return 0  # the embedding
        return last

    return lambda name: (depth_of(name), last + 1)
