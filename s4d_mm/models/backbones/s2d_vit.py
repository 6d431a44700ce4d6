# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone: S2D, an image ViT with landmark prompts and temporal adapters before its layers.

Shapes use the letters of :mod:`s4d_mm.models`; M is B * T frames.
"""

import torch
from mmengine.registry import MODELS
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from ...converters.authors import take_authors_names
from ...converters.fit import check_part
from ..layers import check_shapes
from ..layers.prompts import INIT_STD, PromptBlock
from ..settings import is_number, require_positive_ints


@MODELS.register_module()
class S2DViT(VisionTransformer):
    """Frozen image ViT with trained prompts and temporal adapters (S2D, arXiv 2312.05447).

    Attention is within a frame; the temporal adapters relate the frames. The patch embedding, the
    class token, the positions and the layers are frozen, and so is the landmark network.

    An image, or a clip of one frame, passes without the temporal modules (as in the authors' model
    for images), unless ``num_frames`` is 1.

    Args:
        arch (str | dict): As in mmpretrain's ``VisionTransformer``. Defaults to 'base'.
        img_size (int): Height and width of frames in pixels. Defaults to 224.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        num_frames (int): Frames of a clip. Defaults to 16.
        landmark (dict, optional): Config of the landmark network, with ``checkpoint``, its trained
            weights. Its map must have the grid of the patches. Defaults to None, which means
            ``dict(type='LandmarkMobileFaceNet')``; then a checkpoint of the whole model must
            bring its weights.
        prompt_dims (int): Hidden width of the prompters. Defaults to 8.
        adapter_ratio (float): Hidden width of the adapters over C, above 0. Defaults to 0.25.
        adapter_heads (int): Heads of the attention over frames. Defaults to 8.
        freeze_prompts (bool): Freeze landmark embedding, prompters and norms too, so that only
            the adapters, the temporal embedding and the last norm are trained (the authors'
            ``--fix_lgp``). Defaults to False.
        out_type (str): 'cls_token', (B, C, T, 1, 1), as mmaction2's ``I3DHead`` takes, or
            'raw', the tokens of all frames with their class tokens, (B, T * (1 + h*w), C).
            Defaults to 'cls_token'.
        qkv_bias (bool): Bias of queries, keys and values in the layers. Defaults to True.
        norm_eps (float): Epsilon of the LayerNorms. Defaults to 1e-6.
        init_cfg (dict, optional): mmengine initialisation config. Defaults to None.

    Raises:
        ValueError: If an argument is out of range, or the grids differ.
    """

    OUT_TYPES = {'cls_token', 'raw'}

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int = 224,
        patch_size: int = 16,
        num_frames: int = 16,
        landmark: dict | None = None,
        prompt_dims: int = 8,
        adapter_ratio: float = 0.25,
        adapter_heads: int = 8,
        freeze_prompts: bool = False,
        out_type: str = 'cls_token',
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        init_cfg: dict | None = None,
    ) -> None:
        require_positive_ints(
            'S2DViT',
            img_size=img_size,
            patch_size=patch_size,
            num_frames=num_frames,
            prompt_dims=prompt_dims,
            adapter_heads=adapter_heads,
        )
        super().__init__(
            arch,
            img_size,
            patch_size,
            qkv_bias=qkv_bias,
            norm_cfg=dict(type='LN', eps=norm_eps),
            out_type=out_type,
            init_cfg=init_cfg,
        )
        adapter_dims = _adapter_width(self.embed_dims, adapter_ratio, adapter_heads)
        self.num_frames = num_frames
        self.freeze_prompts = freeze_prompts
        self.landmark = MODELS.build(landmark or dict(type='LandmarkMobileFaceNet'))
        if tuple(self.patch_resolution) != (self.landmark.grid,) * 2:
            rows, columns = self.patch_resolution
            raise ValueError(
                f'S2DViT has {rows} x {columns} patches (img_size={img_size}, '
                f'patch_size={patch_size}), but the map of its landmark network is '
                f'{self.landmark.grid} x {self.landmark.grid}. Set landmark.input_size='
                f'{8 * rows}, or another img_size or patch_size.'
            )
        self.landmark_embed = nn.Linear(self.landmark.out_channels, self.embed_dims)
        self.prompt_blocks = nn.ModuleList(
            PromptBlock(self.embed_dims, prompt_dims, adapter_dims, adapter_heads)
            for _ in range(self.num_layers)
        )
        # block 0 and block 1 share the first, so that the last block has none of its own
        self.prompt_norms = nn.ModuleList(
            nn.LayerNorm(self.embed_dims, eps=norm_eps) for _ in range(max(self.num_layers - 1, 1))
        )
        self.temporal_embedding = nn.Parameter(torch.zeros(1, num_frames, self.embed_dims))
        self.register_load_state_dict_pre_hook(take_authors_names)
        self.register_load_state_dict_pre_hook(check_shapes)
        self.register_load_state_dict_pre_hook(check_part)
        self._freeze()

    def init_weights(self) -> None:
        """Initialise as the authors' code does, then by ``init_cfg`` if given.

        The frozen layers are of no use until a checkpoint brings their weights.
        """
        super().init_weights()
        self.landmark.init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            return
        for block in self.prompt_blocks:
            block.init_weights()
        self.landmark_embed.reset_parameters()
        trunc_normal_(self.temporal_embedding, std=INIT_STD)
        trunc_normal_(self.cls_token, std=INIT_STD)

    def train(self, mode: bool = True) -> 'S2DViT':
        """Set the mode; what is frozen stays in evaluation."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        self.cls_token.requires_grad_(False)
        self.pos_embed.requires_grad_(False)
        frozen = [self.patch_embed, self.layers]
        if self.freeze_prompts:
            frozen += [self.landmark_embed, self.prompt_norms]
            for block in self.prompt_blocks:
                frozen += [block.prompter, block.temporal.norm]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images or clips.

        Args:
            x (Tensor): Normalised images (B, 3, H, W) or clips (B, 3, T, H, W), with T =
                ``num_frames`` or 1.

        Returns:
            Tensor: By ``out_type``.

        Raises:
            ValueError: If the frames have another size, or there is another number of them.
        """
        if x.ndim == 4:
            x = x[:, :, None]
        frames = self._check_input(x)
        is_clip = frames == self.num_frames
        x = x.transpose(1, 2).flatten(0, 1)  # B 3 T H W -> M 3 H W
        with torch.no_grad():
            tokens = self.patch_embed(x)[0]
            landmarks = self.landmark(x)
        prompt = self.landmark_embed(landmarks.flatten(2).transpose(1, 2))
        cls_token = self.cls_token.expand(len(tokens), -1, -1)
        temporal_frames = frames if is_clip else 0
        for i, (block, layer) in enumerate(zip(self.prompt_blocks, self.layers)):
            image = self.prompt_norms[max(i - 1, 0)](tokens)
            # prompts have the first norm in every block
            added, prompt = block(image, self.prompt_norms[0](prompt), temporal_frames)
            x = torch.cat((cls_token, tokens + added), dim=1)
            if i == 0:
                x = x + self.pos_embed
                if is_clip:
                    x = x.unflatten(0, (-1, frames)) + self.temporal_embedding[:, :, None]
                    x = x.flatten(0, 1)
            x = layer(x)
            cls_token, tokens = x[:, :1], x[:, 1:]
        if self.out_type == 'raw':
            out = self.ln1(x).unflatten(0, (-1, frames)).flatten(1, 2)  # B T*(1+N) C
        else:
            out = self.ln1(cls_token[:, 0]).unflatten(0, (-1, frames))  # B T C
            out = out.transpose(1, 2)[..., None, None]  # B C T 1 1
        if self.training and not is_clip:
            out = out + self._unused()
        return out

    def _unused(self) -> Tensor | float:
        """Zero, from the modules that images leave out.

        So distributed training finds a gradient for every parameter.
        """
        modules = (block.temporal for block in self.prompt_blocks)
        parameters = [self.temporal_embedding, *(p for m in modules for p in m.parameters())]
        return 0.0 * sum(p.sum() for p in parameters if p.requires_grad)

    def _check_input(self, x: Tensor) -> int:
        """The number of frames.

        Raises:
            ValueError: See :meth:`forward`.
        """
        frames, size = x.shape[2], tuple(x.shape[3:])
        if size != self.img_size:
            raise ValueError(
                f'S2DViT has img_size={self.img_size[0]}, but got frames of {size[0]} x {size[1]} '
                'pixels. Resize to it in the pipelines, or set model.backbone.img_size.'
            )
        if frames not in (1, self.num_frames):
            raise ValueError(
                f'S2DViT has num_frames={self.num_frames}, but got clips of {frames} frames. '
                'Sample as many in the pipelines (clip_len), or images.'
            )
        return frames


def _adapter_width(embed_dims: int, ratio: float, heads: int) -> int:
    width = int(embed_dims * ratio) if is_number(ratio) and ratio > 0 else 0
    if width < 1 or width % heads:
        raise ValueError(
            f'adapter_ratio of S2DViT must give a width that adapter_heads={heads} divides, but '
            f'{ratio!r} of embed_dims={embed_dims} gives {width}.'
        )
    return width
