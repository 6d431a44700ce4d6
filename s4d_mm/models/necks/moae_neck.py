# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning neck: the last blocks of the encoder, with MoAE.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import re
from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...converters.authors import take_authors_names
from ...converters.fit import check_part
from ...files.errors import WeightsError
from ..layers import (
    FINETUNE_STD,
    LN_EPS,
    MMACTION_IN_BLOCK,
    MoAEBlock,
    NoisyTopKRouter,
    check_shapes,
    drop_path_rates,
    get_arch,
    init_transformer,
    run_block,
    to_tokens,
)
from ..layers.token_layout import Features

NOT_GIVEN = ()  # mmaction2's recognizers give None or a list


@MODELS.register_module()
class MoAENeck(BaseModule):
    """Transformer blocks with a Mixture of Adapter Experts (S4D, arXiv 2409.06154).

    ``S4DViT(depth=6)`` + ``MoAENeck(num_layers=6)`` is the fine-tuning model of S4D. Other
    backbones work as well: give their width and the number of blocks to add in ``arch``. The
    output has the layout of the input. Follows the neck contract of mmaction2: returns the
    features and a dict of auxiliary losses.

    The checkpoint of a whole encoder has all blocks in its backbone. By ``load_from``,
    :class:`DualModalRecognizer` and :class:`MoAEImageClassifier` give this neck the blocks that
    their backbone does not have; by an ``init_cfg`` of its own the neck takes them itself.

    Args:
        arch (str | dict): Architecture of the encoder whose last blocks these
            are, as in :class:`S4DViT`. Defaults to 'base'.
        num_layers (int): Number of blocks. Defaults to 6.
        num_experts (int): Experts in a block. Defaults to 8.
        top_k (int): Experts that a token uses. Defaults to 2.
        expert_ratio (float): Hidden width of an expert over C. Defaults to
            0.25.
        noisy (bool): Add learned noise to the router's logits in training.
            Defaults to True.
        capacity_factor (float, optional): If given, an expert takes at most
            ``ceil(capacity_factor * mean load)`` tokens in training. Defaults
            to None, which drops nothing. Nothing is dropped in evaluation.
        loss_weight (float): Weight of the load-balance loss, summed over the
            blocks. Defaults to 1e-3.
        drop_path_rate (float): Stochastic depth rate of the last block, as in
            :class:`S4DViT`. Defaults to 0.
        final_norm (bool): LayerNorm after the last block. Defaults to False.
        with_cp (bool): Recompute blocks in the backward pass. Defaults to
            False.
        init_cfg (dict, optional): mmengine initialisation config. Defaults to
            None.

    Examples:
        >>> import torch
        >>> # two blocks on the feature map of a network of 512 channels
        >>> neck = MoAENeck(
        ...     dict(embed_dims=512, num_layers=2, num_heads=8), num_layers=2)
        >>> features, losses = neck(torch.zeros(1, 512, 4, 7, 7), data_samples=None)
        >>> features.shape, list(losses)
        (torch.Size([1, 512, 4, 7, 7]), ['loss_balance'])
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        num_layers: int = 6,
        num_experts: int = 8,
        top_k: int = 2,
        expert_ratio: float = 0.25,
        noisy: bool = True,
        capacity_factor: float | None = None,
        loss_weight: float = 1e-3,
        drop_path_rate: float = 0.0,
        final_norm: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = get_arch(arch)
        total = self.arch['num_layers']
        if not 1 <= num_layers <= total:
            raise ValueError(
                f'num_layers must be in 1..{total} for arch={arch!r}, but got {num_layers}.'
            )
        self.loss_weight = loss_weight
        self.with_cp = with_cp
        dims = self.arch['embed_dims']
        rates = drop_path_rates(drop_path_rate, total)
        moae = dict(
            num_experts=num_experts,
            top_k=top_k,
            expert_ratio=expert_ratio,
            noisy=noisy,
            capacity_factor=capacity_factor,
        )
        self.blocks = nn.ModuleList(
            MoAEBlock(dims, self.arch['num_heads'], self.arch['mlp_ratio'], rate, moae)
            for rate in rates[total - num_layers :]
        )
        self.norm = nn.LayerNorm(dims, eps=LN_EPS) if final_norm else nn.Identity()
        self.register_load_state_dict_pre_hook(take_authors_names)
        self.register_load_state_dict_pre_hook(keep_last_blocks)
        self.register_load_state_dict_pre_hook(check_shapes)
        self.register_load_state_dict_pre_hook(check_part)

    def routers(self) -> dict[int, NoisyTopKRouter]:
        """The router of each block, by the number of the block in the whole encoder, from 0."""
        first = self.arch['num_layers'] - len(self.blocks)
        return {first + i: block.moae.router for i, block in enumerate(self.blocks)}

    def init_weights(self) -> None:
        """Initialise as the authors' code does, then by ``init_cfg`` if given.

        All linear layers have the standard deviation of fine-tuning, .02, router and noise
        included; so have the experts, from :class:`~s4d_mm.models.layers.MoAE`.
        """
        init_transformer(self.blocks, FINETUNE_STD)
        super().init_weights()

    def forward(
        self, x: Features, data_samples: list | None = NOT_GIVEN
    ) -> tuple[Features, dict[str, Tensor]]:
        """Run the blocks.

        Args:
            x (Tensor | tuple | list): Tokens (B, N, C), with or without class tokens; a feature
                map (B, C, [T, ]H, W); pooled features (B, C), one token each; a pair of feature
                map and class token (B, C); or several of those, one per stage, of which the last
                is processed and the others are returned as they are.
            data_samples (list, optional): What mmaction2's recognizers hand to necks, if only
                None. Not used, but in training who leaves it out has no place for the loss.

        Returns:
            tuple: Features in the layout of ``x``, and in training a dict with ``loss_balance``,
            else an empty dict.

        Raises:
            TypeError: In training, if ``data_samples`` is left out.
            ValueError: If the features that are processed do not have the width C.
        """
        if self.training and data_samples is NOT_GIVEN:
            raise TypeError(
                'MoAENeck was called in training without data_samples, as by the '
                "ImageClassifier of mmpretrain, which has no place for the neck's loss. Use "
                "model.type='MoAEImageClassifier', or a recognizer of mmaction2."
            )
        x, restore = to_tokens(x)
        if x.shape[-1] != self.arch['embed_dims']:
            raise ValueError(
                f'MoAENeck has embed_dims={self.arch["embed_dims"]}, but the '
                f"backbone's features have {x.shape[-1]} channels. Set "
                "neck.arch to the backbone's `arch`, or to a dict with its "
                'width as embed_dims.'
            )
        balance = 0.0
        for block in self.blocks:
            x, loss = run_block(block, x, self.with_cp)
            balance = balance + loss
        x = restore(self.norm(x))
        if not self.training:
            return x, dict()
        return x, dict(loss_balance=self.loss_weight * balance)


def hand_over_blocks(model: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Give the neck the blocks that the backbone leaves to it (a load pre-hook of a model).

    ``backbone.blocks.{i}`` of the checkpoint becomes ``neck.blocks.{i - depth}`` where the
    model's backbone has only ``depth`` blocks. The backbone may be mmaction2's
    ``VisionTransformer``, whose parameter names the neck's blocks take over. A checkpoint without
    further blocks stays as it is.

    Args:
        model (nn.Module): Model with a ``backbone`` and a ``neck``.
        state_dict (dict): Weights, changed in place.
        prefix (str): What precedes the names of the model.
        *args: What torch hands to such hooks; not used.

    Raises:
        WeightsError: If the checkpoint has more blocks than the model, so that some would be
            left out.
    """
    if not isinstance(getattr(model, 'neck', None), MoAENeck):
        return
    depth, taken = len(getattr(model.backbone, 'blocks', ())), len(model.neck.blocks)
    refuse_more_blocks(
        (depth, taken),
        [count_blocks(state_dict, f'{prefix}{part}.') for part in ('backbone', 'neck')],
    )
    if not depth:
        return
    pattern = re.compile(rf'{re.escape(prefix)}backbone\.blocks\.(\d+)\.(.+)')
    for match in filter(None, map(pattern.fullmatch, list(state_dict))):
        place = int(match[1]) - depth
        if place >= 0:
            key = f'{prefix}neck.blocks.{place}.{name_in_block(match[2])}'
            state_dict[key] = state_dict.pop(match[0])


