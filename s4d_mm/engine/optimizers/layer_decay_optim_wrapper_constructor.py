# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning: layer-wise learning-rate decay across backbone and neck."""

from typing import Callable, Optional

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class S4DLayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer-wise learning-rate decay, with the blocks of the
    neck counted after those of the backbone.

    A model of 6 + 6 blocks has 14 depths: the embedding (0), the blocks
    (1..12), and the rest (13), whose learning rate is scaled by
    ``layer_decay_rate ** (13 - depth)``. The options of ``paramwise_cfg`` are
    mmpretrain's.

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
        get_layer_depth: Optional[Callable] = None,
        **kwargs,
    ) -> None:
        """Add all parameters of a module to the list of groups.

        Args:
            params (list[dict]): Groups, extended in place.
            module (nn.Module): The model, or a part of it.
            prefix (str): Name of the part with a dot. Defaults to ''.
            get_layer_depth (Callable, optional): Depth of a parameter name
                and number of depths. Defaults to None, which counts the
                blocks of ``module.backbone`` and ``module.neck``.
        """
        if get_layer_depth is None:
            get_layer_depth = layer_depth_of(module)
        super().add_params(params, module, prefix, get_layer_depth=get_layer_depth, **kwargs)


def layer_depth_of(model: nn.Module) -> Callable:
    """Function from a parameter's name to its depth and the number of depths.

    Args:
        model (nn.Module): Model with a ``backbone`` of ``blocks`` (or
            ``layers``, as mmpretrain's ViT, also inside of
            :class:`FrameWiseBackbone`), and maybe a ``neck`` of ``blocks``.

    Returns:
        Callable: E.g. ``'neck.blocks.0.norm1.weight'`` -> (7, 14).

    Raises:
        ValueError: If the backbone has neither.
    """
    backbone, stem = getattr(model, 'backbone', None), 'backbone'
    if hasattr(backbone, 'backbone'):
        backbone, stem = backbone.backbone, 'backbone.backbone'
    attribute = 'blocks' if hasattr(backbone, 'blocks') else 'layers'
    first = len(getattr(backbone, attribute, ()))
    if not first:
        raise ValueError(
            'S4DLayerDecayOptimWrapperConstructor needs a model whose '
            'backbone keeps its layers in `blocks` or `layers`, but got '
            f'{type(backbone).__name__}. Remove `constructor` from '
            'optim_wrapper for this model.'
        )
    neck = getattr(model, 'neck', None)
    num_depths = first + len(getattr(neck, 'blocks', ())) + 2

    def depth(name: str):
        if name.startswith(f'{stem}.{attribute}.'):
            number = name[len(f'{stem}.{attribute}.') :].split('.')[0]
            return int(number) + 1, num_depths
        if name.startswith('neck.blocks.'):
            return first + int(name.split('.')[2]) + 1, num_depths
        # norms after the blocks: ours, mmaction2's and mmpretrain's ViTs
        last = ('norm.', 'fc_norm.', 'ln1.', 'ln2.')
        if name.startswith(f'{stem}.') and not name.startswith(
            tuple(f'{stem}.{norm}' for norm in last)
        ):
            return 0, num_depths
        return num_depths - 1, num_depths

    return depth
