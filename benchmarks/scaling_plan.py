# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Plan a pre-training on many GPUs: memory, communication, throughput.

    python benchmarks/scaling_plan.py --share 0.40 --clips-per-core 27

Each table says where its numbers are from:

- computed: from the config's model (built without memory, on the meta
  device), its operations counted by torch, and the formulas below;
- measured: with ``--measure``, on this machine's CPU: bytes of activations
  and the share of the matmul peak that a training step reaches;
- assumed: all options; put in what you measured on your GPU.

docs/scaling.md has a worked plan.
"""

import argparse
import os.path as osp
import time
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.utils.flop_counter import FlopCounterMode

import s4d_mm  # noqa: F401
from s4d_mm.models.layers import TransformerBlock

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
GIB, GB = 2**30, 1e9
KINDS = ('video', 'image')
VIEWS = dict(video=4, image=1)  # crops of a decoded clip
# bytes of a parameter: float32, bfloat16, two float32 moments of AdamW
F32, BF16, ADAM = 4, 2, 8


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        '--config',
        default=osp.join(ROOT, 'configs', 's4d_pretrain_large_fsdp.py'),
        help='pre-training config',
    )
    add('--gpus', type=int, default=64)
    add('--gpus-per-node', type=int, default=8)
    add('--gpu-memory', type=float, default=80.0, help='GiB of a GPU')
    add(
        '--peak',
        type=float,
        default=989.0,
        help='dense bfloat16 TFLOP/s of a GPU by its data sheet (H100 SXM)',
    )
    add(
        '--share',
        type=float,
        default=0.40,
        help='share of the peak that a training step reaches on one GPU',
    )
    add('--node-bandwidth', type=float, default=300.0, help='GB/s that a GPU sends inside a node')
    add(
        '--net-bandwidth',
        type=float,
        default=40.0,
        help='GB/s that a GPU sends between nodes (400 Gbit/s at 0.8)',
    )
    add('--clips', type=float, default=1.1e6, help='clips of VoxCeleb2')
    add('--images', type=float, default=290e3, help='images of AffectNet')
    add('--epochs', type=int, default=100)
    add(
        '--clips-per-core',
        type=float,
        default=15.0,
        help='clips/s that one core decodes, crops and packs',
    )
    add('--cores-per-node', type=int, default=96)
    add(
        '--images-per-core',
        type=float,
        default=300.0,
        help='images/s that one core decodes, crops and packs',
    )
    add(
        '--activations',
        type=float,
        nargs=4,
        metavar=('CLIP', 'IMAGE', 'CLIP_CP', 'IMAGE_CP'),
        help='MiB that a sample keeps for the backward pass, without and '
        'with recomputation; needed without --measure',
    )
    add(
        '--measure',
        action='store_true',
        help='measure activations and the share of the peak on the CPU',
    )
    add('--measure-batch', type=int, default=4, help='batch of --measure')
    return parser.parse_args()


def build_model(cfg: Config, with_cp: bool = False) -> torch.nn.Module:
    model = cfg.model.copy()
    for part in ('backbone', 'neck'):
        model[part] = dict(model[part], with_cp=with_cp)
    return MODELS.build(model).train()


def inputs_of(cfg: Config, kind: str, batch: int) -> torch.Tensor:
    """Samples of one modality at the size of the model (S4D's sizes if it
    does not say).
    """
    backbone = cfg.model.backbone
    side = backbone.get('img_size', 160)
    frames = (backbone.get('num_frames', 16),) if kind == 'video' else ()
    return torch.zeros(batch, 3, *frames, side, side)


def loss_of(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x, None, mode='loss')['loss']


def count_flops(cfg: Config, kind: str, with_cp: bool) -> float:
    """Operations of a sample in a training step (a multiply-add is two). A
    pre-training model has no experts, which without values would be counted
    filled up.
    """
    batch = 2
    with torch.device('meta'):
        model = build_model(cfg, with_cp)
        x = inputs_of(cfg, kind, batch)
    counter = FlopCounterMode(display=False)
    with counter:
        loss_of(model, x).backward()
    return counter.get_total_flops() / batch


class Memory(NamedTuple):
    """MiB for the backward pass."""

    per_sample: float
    per_step: float


def measure_activations(model: torch.nn.Module, cfg: Config, kind: str) -> Memory:
    """Bytes that a forward pass under bfloat16 autocast keeps, without the
    parameters: slope and constant over two batch sizes.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = []
    for batch in (1, 3):
        seen: dict[int, torch.UntypedStorage] = {}

        def pack(t: torch.Tensor) -> torch.Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage
            return t

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
            torch.autocast('cpu', torch.bfloat16),
        ):
            loss = loss_of(model, inputs_of(cfg, kind, batch))
        kept.append(sum(s.nbytes() for s in seen.values()) / 2**20)
        del loss
    slope = (kept[1] - kept[0]) / 2
    return Memory(slope, kept[0] - slope)


