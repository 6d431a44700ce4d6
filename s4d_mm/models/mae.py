# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pre-training: the masked auto-encoder on images and videos, in the parts of mmpretrain's MAE.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmpretrain.models import MAE
from torch import Tensor, nn

from .encoder import LN_EPS, S4DViT, TransformerBlock, get_arch, init_transformer, run_block
from .state_dict import check_shapes, take_authors_names
from .tokens import normalize_per_channel, sincos_position_table, video_to_tubelets

MASK_TYPES = ('random', 'tube')
DECODER_ZOO = {
    'small': dict(embed_dims=192, num_layers=4, num_heads=3),
    'base': dict(embed_dims=384, num_layers=4, num_heads=6),
    'large': dict(embed_dims=512, num_layers=4, num_heads=8),
}


def share_per_modality(mask_ratio: float | dict | None, owner: nn.Module) -> dict[str, float]:
    """A share in (0, 1) of 'image' and/or 'video'; one number stands for both, None for nothing."""
    if mask_ratio is None:
        return {}
    if not isinstance(mask_ratio, dict):
        mask_ratio = dict(image=mask_ratio, video=mask_ratio)
    if not set(mask_ratio) <= {'image', 'video'} or not all(0 < r < 1 for r in mask_ratio.values()):
        raise ValueError(
            f'mask_ratio of {type(owner).__name__} must be a share in (0, 1), or a dict of one for '
            f'`image` and/or one for `video`, but got {mask_ratio}.'
        )
    return dict(mask_ratio)


