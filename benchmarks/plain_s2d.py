# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D (arXiv 2312.05447) written plainly from the paper, under the names of the authors' code."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .plain_s4d import PlainViT

FROZEN = ('blocks.', 'patch_embed.', 'cls_token', 'pos_embed')


class PlainS2D(PlainViT):
    """S2D with ``heads`` in its blocks and adapters, and the landmark network that it is given."""

    def __init__(self, weights, depth: int, heads: tuple[int, int], landmark: Callable) -> None:
        super().__init__(weights)
        self.depth, self.heads, self.landmark = depth, heads, landmark
        for name, weight in self.weights.items():
            weight.requires_grad_(not name.startswith(FROZEN))

    def prompt(self, name: str, image: Tensor, landmarks: Tensor) -> Tensor:
        """Prompt (B * T, N, C) of patch tokens, and landmark tokens or the last prompt."""
        hidden = self.linear(f'{name}.conv0_0', image)
        fovea = hidden * (self.weights[f'{name}.fovea.smooth'] * hidden).softmax(dim=1)
        return self.linear(f'{name}.conv1x1', fovea + self.linear(f'{name}.conv0_1', landmarks))

    def adapt(self, name: str, image: Tensor, clips: int) -> Tensor:
        """Adaptation (B * T, N, C): attention over the frames at each position, then an MLP."""
        x = image.unflatten(0, (clips, -1)).transpose(1, 2)
        x = F.gelu(self.linear(f'{name}.T_Adapter.D_fc1', x.flatten(0, 1)))
        x = self.attention(f'{name}.T_Adapter.attn', x, self.heads[1])
        x = self.linear(f'{name}.T_Adapter.D_fc2', x).unflatten(0, (clips, -1))
        x = self.norm(f'{name}.norm', x.transpose(1, 2).flatten(0, 1), eps=1e-5)
        x = F.gelu(self.linear(f'{name}.S_Adapter.D_fc1', x))
        return self.linear(f'{name}.S_Adapter.D_fc2', x)

    def scores(self, video: Tensor) -> tuple[Tensor, float]:
        """Scores (B, classes) of clips (B, 3, T, H, W), and no load-balance loss."""
        weights, frames = self.weights, video.transpose(1, 2).flatten(0, 1)
        kernel, bias = weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias']
        tokens = F.conv2d(frames, kernel, bias, kernel.shape[2:]).flatten(2).transpose(1, 2)
        landmarks = self.landmark(frames).flatten(2).transpose(1, 2)
        prompt = self.linear('patch_embed_prompt.proj', landmarks)
        token = weights['cls_token'].expand(len(tokens), -1, -1)
        for i in range(self.depth):
            image = self.norm(f'prompt_norms.{max(i - 1, 0)}', tokens)
            prompt = self.norm('prompt_norms.0', prompt)
            prompt = self.prompt(f'prompt_blocks.{i}', image, prompt)
            added = prompt + self.adapt(f'prompt_blocks.{i}.TMA', image, len(video))
            x = torch.cat((token, tokens + added), dim=1)
            if i == 0:
                times = weights['temporal_embedding'][0].repeat(len(video), 1)
                x = x + weights['pos_embed'] + times.unsqueeze(1)
            x, _ = self.block(f'blocks.{i}', x, self.heads[0])
            token, tokens = x[:, :1], x[:, 1:]
        features = self.norm('ln_post', token[:, 0]).unflatten(0, (len(video), -1))
        return self.linear('head.fc_cls', features.mean(dim=1)), 0.0
