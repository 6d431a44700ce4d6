# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Tests of a data set's clips, and predictions from a video of a person, from the file on.

The plain S4D follows the authors' protocol in testing: two temporal and two spatial views, each
decoded and computed by itself, the spatial ones the same pixels.
"""

import tempfile

import cv2
import numpy as np
import torch
from drawn_faces import Expression, Identity, Pose, Scene, draw_face
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.runner import save_checkpoint
from PIL import Image
from torch import Tensor

from s4d_mm import media
from s4d_mm.apis import ExpressionInferencer
from s4d_mm.weights.s4d import to_authors

from . import timing
from .media import write_clip
from .plain_s4d import PlainS4D
from .steps import SIZES, build_model, normalise, our_config


def measure_testing(
    arch='base', frames=112, repeats=5, device='cpu', dtype='float32'
) -> list[dict]:
    """Measure a clip of so many ``frames``; a view takes 16 of every 4th frame."""
    cfg = our_config('finetune', arch)
    model, pipeline = build_model(cfg).to(device).eval(), Compose(cfg.test_pipeline)
    plain = PlainS4D(to_authors(model.state_dict(), 'finetune')[0], SIZES[arch][0][1:])
    plain.training = False

    def ours(path: str) -> Tensor:
        data = pipeline(dict(filename=path, input_type='video', start_index=0, label=0))
        return model.test_step(pseudo_collate([data]))[0].pred_score

    def of_plain(path: str) -> Tensor:
        views = torch.stack([decode_view(path, last) for last in (False, True) for _ in range(2)])
        return plain.scores(views.to(device))[0].float().softmax(dim=-1).mean(dim=0)

    autocast = torch.autocast(device, getattr(torch, dtype), enabled=dtype != 'float32')
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), autocast:
        path = write_clip(f'{folder}/clip.mp4', frames)
        cases = dict(plain=lambda: of_plain(path), ours=lambda: ours(path))
        difference = (ours(path) - of_plain(path)).abs().max().item()
        rows = timing.compare(cases, repeats, device, arch=arch, clip_frames=frames)
    return [dict(row, difference=difference) for row in rows]


def decode_view(path: str, last: bool) -> Tensor:
    """Decode the first 16, or the last 16, of every 4th frame: (3, 16, 160, 160) float32."""
    reader = media.NumberedFrames(path)
    frames = list(reader.read(range(0, len(reader), 4)))
    frames += frames[-1:] * (16 - len(frames))
    frames = frames[-16:] if last else frames[:16]
    pictures = [Image.fromarray(f).resize((160, 160), Image.BILINEAR) for f in frames]
    return normalise(torch.from_numpy(np.stack(pictures)).permute(3, 0, 1, 2)[None])[0]


def measure_inference(arch='base', seconds=20.0, repeats=5, device='cpu', video='') -> list[dict]:
    """Measure the stages of the prediction of a ``video``; without one, of a drawn person.

    A stage is measured by leaving out the later ones; its time is the difference.
    """
    cfg = our_config('finetune', arch)
    with tempfile.TemporaryDirectory() as folder:
        path = video or write_person(f'{folder}/person.mp4', round(25 * seconds))
        weights = f'{folder}/{arch}.pth'
        save_checkpoint(dict(state_dict=build_model(cfg).state_dict(), meta={}), weights)
        infer = ExpressionInferencer(cfg, weights, device, show_progress=False)
        if not infer(path, draw=False):
            raise SystemExit(f'{path} shows no face that the detector finds.')
        cases = dict(
            decode=lambda: sum(1 for _ in media.read_timed(path)),
            model=lambda: infer(path, faces='none', draw=False),
            faces=lambda: infer(path, draw=False),
            draw=lambda: infer(path, out_dir=f'{folder}/out'),
        )
        length = cases['decode']() / (media.video_info(path).fps or 25)
        found = timing.interleave(cases, repeats, device)
    upto = {stage: float(np.median(values)) for stage, values in found.items()}
    spent = dict(zip(upto, np.diff([0, *upto.values()]).tolist()), all=upto['draw'])
    return [
        dict(stage=k, median_s=s, share=s / upto['draw'], times_real_time=length / s)
        for k, s in spent.items()
    ]


def write_person(path: str, num_frames: int) -> str:
    """Write a video, 640 x 360, of a drawn face that moves to and fro; return its path."""
    rng = np.random.default_rng(15)  # most drawn faces are none to the detector; this one is
    face = draw_face(Identity.draw(rng), Expression(), Pose(scale=0.9), Scene(rng, 112))
    frame = np.full((360, 640, 3), 100, np.uint8)
    frame[80:280, 220:420] = cv2.resize(face, (200, 200), interpolation=cv2.INTER_CUBIC)
    places = np.round(150 * np.sin(np.arange(num_frames) / 25)).astype(int)
    media.write_mp4(path, (np.roll(frame, place, axis=1) for place in places))
    return path
