# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Clips a second in testing, from the file to the class probabilities.

The plain S4D follows the authors' protocol: two temporal and two spatial views, each decoded
and computed by itself, the spatial ones the same pixels. Ours is the config's recognizer with
its test pipeline.
"""

import os.path as osp
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from PIL import Image

from s4d_mm.media import NumberedFrames

from . import media, plain_s4d, timing
from .data import sample
from .steps import autocast, build_model, normalise, our_config


def measure(
    arch: str = 'base',
    num_frames: Sequence[int] = (112, 60),
    repeats: int = 5,
    device: str = 'cpu',
    dtype: str = 'float32',
) -> list[dict]:
    """Measure clips that are longer than a view, and shorter (both views are then the same).

    Args:
        arch (str): Key of ``plain_s4d.SIZES``. Defaults to 'base'.
        num_frames (Sequence[int]): Frames of each clip; a view takes every 4th, 16 of them.
            Defaults to (112, 60).
        repeats (int): Rounds. Defaults to 5.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        dtype (str): Key of ``timing.DTYPES``. Defaults to 'float32'.

    Returns:
        list[dict]: A row for each; ``difference`` is the largest one to the probabilities of
        the plain S4D.
    """
    probabilities = build_both(arch, device, dtype)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in num_frames:
            path = media.write_clip(osp.join(folder, f'{count}.mp4'), count)
            found = {impl: function(path) for impl, function in probabilities.items()}
            cases = {impl: partial(function, path) for impl, function in probabilities.items()}
            seconds = timing.interleave(cases, repeats, device)
            for impl in cases:
                row = dict(arch=arch, clip_frames=count, impl=impl)
                row.update(timing.summary(seconds[impl], seconds['plain']))
                row['difference'] = (found[impl] - found['plain']).abs().max().item()
                rows.append(row)
    return rows


def build_both(arch: str, device: str, dtype: str) -> dict[str, Callable]:
    """Make functions from the path of a clip to its probabilities, with the same weights."""
    cfg = our_config('finetune', arch)
    model = build_model(cfg).to(device).eval()
    size = plain_s4d.SIZES[arch][0]
    plain = plain_s4d.PlainS4D(size, moae_layers=size[1] // 2)
    plain_s4d.load_from_s4d_mm(plain, model.state_dict())
    plain.to(device).eval()
    pipeline = Compose(cfg.test_pipeline)

    @torch.no_grad()
    def ours(path: str) -> torch.Tensor:
        data = pipeline(dict(sample(path, 'video'), label=0))
        with autocast(device, dtype):
            return model.test_step(pseudo_collate([data]))[0].pred_score

    @torch.no_grad()
    def of_plain(path: str) -> torch.Tensor:
        views = torch.stack([decode_view(path, last) for last in (False, True) for _ in range(2)])
        with autocast(device, dtype):
            scores, _ = plain(views.to(device))
        return scores.float().softmax(dim=-1).mean(dim=0)

    return dict(plain=of_plain, ours=ours)


def decode_view(path: str, last: bool) -> torch.Tensor:
    """Decode the first 16, or the last 16, of every 4th frame: (3, 16, 160, 160) float32."""
    reader = NumberedFrames(path)
    every_4th = np.arange(0, len(reader), 4)
    frames = np.stack(list(reader.read(every_4th.tolist())))
    frames = np.pad(frames, ((0, max(16 - len(frames), 0)), *[(0, 0)] * 3), mode='edge')
    frames = frames[-16:] if last else frames[:16]
    pictures = [Image.fromarray(f).resize((160, 160), Image.BILINEAR) for f in frames]
    pixels = torch.from_numpy(np.stack(pictures))
    return normalise(pixels.permute(3, 0, 1, 2)[None])[0]
