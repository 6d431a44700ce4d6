# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D written from the paper, under the names of the authors' code."""

import torch
import torch.nn.functional as F


def random_weights(arch, channels, seed=0):
    """Random weights of S2D under the authors' names."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}

    def layer(name, out, *inner, bias=True):
        shape = torch.Size((out, *inner))
        scale = max(1, shape[1:].numel()) ** -0.5
        weights[f'{name}.weight'] = torch.randn(shape, generator=generator) * scale
        if bias:
            weights[f'{name}.bias'] = 0.1 * torch.randn(out, generator=generator)

    def norm(name):
        weights[f'{name}.weight'] = 1 + 0.1 * torch.randn(d, generator=generator)
        weights[f'{name}.bias'] = 0.1 * torch.randn(d, generator=generator)

    d, h, patch = arch['embed_dim'], arch['hidden_dim'], arch['patch_size']
    adapter, ffn = int(d * arch['adapter_scale']), int(d * arch['mlp_ratio'])
    tokens = (arch['img_size'] // patch) ** 2 + 1
    for name, count in (('cls_token', 1), ('pos_embed', tokens), ('temporal_embedding', None)):
        count = count or arch['num_frames']
        weights[name] = torch.randn(1, count, d, generator=generator)
    layer('patch_embed.proj', d, 3, patch, patch)
    layer('patch_embed_prompt.proj', d, channels, 1, 1)
    for i in range(arch['depth']):
        prompt, block = f'prompt_blocks.{i}', f'blocks.{i}'
        layer(f'{prompt}.conv0_0', h, d, 1, 1)
        layer(f'{prompt}.conv0_1', h, d, 1, 1)
        layer(f'{prompt}.conv1x1', d, h, 1, 1)
        weights[f'{prompt}.fovea.smooth'] = torch.tensor([10.0 + i])
        for part in ('T_Adapter', 'S_Adapter'):
            layer(f'{prompt}.TMA.{part}.D_fc1', adapter, d)
            layer(f'{prompt}.TMA.{part}.D_fc2', d, adapter)
        layer(f'{prompt}.TMA.T_Adapter.attn.qkv', 3 * adapter, adapter, bias=False)
        layer(f'{prompt}.TMA.T_Adapter.attn.proj', adapter, adapter)
        layer(f'{block}.attn.qkv', 3 * d, d, bias=arch['qkv_bias'])
        layer(f'{block}.attn.proj', d, d)
        layer(f'{block}.mlp.fc1', ffn, d)
        layer(f'{block}.mlp.fc2', d, ffn)
        for name in (f'{prompt}.TMA.norm', f'prompt_norms.{i}', f'{block}.norm1', f'{block}.norm2'):
            norm(name)
    norm('ln_post')
    layer('head.fc_cls', arch['num_classes'], d)
    return weights


class PlainS2D:
    """S2D by the paper; scores of clips, given the maps of the landmark network."""

    def __init__(self, arch, weights):
        self.arch, self.weights = arch, weights

    def linear(self, name, x):
        weight = self.weights[f'{name}.weight'].flatten(1)
        return F.linear(x, weight, self.weights.get(f'{name}.bias'))

    def norm(self, name, x, eps):
        weight, bias = self.weights[f'{name}.weight'], self.weights[f'{name}.bias']
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def attention(self, name, x, heads):
        q, k, v = self.linear(f'{name}.qkv', x).unflatten(2, (3, heads, -1)).unbind(2)
        weights = torch.einsum('bihd,bjhd->bhij', q, k) / q.shape[-1] ** 0.5
        out = torch.einsum('bhij,bjhd->bihd', weights.softmax(dim=-1), v)
        return self.linear(f'{name}.proj', out.flatten(2))

    def prompt_block(self, i, image, landmarks):
        name = f'prompt_blocks.{i}'
        hidden = self.linear(f'{name}.conv0_0', image)
        smooth = self.weights[f'{name}.fovea.smooth']
        fovea = hidden * (smooth * hidden).softmax(dim=1)
        prompt = self.linear(f'{name}.conv1x1', fovea + self.linear(f'{name}.conv0_1', landmarks))
        frames = self.arch['num_frames']
        x = F.gelu(self.linear(f'{name}.TMA.T_Adapter.D_fc1', image))
        of_positions = x.unflatten(0, (-1, frames)).transpose(1, 2)
        out = torch.stack(
            [
                self.attention(f'{name}.TMA.T_Adapter.attn', clip, self.arch['adapter_num_heads'])
                for clip in of_positions
            ]
        )
        x = self.linear(f'{name}.TMA.T_Adapter.D_fc2', out.transpose(1, 2).flatten(0, 1))
        x = self.norm(f'{name}.TMA.norm', x, self.arch['tma_norm_eps'])
        x = F.gelu(self.linear(f'{name}.TMA.S_Adapter.D_fc1', x))
        adapted = self.linear(f'{name}.TMA.S_Adapter.D_fc2', x)
        return prompt + adapted, prompt

    def __call__(self, video, landmark_map):
        arch, weights, eps = self.arch, self.weights, self.arch['norm_eps']
        frames = video.transpose(1, 2).flatten(0, 1)
        kernel, bias = weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias']
        tokens = F.conv2d(frames, kernel, bias, arch['patch_size']).flatten(2).transpose(1, 2)
        prompt = self.linear('patch_embed_prompt.proj', landmark_map.flatten(2).transpose(1, 2))
        token = weights['cls_token'].expand(len(tokens), 1, -1)
        for i in range(arch['depth']):
            image = self.norm(f'prompt_norms.{max(i - 1, 0)}', tokens, eps)
            added, prompt = self.prompt_block(i, image, self.norm('prompt_norms.0', prompt, eps))
            x = torch.cat((token, tokens + added), dim=1)
            if i == 0:
                times = weights['temporal_embedding'][0].repeat(len(video), 1)
                x = x + weights['pos_embed'] + times[:, None]
            name = f'blocks.{i}'
            x = x + self.attention(
                f'{name}.attn', self.norm(f'{name}.norm1', x, eps), arch['num_heads']
            )
            y = F.gelu(self.linear(f'{name}.mlp.fc1', self.norm(f'{name}.norm2', x, eps)))
            x = x + self.linear(f'{name}.mlp.fc2', y)
            token, tokens = x[:, :1], x[:, 1:]
        features = self.norm('ln_post', token[:, 0], eps)
        pooled = features.unflatten(0, (len(video), -1)).mean(dim=1)
        return self.linear('head.fc_cls', pooled)