def take_tokens(x: Tensor, places: Tensor) -> Tensor:
    """The tokens (B, n, C) at ``places`` (B, n) of tokens (B, N, C)."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


def running_cell_order(slots: int, side: int) -> Tensor:
    """Number of each token (slots * side**2, ) in the order of the running cells of VideoMAE v2.

    A cell has 2 x 2 places, which follow each other in a ring. It passes all slots before the next
    cell comes, and begins one place further in each slot.
    """
    slot, row, column = torch.meshgrid(*map(torch.arange, (slots, side, side)), indexing='ij')
    cell = (row // 2 * side + column // 2) * slots + slot
    return (4 * cell + (2 * (row % 2) + (row + column) % 2 + slot) % 4).flatten()


@MODELS.register_module()
class S4DMAEViT(S4DViT):
    """Masked encoder: :class:`S4DViT` on the visible tokens of a random mask.

    Args:
        *args: As :class:`S4DViT`.
        mask_ratio (float | dict, optional): Share of tokens that is masked, in (0, 1), or one
            share per modality. Number masked = int(ratio * tokens). Defaults to None, or a
            modality left out, which means ``dict(image=0.9, video=0.95)``.
        mask_type (str): 'random', over all tokens of a sample (S4D), or 'tube', the same places
            in all temporal slots (VideoMAE). For an image they are the same.
        final_norm (bool): LayerNorm after the last block.
        **kwargs: As :class:`S4DViT`.
    """

    init_std = None  # Xavier-uniform

    def __init__(
        self,
        *args,
        mask_ratio: float | dict | None = None,
        mask_type: str = 'random',
        final_norm: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(*args, final_norm=final_norm, **kwargs)
        if mask_type not in MASK_TYPES:
            raise ValueError(f'mask_type={mask_type!r} is not one of {MASK_TYPES}.')
        self.mask_type = mask_type
        self.mask_ratio = dict(image=0.9, video=0.95) | share_per_modality(mask_ratio, self)

    def forward(self, x: Tensor, mask: bool | Tensor | None = True):
        """Encode the visible tokens.

        Args:
            x (Tensor): Normalised images (B, 3, H, W) or videos (B, 3, T, H, W).
            mask (bool | Tensor, optional): True draws a random mask; a tensor (B, N), nonzero
                where masked, with the same number in each row, is used as it is; None or False
                encodes all tokens, as :class:`S4DViT`. Defaults to True.

        Returns:
            tuple[Tensor]: Visible tokens in their order (B, n, C); mask (B, N), 1 where masked;
            ids_restore (B, N), the place of each token among the visible ones followed by the
            masked ones. Without a mask: the output of :class:`S4DViT`.
        """
        if mask is None or mask is False:
            return super().forward(x)
        if x.ndim == 5 and x.shape[2] == 1:
            x = x.squeeze(2)
        is_image = x.ndim == 4
        grid = self.patch_embed.grid(x)
        num_tokens = grid[0] * grid[1] * grid[2]
        if mask is True:
            mask, num_masked = self._draw_mask(len(x), grid, is_image, x.device)
        else:
            mask, num_masked = self._check_mask(mask, (len(x), num_tokens))

        # visible tokens first, each part in its order
        ids_shuffle = mask.to(torch.uint8).argsort(dim=1, stable=True)
        ids_restore = ids_shuffle.argsort(dim=1)
        keep = ids_shuffle[:, : num_tokens - num_masked]  # B n

        visible = take_tokens(self.patch_embed.patches(x), keep)  # B n values
        tokens = self.patch_embed.embed(visible, is_image)
        tokens = tokens + self.positions(grid).to(tokens)[keep]
        return self.run_blocks(tokens)[-1], mask.float(), ids_restore

    def _draw_mask(
        self, batch: int, grid: tuple[int, int, int], is_image: bool, device: torch.device
    ) -> tuple[Tensor, int]:
        ratio = self.mask_ratio['image' if is_image else 'video']
        slots = grid[0] if self.mask_type == 'tube' else 1
        places = grid[0] * grid[1] * grid[2] // slots
        num_masked = int(ratio * places)
        order = torch.rand(batch, places, device=device).argsort(dim=1)
        mask = torch.zeros(batch, places, dtype=torch.bool, device=device)
        mask = mask.scatter_(1, order[:, :num_masked], True)
        return mask.repeat(1, slots), num_masked * slots

    @staticmethod
    def _check_mask(mask: Tensor, shape: tuple) -> tuple[Tensor, int]:
        masked = mask.bool().sum(dim=-1)
        if tuple(mask.shape) != shape or (masked != masked[0]).any() or masked[0] == shape[1]:
            raise ValueError(
                f'The mask must be of shape {shape}, with equally many masked in each row and one '
                f'visible, but has the shape {tuple(mask.shape)} and {masked.tolist()} masked.'
            )
        return mask.bool(), int(masked[0])


@MODELS.register_module()
class S4DMAEDecoder(BaseModule):
    """Decoder of the masked auto-encoder: the pixels of all tokens from the visible ones.

    Args:
        in_channels (int, optional): Width of the encoder's tokens. Defaults to None, which takes
            that of the encoder named by ``arch``; of a dict, its own width.
        arch (str | dict): 'small', 'base' or 'large', the decoder of that encoder, or a dict with
            ``embed_dims``, ``num_layers`` and ``num_heads``.
        img_size (int): Height and width of the input in pixels.
        num_frames (int): Frames of a clip.
        tubelet_size (int): Frames in a tubelet.
        patch_size (int): Side of a patch in pixels.
        out_channels (int, optional): Values predicted per token. Defaults to None, which means
            ``tubelet_size * patch_size**2 * 3``.
        mask_ratio (float | dict, optional): Share of the masked tokens that :class:`S4DMAE` does
            not predict in training, to save time, in (0, 1), or one share per modality (VideoMAE
            v2, arXiv 2303.16727). A modality that is left out has none; a clip of one tubelet
            counts as an image. Defaults to None, which predicts all tokens.
        with_cp (bool): Recompute blocks in the backward pass.
        init_cfg (dict, optional): mmengine initialisation config.
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
        mask_ratio: float | dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if in_channels is None:
            in_channels = get_arch(arch)['embed_dims']
        arch = get_arch(DECODER_ZOO.get(arch, arch) if isinstance(arch, str) else arch)
        dims = arch['embed_dims']
        self.num_frames = num_frames
        self.with_cp = with_cp
        self.mask_ratio = share_per_modality(mask_ratio, self)
        slots, side = num_frames // tubelet_size, img_size // patch_size
        self.slot_tokens = side**2

        self.decoder_embed = nn.Linear(in_channels, dims, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dims))
        self.register_buffer(
            'decoder_pos_embed',
            sincos_position_table(slots * self.slot_tokens, dims),
            persistent=False,
        )
        self.register_buffer('running_order', running_cell_order(slots, side), persistent=False)
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(dims, arch['num_heads'], arch['mlp_ratio'])
            for _ in range(arch['num_layers'])
        )
        self.decoder_norm = nn.LayerNorm(dims, eps=LN_EPS)
        self.decoder_pred = nn.Linear(dims, out_channels or tubelet_size * patch_size**2 * 3)
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

    def _check_tokens(self, num_tokens: int) -> None:
        if num_tokens % self.slot_tokens or num_tokens > len(self.decoder_pos_embed):
            raise ValueError(
                f'S4DMAEDecoder got {num_tokens} tokens, but at its img_size an image has '
                f'{self.slot_tokens} and a clip of num_frames {len(self.decoder_pos_embed)}. Crop '
                'the input to img_size.'
            )

    def predicted_places(self, ids_restore: Tensor, num_visible: int) -> Tensor | None:
        """Masked tokens (B, m) that are predicted with ``mask_ratio``; None means all tokens.

        They are spread evenly: of 4 masked tokens that follow each other in the running order, 2
        with ``mask_ratio=0.5``. m = (N - n) - int(ratio * (N - n)). Each sample of a batch begins
        one token later than the one before.
        """
        num_samples, num_tokens = ids_restore.shape
        self._check_tokens(num_tokens)
        ratio = self.mask_ratio.get('image' if num_tokens == self.slot_tokens else 'video')
        if ratio is None:
            return None
        masked = ids_restore.argsort(dim=1)[:, num_visible:]
        masked = masked.gather(1, self.running_order[masked].argsort(dim=1))
        total = num_tokens - num_visible
        count = total - int(ratio * total)
        spread = torch.arange(count, device=masked.device) * total // count
        start = torch.arange(num_samples, device=masked.device)[:, None]
        return masked.gather(1, (spread + start) % total)

    def forward(self, x: Tensor, ids_restore: Tensor, places: Tensor | None = None) -> Tensor:
        """Predict all tokens, (B, N, ``out_channels``), or (B, m, ...) those at ``places``.

        Args:
            x (Tensor): Encoded visible tokens (B, n, ``in_channels``).
            ids_restore (Tensor): (B, N), the place of each token among the visible ones followed
                by the masked ones.
            places (Tensor, optional): Masked tokens (B, m); the others are left out of the
                decoder. Defaults to None, which leaves out none.
        """
        num_samples, num_tokens = ids_restore.shape
        self._check_tokens(num_tokens)
        num_visible, positions = x.shape[1], self.decoder_pos_embed[:num_tokens]
        num_masked = num_tokens - num_visible if places is None else places.shape[1]
        x = self.decoder_embed(x)  # B n C
        masked = self.mask_token.to(x.dtype).expand(num_samples, num_masked, -1)
        x = torch.cat((x, masked), dim=1)
        if places is None:
            x = take_tokens(x, ids_restore)
        else:
            visible = ids_restore.argsort(dim=1)[:, :num_visible]
            positions = positions[torch.cat((visible, places), dim=1)]
        x = x + positions.to(x)  # B N C, or B n+m C
        for block in self.decoder_blocks:
            x = run_block(block, x, self.with_cp)
        if places is not None:
            x = x[:, num_visible:]
        return self.decoder_pred(self.decoder_norm(x))


