# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A training loop whose runs repeat, and go on after an interruption as if there had been none.

What a step draws is a function of (run seed, iteration, rank), what a sample's augmentation draws
one of (run seed, epoch, place in the order): no random state needs to be saved. The other state is
that of mmengine's checkpoints.
"""

import faulthandler
import itertools
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Sampler

from ..datasets.seeding import draw_seeds, seed_generators
from ..models.settings import require_positive_ints

# in the message hub, which checkpoints hold
VALIDATED = 'validated_iter'  # after which iteration the last validation was
BEGIN = 'epoch_begin'  # number of the epoch, iterations before it, and its batches


class ValidationNoteHook(Hook):
    """Note in the message hub what was validated."""

    priority = 'HIGH'  # before CheckpointHook saves the best epoch

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Note it."""
        runner.message_hub.update_info(VALIDATED, runner.iter)


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which repeats and resumes bit by bit.

    - Before each step Python's generator, numpy's and torch's are seeded by run seed, iteration and
      rank (the rank with ``randomness.diff_rank_seed`` alone).
    - A run that is resumed in the middle of an epoch (``CheckpointHook(by_epoch=False)``, or a
      checkpoint on a signal) goes on with the next batch. Those before are skipped by the sampler
      and not read.
    - What came after the checkpoint is done again, the validation too: an epoch whose checkpoint
      was saved, but whose validation was not finished, is validated first.

    With ``optim_wrapper.accumulative_counts`` this holds for checkpoints between optimizer steps;
    the gradients of a step that was not finished are lost.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The training data. A sampler without a seed of its own gets
            the run's.
        **kwargs: ``max_epochs``, ``val_begin``, ``val_interval``, ``dynamic_intervals``, as
            mmengine's loop has them.

    Raises:
        ValueError: If ``max_epochs`` or ``val_interval`` is no positive int.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs) -> None:
        counts = {'max_epochs', 'val_interval'} & set(kwargs)
        require_positive_ints('train_cfg', **{name: kwargs[name] for name in counts})
        self._seeds_sampler = needs_seed(dataloader)
        self._given_seed = runner._randomness_cfg.get('seed')  # resuming overwrites it
        super().__init__(runner, dataloader, **kwargs)
        self._num_skipped = 0  # batches of the first epoch that were read before
        runner.register_hook(ValidationNoteHook())

    def run(self) -> torch.nn.Module:
        """Train.

        Returns:
            nn.Module: The model.
        """
        self._begin()
        self._find_place()
        try:
            self.runner.call_hook('before_train')
            if self._epoch and not self._num_skipped:
                self._validate()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                self._validate()
                self.runner.logger.info(epoch_line(self.runner))
            self.runner.call_hook('after_train')
        finally:
            faulthandler.cancel_dump_traceback_later()  # of HangHook, also after an error
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for an epoch, or the rest of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start, self._num_skipped = self._num_skipped, 0
        self.runner.message_hub.update_info(
            BEGIN,
            dict(epoch=self._epoch, iter=self._iter - start, batches=len(self.dataloader)),
        )
        if start < len(self.dataloader):
            for idx, data_batch in enumerate(read_from(self.dataloader, start), start):
                self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Seed the generators, then do mmengine's step."""
        seed_step(self.seed, self._iter, self._rank)
        super().run_iter(idx, data_batch)

    def _begin(self) -> None:
        """After a checkpoint was loaded: seeds, and what hooks must know of the time before."""
        runner = self.runner
        self.seed, self._rank = seed_and_rank(runner)
        sampler = sampler_of(self.dataloader)
        if self._seeds_sampler and hasattr(sampler, 'seed'):
            sampler.seed = self.seed
        runner.logger.info(f'Random seed {self.seed}: --seed {self.seed} repeats this run.')
        if self._given_seed not in (None, self.seed):
            runner.logger.warning(
                f'The seed {self._given_seed} that was asked for is not used: the run that is '
                f'resumed began with {self.seed} and goes on with it. For another seed start a '
                'new run in a --work-dir of its own.'
            )
        if self._iter == 0:
            runner.message_hub.pop_info(VALIDATED)
            return
        for hook in runner.hooks:
            # it saves the last checkpoint once more when a validation was the best one
            if isinstance(hook, CheckpointHook) and hook.last_ckpt is None:
                hook.last_ckpt = runner.message_hub.get_info('last_ckpt')

    def _validate(self) -> None:
        """Validate if it is time to, unless the checkpoint has the result already."""
        self._decide_current_val_interval()
        if (
            self.runner.val_loop is not None
            and self._epoch >= self.val_begin
            and (self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)
            and self.runner.message_hub.get_info(VALIDATED) != self._iter
        ):
            self.runner.val_loop.run()

    def _find_place(self) -> None:
        """Where in its epoch a run is that was resumed."""
        if not self._iter:
            return
        begin, length = self._saved_begin(), len(self.dataloader)
        saved, done = begin['batches'], 0
        if begin['epoch'] == self._epoch:
            done = min(max(0, self._iter - begin['iter']), saved)
        if saved != length:
            if 0 < done < saved:
                self.runner.logger.warning(
                    f'An epoch had {saved} batches when the checkpoint was saved and has {length} '
                    f'now: batch size, processes or data are others. Epoch {self._epoch + 1}, of '
                    f'which {done} batches were done, starts anew.'
                )
            done = length if done == saved else 0
        self._num_skipped = done
        if done:
            self.runner.logger.info(
                f'Epoch {self._epoch + 1} goes on after batch {done} of {length}; those before are '
                'not read again.'
            )

    def _saved_begin(self) -> dict:
        """What the checkpoint says of the epoch that was the last to begin.

        A checkpoint of mmengine's loop does not; there all epochs had as many batches.
        """
        hub = self.runner.message_hub
        iters, epochs = hub.get_info('max_iters'), hub.get_info('max_epochs')
        batches = iters // epochs if iters and epochs else len(self.dataloader)
        guess = dict(epoch=self._epoch, iter=self._epoch * batches, batches=batches)
        return hub.get_info(BEGIN) or guess


