# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Run a function in processes that talk to each other, as the ranks of a run do."""

import json
import os
from pathlib import Path

import torch
import torch.distributed as dist


def run_ranks(function, folder: Path, world_size: int = 2) -> list:
    """Call a function in each of some processes of one gloo group.

    They are forks of this process, so the function may be any, also a closure,
    and nothing is imported again.

    Args:
        function (callable): Without arguments; what it returns goes through JSON.
        folder (Path): An empty one. The processes work in it.
        world_size (int): Number of processes. Defaults to 2.

    Returns:
        list: What the function returned, by rank.
    """
    torch.multiprocessing.start_processes(
        _run_rank, (function, str(folder), world_size), world_size, start_method='fork'
    )
    return [json.loads((folder / f'rank{i}.json').read_text()) for i in range(world_size)]


def _run_rank(rank: int, function, folder: str, world_size: int) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
    result = function()
    dist.destroy_process_group()
    Path(f'rank{rank}.json').write_text(json.dumps(result))
