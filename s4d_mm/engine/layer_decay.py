# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning: layer-wise learning-rate decay across backbone and neck."""

from collections.abc import Callable

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

Depth = tuple[int, int]  # of a layer, and number of depths


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class S4DLayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer-wise decay; the neck's layers count after the backbone's.

    Backbone and neck are asked by ``get_layer_depth(param_name, prefix)``, as in mmpretrain. A
    model of 6 + 6 blocks has 14 depths: the embedding (0), the blocks (1..12), and the rest (13),
    whose learning rate is scaled by ``layer_decay_rate ** (13 - depth)``. The options of
    ``paramwise_cfg`` are mmpretrain's.

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
        self, params: list, module: nn.Module, prefix: str = '', get_layer_depth=None, **kwargs
    ) -> None:
        """Extend the groups ``params`` by all parameters of a module, as mmpretrain does."""
        if get_layer_depth is None:
            get_layer_depth = layer_depth_of(module)
        super().add_params(params, module, prefix, get_layer_depth=get_layer_depth, **kwargs)


def layer_depth_of(model: nn.Module) -> Callable[[str], Depth]:
    """The function from a parameter's name to its depth in the whole model.

    E.g. ``'neck.blocks.0.norm1.weight'`` -> (7, 14) after a backbone of 6 blocks.
    """
    parts, layers = [], 0
    for name in ('backbone', 'neck'):
        part = getattr(model, name, None)
        ask = getattr(part, 'get_layer_depth', None)
        if ask is None and name == 'backbone':
            ask = depth_by_order(part)
        if ask is not None:
            parts.append((f'{name}.', ask, layers))
            layers += ask('', f'{name}.')[1] - 2
        elif name == 'backbone':
            raise ValueError(
                'S4DLayerDecayOptimWrapperConstructor needs a backbone with get_layer_depth or a '
                f'ModuleList, but got {type(part).__name__}. Remove optim_wrapper.constructor.'
            )

    def depth_of(param_name: str) -> Depth:
        for prefix, ask, before in parts:
            if param_name.startswith(prefix):
                depth, number = ask(param_name, prefix)
                if depth < number - 1:
                    return before + depth, layers + 2
        return layers + 1, layers + 2

    return depth_of


def depth_by_order(module: nn.Module) -> Callable[[str, str], Depth] | None:
    """``get_layer_depth`` of a plain ViT without that method, as mmaction2's.

    Its longest ModuleList has the layers, and the children after it belong to the rest.
    """
    lists = {n: len(m) for n, m in module.named_children() if isinstance(m, nn.ModuleList)}
    if not lists:
        return None
    layers = max(lists, key=lists.get)
    children = [name for name, _ in module.named_children()]
    rest = children[children.index(layers) + 1 :]
    number = lists[layers] + 2

    def get_layer_depth(param_name: str, prefix: str) -> Depth:
        part, _, inner = param_name.removeprefix(prefix).partition('.')
        if part in rest or not param_name.startswith(prefix):
            return number - 1, number
        return int(inner.split('.')[0]) + 1 if part == layers else 0, number

    return get_layer_depth
