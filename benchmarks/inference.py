# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction from a video of one person, end to end, and where its time goes.

The stages are measured by leaving out the later ones; the time of a stage is the difference.
"""

import multiprocessing
import os.path as osp
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.runner import save_checkpoint

from s4d_mm import media
from s4d_mm.apis import ExpressionInferencer
from s4d_mm.predict.faces import FaceDetector, FaceSettings, crop_square
from s4d_mm.predict.tracking import follow_faces

from . import timing
from .steps import build_model, our_config

SIZE, FPS = (640, 360), 25
STAGES = ('decode', 'faces', 'model', 'draw')


def measure(
    arch: str = 'base',
    seconds: float = 20,
    repeats: int = 5,
    device: str = 'cpu',
    path: str | None = None,
) -> list[dict]:
    """Measure the stages of a prediction.

    Args:
        arch (str): Key of ``plain_s4d.SIZES``. Defaults to 'base'.
        seconds (float): Length of the drawn video. Defaults to 20.
        repeats (int): Rounds. Defaults to 5.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        path (str, optional): A video to use in place of the drawn one. Defaults to None.

    Returns:
        list[dict]: A row for each stage, with ``share`` of the whole time, and one for the whole,
        with ``times_real_time``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = path or write_video(osp.join(folder, 'person.mp4'), round(seconds * FPS))
        infer = build_inferencer(folder, arch, device)
        settings, detect = FaceSettings(), FaceDetector()

        def decode() -> None:
            for _ in media.read_timed(path):
                pass

        def faces() -> None:
            frames = (frame.image for frame in media.read_timed(path))
            for number, frame, found in follow_faces(frames, detect, settings):
                for face in found if number % 4 == 0 else ():
                    crop_square(frame, face.square, settings.size)

        cases = dict(
            decode=decode,
            faces=faces,
            model=lambda: infer(path, draw=False),
            draw=lambda: infer(path, out_dir=osp.join(folder, 'out')),
        )
        if not infer(path, draw=False):
            raise SystemExit(f'{path} shows no face that the detector finds.')
        taken = timing.interleave(cases, repeats, device)
        length = sum(1 for _ in media.read_timed(path)) / (media.video_info(path).fps or FPS)
    return stage_rows(taken, length)


def stage_rows(taken: dict[str, list[float]], length: float) -> list[dict]:
    """The rows of :func:`measure`.

    Args:
        taken (dict[str, list[float]]): Seconds of each round, up to and with each stage.
        length (float): Length of the video in seconds.

    Returns:
        list[dict]: See :func:`measure`.
    """
    upto = {stage: float(np.median(taken[stage])) for stage in STAGES}
    whole, before, rows = upto['draw'], 0.0, []
    for stage in STAGES:
        spent = upto[stage] - before
        rows.append(dict(stage=stage, median_s=spent, share=spent / whole))
        before = upto[stage]
    rows.append(dict(stage='all', median_s=whole, share=1.0, times_real_time=length / whole))
    return rows


def measure_memory(minutes: Sequence[float] = (1, 30), arch: str = 'tiny') -> list[dict]:
    """Peak memory over the length of a video, each in a fresh process.

    The size of the model adds a constant, so a small one will do.

    Args:
        minutes (Sequence[float]): Lengths of the videos. Defaults to (1, 30).
        arch (str): Key of ``plain_s4d.SIZES``. Defaults to 'tiny'.

    Returns:
        list[dict]: A row for each, with ``peak_mib``, resident memory of the process.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length in minutes:
            path = osp.join(folder, f'{length}.mp4')
            write_video(path, round(60 * length * FPS))
            context = multiprocessing.get_context('spawn')
            with context.Pool(1) as pool:
                peak, records = pool.apply(_peak_of_prediction, (path, folder, arch))
            rows.append(dict(minutes=length, records=records, peak_mib=peak / 2**20))
    return rows


def _peak_of_prediction(path: str, folder: str, arch: str) -> tuple[int, int]:
    import resource

    infer = build_inferencer(folder, arch, 'cpu')
    records = infer(path, out_dir=osp.join(folder, 'out'))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, len(records)


def build_inferencer(folder: str, arch: str, device: str) -> ExpressionInferencer:
    """Make an inferencer of the fine-tuning config with random weights."""
    cfg = our_config('finetune', arch)
    weights = osp.join(folder, f'{arch}.pth')
    save_checkpoint(dict(state_dict=build_model(cfg).state_dict(), meta={}), weights)
    return ExpressionInferencer(cfg, weights, device, show_progress=False)


def write_video(path: str, num_frames: int) -> str:
    """Write a video of one drawn person who moves, in the size of a video call; give its path."""
    media.write_mp4(path, moving_person(num_frames), FPS)
    return path


def moving_person(num_frames: int) -> Iterator[np.ndarray]:
    """Draw frames (360, 640, 3) of a head that sways and wanders before a plain wall.

    Most drawn faces are no faces to the detector; this one is.
    """
    import cv2
    from drawn_faces import Expression, Identity, Pose, Scene, draw_face

    (width, height), side = SIZE, 200
    rng = np.random.default_rng(15)
    who, scene = Identity.draw(rng), Scene(rng, 112)
    for i in range(num_frames):
        angle = 2 * np.pi * i / (4 * FPS)
        pose = Pose(scale=0.9, angle=5 * np.sin(angle), yaw=0.3 * np.sin(0.5 * angle))
        face = draw_face(who, Expression(), pose, scene)
        frame = np.full((height, width, 3), 100, np.uint8)
        x = round((width - side) / 2 * (1 + 0.5 * np.sin(0.7 * angle)))
        y = round((height - side) / 2 * (1 + 0.5 * np.cos(angle)))
        frame[y : y + side, x : x + side] = cv2.resize(
            face, (side, side), interpolation=cv2.INTER_CUBIC
        )
        yield frame
