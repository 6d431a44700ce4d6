# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D (arXiv 2409.06154) written as plainly as possible, to measure the speed of ours against it.

It is written in the way of VideoMAE's research code, and it computes the numbers of ``s4d_mm``
(tests/test_models/test_plain_s4d.py). Images are repeated to a tubelet. All tokens are embedded
before the mask picks the visible ones. Attention is two matrix products and a softmax. Experts run
one after the other. The decoder predicts all tokens, and the loss takes the masked ones. Where
plain code has a choice, the faster one is taken.

Letters: B samples, N tokens, C channels, S tokens of the batch, E experts.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s4d_mm.weights.s4d import to_authors

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {  # dim, depth, heads; the same of the decoder
    'tiny': ((64, 2, 2), (32, 1, 2)),  # for tests
    'small': ((384, 12, 6), (192, 4, 3)),
    'base': ((768, 12, 12), (384, 4, 6)),
    'large': ((1024, 24, 16), (512, 4, 8)),
}


def sincos_table(positions: int, dim: int) -> Tensor:
    index = np.arange(dim)
    angle = np.arange(positions)[:, None] / np.power(10000, 2 * (index // 2) / dim)
    angle[:, 0::2] = np.sin(angle[:, 0::2])
    angle[:, 1::2] = np.cos(angle[:, 1::2])
    return torch.tensor(angle, dtype=torch.float32)[None]


class PatchEmbed(nn.Module):
    """3-D convolution over tubelets."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (2, 16, 16), stride=(2, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:  # an image: repeat it to a tubelet
            x = x.unsqueeze(2).repeat(1, 1, 2, 1, 1)
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention, each step spelt out."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        x = (attn.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


class Mlp(nn.Module):
    """Two layers; also an expert."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Router(nn.Module):
    """(S, C) -> gates (S, E), chosen experts (S, k), probabilities (S, E)."""

    def __init__(self, dim: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.topkroute_linear = nn.Linear(dim, experts)
        self.noise_linear = nn.Linear(dim, experts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.topkroute_linear(x)
        if self.training:
            logits = logits + torch.randn_like(logits) * F.softplus(self.noise_linear(x))
        top, chosen = logits.topk(self.top_k, dim=-1)
        gates = torch.full_like(logits, float('-inf')).scatter(-1, chosen, top)
        return gates.softmax(dim=-1), chosen, logits.softmax(dim=-1)


class ExpertLoop(nn.Module):
    """(B, N, C) -> the same, and the load-balance loss."""

    def __init__(self, dim: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.router = Router(dim, experts, top_k)
        self.experts = nn.ModuleList(Mlp(dim, dim // 4) for _ in range(experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.reshape(-1, x.shape[-1])
        gates, chosen, probs = self.router(y)
        out = torch.zeros_like(y)
        share = torch.zeros_like(probs[0])
        for e, expert in enumerate(self.experts):
            rows = torch.where((chosen == e).any(dim=-1))[0]
            share[e] = len(rows) / len(y)
            if len(rows) == 0:
                continue
            result = gates[rows, e].unsqueeze(-1) * expert(y[rows])
            out.index_add_(0, rows, result.to(out.dtype))
        balance = len(self.experts) * (share * probs.mean(dim=0)).sum()
        return out.view_as(x), balance


class Block(nn.Module):
    """Pre-norm transformer block, with or without experts."""

    def __init__(self, dim: int, heads: int, experts: int = 0, top_k: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.moe_layer = ExpertLoop(dim, experts, top_k) if experts else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.attn(self.norm1(x))
        y = self.norm2(x)
        if self.moe_layer is None:
            return x + self.mlp(y), 0.0
        adapted, balance = self.moe_layer(y)
        return x + self.mlp(y) + adapted, balance


class Encoder(nn.Module):
    """Pre-training encoder of the tokens that are not masked."""

    def __init__(self, size: Sequence[int], positions: int) -> None:
        super().__init__()
        dim, depth, heads = size
        self.patch_embed = PatchEmbed(dim)
        self.register_buffer('pos_embed', sincos_table(positions, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.pos_embed[:, : x.shape[1]]
        b, _, c = x.shape
        x = x[~mask].reshape(b, -1, c)
        for block in self.blocks:
            x, _ = block(x)
        return self.norm(x)


class Decoder(nn.Module):
    """Pre-training decoder."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        dim, depth, heads = size
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 2 * 16 * 16 * 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x))


class PlainS4DPretrain(nn.Module):
    """Masked auto-encoder; ``encoder`` and ``decoder`` are (dim, depth, heads)."""

    def __init__(
        self,
        encoder: Sequence[int],
        decoder: Sequence[int],
        img_size: int = 160,
        num_frames: int = 16,
    ) -> None:
        super().__init__()
        positions = num_frames // 2 * (img_size // 16) ** 2
        self.encoder = Encoder(encoder, positions)
        self.encoder_to_decoder = nn.Linear(encoder[0], decoder[0], bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder[0]))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.register_buffer('pos_embed', sincos_table(positions, decoder[0]), persistent=False)
        self.decoder = Decoder(decoder)

    def loss(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error on the masked tokens; ``mask`` (B, N) bool, True is masked."""
        visible = self.encoder_to_decoder(self.encoder(x, mask))
        tokens = self.mask_token.to(visible.dtype).repeat(*mask.shape, 1)
        tokens[~mask] = visible.flatten(0, 1)
        pred = self.decoder(tokens + self.pos_embed[:, : mask.shape[1]])
        with torch.no_grad():
            target = self.target(x)
        b, _, p = target.shape
        pred, target = pred[mask].reshape(b, -1, p), target[mask].reshape(b, -1, p)
        return F.mse_loss(pred.float(), target)

    @staticmethod
    def target(x: Tensor) -> Tensor:
        """Pixels normalised per token and channel, (B, N, 1536)."""
        if x.ndim == 4:
            x = x.unsqueeze(2).repeat(1, 1, 2, 1, 1)
        mean = torch.as_tensor(MEAN, device=x.device)[None, :, None, None, None]
        std = torch.as_tensor(STD, device=x.device)[None, :, None, None, None]
        x = x * std + mean  # back to 0..1
        b, c, t, h, w = x.shape
        x = x.reshape(b, c, t // 2, 2, h // 16, 16, w // 16, 16)
        x = x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, t // 2 * (h // 16) * (w // 16), 512, c)
        x = (x - x.mean(dim=-2, keepdim=True)) / (
            x.var(dim=-2, unbiased=True, keepdim=True) + 1e-6
        ).sqrt()
        return x.reshape(b, -1, 512 * c)


class PlainS4D(nn.Module):
    """Fine-tuning model; ``size`` is (dim, depth, heads), the last blocks have experts."""

    def __init__(
        self,
        size: Sequence[int],
        moae_layers: int = 6,
        experts: int = 8,
        num_classes: int = 7,
        img_size: int = 160,
        num_frames: int = 16,
    ) -> None:
        super().__init__()
        dim, depth, heads = size
        positions = num_frames // 2 * (img_size // 16) ** 2
        self.patch_embed = PatchEmbed(dim)
        self.register_buffer('pos_embed', sincos_table(positions, dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(dim, heads, experts if i >= depth - moae_layers else 0) for i in range(depth)
        )
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.ModuleDict(
            {name: nn.Linear(dim, num_classes) for name in ('video', 'image')}
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, classes) of ``x`` (B, 3, [T, ]H, W), and the summed load-balance loss."""
        modality = 'image' if x.ndim == 4 else 'video'
        x = self.patch_embed(x)
        x = x + self.pos_embed[:, : x.shape[1]]
        total = 0.0
        for block in self.blocks:
            x, balance = block(x)
            total = total + balance
        return self.head[modality](self.fc_norm(x.mean(dim=1))), total

    def loss(self, x: Tensor, target: Tensor) -> Tensor:
        """Soft-target cross entropy and load balance; ``target`` (B, classes) from :func:`mix`."""
        scores, balance = self(x)
        loss = (-target * F.log_softmax(scores.float(), dim=-1)).sum(-1)
        return loss.mean() + 1e-3 * balance


def mix(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup 0.8 or CutMix 1.0 of a batch, in place, and soft targets (B, 7), smoothed by 0.1."""
    if np.random.rand() < 0.5:
        lam = np.random.beta(0.8, 0.8)
        x.mul_(lam).add_(x.flip(0).mul_(1 - lam))
    else:
        lam = np.random.beta(1.0, 1.0)
        h, w = x.shape[-2:]
        half_h, half_w = (int(s * np.sqrt(1 - lam)) // 2 for s in (h, w))
        row, column = np.random.randint(h), np.random.randint(w)
        top, bottom = np.clip((row - half_h, row + half_h), 0, h)
        left, right = np.clip((column - half_w, column + half_w), 0, w)
        x[..., top:bottom, left:right] = x.flip(0)[..., top:bottom, left:right]
        lam = 1 - (bottom - top) * (right - left) / (h * w)
    target = F.one_hot(labels, 7) * 0.9 + 0.1 / 7
    return x, target * lam + target.flip(0) * (1 - lam)


def parameter_groups(model: nn.Module, lr: float, layer_decay: float = 1.0) -> list[dict]:
    """Groups for AdamW: no weight decay on biases and norms, ``layer_decay`` from head to stem."""
    depth, groups = len(getattr(model, 'blocks', ())), {}
    for name, param in model.named_parameters():
        if name.startswith('patch_embed.'):
            layer = 0
        elif name.startswith('blocks.'):
            layer = int(name.split('.')[1]) + 1
        else:
            layer = depth + 1
        decay = param.ndim > 1 and not name.endswith('mask_token')
        group = dict(
            params=[],
            lr=lr * layer_decay ** (depth + 1 - layer),
            weight_decay=0.05 if decay else 0.0,
        )
        groups.setdefault((layer, decay), group)['params'].append(param)
    return list(groups.values())


def random_masks(batch: int, tokens: int, ratio: float) -> Tensor:
    """(B, N) bool, True is masked, shuffled sample by sample."""
    masked = int(ratio * tokens)
    row = np.hstack([np.zeros(tokens - masked), np.ones(masked)])
    return torch.from_numpy(np.stack([np.random.permutation(row) for _ in range(batch)])).bool()


def load_from_s4d_mm(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Load the weights of an ``s4d_mm`` model of the same size."""
    stage = 'finetune' if isinstance(model, PlainS4D) else 'pretrain'
    model.load_state_dict(to_authors(state_dict, stage)[0])
