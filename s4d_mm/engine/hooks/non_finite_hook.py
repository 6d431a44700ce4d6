# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A loss or gradient that is not finite: the run stops at that step, or leaves the batch out."""

import math
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.optim import Optimizer

from ...converters.fit import first_not_finite
from ...files.errors import NonFiniteError
from ..gradient_watch import GradientWatch, spread_bad_losses

# what names a sample in its meta information, the first that there is
SAMPLE_NAMES = ('filename', 'img_path', 'sample_id', 'sample_idx')
NAMES_IN_MESSAGE = 8


class Batch(NamedTuple):
    """What is kept of a batch until its gradients have been looked at."""

    losses: dict[str, torch.Tensor]
    samples: list[str]


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop a training at the first loss or gradient that is not finite.

    The weights do not change in such a step (:class:`~s4d_mm.engine.gradient_watch.GradientWatch`),
    and nothing is saved after it. The message names the part of the loss that went bad first, or
    the parameter whose gradient did, and the samples; all processes stop together. With
    ``max_skips`` the batch is left out instead: the optimizer makes no step, and buffers, such as
    the running values of BatchNorm, are put back.

    Optimizers that are none of torch's (DeepSpeed) are not watched. With a loss scaler
    (``AmpOptimWrapper``) a gradient that is too large for the scale is no fault; the scaler
    leaves the step out and lowers the scale. It is one where the loss is not finite, or the scale
    has fallen under 1.

    The norm of all gradients is logged as ``grad_norm``; with ``clip_grad`` mmengine logs it. What
    a step costs more is this norm, and its reading after mmengine has waited for the losses.

    A checkpoint whose weights are not finite is not saved.

    Args:
        max_skips (int): Faulty steps in a row that are left out; the next one stops the run.
            Defaults to 0.

    Raises:
        ValueError: If ``max_skips`` is negative or no integer.
        NonFiniteError: While training.
    """

    # after RuntimeInfoHook has read the losses, before what averages, logs or saves
    priority = 'HIGH'

    def __init__(self, max_skips: int = 0) -> None:
        if not isinstance(max_skips, int) or max_skips < 0:
            raise ValueError(
                f'max_skips={max_skips!r} of NonFiniteHook must be a whole number from 0 on.'
            )
        self.max_skips = max_skips
        self._skips = 0
        self._batches: list[Batch] = []
        self._buffers: list[torch.Tensor] = []
        self._watches: list[GradientWatch] = []
        self._handle = None

    def before_train(self, runner: Runner) -> None:
        """Begin to look at losses and gradients."""
        self._stop_watching()
        model = runner.model
        names = {param: name for name, param in model.named_parameters()}
        self._watches = [
            GradientWatch(wrapper.optimizer, names) for wrapper in optim_wrappers(runner)
        ]
        self._handle = model.register_forward_hook(spread_bad_losses)

    def after_train(self, runner: Runner) -> None:
        """End to look at them."""
        self._stop_watching()

    def _stop_watching(self) -> None:
        for watch in self._watches:
            watch.remove()
        if self._handle is not None:
            self._handle.remove()
        self._watches, self._batches, self._buffers, self._handle = [], [], [], None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the buffers of before an optimizer step that may be left out."""
        if self.max_skips and not self._batches:
            self._buffers = [buffer.clone() for buffer in runner.model.buffers()]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the step that was made, if one was.

        Args:
            runner (Runner): Of the training.
            batch_idx (int): Number of the batch in the epoch.
            data_batch (Any): With ``data_samples``, whose meta information names them.
            outputs (dict): The losses.

        Raises:
            NonFiniteError: In all processes together.
        """
        if not self._watches:
            return
        losses = {k: v.detach() for k, v in (outputs or {}).items() if 'loss' in k}
        self._batches.append(Batch(losses, sample_names(data_batch)))
        norms = [
            norm for norm in (watch.take_norm() for watch in self._watches) if norm is not None
        ]
        if norms:
            norm = float(norms[0]) if len(norms) == 1 else math.hypot(*map(float, norms))
        elif overflowed(runner.optim_wrapper):
            norm = math.nan
        else:  # the gradients are summed up over several batches
            return
        batches, self._batches = self._batches, []
        if math.isfinite(norm):
            self._skips = 0
            logged = [getattr(wrapper, 'grad_name', None) for wrapper in optim_wrappers(runner)]
            if 'grad_norm' not in logged:  # mmengine's, of before clipping
                runner.message_hub.update_scalar('train/grad_norm', norm)
            return
        reports = all_gather_object(self._report(batches, norm))
        scale = loss_scale(runner.optim_wrapper)
        if scale is not None and scale >= 1 and not any(report['part'] for report in reports):
            return
        self._stop_or_skip(runner, reports)

    def _report(self, batches: list[Batch], norm: float) -> dict:
        """What this process knows of the fault; its part of the loss is None if that is finite."""
        for batch in batches:
            part = first_bad_part(batch.losses)
            if part is not None:
                return dict(part=part, samples=batch.samples)
        where = next(filter(None, (watch.first_bad() for watch in self._watches)), None)
        samples = [name for batch in batches for name in batch.samples]
        return dict(part=None, norm=norm, parameter=where, samples=samples)

    def _stop_or_skip(self, runner: Runner, reports: list[dict]) -> None:
        self._skips += 1
        faulty = [i for i, report in enumerate(reports) if report['part']]
        # where no loss is bad, the gradients of all processes together are
        named = {i: reports[i] for i in faulty or range(len(reports))}
        for rank, report in named.items():
            place = f' of process {rank}' if len(reports) > 1 else ''
            runner.logger.warning(
                f'Samples{place} in the step that is not finite: {", ".join(report["samples"])}'
            )
        what = describe(next(iter(named.values())))
        samples = [name for report in named.values() for name in report['samples']]
        where = f'step {runner.iter + 1} (epoch {runner.epoch + 1})'
        text = f'In {where} {what}; the samples are {shorten(samples)}.'
        if self._skips <= self.max_skips:
            forget_last_losses(runner)
            for buffer, kept in zip(runner.model.buffers(), self._buffers):
                buffer.copy_(kept)
            runner.logger.warning(
                f'{text} The step is left out, {self._skips} in a row of at most {self.max_skips}.'
            )
            return
        saved = runner.message_hub.get_info('last_ckpt')
        kept = f'the last checkpoint is {saved}' if saved else 'there is no checkpoint yet'
        rates = ', '.join(f'{lr:.3g}' for lr in sorted(learning_rates(runner)))
        raise NonFiniteError(
            f'{text} The training stops; nothing was saved after that, {kept}. Lower the learning '
            f'rate (now {rates}), set optim_wrapper.clip_grad=dict(max_norm=...), look at these '
            f'samples, or leave out such steps with max_skips of NonFiniteHook (now '
            f'{self.max_skips}).'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite.

        Args:
            runner (Runner): Of the training.
            checkpoint (dict): What is to be saved.

        Raises:
            NonFiniteError: Naming the first parameter. No file is touched.
        """
        found = first_not_finite(runner.model, checkpoint.get('state_dict', {}))
        if found is not None:
            name, bad, total = found
            raise NonFiniteError(
                f'After step {runner.iter + 1} (epoch {runner.epoch + 1}) the weights are not '
                f'finite: {bad} of the {total} numbers of {name} are NaN or infinite. They are '
                'not saved, and the training stops; earlier checkpoints stay as they are. Lower '
                'the learning rate.'
            )


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """Those with an optimizer of torch, also inside of an ``OptimWrapperDict``."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [w for w in wrappers if isinstance(getattr(w, 'optimizer', None), Optimizer)]


def learning_rates(runner: Runner) -> set[float]:
    """The highest learning rate of each optimizer."""
    return {
        max(group['lr'] for group in wrapper.optimizer.param_groups)
        for wrapper in optim_wrappers(runner)
    }


def loss_scale(wrapper: OptimWrapper) -> float | None:
    """The scale of the loss scaler, if there is one that is on."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler.get_scale() if scaler is not None and scaler.is_enabled() else None


