# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Make the pictures of the README and of the pages.

    python docs/make_pictures.py render        # needs the extra bench: rendered_people.mp4
    python docs/make_pictures.py predict       # by the packaged model: prediction.png, photo.png
    python docs/make_pictures.py reconstruct work_dirs/quickstart      # after a quickstart

``prediction.png`` has annotated frames of the rendered clip above the timeline of the prediction,
``photo.png`` an annotated photograph, ``reconstruction.png`` frames, what is left of them after
masking, and what the quickstart's model makes of it. Nothing is touched up.
"""

import argparse
import os
import os.path as osp
import subprocess
import sys
import tempfile

import cv2
import numpy as np
from PIL import Image

from s4d_mm.apis import ExpressionInferencer
from s4d_mm.media import read_video, write_mp4

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
PICTURES = osp.join(ROOT, 'docs', 'pictures')
CLIP = osp.join(PICTURES, 'rendered_people.mp4')
FPS = 25
HOLD = 48  # frames of an expression
PEOPLE = {5: ('happiness', 'surprise', 'anger'), 10: ('neutral', 'sadness', 'happiness')}  # of 12
SIDE = 288  # of a person's part of a frame, in pixels
SHOWN = 1120  # width of the picture


def render() -> None:
    """Render people whom the model has not seen, each with three expressions in turn."""
    sys.path.insert(0, osp.join(ROOT, 'tools', 'data'))
    from head_model import build
    from make_benchmark import Sample, Settings
    from rendered_people import draw_course, load
    from rendered_people import render as render_sample

    settings = Settings(seed=2026, people=12, size=2 * SIDE, margin=1.2)
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, 'people.npz')
        np.savez(path, **build(settings.people, settings.seed))
        model = load(path)
    labels, parts = model.labels.tolist(), []
    for person, names in PEOPLE.items():
        rng = np.random.default_rng([settings.seed, person])
        course = np.concatenate([draw_course(name, labels, HOLD, rng) for name in names])
        padded = np.pad(course, ((4, 4), (0, 0)), 'edge')  # from one into the next
        actions = np.stack([padded[i : i + 9].mean(axis=0) for i in range(len(course))])
        sample = Sample('video', person, 'test', names[0], names[0], person)
        frames = render_sample(sample, settings, model, actions)[0]
        size = (SIDE, SIDE)  # less noise than of rays one by one
        parts.append([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])
    write_mp4(CLIP, [np.concatenate(both, axis=1) for both in zip(*parts)], FPS)


def scaled(picture: Image.Image, width: int) -> Image.Image:
    return picture.resize((width, round(picture.height * width / picture.width)), Image.LANCZOS)


def save(picture: Image.Image, path: str) -> None:
    picture.convert('RGB').quantize(128).save(path, optimize=True)


def predict() -> None:
    """Predict the rendered clip, and a photograph of NASA's (public domain)."""
    from skimage.data import astronaut

    inferencer = ExpressionInferencer(device='cpu', show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        photo = osp.join(folder, 'photo.jpg')
        Image.fromarray(astronaut()).save(photo, quality=95)
        result = inferencer([CLIP, photo], window_stride=8, out_dir=folder)
        for face in result.summary():
            print(osp.basename(face.media), face.face, face.label)
        frames = list(read_video(osp.join(folder, 'rendered_people.mp4')))
        timeline = Image.open(osp.join(folder, 'rendered_people_timeline.png'))
        timeline = scaled(timeline.convert('RGB'), SHOWN)
        save(Image.open(osp.join(folder, 'photo.png')), osp.join(PICTURES, 'photo.png'))
    steps, width = 3, SIDE * len(PEOPLE)  # without the panel of probabilities
    picks = [Image.fromarray(frames[i * HOLD + 2 * HOLD // 3][:, :width]) for i in range(steps)]
    gap = 8
    picks = [scaled(p, (SHOWN - gap * (steps - 1)) // steps) for p in picks]
    picture = Image.new('RGB', (SHOWN, picks[0].height + gap + timeline.height), 'white')
    for i, pick in enumerate(picks):
        picture.paste(pick, (i * (pick.width + gap), 0))
    picture.paste(timeline, (0, picks[0].height + gap))
    save(picture, osp.join(PICTURES, 'prediction.png'))


def reconstruct(run: str) -> None:
    """Let the tool draw what the quickstart's pre-trained model reconstructs."""
    tool = osp.join(ROOT, 'tools', 'analysis_tools', 'visualize_reconstruction.py')
    config = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_pretrain.py')
    with open(osp.join(run, 'pretrain', 'last_checkpoint'), encoding='utf-8') as f:
        weights = f.read().strip()
    path = osp.join(PICTURES, 'reconstruction.png')
    env = dict(os.environ, QUICKSTART_DIR=osp.abspath(run))
    command = [sys.executable, tool, config, weights, '--num', '1', '--frames', '2', '--out', path]
    subprocess.run(command, check=True, env=env)
    save(Image.open(path), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    makers = dict(render=render, predict=predict, reconstruct=reconstruct)
    parser.add_argument('what', choices=makers)
    parser.add_argument('run', nargs='*', help='of reconstruct: folder of a finished quickstart')
    args = parser.parse_args()
    makers[args.what](*args.run)


if __name__ == '__main__':
    main()