def count_blocks(state_dict: dict, start: str) -> int:
    """Number of the blocks whose weights are called ``<start>blocks.<i>.``, up to the last one."""
    pattern = re.compile(rf'{re.escape(start)}blocks\.(\d+)\.')
    return max((int(m[1]) + 1 for m in map(pattern.match, state_dict) if m), default=0)


def refuse_more_blocks(own: tuple[int, int], found: Sequence[int]) -> None:
    """Refuse a checkpoint with blocks that the model has no place for.

    Args:
        own (tuple[int]): Blocks of the model's backbone (0 if it has none of that name) and neck.
        found (Sequence[int]): Those of the checkpoint.

    Raises:
        WeightsError: If there are more than the model takes, with the keys to set.
    """
    (depth, taken), (whole, in_neck) = own, found
    if not depth:
        whole = 0
    if in_neck and (whole > depth or in_neck > taken):
        raise WeightsError(
            f'The checkpoint has {whole} blocks in the backbone and {in_neck} in the neck, but '
            f'this model has {depth} and {taken}, so that some would be left out. Set '
            f'model.backbone.depth={whole} and model.neck.num_layers={in_neck}.'
        )
    if not in_neck and whole > depth + taken:
        raise WeightsError(
            f'The encoder of the checkpoint has {whole} blocks, but this model has only '
            f'{depth} (model.backbone.depth) + {taken} (model.neck.num_layers), so that the last '
            f'{whole - depth - taken} would be left out. Set them so that they add up to {whole}.'
        )


