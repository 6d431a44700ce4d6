# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Make the pictures of the README and of the pages with the quickstart's model.

    bash tools/quickstart.sh
    python docs/make_pictures.py work_dirs/quickstart

``prediction.png`` has annotated frames of a drawn clip above the timeline of the prediction,
``reconstruction.png`` frames, what is left of them after masking, and what the model makes of it.
Nothing in them is touched up: they show what the model answers, right or wrong.
"""

import argparse
import os
import os.path as osp
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
sys.path.insert(0, osp.join(ROOT, 'tools', 'data'))

from drawn_faces import EXPRESSIONS, Expression, Identity, Pose, Scene, draw_face  # noqa: E402

from s4d_mm.apis import ExpressionInferencer  # noqa: E402
from s4d_mm.media import read_video, write_mp4  # noqa: E402
from s4d_mm.predict.faces import FaceSettings  # noqa: E402

CONFIGS = osp.join(ROOT, 'configs', 'quickstart')
FPS = 25
HOLD = 48  # frames from one expression to the next, of which RISE change the face
RISE = 8
PEOPLE = ((36, ('happiness', 'sadness', 'anger')), (9, ('neutral', 'fear', 'disgust')))
SIDE = 288  # of a person's part of a frame, in pixels
SHOWN = 1120  # width of the picture
LARGEST = 300 * 1024  # bytes of a picture


def expression_at(names: Sequence[str], frame: int) -> Expression:
    """What a face does in a frame of the clip: one expression turns into the next."""
    step, place = divmod(frame, HOLD)
    before = EXPRESSIONS[names[max(step - 1, 0)]].vector()
    share = np.clip(place / RISE, 0, 1) ** 2
    return Expression(*(before + share * (EXPRESSIONS[names[step]].vector() - before)))


def draw_frame(number: int) -> np.ndarray:
    parts = []
    for i, (seed, names) in enumerate(PEOPLE):
        who = Identity.draw(np.random.default_rng(seed))
        sway = 0.01 * np.sin(2 * np.pi * number / 60 + i)
        pose = Pose(x=sway, angle=100 * sway, scale=0.75, yaw=20 * sway)
        scene = Scene(np.random.default_rng(seed), SIDE)
        parts.append(draw_face(who, expression_at(names, number), pose, scene))
    return np.concatenate(parts, axis=1)


def scaled(picture: Image.Image, width: int) -> Image.Image:
    return picture.resize((width, round(picture.height * width / picture.width)), Image.LANCZOS)


def save(picture: Image.Image, path: str) -> None:
    picture.convert('RGB').quantize(128).save(path, optimize=True)


def newest_weights(folder: str) -> str:
    with open(osp.join(folder, 'last_checkpoint'), encoding='utf-8') as f:
        return f.read().strip()


def make_prediction(run: str, path: str) -> None:
    """Predict the drawn clip and put annotated frames above the timeline."""
    steps = len(PEOPLE[0][1])
    inferencer = ExpressionInferencer(
        osp.join(CONFIGS, 's4d_quickstart_finetune.py'),
        newest_weights(osp.join(run, 'finetune')),
        device='cpu',
        show_progress=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        clip = osp.join(folder, 'clip.mp4')
        write_mp4(clip, [draw_frame(i) for i in range(steps * HOLD)], FPS)
        out = osp.join(folder, 'results')
        settings = FaceSettings(detect_side=960)  # drawn faces are hard for it
        result = inferencer(clip, window_stride=8, face_settings=settings, out_dir=out)
        for face in result.summary():
            print(face.face, face.label, PEOPLE[face.face - 1][1])
        frames = list(read_video(osp.join(out, 'clip.mp4')))
        timeline = scaled(Image.open(osp.join(out, 'clip_timeline.png')).convert('RGB'), SHOWN)
    width = SIDE * len(PEOPLE)  # without the panel of probabilities, which the timeline has too
    picks = [Image.fromarray(frames[i * HOLD + 2 * HOLD // 3][:, :width]) for i in range(steps)]
    gap = 8
    picks = [scaled(p, (SHOWN - gap * (steps - 1)) // steps) for p in picks]
    picture = Image.new('RGB', (SHOWN, picks[0].height + gap + timeline.height), 'white')
    for i, pick in enumerate(picks):
        picture.paste(pick, (i * (pick.width + gap), 0))
    picture.paste(timeline, (0, picks[0].height + gap))
    save(picture, path)


def make_reconstruction(run: str, path: str) -> None:
    """Let the tool draw what the pre-trained model reconstructs."""
    tool = osp.join(ROOT, 'tools', 'analysis_tools', 'visualize_reconstruction.py')
    config = osp.join(CONFIGS, 's4d_quickstart_pretrain.py')
    weights = newest_weights(osp.join(run, 'pretrain'))
    env = dict(os.environ, QUICKSTART_DIR=osp.abspath(run))
    command = [sys.executable, tool, config, weights, '--num', '1', '--frames', '2', '--out', path]
    subprocess.run(command, check=True, env=env)
    save(Image.open(path), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', help='folder of a finished quickstart')
    parser.add_argument('--out', default=osp.join(ROOT, 'docs', 'pictures'))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    make_prediction(args.run, osp.join(args.out, 'prediction.png'))
    make_reconstruction(args.run, osp.join(args.out, 'reconstruction.png'))


if __name__ == '__main__':
    main()