def measure_share(
    model: torch.nn.Module, cfg: Config, kind: str, batch: int, flops: float, peak: float
) -> float:
    """Share of the float32 matmul peak in forward and backward pass."""
    x, best = inputs_of(cfg, kind, batch), float('inf')
    for _ in range(3):
        start = time.perf_counter()
        loss_of(model, x).backward()
        best = min(best, time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return flops * batch / best / peak


def measure_matmul_peak() -> float:
    """Float32 FLOP/s of a large square matmul on this CPU."""
    n, best = 2048, float('inf')
    a, b = torch.randn(n, n), torch.randn(n, n)
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def table(title: str, source: str, head: list, rows: list) -> None:
    print(f'\n### {title} ({source})\n')
    print('| ' + ' | '.join(head) + ' |')
    print('| ' + ' | '.join(['---'] + ['---:'] * (len(head) - 1)) + ' |')
    for row in rows:
        print(
            '| '
            + ' | '.join(
                c if isinstance(c, str) else f'{c:,.4g}' if c < 1e4 else f'{c:,.0f}' for c in row
            )
            + ' |'
        )


class Layout(NamedTuple):
    """A way to spread the model: bytes of a parameter that a GPU keeps, and
    bytes of a parameter in the messages of a step (before the factor
    (W - 1) / W; an all-reduce is a reduce-scatter and an all-gather).
    """

    whole: float  # kept by every GPU
    spread: float  # kept by one of W
    messages: float
    units: float  # gathered blocks at a time, bytes of a parameter


LAYOUTS = {
    # parameters, gradients and their buckets
    'DDP, autocast': Layout(3 * F32 + ADAM, 0, 2 * F32, 0),
    # parameters whole; gradients, float32 copy and moments spread
    'DeepSpeed ZeRO-2': Layout(F32, 2 * F32 + ADAM, 2 * F32, 0),
    # gathered in float32 twice, gradients reduced once
    'DeepSpeed ZeRO-3': Layout(0, 3 * F32 + ADAM, 3 * F32, F32 + F32),
    # gathered in bfloat16 twice, gradients reduced in float32
    'FSDP, bfloat16': Layout(0, 2 * F32 + ADAM, 2 * BF16 + F32, BF16 + F32),
}


def main() -> None:
    args = parse_args()
    if not args.measure and args.activations is None:
        raise SystemExit('give --activations, or measure them: --measure')
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)
    sizes = cfg.train_dataloader.batch_sampler.batch_size  # clips, images
    samples = {k: sizes[k] * VIEWS[k] for k in KINDS}  # of a GPU
    world = args.gpus

    with torch.device('meta'):
        model = build_model(cfg)
    params = sum(p.numel() for p in model.parameters())
    block = max(
        sum(p.numel() for p in m.parameters())
        for m in model.modules()
        if isinstance(m, TransformerBlock)
    )
    flops = {k: count_flops(cfg, k, False) for k in KINDS}
    flops_cp = {k: count_flops(cfg, k, True) for k in KINDS}
    table(
        'Work',
        'computed',
        ['', *KINDS],
        [
            ['samples of a GPU in a step', *(samples[k] for k in KINDS)],
            ['GFLOP of a sample, forward and backward', *(flops[k] / 1e9 for k in KINDS)],
            ['... with recomputed blocks', *(flops_cp[k] / 1e9 for k in KINDS)],
            ['TFLOP of a GPU in a step', *(flops[k] * samples[k] / 1e12 for k in KINDS)],
        ],
    )
    print(f'\nParameters: {params / 1e6:.1f} M; the largest block {block / 1e6:.1f} M.')

    if args.measure:
        peak = measure_matmul_peak()
        plain, recomputed = build_model(cfg), build_model(cfg, True)
        memory = {k: measure_activations(plain, cfg, k) for k in KINDS}
        memory_cp = {k: measure_activations(recomputed, cfg, k) for k in KINDS}
        share = {k: measure_share(plain, cfg, k, args.measure_batch, flops[k], peak) for k in KINDS}
        table(
            'One device',
            f'measured: CPU, {torch.get_num_threads()} '
            f'threads, matmul peak {peak / 1e9:.0f} GFLOP/s in float32',
            ['', *KINDS],
            [
                ['MiB that a sample keeps', *(memory[k].per_sample for k in KINDS)],
                ['... with recomputed blocks', *(memory_cp[k].per_sample for k in KINDS)],
                [
                    'MiB that a step keeps (weights in bfloat16)',
                    *(memory[k].per_step for k in KINDS),
                ],
                [
                    f'share of the peak, batch {args.measure_batch}, float32',
                    *(share[k] for k in KINDS),
                ],
            ],
        )
        kept = [m[k].per_sample for m in (memory, memory_cp) for k in KINDS]
    else:
        kept = args.activations
    kept = dict(zip(((k, cp) for cp in (False, True) for k in KINDS), kept))
    activations = {cp: max(kept[k, cp] * samples[k] for k in KINDS) * 2**20 for cp in (False, True)}

    rows, fraction = [], (world - 1) / world
    for name, lay in LAYOUTS.items():
        states = params * (lay.whole + lay.spread / world)
        units = 2 * block * lay.units  # one computes, one is fetched
        rest = args.gpu_memory * GIB - states - units
        rows.append(
            [
                name,
                states / GIB,
                units / GIB,
                *((states + units + activations[cp]) / GIB for cp in activations),
                *(int(rest / (kept['video', cp] * 2**20)) for cp in activations),
            ]
        )
    table(
        f'GiB of a GPU, {world} GPUs',
        'computed, with the activations above',
        [
            '',
            'states',
            'gathered',
            'in all',
            '... recomputing',
            f'video samples in {args.gpu_memory:g} GiB',
            '... recomputing',
        ],
        rows,
    )

    rate = args.peak * 1e12 * args.share
    compute = {k: flops[k] * samples[k] / rate for k in KINDS}
    # a ring crosses the border of a node once, and each GPU has a link of its
    # own for the rings of all: bandwidths of the links add up
    bandwidth = args.node_bandwidth * GB
    if world > args.gpus_per_node:
        bandwidth = min(bandwidth, args.net_bandwidth * args.gpus_per_node * GB)
    # an epoch: all image batches, a quarter of the video batches
    share = cfg.train_dataloader.sampler.get('share', {})
    numbers = dict(
        video=args.clips * share.get('video', 1.0), image=args.images * share.get('image', 1.0)
    )
    steps = {k: numbers[k] / (sizes[k] * world) for k in KINDS}
    rows = []
    for name, lay in LAYOUTS.items():
        sent = params * lay.messages * fraction
        comm = sent / bandwidth
        days = []
        for step in (lambda c: max(c, comm), lambda c: c + comm):
            epoch = sum(steps[k] * step(compute[k]) for k in KINDS)
            days.append(epoch * args.epochs / 86400)
        rows.append(
            [
                name,
                sent / GB,
                comm * 1e3,
                *(compute[k] * 1e3 for k in KINDS),
                *(samples[k] * world / max(compute[k], comm) for k in KINDS),
                days[0] * 24,
                days[1] * 24,
            ]
        )
    table(
        f'Step, {world} GPUs',
        f'computed; assumed {args.share:.0%} of {args.peak:g} TFLOP/s and {bandwidth / GB:g} GB/s',
        [
            '',
            'GB sent by a GPU',
            'ms to send',
            'ms to compute, video',
            '... image',
            'video samples/s',
            'images/s',
            f'hours, {args.epochs} epochs, sending hidden',
            '... not hidden',
        ],
        rows,
    )

    rows = []
    speed = dict(video=args.clips_per_core, image=args.images_per_core)
    for k in KINDS:
        need = sizes[k] / compute[k]
        rows.append([k, steps[k], need, need / speed[k], need / speed[k] * args.gpus_per_node])
    cores = args.cores_per_node / args.gpus_per_node
    busy = sum(steps[k] * compute[k] for k in KINDS)
    mean = sum(steps[k] * sizes[k] / speed[k] for k in KINDS) / busy
    rows.append(['mean of an epoch', sum(steps.values()), '', mean, mean * args.gpus_per_node])
    table(
        'Data',
        f'computed; assumed {args.clips_per_core:g} clips/s and '
        f'{args.images_per_core:g} images/s of a core',
        [
            '',
            'steps of an epoch',
            'decoded/s for a GPU',
            'cores for a GPU',
            f'cores of a node of {args.gpus_per_node}',
        ],
        rows,
    )
    data = mean * busy / cores * args.epochs / 3600
    print(
        f'\nWith {args.cores_per_node} cores in a node, reading the data '
        f'alone takes {data:.3g} hours for {args.epochs} epochs.'
    )


if __name__ == '__main__':
    main()
