# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How to measure in rounds, and how to print what was measured."""

import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import torch


def interleave(
    cases: dict[str, Callable], repeats: int = 5, device: str = 'cpu'
) -> dict[str, list[float]]:
    """Seconds of each case in each round, A B, B A, ..., after a round that does not count."""
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    seconds = {name: [] for name in cases}
    for i in range(1 + repeats):
        for name in list(cases)[:: (-1) ** i]:
            wait()
            start = time.perf_counter()
            cases[name]()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def summary(seconds: list[float], against: list[float]) -> dict:
    """Fewest and median seconds, and the median ratio of ``against`` to them, round by round."""
    ratio = statistics.median(a / b for a, b in zip(against, seconds))
    return dict(min_s=min(seconds), median_s=statistics.median(seconds), ratio=ratio)


def compare(cases: dict[str, Callable], repeats: int, device: str = 'cpu', **columns) -> list[dict]:
    """A row for each case, with ``columns`` and its :func:`summary` against the first case."""
    seconds = interleave(cases, repeats, device)
    first = next(iter(seconds.values()))
    return [dict(columns, impl=k, **summary(values, first)) for k, values in seconds.items()]


def machine(device: str = 'cpu') -> dict:
    """What the figures are measured on."""
    name = re.search(r'model name\s*:\s*(.+)', Path('/proc/cpuinfo').read_text())
    return dict(
        date=datetime.now().isoformat(timespec='minutes'),
        device=torch.cuda.get_device_name() if device == 'cuda' else name and name[1],
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        load_average=os.getloadavg()[0],
        torch=torch.__version__,
    )


def table(rows: Sequence[dict]) -> str:
    """Rows as a Markdown table, whose columns are the keys of the first row."""
    lines = [list(rows[0]), ['---'] * len(rows[0])]
    for row in rows:
        lines.append([f'{v:.4g}' if isinstance(v, float) else str(v) for v in row.values()])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'
