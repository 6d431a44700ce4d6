# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""(d) Clips a second in testing, from the file to the class probabilities:
``PlainS4D`` with the authors' protocol (two temporal and two spatial views,
each decoded and computed by itself, the spatial ones the same pixels), and our
``Recognizer3D`` with the test pipeline of the config.
"""

import os.path as osp
import tempfile
from collections.abc import Sequence
from typing import Callable

import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate

from . import data_pipeline, media, plain_pipeline, plain_s4d, timing
from .steps import Step, autocast, build_model, our_config


def build_both(
    arch: str = 'base', device: str = 'cpu', dtype: str = 'float32', compile: bool = False
) -> dict[str, Callable]:
    """Functions from the path of a clip to its probabilities, with the same
    weights.
    """
    cfg = our_config('finetune', arch)
    step = Step('ours', 'finetune', 'video', 1, arch, device, dtype)
    model = build_model(cfg).to(device).eval()
    size = plain_s4d.SIZES[arch][0]
    plain = plain_s4d.PlainS4D(size, moae_layers=size[1] // 2)
    plain_s4d.load_from_s4d_mm(plain, model.state_dict())
    plain.to(device).eval()
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    if compile:
        model.forward = torch.compile(model.forward)

    @torch.no_grad()
    def ours(path: str) -> torch.Tensor:
        info = dict(data_pipeline.sample(path, 'video'), label=0)
        with autocast(step):
            result = model.test_step(pseudo_collate([pipeline(info)]))
        return result[0].pred_score

    @torch.no_grad()
    def theirs(path: str) -> torch.Tensor:
        views = plain_pipeline.protocol_views(path).to(device)
        with autocast(step):
            scores, _ = plain(views)
        return scores.float().softmax(dim=-1).mean(dim=0)

    return dict(plain=theirs, ours=ours)


def measure(
    arch: str = 'base',
    num_frames: Sequence[int] = (112, 60),
    repeats: int = 5,
    warmup: int = 1,
    **options,
) -> tuple[list[dict], float]:
    """Clips a second, for clips longer than a view and shorter (both temporal
    views are then the same).

    Args:
        arch (str): Defaults to 'base'.
        num_frames (Sequence[int]): Frames of each clip. Defaults to (112,
            60); a view takes every 4th, 16 of them.
        repeats (int): Defaults to 5.
        warmup (int): Defaults to 1.
        **options: Of :func:`build_both`.

    Returns:
        tuple: Rows, and the largest difference of a probability between the
        two.
    """
    functions = build_both(arch, **options)
    device = options.get('device', 'cpu')
    rows, difference = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for count in num_frames:
            path = media.write_clip(osp.join(folder, f'{count}.mp4'), count)
            a, b = (functions[n](path).cpu() for n in ('plain', 'ours'))
            difference = max(difference, (a - b).abs().max().item())
            times = timing.interleave(
                {n: lambda f=f: f(path) for n, f in functions.items()}, repeats, warmup, device
            )
            for impl, t in times.items():
                rows.append(
                    dict(
                        arch=arch,
                        clip_frames=count,
                        impl=impl,
                        seconds=t.median,
                        clips_per_second=1 / t.median,
                        spread=t.spread,
                        ratio=timing.median_ratio(times['plain'], t),
                    )
                )
    return rows, difference
