# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pre-training neck: predicts the pixels of all tokens from the visible ones.

Shapes use the letters of :mod:`s4d_mm.models`; C is here the decoder's width.
"""

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers import (
    LN_EPS,
    TransformerBlock,
    check_shapes,
    get_arch,
    init_transformer,
    run_block,
    sincos_position_table,
)
from ..settings import require_positive_ints

DECODER_ZOO = {
    'small': dict(embed_dims=192, num_layers=4, num_heads=3),
    'base': dict(embed_dims=384, num_layers=4, num_heads=6),
    'large': dict(embed_dims=512, num_layers=4, num_heads=8),
}


@MODELS.register_module()
class S4DMAEDecoder(BaseModule):
    """Decoder of the dual-modal masked auto-encoder (S4D, arXiv 2409.06154).

    Args:
        in_channels (int, optional): Width of the encoder's tokens. Defaults
            to None, which takes that of the encoder named by ``arch``.
        arch (str | dict): 'small', 'base' or 'large', the decoder of that
            encoder, or a dict with ``embed_dims``, ``num_layers`` and
            ``num_heads``, and then ``in_channels`` is needed. Defaults to
            'base'.
        img_size (int): Height and width of the input in pixels. Defaults to
            160.
        num_frames (int): Frames of a clip. Defaults to 16.
        tubelet_size (int): Frames in a tubelet. Defaults to 2.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        out_channels (int, optional): Values predicted per token. Defaults to
            None, which means ``tubelet_size * patch_size**2 * 3``.
        with_cp (bool): Recompute blocks in the backward pass. Defaults to
            False.
        init_cfg (dict, optional): mmengine initialisation config. Defaults to
            None.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        arch: str | dict = 'base',
        img_size: int = 160,
        num_frames: int = 16,
        tubelet_size: int = 2,
        patch_size: int = 16,
        out_channels: int | None = None,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        require_positive_ints(
            type(self).__name__,
            img_size=img_size,
            num_frames=num_frames,
            tubelet_size=tubelet_size,
            patch_size=patch_size,
        )
        if in_channels is None:
            if not isinstance(arch, str):
                raise ValueError(
                    'S4DMAEDecoder needs `in_channels` (the '
                    "encoder's embed_dims) when `arch` is a "
                    'dict.'
                )
            in_channels = get_arch(arch)['embed_dims']
        arch = get_arch(DECODER_ZOO.get(arch, arch) if isinstance(arch, str) else arch)
        dims = arch['embed_dims']
        self.num_frames = num_frames
        self.with_cp = with_cp
        self.slot_tokens = (img_size // patch_size) ** 2
        if out_channels is None:
            out_channels = tubelet_size * patch_size**2 * 3

        self.decoder_embed = nn.Linear(in_channels, dims, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dims))
        self.register_buffer(
            'decoder_pos_embed',
            sincos_position_table(num_frames // tubelet_size * self.slot_tokens, dims),
            persistent=False,
        )
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(dims, arch['num_heads'], arch['mlp_ratio'])
            for _ in range(arch['num_layers'])
        )
        self.decoder_norm = nn.LayerNorm(dims, eps=LN_EPS)
        self.decoder_pred = nn.Linear(dims, out_channels)
        self.register_load_state_dict_pre_hook(check_shapes)

    def init_weights(self) -> None:
        """Initialise as the authors' code does, then by ``init_cfg`` if given.

        Linear layers Xavier-uniform, but the one from the encoder's width as torch's ``Linear``
        does; the mask token normal with deviation .02, cut off at one deviation.
        """
        init_transformer(self)
        self.decoder_embed.reset_parameters()
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        super().init_weights()

    def forward(self, x: Tensor, ids_restore: Tensor) -> Tensor:
        """Predict all tokens.

        Args:
            x (Tensor): Encoded visible tokens (B, n, ``in_channels``).
            ids_restore (Tensor): (B, N), the place of each token among the visible ones followed
                by the masked ones.

        Returns:
            Tensor: (B, N, ``out_channels``).

        Raises:
            ValueError: If N is not the number of tokens of an image, or of a clip of up to
                ``num_frames``, at ``img_size``.
        """
        num_samples, num_tokens = ids_restore.shape
        if num_tokens % self.slot_tokens or num_tokens > len(self.decoder_pos_embed):
            raise ValueError(
                f'S4DMAEDecoder got {num_tokens} tokens, but at its img_size '
                f'an image has {self.slot_tokens} and a clip of num_frames '
                f'{len(self.decoder_pos_embed)}. Crop the input to img_size.'
            )
        x = self.decoder_embed(x)  # B n C
        masked = self.mask_token.to(x.dtype).expand(num_samples, num_tokens - x.shape[1], -1)
        x = torch.cat((x, masked), dim=1)
        x = x.gather(1, ids_restore[..., None].expand(-1, -1, x.shape[-1]))
        x = x + self.decoder_pos_embed[:num_tokens].to(x)  # B N C
        for block in self.decoder_blocks:
            x = run_block(block, x, self.with_cp)
        return self.decoder_pred(self.decoder_norm(x))