@MODELS.register_module()
class S4DMAEHead(BaseModule):
    """Mean squared error on the masked tokens (S4D, arXiv 2409.06154; VideoMAE).

    The target are pixels that are normalised per token and colour channel.

    Args:
        mean (Sequence[float]): Mean that the data preprocessor subtracted, 0..255.
        std (Sequence[float]): Standard deviation that it divided by, 0..255.
        tubelet_size (int): Frames in a tubelet.
        patch_size (int): Side of a patch in pixels.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        tubelet_size: int = 2,
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        self.tubelet_size = tubelet_size
        self.patch_size = patch_size
        for name, value in (('mean', mean), ('std', std)):
            value = torch.tensor(value, dtype=torch.float32) / 255
            self.register_buffer(name, value.view(1, -1, 1, 1, 1), persistent=False)

    def tubelets(self, pixels: Tensor) -> Tensor:
        """Pixels of each token (B, N, P), in it by (time, row, column, channel).

        An image is repeated to one tubelet.
        """
        if pixels.ndim == 4:
            pixels = pixels[:, :, None]
        if pixels.shape[2] == 1:
            pixels = pixels.expand(-1, -1, self.tubelet_size, -1, -1)
        return video_to_tubelets(pixels, self.tubelet_size, self.patch_size)

    def pixels(self, inputs: Tensor) -> Tensor:
        """Pixels in 0..1 of each token (B, N, P) of normalised images or videos."""
        if inputs.ndim == 4:
            inputs = inputs[:, :, None]
        return self.tubelets(inputs.float() * self.std + self.mean)

    def loss(
        self, pred: Tensor, target: Tensor, mask: Tensor, places: Tensor | None = None
    ) -> Tensor:
        """Reconstruction loss, averaged over P, then over the masked tokens that are predicted.

        Args:
            pred (Tensor): Prediction for all tokens (B, N, P), or for those at ``places``.
            target (Tensor): The model's normalised input.
            mask (Tensor): (B, N), 1 where masked.
            places (Tensor, optional): Tokens (B, m) of the prediction. Defaults to None: all.
        """
        mask = mask if places is None else mask.gather(1, places)
        loss = (pred.float() - self.target(target, places)).square().mean(dim=-1)  # B N or B m
        return (loss * mask).sum() / mask.sum()

    @torch.no_grad()
    def target(self, inputs: Tensor, places: Tensor | None = None) -> Tensor:
        """What is to be predicted, (B, N, P): the pixels normalised per token and channel.

        Mean and deviation of the data cancel out, but for the constant in the divisor.
        """
        tubelets = self.tubelets(inputs.float())
        if places is not None:
            tubelets = take_tokens(tubelets, places)
        return normalize_per_channel(tubelets, eps=1e-6 / self.std.flatten().square())[0]

    @torch.no_grad()
    def reconstruct(self, pred: Tensor, inputs: Tensor, mask: Tensor) -> Tensor:
        """Fill the masked tokens of the input with the prediction.

        Each token's own mean and deviation are put back, as MAE's published visualisations do.

        Args:
            pred (Tensor): Prediction for all tokens (B, N, P).
            inputs (Tensor): Normalised images or videos.
            mask (Tensor): (B, N), 1 where masked.

        Returns:
            Tensor: Videos (B, 3, T, H, W) in 0..1 (T = tubelet_size for an image).
        """
        original = self.pixels(inputs)
        _, mean, scale = normalize_per_channel(original)
        filled = pred.float().unflatten(-1, (-1, 3)) * scale + mean
        pixels = torch.where(mask[..., None].bool(), filled.flatten(-2), original)
        return self.to_video(pixels, inputs).clamp(0, 1)

    def to_video(self, tubelets: Tensor, inputs: Tensor) -> Tensor:
        """Videos (B, 3, T, H, W) of tokens (B, N, P), of the height and width of ``inputs``."""
        (height, width), s, p = inputs.shape[-2:], self.tubelet_size, self.patch_size
        x = tubelets.reshape(len(tubelets), -1, height // p, width // p, s, p, p, 3)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # B 3 t s h p w p
        return x.reshape(len(tubelets), 3, -1, height, width)


@MODELS.register_module()
class S4DMAE(MAE):
    """``MAE`` of mmpretrain with the parts of S4D. Files of the authors' code load as they are.

    With ``mask_ratio`` in :class:`S4DMAEDecoder` the loss is over the tokens that it predicts.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(take_authors_names)

    def loss(self, inputs: Tensor, data_samples: list | None = None, **kwargs) -> dict:
        """Reconstruction loss of normalised images or videos, as ``MAE.loss``."""
        if not getattr(self.neck, 'mask_ratio', None):
            return super().loss(inputs, data_samples, **kwargs)
        latent, mask, ids_restore = self.backbone(inputs)
        places = self.neck.predicted_places(ids_restore, latent.shape[1])
        pred = self.neck(latent, ids_restore, places)
        return dict(loss=self.head.loss(pred, inputs, mask, places))
