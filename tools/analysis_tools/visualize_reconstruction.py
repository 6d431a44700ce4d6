# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Save a picture of what a pre-trained masked auto-encoder reconstructs.

The columns are the frames, what the model saw of them, and what the model made of that.

    python tools/analysis_tools/visualize_reconstruction.py CONFIG CHECKPOINT
"""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
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


def draw(blocks: dict[str, list[tuple[np.ndarray, float]]]) -> Figure:
    """A block of three columns per modality, a row per sample, of what ``columns_of`` returns."""
    columns, widths = [], []
    for name, samples in blocks.items():
        count, share = samples[0][0].shape[1], np.mean([ratio for _, ratio in samples])
        first = name if count == 1 else f'{name}, {count} frames'
        for i, title in enumerate((first, f'{share:.0%} masked', 'reconstructed')):
            columns.append((title, [np.hstack(list(pixels[i])) for pixels, _ in samples]))
            widths.append(count)
    rows, grid = len(columns[0][1]), dict(width_ratios=widths, wspace=0.04, hspace=0.04)
    fig = Figure((1.4 * sum(widths), 1.4 * rows + 0.3), layout='constrained')
    axes = fig.subplots(rows, len(columns), squeeze=False, gridspec_kw=grid)
    for (title, pictures), places in zip(columns, axes.T):
        places[0].set_title(title, fontsize=11)
        for picture, ax in zip(pictures, places):
            ax.imshow(picture, interpolation='nearest')
            ax.set_axis_off()
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
    blocks = {}
    for part in getattr(dataset, 'datasets', [dataset]):
        picks = np.linspace(0, len(part) - 1, args.num).round().astype(int).tolist()
        samples = [columns_of(model, part[i], args.frames) for i in picks]
        blocks[getattr(part, 'INPUT_TYPE', 'video')] = samples
    draw(blocks).savefig(args.out, dpi=150)
    print(f'{args.out}: {args.num} samples of each of {", ".join(blocks)}')


if __name__ == '__main__':
    main()
