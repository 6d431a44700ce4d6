# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How things are measured: interleaved repetitions, peak memory in a fresh
process, floating-point operations, and the machine's matrix-product peak.
"""

import gc
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Callable, NamedTuple, Optional

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

GIB = 2**30
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16)


class Times(NamedTuple):
    """Seconds of the repetitions of one case."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def sync(device: str) -> None:
    """Wait for the device."""
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def interleave(
    cases: dict[str, Callable], repeats: int = 5, warmup: int = 2, device: str = 'cpu'
) -> dict[str, Times]:
    """Time cases against each other: A B A B ..., so that what else the
    machine does falls on all of them. Every second round runs backwards.

    Args:
        cases (dict[str, Callable]): Functions without arguments.
        repeats (int): Rounds that count. Defaults to 5.
        warmup (int): Rounds before that. Defaults to 2.
        device (str): What to wait for. Defaults to 'cpu'.

    Returns:
        dict[str, Times]: Of each case.
    """
    seconds = {name: [] for name in cases}
    for i in range(warmup + repeats):
        order = list(cases) if i % 2 == 0 else list(cases)[::-1]
        for name in order:
            sync(device)
            start = time.perf_counter()
            cases[name]()
            sync(device)
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Times(s) for name, s in seconds.items()}


def median_ratio(slow: Times, fast: Times) -> float:
    """Median of the ratios of the rounds: what both suffer in a round cancels
    out.
    """
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds))


def peak_memory(
    build: Callable, *args, device: str = 'cpu', threads: Optional[int] = None, repeats: int = 2
) -> int:
    """Peak memory of a case, in a fresh process.

    Args:
        build (Callable): A function of a module that makes the case,
            ``build(*args) -> Callable``; the memory of what it makes counts.
        *args: Its arguments, which can be pickled.
        device (str): 'cpu' reads the largest resident memory of the process
            less what it was after the imports; 'cuda' what PyTorch
            allocated. Defaults to 'cpu'.
        threads (int, optional): PyTorch's threads. Defaults to None, its own
            choice.
        repeats (int): Calls of the case. Defaults to 2.

    Returns:
        int: Bytes.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_measure_memory, args=(sender, build, args, device, threads, repeats)
    )
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = dict(error='the process ended without a result, maybe for want of memory')
    process.join()
    if 'error' in result:
        raise RuntimeError(f'{build}{args}: {result["error"]}')
    return result['peak']


def _measure_memory(sender, build, args, device, threads, repeats) -> None:
    if threads:
        torch.set_num_threads(threads)
    try:
        if device.startswith('cuda'):
            torch.zeros(1, device=device)
            torch.cuda.reset_peak_memory_stats()
            case = build(*args)
            for _ in range(repeats):
                case()
            sync(device)
            sender.send(dict(peak=torch.cuda.max_memory_allocated()))
            return
        warm = torch.zeros(64, 64, requires_grad=True)
        (warm @ warm).sum().backward()  # thread pools, autograd
        gc.collect()
        baseline = resident()
        case = build(*args)
        for _ in range(repeats):
            case()
        sender.send(dict(peak=peak_resident() - baseline))
    except Exception as e:
        sender.send(dict(error=repr(e)))
        raise


def resident() -> int:
    """Resident memory of this process in bytes."""
    with open('/proc/self/statm') as f:
        return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def peak_resident() -> int:
    """Largest resident memory of this process in bytes. (``ru_maxrss`` would
    begin with that of the process that started it.)
    """
    with open('/proc/self/status') as f:
        return int(re.search(r'VmHWM:\s*(\d+) kB', f.read())[1]) * 1024


def count_flops(case: Callable) -> int:
    """Floating-point operations of the matrix products and convolutions of a
    case, 2 for a multiplication and an addition. Attention is counted as its
    two products (in the backward pass four), whatever kernel runs it.
    """
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        case()
    return counter.get_total_flops()


def count_syncs(case: Callable) -> int:
    """How often the host waits for the GPU in a case."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            case()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    return sum('synchroniz' in str(w.message) for w in found)


def matmul_peak(device: str = 'cpu', dtype: str = 'float32', repeats: int = 5) -> float:
    """The machine's best rate of a matrix product, in FLOP/s, over sizes that
    models have.
    """
    sizes = (1024, 2048, 4096) if device == 'cpu' else (4096, 8192, 16384)
    best = 0.0
    for n in sizes:
        a, b = (torch.randn(n, n, device=device, dtype=DTYPES[dtype]) for _ in range(2))
        times = interleave(dict(mm=lambda: a @ b), repeats, 1, device)['mm']
        best = max(best, 2 * n**3 / min(times.seconds))
    return best


def machine(device: str = 'cpu') -> dict:
    """What the figures were measured on."""
    cpu = platform.processor()
    if os.path.isfile('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as f:
            found = re.search(r'model name\s*:\s*(.+)', f.read())
        cpu = found[1] if found else cpu
    info = dict(
        date=datetime.now().isoformat(timespec='seconds'),
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)),
        simd=torch.backends.cpu.get_cpu_capability(),
        bf16_units=has_bf16_units(),
        memory_gib=round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB, 1),
        load_average=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )
    if device.startswith('cuda'):
        info['gpu'] = torch.cuda.get_device_name()
    return info


def has_bf16_units() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware."""
    if not os.path.isfile('/proc/cpuinfo'):
        return False
    with open('/proc/cpuinfo') as f:
        flags = f.read()
    return 'avx512_bf16' in flags or 'amx_bf16' in flags


def table(rows: Sequence[dict]) -> str:
    """A Markdown table; the columns are the keys of the first row."""
    if not rows:
        return '(nothing measured)\n'
    columns = list(rows[0])
    lines = [columns, ['---'] * len(columns)]
    lines += [[cell(row.get(c)) for c in columns] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def cell(value) -> str:
    """Text of a value in a table."""
    if value is None:
        return '-'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, (float, np.floating)):
        return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'
    return str(value)


def save(path: str, results: dict) -> None:
    """Write results as JSON."""
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(results, f, indent=1)
        f.write('\n')
