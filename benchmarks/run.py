# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Measure speed and memory; prints Markdown tables and writes JSON.

``python benchmarks/run.py steps --arch base``, ``... all``; see README.md.
"""

import argparse
import os.path as osp
import sys
import warnings

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
warnings.filterwarnings('ignore', module='mmcv')

import torch  # noqa: E402

from benchmarks import (  # noqa: E402
    data_pipeline,
    memory_workers,
    mixed,
    moae_layer,
    scaling,
    steps,
    testing,
    timing,
)
from benchmarks.plain_s4d import SIZES  # noqa: E402
from benchmarks.targets import target_rows  # noqa: E402

IN_ALL = ('steps', 'moae', 'data', 'testing', 'workers', 'mixed')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        'part',
        choices=(*IN_ALL, 'scaling', 'peak', 'all'),
        help='steps: training steps; moae: the MoAE layer; data: pre-training '
        'pipeline;\ntesting: test protocol; scaling: growth; workers: memory '
        'of data loader workers;\nmixed: images and videos in one step; peak: '
        'matrix products of the machine;\nall: everything but scaling, and '
        'the targets',
    )
    add = parser.add_argument
    add('--device', default='cpu', choices=('cpu', 'cuda'))
    add('--dtype', default='float32', choices=tuple(timing.DTYPES))
    add('--plain-dtype', choices=tuple(timing.DTYPES), help='of PlainS4D in steps, if it differs')
    add('--compile', action='store_true', help="torch.compile for ours, as mmengine's compile=True")
    add('--threads', type=int, help="PyTorch's threads")
    add('--repeats', type=int, default=5)
    add('--warmup', type=int, default=2)
    add('--arch', nargs='+', default=['base'], choices=tuple(SIZES))
    add('--stage', nargs='+', default=['pretrain', 'finetune'], choices=('pretrain', 'finetune'))
    add('--modality', nargs='+', default=['video', 'image'], choices=('video', 'image'))
    add(
        '--batch',
        nargs='+',
        type=int,
        help='steps: one size for all (default: 4 clips or 16 images in '
        'pre-training, 2 or 16 in\nfine-tuning); scaling: the sizes to try; '
        'mixed: numbers of clips (default: 1 and\n4, in fine-tuning 1 and 2)',
    )
    add('--frames', nargs='+', type=int, help='scaling: frames of a clip')
    add('--experts', nargs='+', type=int, help='moae, scaling')
    add('--tokens', type=int, default=1600, help='moae: of the batch (default: those of 2 clips)')
    add(
        '--impl',
        nargs='+',
        choices=('plain', 'ours', 'no_moae', 'ours_cp', 'in_backward', 'in_backward_cp'),
        help='steps, scaling: ratios are against the first (default: plain '
        'ours, and no_moae in\nfine-tuning steps)',
    )
    add(
        '--pixels',
        default='float',
        choices=('float', 'uint8'),
        help='what PlainS4D starts from in steps; ours starts from uint8',
    )
    add('--no-memory', action='store_true')
    add('--memory-limit', type=float, metavar='GIB', help='scaling: leave out sizes that need more')
    add(
        '--device-config',
        default=osp.join(ROOT, 'configs', 's4d_pretrain_device-crops.py'),
        help='data: a config that leaves the crops to the device',
    )
    add('--clips', type=int, default=8, help='data')
    add('--gop', type=int, default=25, help='data: key frame distance')
    add('--workers', type=int, default=8)
    add('--lines', type=int, default=1_000_000, help='workers')
    add('--out', help='JSON file (default: work_dirs/benchmarks/<part>.json)')
    return parser.parse_args()


def step_options(args: argparse.Namespace) -> dict:
    return dict(
        device=args.device,
        dtype=args.dtype,
        plain_dtype=args.plain_dtype,
        pixels=args.pixels,
        compile=args.compile,
        repeats=args.repeats,
        warmup=args.warmup,
        memory=not args.no_memory,
        threads=args.threads,
    )


def run_steps(args: argparse.Namespace, peaks: dict) -> list:
    if args.batch and len(args.batch) > 1:
        raise SystemExit('steps takes one --batch; scaling takes several.')
    rows = step_rows(args, peaks)
    if (
        args.part == 'all'
        and (args.device, args.dtype) == ('cpu', 'float32')
        and timing.has_bf16_units()
    ):
        in_bf16 = dict(
            stage=['finetune'], impl=['plain', 'ours'], dtype='bfloat16', plain_dtype='float32'
        )
        rows += step_rows(argparse.Namespace(**{**vars(args), **in_bf16}), peaks)
    return rows


def step_rows(args: argparse.Namespace, peaks: dict) -> list:
    rows = []
    for arch in args.arch:
        for stage in args.stage:
            impls = tuple(args.impl or ('plain', 'ours', 'no_moae'))
            if stage == 'pretrain':
                impls = tuple(i for i in impls if i != 'no_moae')
            for modality in args.modality:
                rows += steps.measure(
                    stage,
                    modality,
                    peaks,
                    batch=args.batch[0] if args.batch else None,
                    impls=impls,
                    arch=arch,
                    **step_options(args),
                )
    return rows


def run_moae(args: argparse.Namespace, peaks: dict) -> list:
    return moae_layer.measure(
        args.experts or (2, 4, 8, 16, 32, 64),
        args.tokens,
        peaks[args.dtype],
        repeats=2 * args.repeats - 1,
        warmup=args.warmup,
        device=args.device,
        dtype=args.dtype,
        compile=args.compile,
    )


def run_data(args: argparse.Namespace, peaks: dict) -> list:
    return data_pipeline.measure(
        clips=args.clips,
        gop=args.gop,
        repeats=args.repeats,
        warmup=1,
        device_config=args.device_config,
    )


def run_testing(args: argparse.Namespace, peaks: dict) -> list:
    rows = []
    for arch in args.arch:
        found, difference = testing.measure(
            arch,
            repeats=args.repeats,
            warmup=1,
            device=args.device,
            dtype=args.dtype,
            compile=args.compile,
        )
        print(
            f'{arch}: the probabilities of PlainS4D and ours differ by '
            f'{difference:.1e} at most (decoded alike, resized alike).\n'
        )
        rows += found
    return rows


def run_scaling(args: argparse.Namespace, peaks: dict) -> list:
    rows = []
    for stage in args.stage:
        for modality in args.modality:
            found = scaling.measure(
                peaks,
                stage,
                modality,
                frames=args.frames or scaling.FRAMES,
                experts=args.experts or scaling.EXPERTS,
                batch=args.batch or scaling.BATCH,
                memory_limit_gib=args.memory_limit,
                impls=tuple(args.impl or ('plain', 'ours')),
                arch=args.arch[0],
                **step_options(args),
            )
            rows += [dict(stage=stage, modality=modality, **r) for r in found]
    return rows


def run_workers(args: argparse.Namespace, peaks: dict) -> list:
    return memory_workers.measure(args.workers, args.lines)


def run_mixed(args: argparse.Namespace, peaks: dict) -> list:
    return [
        row
        for arch in args.arch
        for stage in args.stage
        for batch in args.batch or (1, steps.BATCH[stage]['video'])
        for row in mixed.measure(stage, arch, batch, args.repeats, 1, args.device, args.dtype)
    ]


RUN = dict(
    steps=run_steps,
    moae=run_moae,
    data=run_data,
    testing=run_testing,
    scaling=run_scaling,
    workers=run_workers,
    mixed=run_mixed,
)


def measure_peaks(args: argparse.Namespace) -> dict:
    """FLOP/s of each dtype that is needed."""
    wanted = {args.dtype, args.plain_dtype or args.dtype}
    if args.part in ('peak', 'all') and (args.device == 'cuda' or timing.has_bf16_units()):
        wanted = set(timing.DTYPES)
    return {dtype: timing.matmul_peak(args.device, dtype) for dtype in sorted(wanted, reverse=True)}


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('--device cuda, but PyTorch finds no GPU.')
    results = dict(command=' '.join(sys.argv), machine=timing.machine(args.device), peak_gflop_s={})
    peaks = measure_peaks(args) if args.part not in ('data', 'workers') else {}
    results['peak_gflop_s'] = {k: v / 1e9 for k, v in peaks.items()}
    header = {**results['machine']}
    header.update({f'matmul peak {k}, GFLOP/s': v for k, v in results['peak_gflop_s'].items()})
    print(timing.table([dict(machine=k, value=v) for k, v in header.items()]))
    parts = dict(all=IN_ALL, peak=()).get(args.part, (args.part,))
    for part in parts:
        results[part] = RUN[part](args, peaks)
        print(f'## {part}\n\n{timing.table(results[part])}', flush=True)
    if args.part != 'peak':
        results['targets'] = [
            row
            for row in target_rows(results)
            if args.part == 'all' or row['met'] != 'not measured'
        ]
        if results['targets']:
            print(f'## targets\n\n{timing.table(results["targets"])}')
    out = args.out or osp.join(ROOT, 'work_dirs', 'benchmarks', f'{args.part}.json')
    timing.save(out, results)
    print(f'written to {out}')


if __name__ == '__main__':
    main()
