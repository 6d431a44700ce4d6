# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fine-tuning neck: the last blocks of the encoder, with MoAE.

Letters: B clips, N tokens, C channels.
"""

from typing import Optional, Union

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..backbones.s4d_vit import check_shapes, drop_path_rates, get_arch, init_transformer
from ..classifiers import MoAEImageClassifier
from ..layers import MoAEBlock, pack, to_tokens, unpack
from ..layers.token_layout import Features
from ..layers.transformer import LN_EPS
from ..utils.layer_handover import hand_over_blocks, keep_last_blocks


@MODELS.register_module()
class MoAENeck(BaseModule):
    """Transformer blocks with a Mixture of Adapter Experts (S4D, arXiv
    2409.06154).

    ``S4DViT(depth=6)`` + ``MoAENeck(num_layers=6)`` is the fine-tuning model
    of S4D. Other backbones work as well: give their width and the number of
    blocks to add in ``arch``. The output has the layout of the input. Follows
    the neck contract of mmaction2: returns the features and a dict of
    auxiliary losses (in mmpretrain's classifier: see
    :class:`MoAEImageClassifier`). When a checkpoint that has all blocks in its
    backbone is loaded into a model with this neck (by ``load_from`` or
    ``init_cfg``), the blocks that the backbone does not have find their place
    here.

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
        >>> features, losses = neck(torch.zeros(1, 512, 4, 7, 7))
        >>> features.shape, list(losses)
        (torch.Size([1, 512, 4, 7, 7]), ['loss_balance'])
    """

    def __init__(
        self,
        arch: Union[str, dict] = 'base',
        num_layers: int = 6,
        num_experts: int = 8,
        top_k: int = 2,
        expert_ratio: float = 0.25,
        noisy: bool = True,
        capacity_factor: Optional[float] = None,
        loss_weight: float = 1e-3,
        drop_path_rate: float = 0.0,
        final_norm: bool = False,
        with_cp: bool = False,
        init_cfg: Optional[dict] = None,
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
        keep_last_blocks(self, total)
        self.register_load_state_dict_pre_hook(check_shapes)

    def init_weights(self) -> None:
        """Initialise as VideoMAE does, then by ``init_cfg`` if given."""
        init_transformer(self.blocks)
        super().init_weights()

    def forward(
        self, x: Features, data_samples: Optional[list] = None
    ) -> tuple[Features, dict[str, Tensor]]:
        """Run the blocks.

        Args:
            x (Tensor | tuple | list | dict): Tokens (B, N, C), with or
                without class tokens; a feature map (B, C, [T, ]H, W); pooled
                features (B, C), one token each; a pair of feature map and
                class token (B, C); or several of those, one per stage, of
                which the last is processed and the others are returned as
                they are. A dict has several batches of those, which are
                processed as one sequence.
            data_samples (list, optional): Not needed; part of mmaction2's
                contract. Defaults to None.

        Returns:
            tuple: Features in the layout of ``x``, and in training a dict
            with ``loss_balance``, else an empty dict.

        Raises:
            ValueError: If the features that are processed do not have the
                width C.
        """
        sizes = None
        if isinstance(x, dict):
            names, parts = list(x), [to_tokens(part) for part in x.values()]
            x, sizes = pack([tokens for tokens, _ in parts])

            def restore(tokens):
                return {
                    name: part[1](out)
                    for name, part, out in zip(names, parts, unpack(tokens, sizes))
                }
        else:
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
            if self.with_cp and x.requires_grad:
                x, loss = checkpoint(block, x, sizes, use_reentrant=False)
            else:
                x, loss = block(x, sizes)
            balance = balance + loss
        x = restore(self.norm(x))
        if not self.training:
            return x, dict()
        return x, dict(loss_balance=self.loss_weight * balance)


def _attached(model: nn.Module, name: str, module: nn.Module) -> None:
    """When a module becomes part of a model (torch calls it for every module
    of the process): prepare the model for a MoAENeck.
    """
    if not isinstance(module, MoAENeck):
        return
    if isinstance(model, ImageClassifier) and not isinstance(model, MoAEImageClassifier):
        raise TypeError(
            f"mmpretrain's {type(model).__name__} has no place for the loss "
            "of MoAENeck. Use type='MoAEImageClassifier' for the model."
        )
    hand_over_blocks(model, name)


nn.modules.module.register_module_module_registration_hook(_attached)