def overflowed(wrapper: OptimWrapper) -> bool:
    """Whether a step was due that made the loss scaler leave the optimizer alone."""
    return loss_scale(wrapper) is not None and wrapper.should_update()


def sample_names(data_batch: Any) -> list[str]:
    """What names the samples of a batch, as far as their meta information does.

    Args:
        data_batch (Any): A batch of a data loader, with ``data_samples`` if it is a dict.

    Returns:
        list[str]: A name for each sample: file or id.
    """
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    names = []
    for sample in samples or []:
        meta = getattr(sample, 'metainfo', {})
        names.append(str(next((meta[k] for k in SAMPLE_NAMES if k in meta), 'a sample of no name')))
    return names


def first_bad_part(losses: dict[str, torch.Tensor]) -> str | None:
    """Name and value of the first loss that is not finite; of the sum if it has no parts."""
    values = {name: float(value.float().mean()) for name, value in losses.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    name = next((name for name in bad if name != 'loss'), bad[0] if bad else None)
    return None if name is None else f'{name} is {values[name]}'


def describe(report: dict) -> str:
    """Half a sentence on a fault."""
    if report['part']:
        return f'the loss is not finite: {report["part"]}'
    where = report['parameter']
    return f'the gradient is not finite (norm {report["norm"]}) while the loss is' + (
        f', first at {where}' if where else ''
    )


def shorten(names: list[str]) -> str:
    """Some of the names, and how many more the log has."""
    if not names:
        return 'not known (no data_samples with a sample_id in the batch)'
    more = len(names) - NAMES_IN_MESSAGE
    shown = ', '.join(names[:NAMES_IN_MESSAGE])
    return f'{shown} and {more} more, which the log names' if more > 0 else shown


def forget_last_losses(runner: Runner) -> None:
    """Take the losses of a step that is left out from the means of the log."""
    for name, history in runner.message_hub.log_scalars.items():
        values, counts = history.data
        if name.startswith('train/') and len(values) and not math.isfinite(values[-1]):
            values[-1] = counts[-1] = 0
