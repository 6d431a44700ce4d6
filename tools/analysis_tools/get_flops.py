# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Count operations and parameters of each part of a model, without running
it.

    python tools/analysis_tools/get_flops.py CONFIG [--shape 1 3 16 160 160]

Counted are the matrix products, attention's too, of one forward pass in
evaluation; a multiplication with its addition is 2 FLOPs and 1 MAC. Many
papers write "FLOPs" for MACs.

Of a mixture of experts, the router and k experts per token are counted, however
they are executed.
"""
import argparse
from typing import Dict, NamedTuple, Tuple

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import s4d_mm  # noqa: F401
from s4d_mm.models.layers import MoAE


class Cost(NamedTuple):
    """Cost of one part of a model, or of all parts."""
    flops: int
    params: int


class ExpertCorrection:
    """Difference of what a counter misses or has too much in the mixtures of
    experts of a module, as a context.

    Args:
        module (nn.Module): The module.
        counter (FlopCounterMode): The counter.
    """

    def __init__(self, module: nn.Module, counter: FlopCounterMode) -> None:
        self.layers = [m for m in module.modules() if isinstance(m, MoAE)]
        self.counter = counter
        self.flops = 0

    def __enter__(self) -> 'ExpertCorrection':
        self.hooks = [
            hook for layer in self.layers
            for hook in (layer.register_forward_pre_hook(self._before),
                         layer.register_forward_hook(self._after))
        ]
        return self

    def __exit__(self, *args) -> None:
        for hook in self.hooks:
            hook.remove()

    def _before(self, layer: MoAE, args: tuple) -> None:
        self.flops += self.counter.get_total_flops()

    def _after(self, layer: MoAE, args: tuple, output: tuple) -> None:
        self.flops -= self.counter.get_total_flops()
        experts, dims, hidden = layer.fc1_weight.shape
        tokens = args[0].numel() // dims
        # the router, then two matrix products in each of the k experts
        self.flops += 2 * tokens * dims * (
            experts + 2 * layer.router.top_k * hidden)


def count(model: nn.Module, shape: Tuple[int, ...]) -> Dict[str, Cost]:
    """Cost of each part of a model for one batch.

    Args:
        model (nn.Module): Recognizer or masked auto-encoder of S4D's parts,
            on the CPU.
        shape (tuple[int]): (B, 3, H, W) or (B, 3, T, H, W).

    Returns:
        dict[str, Cost]: In the order of the data flow.
    """
    costs = {}

    # tensors without values: the shapes flow, nothing is computed
    shapes_only = FakeTensorMode(allow_non_fake_inputs=True)

    def run(name: str, *args):
        part = getattr(model, name)
        counter = FlopCounterMode(display=False)
        # attention as plain matrix products: its CPU kernel is not counted
        with torch.no_grad(), shapes_only, sdpa_kernel(
                SDPBackend.MATH), counter:
            with ExpertCorrection(part, counter) as experts:
                output = part(*args)
        costs[name] = Cost(counter.get_total_flops() + experts.flops,
                           sum(p.numel() for p in part.parameters()))
        return output

    model.eval()
    with shapes_only:
        x = torch.empty(shape)
    x = run('backbone', x)
    if isinstance(x, tuple):  # masked: visible tokens, mask, ids_restore
        run('neck', x[0], x[2])
        return costs
    if getattr(model, 'neck', None) is not None:
        x, _ = run('neck', x)
    run('cls_head', x, 'image' if len(shape) == 4 else 'video')
    return costs


def input_shapes(model: nn.Module, shape: list) -> Tuple[tuple, ...]:
    """The shapes to count for, from ``--shape``."""
    if len(shape) in (4, 5):
        return (tuple(shape), )
    if len(shape) in (1, 2):
        return ((1, 3, shape[0], shape[-1]), )
    if shape:
        raise ValueError(f'--shape {shape}: expected H W, N C H W or '
                         'N C T H W')
    vit = model.backbone
    height, width = (n * vit.patch_embed.proj.kernel_size[1]
                     for n in vit.pos_grid)
    slots = len(vit.pos_embed) // (vit.pos_grid[0] * vit.pos_grid[1])
    frames = slots * vit.patch_embed.tubelet_size
    return (1, 3, frames, height, width), (1, 3, height, width)


def format_costs(costs: Dict[str, Cost]) -> str:
    """A table with a row for each part and one for all."""
    total = Cost(*(sum(column) for column in zip(*costs.values())))
    lines = [f'{"":10}{"GMACs":>10}{"GFLOPs":>10}{"M params":>10}']
    for name, cost in {**costs, 'total': total}.items():
        lines.append(f'{name:10}{cost.flops / 2e9:10.3f}'
                     f'{cost.flops / 1e9:10.3f}{cost.params / 1e6:10.3f}')
    return '\n'.join(lines)


def parse_args():
    parser = argparse.ArgumentParser(
        description='Get FLOPs and parameters of a model.')
    parser.add_argument('config')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[],
        help='H W, N C H W or N C T H W; the clip and the image of the config '
        'if not given')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    model = MODELS.build(cfg.model)
    for shape in input_shapes(model, args.shape):
        print(f'\nInput shape: {shape}')
        print(format_costs(count(model, shape)))


if __name__ == '__main__':
    main()
