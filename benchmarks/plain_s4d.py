# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D (arXiv 2409.06154) written as plainly as possible, to measure the speed of ours against it.

It is written in the way of VideoMAE's research code, and it computes the numbers of ``s4d_mm``
(tests/test_models/test_plain_s4d.py). Images are repeated to a tubelet. All tokens are embedded
before the mask picks the visible ones. Attention is two matrix products and a softmax. Experts run
one after the other. The decoder predicts all tokens. B samples, N tokens, C channels.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def sincos_table(positions: int, dim: int) -> Tensor:
    """Embed the positions of the tokens, (N, C)."""
    index = np.arange(dim)
    angle = np.arange(positions)[:, None] / 10000 ** (2 * (index // 2) / dim)
    table = np.where(index % 2, np.cos(angle), np.sin(angle))
    return torch.tensor(table, dtype=torch.float32)


def add_positions(x: Tensor) -> Tensor:
    """Add their positions to tokens (B, N, C)."""
    return x + sincos_table(*x.shape[1:]).to(x.device)


class PlainViT:
    """The layers of a ViT, as functions of its weights under the names of the authors' code."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = {k: v.detach().clone().requires_grad_() for k, v in weights.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f'{name}.weight'].flatten(1)  # also of a 1x1 convolution
        return F.linear(x, weight, self.weights.get(f'{name}.bias'))

    def norm(self, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        weight, bias = self.weights[f'{name}.weight'], self.weights[f'{name}.bias']
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f'{name}.fc2', F.gelu(self.linear(f'{name}.fc1', x)))

    def attention(self, name: str, x: Tensor, heads: int) -> Tensor:
        bias = self.weights.get(f'{name}.qkv.bias')
        if f'{name}.q_bias' in self.weights:
            q_bias, v_bias = self.weights[f'{name}.q_bias'], self.weights[f'{name}.v_bias']
            bias = torch.cat((q_bias, torch.zeros_like(q_bias), v_bias))
        qkv = F.linear(x, self.weights[f'{name}.qkv.weight'], bias)
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attn = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        x = (attn.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        return self.linear(f'{name}.proj', x)

    def block(self, name: str, x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C) after a block, and those that its MLP gets."""
        x = x + self.attention(f'{name}.attn', self.norm(f'{name}.norm1', x), heads)
        y = self.norm(f'{name}.norm2', x)
        return x + self.mlp(f'{name}.mlp', y), y

    def finetune_loss(self, x: Tensor, target: Tensor) -> Tensor:
        """Cross entropy and load balance; ``target`` (B, classes) from :func:`mixup`."""
        scores, balance = self.scores(x)
        return F.cross_entropy(scores.float(), target) + 1e-3 * balance


class PlainS4D(PlainViT):
    """S4D in both stages; ``sizes`` are depth and heads of its encoder and decoder."""

    def __init__(self, weights: dict[str, Tensor], *sizes: tuple[int, int]) -> None:
        super().__init__(weights)
        self.sizes = sizes
        self.training = True  # with noise in the routers

    def embed(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.weights[f'{name}.proj.{kind}'] for kind in ('weight', 'bias'))
        return F.conv3d(as_clip(x), weight, bias, (2, 16, 16)).flatten(2).transpose(1, 2)

    def blocks(self, name: str, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C) after all blocks, and the summed load-balance loss."""
        (depth, heads), total = size, 0.0
        for i in range(depth):
            x, y = self.block(f'{name}.{i}', x, heads)
            if f'{name}.{i}.moe_layer.router.topkroute_linear.weight' in self.weights:
                adapted, balance = self.experts(f'{name}.{i}.moe_layer', y)
                x, total = x + adapted, total + balance
        return x, total

    def experts(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, C) -> the same, and the load-balance loss."""
        y = x.flatten(0, 1)
        logits = self.linear(f'{name}.router.topkroute_linear', y)
        if self.training:
            noise = torch.randn_like(logits)
            logits = logits + noise * F.softplus(self.linear(f'{name}.router.noise_linear', y))
        top, chosen = logits.topk(2, dim=-1)
        gates = torch.full_like(logits, float('-inf')).scatter(-1, chosen, top).softmax(dim=-1)
        out, count = torch.zeros_like(y), logits.shape[-1]
        for i in range(count):
            rows = torch.where((chosen == i).any(dim=-1))[0]
            result = gates[rows, i].unsqueeze(-1) * self.mlp(f'{name}.experts.{i}', y[rows])
            out.index_add_(0, rows, result.to(out.dtype))
        share = torch.bincount(chosen.flatten(), minlength=count) / len(y)
        balance = count * (share * logits.softmax(dim=-1).mean(dim=0)).sum()
        return out.view_as(x), balance

    def pretrain_loss(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error on the masked tokens; ``mask`` (B, N) bool, True is masked."""
        tokens = self.embed('encoder.patch_embed', x)
        visible = add_positions(tokens)[~mask].unflatten(0, (len(x), -1))
        visible, _ = self.blocks('encoder.blocks', visible, self.sizes[0])
        visible = self.linear('encoder_to_decoder', self.norm('encoder.norm', visible))
        tokens = self.weights['mask_token'].to(visible.dtype).repeat(*mask.shape, 1)
        tokens[~mask] = visible.flatten(0, 1)
        tokens, _ = self.blocks('decoder.blocks', add_positions(tokens), self.sizes[1])
        pred = self.linear('decoder.head', self.norm('decoder.norm', tokens))
        return F.mse_loss(pred[mask].float(), patches(x)[mask])

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, classes) of ``x`` (B, 3, [T, ]H, W), and the load-balance loss."""
        tokens = add_positions(self.embed('patch_embed', x))
        tokens, balance = self.blocks('blocks', tokens, self.sizes[0])
        pooled = self.norm('fc_norm', tokens.mean(dim=1))
        return self.linear('head.image' if x.ndim == 4 else 'head.video', pooled), balance


def as_clip(x: Tensor) -> Tensor:
    """Repeat images (B, 3, H, W) to two frames, and leave clips as they are."""
    return x.unsqueeze(2).repeat(1, 1, 2, 1, 1) if x.ndim == 4 else x


def patches(x: Tensor) -> Tensor:
    """Pixels normalised per token and channel, (B, N, 1536)."""
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1, 1) for v in (MEAN, STD))
    x = as_clip(x) * std + mean  # back to 0..1
    x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 16)).unflatten(6, (-1, 16))
    # B 3 t 2 h 16 w 16 -> B N 512 3
    x = x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4, 6).flatten(1, 3)
    x = (x - x.mean(dim=2, keepdim=True)) / (x.var(dim=2, keepdim=True) + 1e-6).sqrt()
    return x.flatten(2)


def mixup(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup of a batch with the reversed batch, and soft targets (B, 7), smoothed by 0.1."""
    lam = np.random.beta(0.8, 0.8)
    target = F.one_hot(labels, 7) * 0.9 + 0.1 / 7
    return torch.lerp(x.flip(0), x, lam), torch.lerp(target.flip(0), target, lam)
