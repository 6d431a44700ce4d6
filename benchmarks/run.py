# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Measure speed; print Markdown tables. See README.md here."""

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path

# the script runs from anywhere; the tools draw faces
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / 'tools' / 'data'))

import s4d_mm  # noqa: F401, I001  (keeps mmcv-lite quiet, so before the others)
import torch

from benchmarks import data, predict, steps, timing

PARTS = dict(
    steps=(steps.measure, 'training steps: plain S4D, ours, ours without experts'),
    data=(data.measure, 'training pipelines against raw decoding'),
    testing=(predict.measure_testing, 'from the file to the class probabilities'),
    inference=(predict.measure_inference, 'prediction from a video, stage by stage'),
    s2d=(steps.measure_s2d, 'training steps and predictions of S2D: plain, ours'),
)
CHOICES = dict(
    stage=('pretrain', 'finetune', 'all'),
    modality=('video', 'image', 'all'),
    arch=tuple(steps.SIZES),
    device=('cpu', 'cuda'),
    dtype=('float32', 'bfloat16'),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the options of a part are the arguments of its function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest='part', required=True)
    for name, (measure, text) in PARTS.items():
        add = parts.add_parser(name, help=text, description=measure.__doc__).add_argument
        add('--out', help='also write the rows to this JSON file')
        for key, parameter in inspect.signature(measure).parameters.items():
            default, options = parameter.default, dict(choices=CHOICES.get(key))
            if key == 'configs':
                default, options = [f'{steps.CONFIGS}/s4d_pretrain.py'], dict(nargs='+')
            else:
                options['type'] = type(default)
            add(f'--{key}', default=default, help=f'default: {default!r}', **options)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one part and print its table."""
    options = vars(parse_args(argv))
    part, out, device = options.pop('part'), options.pop('out'), options.get('device', 'cpu')
    if device == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('--device cuda, but PyTorch finds no GPU.')
    machine = timing.machine(device)
    print(timing.table([machine]))
    rows = PARTS[part][0](**options)
    print(timing.table(rows))
    if out:
        Path(out).write_text(json.dumps(dict(machine=machine, rows=rows), indent=1) + '\n')


if __name__ == '__main__':
    main()
