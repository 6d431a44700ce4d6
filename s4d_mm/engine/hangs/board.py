# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Where each rank says how far it is, for the others to read when it says nothing any more."""

import json
import time

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

KEY = 's4d_mm_hangs/{run}/{rank}'


class RankBoard:
    """The last words of all ranks, in the store with which torch's process group found itself.

    The store outlives a rank that stands still (torchrun keeps it in its own process), and no
    collective is needed, so that a rank can be asked for that takes part in none. Without a
    process group there is one rank, and nothing is written.

    Args:
        run (int): How many boards this process had before, the same in all ranks.
    """

    def __init__(self, run: int) -> None:
        self.run = run
        self.rank, self.world_size, self.store = 0, 1, None
        if dist.is_available() and dist.is_initialized():
            self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        if self.world_size > 1:
            # a connection of its own: the main thread may wait in another request
            self.store = _get_default_store().clone()

    def write(self, words: dict) -> None:
        """Replace the words of this rank.

        Args:
            words (dict): What goes through JSON. The time is added.
        """
        if self.store is not None:
            words = dict(words, time=time.time())
            self.store.set(KEY.format(run=self.run, rank=self.rank), json.dumps(words))

    def read(self) -> dict[int, dict]:
        """The words of the other ranks.

        Returns:
            dict[int, dict]: By rank, those that have written; ``age`` is the seconds since then.
        """
        found = {}
        for rank in range(self.world_size):
            key = KEY.format(run=self.run, rank=rank)
            if rank != self.rank and self.store.check([key]):
                words = json.loads(self.store.get(key))
                found[rank] = dict(words, age=time.time() - words['time'])
        return found
