# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A training loop whose runs repeat, and that resumes as if there had been no interruption.

What a step draws is a function of (run seed, iteration, rank); what a sample's augmentation draws
is one of (run seed, epoch, place in the order). So no random state is saved.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ..datasets.joint import draw_seeds, seed_generators
from .stop import stop_waiting

# in the message hub, which checkpoints hold
VALIDATED = 'validated_iter'  # after which iteration the last validation was
BEGIN = 'epoch_begin'  # number of the epoch, iterations before it, and its batches


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which repeats and resumes bit by bit.

    - Before each step Python's generator, numpy's and torch's are seeded by run seed, iteration and
      rank (the rank with ``randomness.diff_rank_seed`` alone).
    - A run that is resumed in the middle of an epoch continues with the next batch. Those before
      are skipped by the sampler and not read.
    - An epoch whose checkpoint was saved, but whose validation was not finished, is validated
      first.

    With ``optim_wrapper.accumulative_counts`` this holds for checkpoints between optimizer steps.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The training data. A sampler without a seed of its own gets
            the run's. A batch sampler with ``total_batch_size`` gets ``accumulative_counts`` of
            ``optim_wrapper``.
        **kwargs: ``max_epochs``, ``val_begin``, ``val_interval``, ``dynamic_intervals``, as
            mmengine's loop has them.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs) -> None:
        self._seeds_sampler = False
        if isinstance(dataloader, dict):
            sampler, batches = (dataloader.get(k) for k in ('sampler', 'batch_sampler'))
            self._seeds_sampler = isinstance(sampler, dict) and sampler.get('seed') is None
            wrapper = runner.optim_wrapper
            if batches and batches.get('total_batch_size') and isinstance(wrapper, dict):
                batches['accumulative_counts'] = wrapper.get('accumulative_counts', 1)
        super().__init__(runner, dataloader, **kwargs)
        self._skipped = 0  # batches of the first epoch that were trained on before

    def run(self) -> torch.nn.Module:
        """Train."""
        self._set_seeds()
        self._skipped = self._batches_done()
        try:
            self.runner.call_hook('before_train')
            if self._epoch and not self._skipped:
                self._validate()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                self._validate()
                self.runner.logger.info(epoch_line(self.runner))
            self.runner.call_hook('after_train')
        finally:
            stop_waiting()
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for an epoch, or the rest of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start, self._skipped = self._skipped, 0
        begin = dict(epoch=self._epoch, iter=self._iter - start, batches=len(self.dataloader))
        self.runner.message_hub.update_info(BEGIN, begin)
        for idx, data_batch in enumerate(read_from(self.dataloader, start), start):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Seed the generators, then do mmengine's step."""
        seed_step(self.seed, self._iter, self._rank)
        super().run_iter(idx, data_batch)

    def _set_seeds(self) -> None:
        runner = self.runner
        self._rank = runner.rank if runner._randomness_cfg.get('diff_rank_seed') else 0
        seed = torch.tensor(runner.seed - self._rank)  # mmengine adds the rank
        dist.broadcast(seed)
        self.seed = int(seed)
        # the stand-in loader of mmpretrain's vis_scheduler.py has no batch sampler
        sampler = getattr(getattr(self.dataloader, 'batch_sampler', None), 'sampler', None)
        if self._seeds_sampler and hasattr(sampler, 'seed'):
            sampler.seed = self.seed
        runner.logger.info(f'Random seed {self.seed}: --seed {self.seed} repeats this run.')

    def _validate(self) -> None:
        """Validate if it is time to, unless the checkpoint has the result already."""
        self._decide_current_val_interval()
        hub = self.runner.message_hub
        if (
            self.runner.val_loop is not None
            and self._epoch >= self.val_begin
            and (self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)
            and hub.get_info(VALIDATED) != self._iter
        ):
            # nothing is saved until the figures are known
            hub.update_info(VALIDATED, self._iter)
            self.runner.val_loop.run()

    def _batches_done(self) -> int:
        """How many batches of its epoch a resumed run has trained on."""
        begin, length = self.runner.message_hub.get_info(BEGIN), len(self.dataloader)
        if not self._iter or begin is None or begin['epoch'] != self._epoch:
            return 0
        done = self._iter - begin['iter']
        if begin['batches'] != length:
            self.runner.logger.warning(
                f'An epoch had {begin["batches"]} batches when the checkpoint was saved and has '
                f'{length} now. Epoch {self._epoch + 1} starts again.'
            )
            return 0
        self.runner.logger.info(f'Epoch {self._epoch + 1} continues after batch {done}.')
        return done


def read_from(loader: DataLoader, start: int) -> Iterable:
    """The batches of an epoch from one on (counted from 0), without reading those before."""
    if start == 0:
        return loader
    batches = list(loader.batch_sampler)[start:]
    names = 'num_workers collate_fn pin_memory timeout worker_init_fn multiprocessing_context '
    names += 'generator prefetch_factor'
    options = {name: getattr(loader, name) for name in names.split()}
    return DataLoader(loader.dataset, batch_sampler=batches, **options) if batches else ()


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed all generators for a step (masks, Mixup, router noise, drop path), counted from 0."""
    # the 1 keeps it apart from the seeds of samples
    value = int(draw_seeds(1, seed, iteration, rank, 1)[0])
    seed_generators(value)
    if get_device() != 'cpu':
        torch.manual_seed(value)


def epoch_line(runner: Runner) -> str:
    """What the terminal shows of an epoch: its mean loss, and the time that is left."""
    scalars, batches = runner.message_hub.log_scalars, len(runner.train_dataloader)
    text = f'epoch {runner.epoch}/{runner.max_epochs}'
    if 'train/loss' in scalars and 'train/time' in scalars:
        seconds = scalars['train/time'].mean(batches) * (runner.max_iters - runner.iter)
        text += f'  loss {scalars["train/loss"].mean(batches):.4f}'
        text += f'  {timedelta(seconds=round(seconds))} left'
    return text
