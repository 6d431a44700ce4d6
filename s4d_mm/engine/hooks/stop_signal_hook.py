# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A training that is told to stop saves first."""

import os
import signal
import sys
import threading
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .safe_checkpoint_hook import SafeCheckpointHook

# Ctrl-C; torchrun, Slurm, Kubernetes; Slurm's --signal
SIGNALS = tuple(
    getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name)
)


@HOOKS.register_module()
class StopSignalHook(Hook):
    """On SIGINT, SIGTERM and SIGUSR1 finish the step, save, and end with 128 + the signal's number.

    That is 130, 143 and 138. ``--resume`` goes on from the checkpoint. A second Ctrl-C ends the
    process at once. A signal that is ignored when the training starts (``nohup``) stays ignored.

    With several processes one that got the signal is enough: after each step they ask each other,
    by one number over gloo, so that no device is waited for. With gradient accumulation the step
    ends with its last batch. In a validation the process ends at once if the epoch is saved, and
    otherwise after the next training step.

    The workers of a data loader, where they are forks, leave these signals to the process that
    they belong to: torchrun, Slurm and a terminal send them to all.
    """

    priority = 'LOWEST'  # after all that a step does

    def __init__(self) -> None:
        self._received: int | None = None
        self._agreed: int | None = None
        self._handlers: dict = {}
        self._group: Any = None

    def before_train(self, runner: Runner) -> None:
        """Begin to listen.

        Args:
            runner (Runner): Of the training.
        """
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend='gloo')
        self._received = self._agreed = None
        self._main, self._run = runner.rank == 0, type(runner.train_loop).run.__code__
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets only the main thread listen
        _protect_forks()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._listen)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        self._restore()

    def _restore(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def is_running(self, frame: Any) -> bool:
        """Whether the training is what a frame was called from.

        Args:
            frame (types.FrameType | None): The innermost frame.

        Returns:
            bool: False where an error has ended it.
        """
        while frame is not None and frame.f_code is not self._run:
            frame = frame.f_back
        return frame is not None

    def _listen(self, number: int, frame: Any) -> None:
        if not self.is_running(frame):  # an error has ended the training, and this process goes on
            self._restore()
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT:  # the next one ends the process, whatever it waits for
            signal.signal(number, signal.SIG_DFL)
        if self._received is None:
            self._received = number
            if self._main:
                again = '; again to end at once' if number == signal.SIGINT else ''
                name = signal.Signals(number).name
                # a log may be in use right now
                os.write(2, f'\n{name}: the step is finished and saved{again}.\n'.encode())

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """End the training if one of its processes was told to.

        Raises:
            SystemExit: With 128 + the signal's number, in all processes.
        """
        self._agreed = self._agreed or self._ask()
        should_update = getattr(runner.optim_wrapper, 'should_update', lambda: True)
        if not self._agreed or not should_update():
            return
        saver = saver_of(runner)
        if saver is None:
            runner.logger.warning('No SafeCheckpointHook is in use, so nothing is saved.')
        else:
            path = saver.save_now(runner)
            runner.logger.info(
                f'{signal.Signals(self._agreed).name}: saved {path} after '
                f'{runner.iter + 1} iterations. --resume goes on from there.'
            )
        if self._group is not None:
            dist.barrier(self._group)
        self._end(self._agreed)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End the process in a validation if what was trained is saved.

        Raises:
            SystemExit: As :meth:`after_train_iter`, in this process.
        """
        saver = saver_of(runner)
        if self._received and saver is not None and saver.saved_iter == runner.iter:
            runner.logger.info(
                f'{signal.Signals(self._received).name} during the validation: {saver.last_ckpt} '
                'is there. --resume goes on from it.'
            )
            self._end(self._received)

    def _ask(self) -> int | None:
        """The signal that any of the processes got."""
        if self._group is None:
            return self._received
        number = torch.tensor(self._received or 0)
        dist.all_reduce(number, dist.ReduceOp.MAX, group=self._group)
        return int(number) or None

    def _end(self, number: int) -> None:
        self._handlers.clear()  # until the process has ended
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.exit(128 + number)


def saver_of(runner: Runner) -> SafeCheckpointHook | None:
    """The checkpoint hook of a runner, if it is one that can save at any step."""
    savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    return next((hook for hook in savers if isinstance(hook, SafeCheckpointHook)), None)


_forks_protected = False


def _protect_forks() -> None:
    """Let processes that are forked from a training leave the signals to it, once for all."""
    global _forks_protected
    if not _forks_protected and hasattr(os, 'register_at_fork'):
        os.register_at_fork(
            before=_hold_sigterm,
            after_in_parent=_release_sigterm,
            after_in_child=_leave_signals_to_parent,
        )
        _forks_protected = True


_mask_before: set | None = None


def _hold_sigterm() -> None:
    """Keep SIGTERM waiting over a fork: the child may get it before it is ready to read it."""
    global _mask_before
    if hasattr(signal, 'sigwaitinfo') and _is_listener(signal.getsignal(signal.SIGTERM)):
        _mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _release_sigterm() -> None:
    global _mask_before
    if _mask_before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask_before)
        _mask_before = None


def _leave_signals_to_parent() -> None:
    global _mask_before
    listens = [n for n in SIGNALS if _is_listener(signal.getsignal(n))]
    if listens:
        hook = signal.getsignal(listens[0]).__self__
        if not hook.is_running(sys._getframe()):
            hook._restore()
            _release_sigterm()
            return
    _mask_before = None  # the signal stays blocked here
    for number in listens:
        if number == signal.SIGTERM and hasattr(signal, 'sigwaitinfo'):
            # torch's workers set a handler of their own, so the signal, which is blocked since
            # before the fork, is read instead. To ignore it would drop one that is waiting
            signal.signal(number, signal.SIG_DFL)
            threading.Thread(target=_end_for_parent, daemon=True).start()
        else:
            signal.signal(number, signal.SIG_IGN)


def _is_listener(handler: Any) -> bool:
    return isinstance(getattr(handler, '__self__', None), StopSignalHook)


def _end_for_parent() -> None:
    """Obey SIGTERM if the parent sent it, as it does at its end, or is gone."""
    parent = os.getppid()
    while True:
        sender = signal.sigwaitinfo([signal.SIGTERM]).si_pid
        if sender in (parent, os.getpid()) or os.getppid() != parent:
            os._exit(0)
