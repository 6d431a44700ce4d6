# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How to measure: interleaved rounds, peak memory, operations, waits of the host."""

import multiprocessing
import os
import platform
import re
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from functools import partial
from math import prod

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

GIB = 2**30
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16)


def interleave(
    cases: dict[str, Callable], repeats: int = 5, device: str = 'cpu'
) -> dict[str, list[float]]:
    """Time cases in turn, so that what else the machine does falls on all of them.

    Every second round runs backwards: A B, B A, A B, ... The first one is a warm-up.

    Args:
        cases (dict[str, Callable]): Functions without arguments.
        repeats (int): Rounds that count. Defaults to 5.
        device (str): 'cpu' or 'cuda', which is waited for. Defaults to 'cpu'.

    Returns:
        dict[str, list[float]]: Seconds of each case in each round.
    """
    seconds = {name: [] for name in cases}
    for i in range(1 + repeats):
        for name in list(cases) if i % 2 == 0 else list(cases)[::-1]:
            synchronize(device)
            start = time.perf_counter()
            cases[name]()
            synchronize(device)
            if i > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronize(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == 'cuda':
        torch.cuda.synchronize()


def summary(seconds: list[float], against: list[float] | None = None) -> dict:
    """Describe the rounds of a case.

    Args:
        seconds (list[float]): Of :func:`interleave`.
        against (list[float], optional): Those of the case to compare with. Defaults to None.

    Returns:
        dict: Smallest and median time, and how many times as fast as the other case it is:
        the median of the ratios of the rounds, in which cancels out what both suffer.
    """
    ratio = statistics.median(a / b for a, b in zip(against, seconds)) if against else None
    return dict(min_s=min(seconds), median_s=statistics.median(seconds), ratio=ratio)


def peak_memory(build: Callable, *args, device: str = 'cpu') -> int:
    """Measure the peak memory of a case in a fresh process.

    Args:
        build (Callable): A function of a module that makes the case, ``build(*args) ->
            Callable``. The memory of what it makes counts.
        *args: Its arguments, which can be pickled.
        device (str): 'cpu' takes the largest resident memory of the process less what it was
            after the imports; 'cuda' what PyTorch allocated. Defaults to 'cpu'.

    Returns:
        int: Bytes.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(_peak_of_this_process, build, args, device).result()


def _peak_of_this_process(build: Callable, args: tuple, device: str) -> int:
    on_gpu = device == 'cuda'
    before = 0
    if not on_gpu:
        warm = torch.zeros(64, 64, requires_grad=True)
        (warm @ warm).sum().backward()  # starts thread pools and autograd
        before = _resident_memory('VmRSS')
    case = build(*args)
    for _ in range(2):
        case()
    return torch.cuda.max_memory_allocated() if on_gpu else _resident_memory('VmHWM') - before


def _resident_memory(kind: str) -> int:
    with open('/proc/self/status') as f:
        return int(re.search(rf'{kind}:\s*(\d+) kB', f.read())[1]) * 1024


def count_flops(case: Callable) -> int:
    """Count the operations of the matrix products and convolutions of a case.

    A multiplication and an addition are 2. Attention counts as its two products (in the
    backward pass four), whatever kernel runs it.
    """
    products = {}
    if hasattr(torch.ops.aten, '_grouped_mm'):  # torch knows no formula for it
        products[torch.ops.aten._grouped_mm] = _grouped_mm_flops
    counter = FlopCounterMode(display=False, custom_mapping=products)
    with sdpa_kernel(SDPBackend.MATH), counter:
        case()
    return counter.get_total_flops()


def _grouped_mm_flops(a_shape: Sequence[int], b_shape: Sequence[int], *args, **kwargs) -> int:
    return 2 * prod(a_shape) * b_shape[-1]


def count_syncs(case: Callable) -> int:
    """Count how often the host waits for the GPU in a case."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            case()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    return sum('synchroniz' in str(w.message) for w in found)


def matmul_peak(device: str = 'cpu', dtype: str = 'float32') -> float:
    """Measure the best rate of a square matrix product, in FLOP/s."""
    best = 0.0
    for n in (1024, 2048, 4096) if device == 'cpu' else (4096, 8192, 16384):
        a, b = (torch.randn(n, n, device=device, dtype=DTYPES[dtype]) for _ in range(2))
        seconds = interleave(dict(product=partial(torch.mm, a, b)), 5, device)['product']
        best = max(best, 2 * n**3 / min(seconds))
    return best


def machine(device: str = 'cpu') -> dict:
    """Describe what the figures are measured on."""
    cpu = platform.processor()
    if os.path.isfile('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as f:
            cpu = (re.findall(r'model name\s*:\s*(.+)', f.read()) or [cpu])[0]
    return dict(
        date=datetime.now().isoformat(timespec='minutes'),
        device=torch.cuda.get_device_name() if device == 'cuda' else cpu,
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        load_average=os.getloadavg()[0],
        python=platform.python_version(),
        torch=torch.__version__,
    )


def table(rows: Sequence[dict]) -> str:
    """Write rows as a Markdown table, whose columns are the keys of the first row."""
    lines = [list(rows[0]), ['---'] * len(rows[0])]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def _cell(value) -> str:
    if isinstance(value, float):
        return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'
    return '-' if value is None else str(value)