def epoch_line(runner: Runner) -> str:
    """What the terminal shows of an epoch: its loss, figures if it was validated, time left.

    Args:
        runner (Runner): After an epoch of a training.

    Returns:
        str: WAR and UAR of each modality, or what other metrics there are.
    """
    hub, batches = runner.message_hub, len(runner.train_dataloader)
    scalars = hub.log_scalars
    parts = [f'epoch {runner.epoch}/{runner.max_epochs}']
    if 'train/loss' in scalars:
        parts.append(f'loss {scalars["train/loss"].mean(batches):.4f}')
    if hub.get_info(VALIDATED) == runner.iter:
        found = {k[4:]: v.current() for k, v in scalars.items() if k.startswith('val/')}
        short = [k for k in found if k.split('/')[-1] in ('WAR', 'UAR')]
        others = [k for k in found if not k.endswith('time')]
        parts += [f'{name} {found[name]:.2f}' for name in short or others]
    if 'train/time' in scalars:
        left = scalars['train/time'].mean(batches) * (runner.max_iters - runner.iter)
        parts.append(f'{timedelta(seconds=round(left))} left')
    return '  '.join(parts)


# ------------------------------------------------------------------ seeds
def seed_and_rank(runner: Runner) -> tuple[int, int]:
    """The seed of a run, and what tells the draws of its processes apart.

    Args:
        runner (Runner): The runner, after a checkpoint was loaded: mmengine then has its seed.

    Returns:
        tuple[int, int]: The seed, the same in all processes; and the rank, or 0 if the processes
        are to draw the same numbers.
    """
    rank = runner.rank if runner._randomness_cfg.get('diff_rank_seed') else 0
    seed = torch.tensor(runner.seed - rank)  # mmengine adds the rank
    dist.broadcast(seed)
    return int(seed), rank


def needs_seed(dataloader: DataLoader | dict) -> bool:
    """Whether a data loader is to be built with a sampler to which the config gives no seed."""
    sampler = dataloader.get('sampler') if isinstance(dataloader, dict) else None
    return isinstance(sampler, dict) and sampler.get('seed') is None


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed all generators for a step: masks, Mixup, router noise, drop path.

    Args:
        seed (int): Of the run.
        iteration (int): Iteration, from 0.
        rank (int): Rank of the process.
    """
    # the 1 keeps it apart from the seeds of samples
    value = int(draw_seeds(1, seed, iteration, rank, 1)[0])
    seed_generators(value)
    if get_device() != 'cpu':
        torch.manual_seed(value)


# ------------------------------------------------------------------ data
class SkippingBatchSampler(Sampler):
    """A batch sampler without its first batches.

    Args:
        batch_sampler (Sampler): The batch sampler.
        start (int): How many to leave out.
    """

    def __init__(self, batch_sampler: Sampler, start: int) -> None:
        self.batch_sampler, self.start = batch_sampler, start

    def __iter__(self) -> Iterator[list[int]]:
        """The batches from ``start`` on."""
        return itertools.islice(iter(self.batch_sampler), self.start, None)

    def __len__(self) -> int:
        """Number of batches that are left."""
        return max(0, len(self.batch_sampler) - self.start)


def read_from(loader: DataLoader, start: int) -> Iterable:
    """The batches of an epoch from one on, without reading those before.

    Args:
        loader (DataLoader): The data loader.
        start (int): Number of the first batch, from 0.

    Returns:
        Iterable: The batches.
    """
    if start == 0:
        return loader
    if loader.batch_sampler is None:  # batches that the dataset makes
        return itertools.islice(loader, start, None)
    return DataLoader(
        loader.dataset,
        batch_sampler=SkippingBatchSampler(loader.batch_sampler, start),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def sampler_of(loader: DataLoader) -> Sampler | None:
    """The sampler below the batch sampler of a data loader, None if there is none."""
    # the stand-in loader of mmpretrain's vis_scheduler.py has neither
    return getattr(getattr(loader, 'batch_sampler', None), 'sampler', None)
