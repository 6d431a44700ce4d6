# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Measure speed, memory and what a kill costs; print Markdown tables. See README.md here."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

# the script runs from anywhere; the tests have clips, the tools drawn faces
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / 'tests'))
sys.path.insert(2, str(Path(__file__).resolve().parents[1] / 'tools' / 'data'))

import s4d_mm  # noqa: F401, I001  (keeps mmcv-lite quiet, so before the others)
import torch
from benchmarks.plain_s4d import SIZES

from benchmarks import data, inference, resume, steps, testing, timing


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest='part', required=True)
    of_steps = parts.add_parser('steps', help='training steps: plain S4D, ours, without experts')
    of_data = parts.add_parser('data', help='training pipelines against raw decoding')
    of_testing = parts.add_parser('testing', help='from the file to the probabilities')
    of_inference = parts.add_parser('inference', help='prediction from a video, stage by stage')
    of_resume = parts.add_parser('resume', help='trainings that are killed and resumed')
    for part in (of_steps, of_data, of_testing, of_inference):
        part.add_argument('--repeats', type=int, default=5, help='rounds; default: 5')
    for part in (of_steps, of_data, of_testing, of_inference, of_resume):
        part.add_argument('--out', help='also write the rows to this JSON file')
    of_resume.add_argument('--kills', type=int, default=30, help='in all; default: 30')
    of_resume.add_argument('--folder', help='where to train; kept')
    of_resume.add_argument('--seed', type=int, default=0, help='of the moments')
    for part in (of_steps, of_testing, of_inference):
        part.add_argument('--arch', default='base', choices=tuple(SIZES))
        part.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
    for part in (of_steps, of_testing):
        part.add_argument('--dtype', default='float32', choices=tuple(timing.DTYPES))
    add = of_steps.add_argument
    add('--stage', default='all', choices=('pretrain', 'finetune', 'all'))
    add('--modality', default='all', choices=('video', 'image', 'all'))
    add('--batch', type=int, help=f'samples of a step; default: {steps.BATCH}')
    add('--compile', action='store_true', help="torch.compile for ours, as config's compile=True")
    add('--no-memory', action='store_true', help='do not measure memory, in fresh processes')
    of_data.add_argument(
        '--config', nargs='+', default=[f'{steps.CONFIGS}/s4d_pretrain.py'], help='config files'
    )
    of_data.add_argument('--clips', type=int, default=8, help='clips, and 4 times as many images')
    add = of_inference.add_argument
    add('--seconds', type=float, default=20, help='of the drawn video; default: 20')
    add('--media', help='a video to predict in place of the drawn one')
    add('--memory', type=float, nargs='+', metavar='MINUTES', help='measure peak memory instead')
    return parser.parse_args(argv)


def run_inference(args: argparse.Namespace) -> list[dict]:
    """Measure the time, or the memory, of predictions."""
    if args.memory:
        return inference.measure_memory(args.memory)
    return inference.measure(args.arch, args.seconds, args.repeats, args.device, args.media)


def run_steps(args: argparse.Namespace) -> list[dict]:
    """Measure the training steps that are asked for."""
    peak = timing.matmul_peak(args.device, args.dtype)
    print(f'best matrix product: {peak / 1e9:.0f} GFLOP/s\n')
    rows = []
    for stage in ('pretrain', 'finetune') if args.stage == 'all' else (args.stage,):
        for modality in ('video', 'image') if args.modality == 'all' else (args.modality,):
            rows += steps.measure(
                stage,
                modality,
                peak,
                batch=args.batch,
                repeats=args.repeats,
                memory=not args.no_memory,
                arch=args.arch,
                device=args.device,
                dtype=args.dtype,
                compile=args.compile,
            )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one part and print its table.

    Raises:
        SystemExit: If a training that was killed did not end as the one that was not.
    """
    args = parse_args(argv)
    device = getattr(args, 'device', 'cpu')
    if device == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('--device cuda, but PyTorch finds no GPU.')
    machine = timing.machine(device)
    print(timing.table([machine]))
    if args.part == 'steps':
        rows = run_steps(args)
    elif args.part == 'inference':
        rows = run_inference(args)
    elif args.part == 'data':
        rows = data.measure(args.config, args.clips, args.repeats)
    elif args.part == 'resume':
        rows = resume.measure(args.kills, args.folder, args.seed)
    else:
        rows = testing.measure(
            args.arch, repeats=args.repeats, device=args.device, dtype=args.dtype
        )
    print(timing.table(rows))
    if args.out:
        Path(args.out).write_text(json.dumps(dict(machine=machine, rows=rows), indent=1) + '\n')
    if any(row.get('first_difference') for row in rows):
        raise SystemExit('A training that was killed did not end as the one that was not.')


if __name__ == '__main__':
    main()
