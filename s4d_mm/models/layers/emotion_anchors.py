# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Emotion anchors of S2D: for each class the features and probabilities of its last samples."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_WEIGHT = 1e-6  # of an anchor when negative cosines are clipped


class EmotionAnchors(nn.Module):
    """Banks of anchors, and the soft targets that they give (S2D, arXiv 2312.05447).

    The banks are buffers, so that a checkpoint keeps them. They begin uniform in 0..1.

    Args:
        num_classes (int): Classes.
        dims (int): Width of a feature.
        size (int): Anchors of a class.
        top_k (int): Anchors of a class that a soft target uses, the most similar ones.
        clip_negative (bool): Let anchors of a negative cosine count for next to nothing.
    """

    def __init__(
        self, num_classes: int, dims: int, size: int, top_k: int, clip_negative: bool
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.clip_negative = clip_negative
        self.register_buffer('features', torch.rand(num_classes, size, dims))
        self.register_buffer('probs', torch.rand(num_classes, size, num_classes))

    @torch.no_grad()
    def soft_targets(self, x: Tensor) -> Tensor:
        """Average the probabilities of similar anchors, weighted by cosine.

        Args:
            x (Tensor): Features (B, dims).

        Returns:
            Tensor: (B, classes), float32.
        """
        cosine = torch.einsum(
            'bd,csd->bcs', F.normalize(x.float(), dim=-1), F.normalize(self.features, dim=-1)
        )
        weights, index = cosine.topk(self.top_k, dim=2)
        if self.clip_negative:
            weights = weights.clamp(min=LEAST_WEIGHT)
        classes = torch.arange(len(self.probs), device=x.device)[None, :, None]
        total = torch.einsum('bck,bckp->bp', weights, self.probs[classes, index])
        return total / weights.sum(dim=(1, 2))[:, None]

    @torch.no_grad()
    def update(self, x: Tensor, probs: Tensor, labels: Tensor) -> None:
        """Put samples into the banks of their classes, in order; the oldest anchors leave.

        Args:
            x (Tensor): Features (B, dims).
            probs (Tensor): Probabilities (B, classes).
            labels (Tensor): Class ids (B, ); a sample with -1 is left out.
        """
        num_classes, size = self.probs.shape[:2]
        known = labels >= 0
        labels = labels.clamp(min=0)
        hits = F.one_hot(labels, num_classes) * known[:, None]
        counts = hits.sum(dim=0)
        rank = (hits.cumsum(dim=0) - 1).gather(1, labels[:, None]).squeeze(1)
        slots = size - counts[labels] + rank
        # what has no place goes into a further slot, which is cut off
        slots = torch.where(known & (slots >= 0), slots, size)
        old = torch.arange(size, device=x.device)[None] + counts[:, None]
        classes = torch.arange(num_classes, device=x.device)[:, None]
        for bank, new in ((self.features, x), (self.probs, probs)):
            kept = F.pad(bank[classes, old.clamp(max=size - 1)], (0, 0, 0, 1))
            kept[labels, slots] = new.to(kept)
            bank.copy_(kept[:, :size])
