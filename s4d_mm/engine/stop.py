# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Ends of a training before its last epoch: a signal, no step for a long time, a loss of NaN."""

import builtins
import faulthandler
import functools
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..files.errors import NonFiniteError
from ..models.state_dict import first_not_finite
from .checkpoint import SafeCheckpointHook

# Ctrl-C; torchrun, Slurm, Kubernetes; Slurm's --signal
SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, 'SIGUSR1', signal.SIGTERM))
HANG_TIMEOUT = 1800.0  # seconds
# what names a sample in its meta information, the first that there is
SAMPLE_NAMES = ('filename', 'img_path', 'sample_id', 'sample_idx')
_handlers: dict = {}  # of the signals, before the training


@HOOKS.register_module()
class HangHook(Hook):
    """End a process in which no step of training, validation or test is finished for a long time.

    Python's ``faulthandler`` writes the stacks of its threads to the terminal and ends it with code
    1, also while a thread holds Python's lock. There is no limit in an interactive session.

    Args:
        timeout (float): Seconds; 0 for no limit. Defaults to 1800.
    """

    priority = 'LOWEST'  # what other hooks do after a step belongs to the step

    def __init__(self, timeout: float = HANG_TIMEOUT) -> None:
        interactive = hasattr(sys, 'ps1') or hasattr(builtins, 'get_ipython')
        self.timeout = 0 if interactive else timeout

    def _wait_again(self, *args: Any, **kwargs: Any) -> None:
        if self.timeout:
            faulthandler.dump_traceback_later(self.timeout, exit=True, file=2)

    before_train_epoch = before_val_epoch = before_test_epoch = _wait_again
    after_train_iter = after_val_iter = after_test_iter = _wait_again
    after_train_epoch = after_val_epoch = after_test_epoch = _wait_again

    def after_run(self, *args: Any) -> None:
        """Wait no more; after an error the training loop does this."""
        faulthandler.cancel_dump_traceback_later()


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop a training at the first loss that is not finite, with the names of the samples.

    Nothing is saved after that step, and no weights that are not finite. A gradient that is not
    finite makes the next loss NaN; with
    ``optim_wrapper.clip_grad=dict(max_norm=..., error_if_nonfinite=True)`` torch refuses it at
    once. With a loss scaler (``AmpOptimWrapper``) a gradient that is too large for the scale is no
    fault: the scaler leaves the step out and lowers the scale, until that is under 1.

    Raises:
        NonFiniteError: With the samples of this step and of the one before.
    """

    # after RuntimeInfoHook has read the losses, before what averages, logs or saves
    priority = 'HIGH'

    def __init__(self) -> None:
        self._samples: list[list[str]] = [[], []]  # of the step before, of this one

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the loss, which mmengine has waited for."""
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        metas = [getattr(sample, 'metainfo', {}) for sample in samples or []]
        names = [next((str(m[k]) for k in SAMPLE_NAMES if k in m), 'no name') for m in metas]
        self._samples = [self._samples[1], names]
        losses = {k: float(v.detach()) for k, v in (outputs or {}).items() if 'loss' in k}
        bad = [f'{name} is {value}' for name, value in losses.items() if not math.isfinite(value)]
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None and scaler.is_enabled() and scaler.get_scale() < 1:
            bad.append(f'the loss scale has fallen to {scaler.get_scale()}')
        if bad:
            self._stop(runner, f'the loss is not finite: {", ".join(bad)}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite; no file is touched."""
        found = first_not_finite(runner.model, checkpoint.get('state_dict', {}))
        if found is not None:
            name, bad, total = found
            self._stop(runner, f'{bad} of the {total} numbers of {name} became NaN or infinite')

    def _stop(self, runner: Runner, what: str) -> None:
        before, now = (', '.join(names) or 'not known' for names in self._samples)
        rate = max(max(rates) for rates in runner.optim_wrapper.get_lr().values())
        raise NonFiniteError(
            f'In step {runner.iter + 1} (epoch {runner.epoch + 1}) {what}. The samples are {now}; '
            f'in the step before {before}. Lower the learning rate (now {rate:.3g}), set '
            'optim_wrapper.clip_grad=dict(max_norm=...), or look at these samples.'
        )


@HOOKS.register_module()
class StopSignalHook(Hook):
    """On SIGINT, SIGTERM and SIGUSR1 finish the step, save, and end with 128 + the signal's number.

    ``--resume`` continues from the checkpoint. A second Ctrl-C ends the process at once. A signal
    that is ignored when the training starts (``nohup``) stays ignored. With several processes one
    that got the signal is enough: after each step they ask each other, over gloo. With gradient
    accumulation the step ends with its last batch. A validation ends at once if the epoch is saved.

    The workers of data loaders leave these signals to the process that they belong to.
    """

    priority = 'LOWEST'  # after all that a step does

    def before_train(self, runner: Runner) -> None:
        """Begin to listen, in the main thread."""
        self._received, self._pid = 0, os.getpid()
        self._group = dist.new_group(backend='gloo') if runner.world_size > 1 else None
        savers = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
        self._saver = savers[0] if savers else None
        if threading.current_thread() is not threading.main_thread():
            return
        for loop in filter(None, (runner.train_loop, runner.val_loop)):
            init = functools.partial(_leave_signals, loop.dataloader.worker_init_fn)
            loop.dataloader.worker_init_fn = init
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, self._listen):
                _handlers[number] = signal.signal(number, self._listen)

    def after_train(self, runner: Runner) -> None:
        """Stop listening; after an error the training loop does this."""
        stop_waiting()

    def _listen(self, number: int, frame: Any) -> None:
        if os.getpid() != self._pid:  # a fork, which the parent may want to end
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT:  # the next one ends the process, whatever it waits for
            signal.signal(number, signal.SIG_DFL)
        self._received = self._received or number
        # a log may be in use right now
        os.write(2, f'\n{signal.Signals(number).name}: the step is finished and saved.\n'.encode())

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save and end the training if one of its processes was told to."""
        received = self._received
        if self._group is not None:
            number = torch.tensor(received)
            dist.all_reduce(number, dist.ReduceOp.MAX, group=self._group)
            received = int(number)
        should_update = getattr(runner.optim_wrapper, 'should_update', lambda: True)
        if received and should_update():
            if self._saver is not None:
                self._saver.save_now(runner)
            if self._group is not None:
                dist.barrier(self._group)
            self._end(runner, received)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End the process in a validation if what was trained is saved."""
        if self._received and self._saver and self._saver.saved_iter == runner.iter:
            self._end(runner, self._received)

    def _end(self, runner: Runner, number: int) -> None:
        saved = self._saver.last_ckpt if self._saver else 'nothing (no SafeCheckpointHook)'
        name = signal.Signals(number).name
        runner.logger.info(f'{name}: saved {saved}. --resume continues from there.')
        _handlers.clear()  # until the process has ended
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.exit(128 + number)


def stop_waiting() -> None:
    """Give the signals back to who had them before the training, and wait for no step."""
    faulthandler.cancel_dump_traceback_later()
    while _handlers:
        signal.signal(*_handlers.popitem())


def _leave_signals(init: Callable | None, number: int) -> None:
    """In a worker: ignore the signals, which Slurm and terminals send to all processes."""
    if hasattr(signal, 'sigwaitinfo'):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_for_parent, daemon=True).start()
    for other in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(other, signal.SIG_IGN)
    if init is not None:
        init(number)


def _end_for_parent() -> None:
    """Obey SIGTERM of the parent, which it sends at its end, or if it is gone."""
    parent, sender = os.getppid(), None
    while sender not in (parent, os.getpid()) and os.getppid() == parent:
        sender = signal.sigwaitinfo([signal.SIGTERM]).si_pid
    os._exit(0)
