# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Save a picture of what a pre-trained masked auto-encoder reconstructs.

The columns are the frames, what the model saw of them, and what the model made of that.

    python tools/analysis_tools/visualize_reconstruction.py CONFIG CHECKPOINT
"""

import argparse

import matplotlib
from mmengine.config import Config

matplotlib.use('Agg')  # before pyplot
import matplotlib.pyplot as plt
import numpy as np
import torch
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint

import s4d_mm.guard  # noqa: F401
from s4d_mm.files.errors import weights_errors_as_messages
from s4d_mm.models.state_dict import check_fit


@torch.no_grad()
def columns_of(model: torch.nn.Module, sample: dict, frames: int) -> tuple[np.ndarray, float]:
    """Frames, masked frames, reconstructed frames, (3, T, H, W, 3) uint8 RGB; share of masked."""
    data = dict(inputs=[sample['inputs'][:1]], data_samples=[sample['data_samples']])
    inputs = model.data_preprocessor(data)['inputs']
    latent, mask, ids_restore = model.backbone(inputs)
    pred = model.neck(latent, ids_restore)
    head = model.head
    rebuilt = head.reconstruct(pred, inputs, mask)
    original = head.reconstruct(pred, inputs, torch.zeros_like(mask))
    hidden = head.to_video(mask[..., None].expand_as(pred), inputs)
    masked = torch.where(hidden.bool(), torch.full_like(original, 0.5), original)
    # an image is repeated to fill a tubelet
    length = inputs.shape[2] if inputs.ndim == 5 else 1
    picks = np.linspace(0, length - 1, min(frames, length)).round().astype(int).tolist()
    columns = torch.stack([video[0][:, picks] for video in (original, masked, rebuilt)])
    pixels = (columns.permute(0, 2, 3, 4, 1).cpu().numpy() * 255).round().astype(np.uint8)
    return pixels, float(mask.float().mean())


def draw(blocks: dict[str, list[tuple[np.ndarray, float]]]) -> plt.Figure:
    """A block of three columns per modality, a row per sample, of what ``columns_of`` returns."""
    widths, titles, pictures = [], [], []
    for name, samples in blocks.items():
        shown = samples[0][0].shape[1]
        widths += [shown] * 3
        share = 100 * np.mean([ratio for _, ratio in samples])
        first = name if shown == 1 else f'{name}, {shown} frames'
        titles += [first, f'{share:.0f} % masked', 'reconstructed']
        pictures += [[np.concatenate(list(s[0][i]), axis=1) for s in samples] for i in range(3)]
    rows, grid = max(map(len, pictures)), dict(width_ratios=widths, wspace=0.04, hspace=0.04)
    size = (1.4 * sum(widths), 1.4 * rows + 0.3)
    fig = plt.figure(figsize=size, layout='constrained')
    axes = fig.subplots(rows, len(widths), squeeze=False, gridspec_kw=grid)
    for ax in axes.flat:
        ax.set_axis_off()
    for column, title in enumerate(titles):
        axes[0, column].set_title(title, fontsize=11)
        for row, picture in enumerate(pictures[column]):
            axes[row, column].imshow(picture, interpolation='nearest')
    return fig


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description='Draw frames, masked and reconstructed.')
    add = parser.add_argument
    add('config', help='pre-training config')
    add('checkpoint')
    add('--out', default='reconstruction.png')
    add('--num', type=int, default=3, help='samples of each modality')
    add('--frames', type=int, default=2, help='frames shown of a clip')
    args = parser.parse_args(argv)
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    torch.manual_seed(0)
    np.random.seed(0)
    model = MODELS.build(cfg.model)
    with weights_errors_as_messages():
        loaded = load_checkpoint(model, args.checkpoint, map_location='cpu')
        check_fit(model, loaded, source=args.checkpoint)
    model.eval()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    parts = {getattr(dataset, 'INPUT_TYPE', 'video'): range(len(dataset))}
    if hasattr(dataset, 'modality_range'):
        parts = {name: dataset.modality_range(name) for name in ('video', 'image')}
    blocks = {}
    for name, indices in parts.items():
        picks = np.linspace(0, len(indices) - 1, args.num).round().astype(int).tolist()
        blocks[name] = [columns_of(model, dataset[indices[i]], args.frames) for i in picks]
    draw(blocks).savefig(args.out, dpi=150)
    print(f'{args.out}: {args.num} samples of each of {", ".join(blocks)}')


if __name__ == '__main__':
    main()