def keep_last_blocks(neck: MoAENeck, state_dict: dict, prefix: str, *args) -> None:
    """Take the neck's blocks from the weights of a whole encoder (a load pre-hook of the neck).

    Of an encoder of ``neck.arch['num_layers']`` blocks, the last ones become ``blocks.0 ..``; the
    others are dropped. Weights of the neck itself have fewer blocks and stay as they are.

    Args:
        neck (MoAENeck): The neck, loaded by itself, as by its ``init_cfg``.
        state_dict (dict): Weights, changed in place.
        prefix (str): What precedes the names of the neck.
        *args: What torch hands to such hooks; not used.

    Raises:
        ValueError: If the encoder has another number of blocks.
    """
    if prefix:
        return  # loaded as a part of a model
    found = list(filter(None, (re.fullmatch(r'blocks\.(\d+)\.(.+)', key) for key in state_dict)))
    numbers = {int(match[1]) for match in found}
    if len(numbers) <= len(neck.blocks):
        return
    num_layers = neck.arch['num_layers']
    if numbers != set(range(num_layers)):
        raise ValueError(
            f'The checkpoint has the blocks {sorted(numbers)}, but this MoAENeck expects an '
            f'encoder of {num_layers} to take the last ones of. Set num_layers in its `arch` to '
            'those of the encoder.'
        )
    first = num_layers - len(neck.blocks)
    blocks = {match: state_dict.pop(match[0]) for match in found}
    for match, value in blocks.items():
        if int(match[1]) >= first:
            state_dict[f'blocks.{int(match[1]) - first}.{name_in_block(match[2])}'] = value


def name_in_block(name: str) -> str:
    """A parameter's name inside our blocks.

    Args:
        name (str): Its name there, or in those of mmaction2's ``VisionTransformer``.

    Returns:
        str: The name.

    Raises:
        ValueError: If it is a LayerScale, which our blocks do not have.
    """
    if name in ('gamma_1', 'gamma_2'):
        raise ValueError(
            f'The blocks of the checkpoint have a LayerScale ({name}), which '
            'those of MoAENeck cannot compute. Use S4DViT as backbone and '
            'convert the checkpoint with tools/model_converters/vit_to_mm.py, '
            'which folds it into the layer before.'
        )
    for theirs, ours in MMACTION_IN_BLOCK:
        name = name.replace(theirs, ours)
    return name
