# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pre-training head: the pixel target and its loss.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from ..layers import normalize_per_channel, tubelets_to_video, video_to_tubelets
from ..settings import check_pixel_statistics, require_positive_ints


@MODELS.register_module()
class S4DMAEHead(BaseModule):
    """Mean squared error on the masked tokens (S4D, arXiv 2409.06154; VideoMAE).

    The target are pixels that are normalised per token and colour channel.

    Args:
        mean (Sequence[float]): Mean that the data preprocessor subtracted,
            0..255. Defaults to ImageNet's.
        std (Sequence[float]): Standard deviation that it divided by, 0..255.
            Defaults to ImageNet's.
        tubelet_size (int): Frames in a tubelet. Defaults to 2.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        tubelet_size: int = 2,
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        require_positive_ints(type(self).__name__, tubelet_size=tubelet_size, patch_size=patch_size)
        check_pixel_statistics(type(self).__name__, mean, std)
        self.tubelet_size = tubelet_size
        self.patch_size = patch_size
        for name, value in (('mean', mean), ('std', std)):
            value = torch.tensor(value, dtype=torch.float32) / 255
            self.register_buffer(name, value.view(1, -1, 1, 1, 1), persistent=False)

    def tubelets(self, inputs: Tensor) -> Tensor:
        """Pixels in 0..1 of each token.

        Args:
            inputs (Tensor): Normalised images (B, 3, H, W), which are
                repeated to one tubelet, or videos (B, 3, T, H, W).

        Returns:
            Tensor: (B, N, P), ordered (time, row, column, channel) inside a
            token.
        """
        if inputs.ndim == 4:
            inputs = inputs[:, :, None]
        return self._tubelets(inputs.float() * self.std + self.mean)

    def _tubelets(self, pixels: Tensor) -> Tensor:
        if pixels.ndim == 4:
            pixels = pixels[:, :, None]
        if pixels.shape[2] == 1:
            pixels = pixels.expand(-1, -1, self.tubelet_size, -1, -1)
        return video_to_tubelets(pixels, self.tubelet_size, self.patch_size)

    def loss(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Reconstruction loss.

        Args:
            pred (Tensor): Prediction for all tokens (B, N, P).
            target (Tensor): The model's normalised input.
            mask (Tensor): (B, N), 1 where masked.

        Returns:
            Tensor: Scalar, averaged over P, then over the masked tokens.
        """
        loss = (pred.float() - self.target(target)).square().mean(dim=-1)  # B N
        return (loss * mask).sum() / mask.sum()

    @torch.no_grad()
    def target(self, inputs: Tensor) -> Tensor:
        """What is to be predicted: normalised pixels, see :func:`normalize_per_channel`.

        Computed from the model's input as it is: mean and deviation of the
        data cancel out, but for the constant that keeps the divisor from 0.

        Args:
            inputs (Tensor): Normalised images (B, 3, H, W) or videos
                (B, 3, T, H, W).

        Returns:
            Tensor: (B, N, P).
        """
        tubelets = self._tubelets(inputs.float())
        return normalize_per_channel(tubelets, eps=1e-6 / self.std.flatten().square())[0]

    @torch.no_grad()
    def reconstruct(self, pred: Tensor, inputs: Tensor, mask: Tensor) -> Tensor:
        """Fill the masked tokens of the input with the prediction.

        The prediction is of normalised pixels; each token's own mean and
        deviation are put back, as MAE's published visualisations do.

        Args:
            pred (Tensor): Prediction for all tokens (B, N, P).
            inputs (Tensor): Normalised images or videos.
            mask (Tensor): (B, N), 1 where masked.

        Returns:
            Tensor: Videos (B, 3, T, H, W) in 0..1 (T = tubelet_size for an
            image).
        """
        original = self.tubelets(inputs)
        _, mean, scale = normalize_per_channel(original)
        filled = pred.float().unflatten(-1, (-1, 3)) * scale + mean
        pixels = torch.where(mask[..., None].bool(), filled.flatten(-2), original)
        return self.to_video(pixels, inputs).clamp(0, 1)

    def to_video(self, tubelets: Tensor, inputs: Tensor) -> Tensor:
        """Put values of tokens where their pixels are.

        Args:
            tubelets (Tensor): (B, N, P).
            inputs (Tensor): Images or videos that give the height and width.

        Returns:
            Tensor: (B, 3, T, H, W).
        """
        h, w = (s // self.patch_size for s in inputs.shape[-2:])
        grid = (tubelets.shape[1] // (h * w), h, w)
        return tubelets_to_video(tubelets, grid, self.tubelet_size, self.patch_size)
