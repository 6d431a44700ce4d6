# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D: a training step and a prediction, ours against a plain S2D written from the paper.

    python benchmarks/s2d.py [--repeats 5] [--clips 1]

The plain one (benchmarks/plain_s2d.py) writes attention out and takes the clips one by one in the
temporal adapters. Both have the same weights, and the landmark network without its unused layers.
"""

import argparse
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Time S2D against a plain S2D.')
    parser.add_argument('--repeats', type=int, default=5, help='rounds that count')
    parser.add_argument('--clips', type=int, default=1, help='clips of 16 frames in a batch')
    return parser.parse_args()


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.registry import MODELS, init_default_scope
from torch.nn.functional import cross_entropy

from benchmarks import timing
from benchmarks.plain_s2d import PlainS2D, random_weights
from s4d_mm.weights.s2d import from_s2d_authors

BASE = dict(
    img_size=224,
    patch_size=16,
    embed_dim=768,
    depth=12,
    num_heads=12,
    mlp_ratio=4.0,
    num_frames=16,
    num_classes=7,
    hidden_dim=8,
    adapter_scale=0.25,
    adapter_num_heads=8,
    qkv_bias=True,
    norm_eps=1e-6,
    tma_norm_eps=1e-5,
)
FROZEN = ('blocks.', 'patch_embed.', 'cls_token', 'pos_embed')


def main() -> None:
    """Measure and print the ratios."""
    args = parse_args()
    init_default_scope('mmaction')
    torch.manual_seed(0)
    model = MODELS.build(dict(type='S2DViT', arch='base'))
    model.landmark.has_weights = True  # any will do for timing
    head = torch.nn.Linear(768, 7)
    weights = random_weights(BASE, model.landmark.out_channels)
    own, _ = from_s2d_authors(weights)
    backbone = {k.removeprefix('backbone.'): v for k, v in own.items() if 'backbone.' in k}
    model.load_state_dict({**model.state_dict(), **backbone})
    head.load_state_dict(
        dict(weight=weights['head.fc_cls.weight'], bias=weights['head.fc_cls.bias'])
    )
    plain = PlainS2D(BASE, weights)
    trained = [w.requires_grad_() for k, w in weights.items() if not k.startswith(FROZEN)]
    of_ours = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
    video = torch.randn(args.clips, 3, 16, 224, 224)
    labels = torch.randint(7, (args.clips,))

    def scores_plain() -> torch.Tensor:
        return plain(video, model.landmark(video.transpose(1, 2).flatten(0, 1)))

    def scores_ours() -> torch.Tensor:
        return head(model(video)[..., 0, 0].mean(dim=2))

    with torch.no_grad():
        difference = (model.eval() and scores_ours() - scores_plain()).abs().max().item()
    print(f'largest difference of a score: {difference:.1e}')
    optimizers = [torch.optim.AdamW(p, lr=0.0, fused=True) for p in (trained, of_ours)]

    def step(scores, optimizer) -> None:
        cross_entropy(scores(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    def predict(scores) -> None:
        with torch.no_grad():
            scores()

    cases = {
        'step, plain': lambda: step(scores_plain, optimizers[0]),
        'step, ours': lambda: step(scores_ours, optimizers[1]),
        'prediction, plain': lambda: predict(scores_plain),
        'prediction, ours': lambda: predict(scores_ours),
    }
    seconds = timing.interleave(cases, args.repeats)
    for name, values in seconds.items():
        print(f'{name:20} {min(values):8.2f} .. {max(values):.2f} s')
    for kind in ('step', 'prediction'):
        pairs = zip(seconds[f'{kind}, plain'], seconds[f'{kind}, ours'])
        ratios = sorted(a / b for a, b in pairs)
        middle = ratios[len(ratios) // 2]
        print(f'{kind}: plain / ours {middle:.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})')


if __name__ == '__main__':
    main()
